/** Pages of L1 that KVM works on as a whole: VMCBs and the host save area (@kvm kvm_main.c kvm_vcpu_map). */

import { markPageDirty } from '../dirty/mark-dirty.ts';
import { gfnToPfn } from '../hva-to-pfn.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** Frame of the page at `gpa`, for writing, or -1. The address space is that outside SMM, as in the kernel. @kvm kvm_main.c kvm_vcpu_map */
export function mapPage(vcpu: VcpuState, gpa: number): number {
  const pfn = gfnToPfn(vcpu.vm, Math.floor(gpa / 4096));
  return pfn < 0 ? -1 : pfn;
}

/** The page was written. @kvm kvm_main.c kvm_vcpu_unmap */
export function unmapDirty(vcpu: VcpuState, gpa: number, pfn: number): void {
  vcpu.vm.memory.noteWrite(pfn);
  markPageDirty(vcpu, Math.floor(gpa / 4096));
}

/** Copies `count` 64-bit or larger fields' words between VMCBs: `words` 32-bit words at byte offset `off`. */
export function copyField(i32: Int32Array, to: number, from: number, off: number, words: number): void {
  const at = off >> 2;
  for (let i = 0; i < words; i++) i32[to + at + i] = i32[from + at + i]!;
}
