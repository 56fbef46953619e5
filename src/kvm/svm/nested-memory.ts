/** What nested SVM needs of a vCPU besides its VMCB (@kvm nested.c svm_allocate_nested, svm_leave_nested). */
import type { VcpuState } from '../vcpu-state.ts';
import { REQ_GET_NESTED_STATE_PAGES } from '../vcpu-state.ts';
import { leaveGuestMode } from '../x86/nested-ops.ts';
import { allocContiguous, freeContiguous } from './contiguous-pages.ts';
import { MSRPM_PAGES } from './msrpm.ts';
import { initNestedMsrpm } from './nested-msrpm.ts';
import { switchVmcb } from './vmcb-access.ts';

/** VMCB02 and its permission map. False when the host has no memory. @kvm nested.c svm_allocate_nested */
export function svmAllocateNested(vcpu: VcpuState): boolean {
  const { nested, vmcb02 } = vcpu.svm;
  const { pages } = vcpu.vm.host;
  if (nested.initialized) return true;
  const pfn = pages.allocPage();
  if (pfn < 0) return false;
  nested.msrpmPfn = allocContiguous(pages, MSRPM_PAGES);
  if (nested.msrpmPfn < 0) {
    pages.freePage(pfn);
    return false;
  }
  vmcb02.place(pfn);
  vmcb02.asidGeneration = 0;
  initNestedMsrpm(vcpu);
  nested.initialized = true;
  return true;
}

/** @kvm nested.c svm_free_nested */
export function svmFreeNested(vcpu: VcpuState): void {
  const { svm } = vcpu;
  const { nested, vmcb02 } = svm;
  const { pages } = vcpu.vm.host;
  if (!nested.initialized) return;
  if (vcpu.vm.log.warnOnOnce(svm.currentVmcb !== svm.vmcb01, 'svm_free_nested', 'L2 still has its VMCB')) {
    switchVmcb(svm, svm.vmcb01);
  }
  freeContiguous(pages, nested.msrpmPfn, MSRPM_PAGES);
  pages.freePage(vmcb02.pfn);
  nested.msrpmPfn = -1;
  vmcb02.pfn = -1;
  // A new VMCB02 has nothing that clean bits could spare.
  nested.lastVmcb12Gpa = -1;
  nested.initialized = false;
}

/** @kvm nested.c svm_leave_nested */
export function svmLeaveNested(vcpu: VcpuState): void {
  const { svm, mmu } = vcpu;
  if (vcpu.guestMode) {
    svm.nested.runPending = false;
    svm.nested.vmcb12Gpa = -1;
    leaveGuestMode(vcpu);
    switchVmcb(svm, svm.vmcb01);
    vcpu.x86.l2TscOffsetLo = 0;
    vcpu.x86.l2TscOffsetHi = 0;
    mmu.mmu = mmu.rootMmu;
    mmu.walkMmu = mmu.rootMmu;
  }
  vcpu.requests &= ~REQ_GET_NESTED_STATE_PAGES;
}
