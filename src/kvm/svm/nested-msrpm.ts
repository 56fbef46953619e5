/** The MSR permission map that L2 runs on: an MSR exits that KVM or L1 intercepts (@kvm nested.c nested_svm_vmrun_msrpm). */
import { numberOf } from '../../arch/halves.ts';
import * as V from '../../arch/vmcb.ts';
import { readGuest } from '../guest-memory.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { MSRPM_PAGES, msrpmByte } from './msrpm.ts';
import { vmcb12IsIntercept, vmcb12Read, vmcbWrite64 } from './vmcb-access.ts';

const part = new Uint8Array(4);

/** Physical address of L1's map. */
export function msrpm12(vcpu: VcpuState): number {
  return numberOf(vmcb12Read(vcpu.svm, V.VMCB_MSRPM_BASE), vmcb12Read(vcpu.svm, V.VMCB_MSRPM_BASE + 4));
}

/**
 * Merges the maps where KVM's has MSRs that do not exit, in groups of sixteen. False when L1's cannot be read.
 * @kvm nested.c nested_svm_vmrun_msrpm
 */
export function mergeMsrpm(vcpu: VcpuState): boolean {
  const { svm, vm } = vcpu;
  if (!vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_MSR_PROT)) return true;
  const { u8 } = vm.memory;
  const own = svm.msrpmPfn * 4096;
  const merged = svm.nested.msrpmPfn * 4096;
  const base = msrpm12(vcpu);
  let done = -1;
  for (const msr of svm.directMsrs.keys()) {
    const group = msrpmByte(msr) & ~3;
    if (group < 0 || group === done) continue;
    done = group;
    if (readGuest(vcpu, base + group, part, 0, 4) < 0) return false;
    for (let i = 0; i < 4; i++) u8[merged + group + i] = u8[own + group + i]! | part[i]!;
  }
  vmcbWrite64(svm, V.VMCB_MSRPM_BASE, merged | 0, 0);
  return true;
}

/** Every MSR exits, until it is merged. */
export function initNestedMsrpm(vcpu: VcpuState): void {
  const start = vcpu.svm.nested.msrpmPfn * 4096;
  vcpu.vm.memory.u8.fill(0xff, start, start + MSRPM_PAGES * 4096);
}
