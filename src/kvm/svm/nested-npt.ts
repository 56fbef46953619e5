/** L1's nested tables, which KVM shadows while L2 runs on them (@kvm nested.c nested_svm_init_mmu_context). */
import { numberOf } from '../../arch/halves.ts';
import { CR0_PG } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import type { X86Exception } from '../emulate/ops.ts';
import { readGuest } from '../guest-memory.ts';
import type { NestedTables } from '../mmu/mmu-context.ts';
import { mmuIsNested } from '../mmu/mmu-is-nested.ts';
import { initShadowNptMmu } from '../mmu/roles.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { nestedSvmVmexit } from './nested-vmexit.ts';
import { vmcb01Read, vmcb12Read, vmcbRead, vmcbWrite, vmcbWrite64 } from './vmcb-access.ts';

/** A #NPF for L1. What hardware said of the access is kept where this is hardware's fault. @kvm nested.c nested_svm_inject_npf_exit */
function injectNpfExit(vcpu: VcpuState, fault: X86Exception): void {
  const svm = vcpu.svm;
  if (vmcbRead(svm, V.VMCB_EXIT_CODE) !== V.SVM_EXIT_NPF) {
    vmcbWrite64(svm, V.VMCB_EXIT_CODE, V.SVM_EXIT_NPF, 0);
    vmcbWrite64(svm, V.VMCB_EXIT_INFO_1, 0, 1);
    vmcbWrite64(svm, V.VMCB_EXIT_INFO_2, fault.addressLo, fault.addressHi);
  }
  vmcbWrite(svm, V.VMCB_EXIT_INFO_1, fault.errorCode);
  nestedSvmVmexit(vcpu);
}

const pdpte = new Uint8Array(8);
const pdpteWords = new Int32Array(pdpte.buffer);

const nestedTables: NestedTables = {
  guestPgd(vcpu, out) {
    out[0] = vmcb12Read(vcpu.svm, V.VMCB_NESTED_CR3);
    out[1] = vmcb12Read(vcpu.svm, V.VMCB_NESTED_CR3 + 4);
  },
  pdptr(vcpu, index, out) {
    const { svm } = vcpu;
    const base = numberOf(vmcb12Read(svm, V.VMCB_NESTED_CR3) & ~0x1f, vmcb12Read(svm, V.VMCB_NESTED_CR3 + 4));
    out.fill(0);
    if (readGuest(vcpu, base + index * 8, pdpte, 0, 8) === 0) out.set(pdpteWords);
  },
  injectPageFault: injectNpfExit,
};

/** @kvm nested.c nested_svm_init_mmu_context */
export function initNestedMmuContext(vcpu: VcpuState): void {
  const { svm, mmu } = vcpu;
  vcpu.vm.log.warnOnOnce(mmuIsNested(vcpu), 'nested_svm_init_mmu_context', 'L2 has its MMU already');
  mmu.mmu = mmu.guestMmu;
  mmu.guestMmu.nestedTables = nestedTables;
  const regs = { cr0: CR0_PG, cr4: vmcb01Read(svm, V.VMCB_CR4), efer: vmcb01Read(svm, V.VMCB_EFER) };
  initShadowNptMmu(vcpu, regs, vmcb12Read(svm, V.VMCB_NESTED_CR3), vmcb12Read(svm, V.VMCB_NESTED_CR3 + 4));
  mmu.walkMmu = mmu.nestedMmu;
}
