/** Reading and writing the vCPU's VMCB where it is, in physical memory, by the byte offsets of src/arch/vmcb.ts. */
import { VMCB_INTERCEPT_EXCEPTIONS } from '../../arch/vmcb.ts';
import type { VcpuSvm } from './vcpu-svm.ts';

/** 32-bit word at byte offset `off`, signed. HOT */
export function vmcbRead(svm: VcpuSvm, off: number): number {
  return svm.words[svm.vmcb + (off >> 2)]!;
}

/** HOT */
export function vmcbWrite(svm: VcpuSvm, off: number, value: number): void {
  svm.words[svm.vmcb + (off >> 2)] = value;
}

/** Writes a 64-bit field. HOT */
export function vmcbWrite64(svm: VcpuSvm, off: number, lo: number, hi: number): void {
  const at = svm.vmcb + (off >> 2);
  svm.words[at] = lo;
  svm.words[at + 1] = hi;
}

/** @kvm svm.h svm_set_intercept; `off` is an intercept word, `mask` the bits in it. */
export function setIntercept(svm: VcpuSvm, off: number, mask: number): void {
  svm.words[svm.vmcb + (off >> 2)]! |= mask;
}

/** @kvm svm.h svm_clr_intercept */
export function clrIntercept(svm: VcpuSvm, off: number, mask: number): void {
  svm.words[svm.vmcb + (off >> 2)]! &= ~mask;
}

/** @kvm svm.h svm_is_intercept */
export function isIntercept(svm: VcpuSvm, off: number, mask: number): boolean {
  return (svm.words[svm.vmcb + (off >> 2)]! & mask) !== 0;
}

/** @kvm svm.h set_exception_intercept */
export function setExceptionIntercept(svm: VcpuSvm, vector: number): void {
  setIntercept(svm, VMCB_INTERCEPT_EXCEPTIONS, 1 << vector);
}

/** @kvm svm.h clr_exception_intercept */
export function clrExceptionIntercept(svm: VcpuSvm, vector: number): void {
  clrIntercept(svm, VMCB_INTERCEPT_EXCEPTIONS, 1 << vector);
}
