/** Reading and writing the vCPU's VMCB where it is, in physical memory, by the byte offsets of src/arch/vmcb.ts. */
import {
  VMCB_CLEAN,
  VMCB_CLEAN_INTERCEPTS,
  VMCB_CLEAN_NPT,
  VMCB_CLEAN_PERM_MAP,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_NESTED_CR3,
  VMCB_NESTED_CTL,
  VMCB_TSC_OFFSET,
} from '../../arch/vmcb.ts';
import type { VcpuSvm } from './vcpu-svm.ts';

/** 32-bit word at byte offset `off`, signed. HOT */
export function vmcbRead(svm: VcpuSvm, off: number): number {
  return svm.words[svm.vmcb + (off >> 2)]!;
}

const CACHED = VMCB_CLEAN_INTERCEPTS | VMCB_CLEAN_PERM_MAP | VMCB_CLEAN_NPT;

/** What the processor caches has changed: it must look again. @kvm svm.h vmcb_mark_dirty, vmcb_mark_all_dirty */
function markDirty(svm: VcpuSvm): void {
  svm.words[svm.vmcb + (VMCB_CLEAN >> 2)] = 0;
}

/** After VMRUN: the processor knows the block as it is. @kvm svm.h vmcb_mark_all_clean. HOT */
export function vmcbMarkAllClean(svm: VcpuSvm): void {
  svm.words[svm.vmcb + (VMCB_CLEAN >> 2)] = CACHED;
}

/** Whether the field at `off` is one that clean bits stand for: intercepts and permission maps, nested paging. */
function isCached(off: number): boolean {
  return off < VMCB_TSC_OFFSET || (off & ~7) === VMCB_NESTED_CTL || (off & ~7) === VMCB_NESTED_CR3;
}

/** HOT */
export function vmcbWrite(svm: VcpuSvm, off: number, value: number): void {
  svm.words[svm.vmcb + (off >> 2)] = value;
  if (isCached(off)) markDirty(svm);
}

/** Writes a 64-bit field. HOT */
export function vmcbWrite64(svm: VcpuSvm, off: number, lo: number, hi: number): void {
  const at = svm.vmcb + (off >> 2);
  svm.words[at] = lo;
  svm.words[at + 1] = hi;
  if (isCached(off)) markDirty(svm);
}

/** @kvm svm.h svm_set_intercept; `off` is an intercept word, `mask` the bits in it. */
export function setIntercept(svm: VcpuSvm, off: number, mask: number): void {
  svm.words[svm.vmcb + (off >> 2)]! |= mask;
  markDirty(svm);
}

/** @kvm svm.h svm_clr_intercept */
export function clrIntercept(svm: VcpuSvm, off: number, mask: number): void {
  svm.words[svm.vmcb + (off >> 2)]! &= ~mask;
  markDirty(svm);
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
