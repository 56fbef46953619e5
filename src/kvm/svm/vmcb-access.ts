/** Reading and writing VMCBs where they are, in physical memory, by the byte offsets of src/arch/vmcb.ts. */

import { RFLAGS_IF } from '../../arch/registers.ts';
import {
  INTERCEPT_CR8_WRITE,
  INTERCEPT_VINTR,
  INTERCEPT_VMLOAD,
  INTERCEPT_VMSAVE,
  V_INTR_MASKING_MASK,
  VMCB_CLEAN,
  VMCB_CLEAN_INTERCEPTS,
  VMCB_CLEAN_NPT,
  VMCB_CLEAN_PERM_MAP,
  VMCB_INT_CTL,
  VMCB_INTERCEPT_CR,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_INTERCEPT_WORD3,
  VMCB_INTERCEPT_WORD4,
  VMCB_NESTED_CR3,
  VMCB_NESTED_CTL,
  VMCB_RFLAGS,
  VMCB_TSC_OFFSET,
} from '../../arch/vmcb.ts';
import type { VmcbInfo } from './nested-svm-state.ts';
import type { VcpuSvm } from './vcpu-svm.ts';

/** 32-bit word at byte offset `off` of the VMCB in use, signed. HOT */
export function vmcbRead(svm: VcpuSvm, off: number): number {
  return svm.words[svm.vmcb + (off >> 2)]!;
}

const CACHED = VMCB_CLEAN_INTERCEPTS | VMCB_CLEAN_PERM_MAP | VMCB_CLEAN_NPT;

/** What the processor caches has changed: it must look again. @kvm svm.h vmcb_mark_dirty, vmcb_mark_all_dirty */
export function markDirty(svm: VcpuSvm): void {
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

/** The same of VMCB01, which holds L1's state while L2 runs. */
export function vmcb01Read(svm: VcpuSvm, off: number): number {
  return svm.words[svm.vmcb01.word + (off >> 2)]!;
}

export function vmcb01Write64(svm: VcpuSvm, off: number, lo: number, hi: number): void {
  const at = svm.vmcb01.word + (off >> 2);
  svm.words[at] = lo;
  svm.words[at + 1] = hi;
}

/** Word of what was read from L1's VMCB at VMRUN. */
export function vmcb12Read(svm: VcpuSvm, off: number): number {
  return svm.nested.cached[off >> 2]!;
}

/** L1 intercepts one of `mask` in the intercept word `off`. @kvm svm.h vmcb12_is_intercept */
export function vmcb12IsIntercept(svm: VcpuSvm, off: number, mask: number): boolean {
  return (vmcb12Read(svm, off) & mask) !== 0;
}

/** @kvm svm.c svm_switch_vmcb */
export function switchVmcb(svm: VcpuSvm, to: VmcbInfo): void {
  svm.currentVmcb = to;
  svm.vmcb = to.word;
}

/** VMCB02 is in use. */
function onVmcb02(svm: VcpuSvm): boolean {
  return svm.currentVmcb === svm.vmcb02;
}

/**
 * What exits while L2 runs: what KVM wants of L1, less what L1's own state makes pointless, and what L1 wants of L2.
 * @kvm nested.c recalc_intercepts
 */
export function recalcIntercepts(svm: VcpuSvm): void {
  const { words } = svm;
  words[svm.vmcb01.word + (VMCB_CLEAN >> 2)] = 0;
  if (!onVmcb02(svm)) return;
  markDirty(svm);
  const { cached } = svm.nested;
  const to = svm.vmcb;
  const from = svm.vmcb01.word;
  for (let i = 0; i < 6; i++) words[to + i] = words[from + i]!;
  if ((vmcb12Read(svm, VMCB_INT_CTL) & V_INTR_MASKING_MASK) !== 0) {
    // L2 has a task priority of its own, and its IF does not hold back L1's interrupts.
    words[to + (VMCB_INTERCEPT_CR >> 2)]! &= ~INTERCEPT_CR8_WRITE;
    if ((vmcb01Read(svm, VMCB_RFLAGS) & RFLAGS_IF) === 0) words[to + (VMCB_INTERCEPT_WORD3 >> 2)]! &= ~INTERCEPT_VINTR;
  }
  for (let i = 0; i < 6; i++) words[to + i]! |= cached[i]!;
  // They would move L0's own state where L1 does not intercept them.
  words[to + (VMCB_INTERCEPT_WORD4 >> 2)]! |= INTERCEPT_VMLOAD | INTERCEPT_VMSAVE;
}

/** @kvm svm.h svm_set_intercept; `off` is an intercept word, `mask` the bits in it. */
export function setIntercept(svm: VcpuSvm, off: number, mask: number): void {
  svm.words[svm.vmcb01.word + (off >> 2)]! |= mask;
  recalcIntercepts(svm);
}

/** @kvm svm.h svm_clr_intercept */
export function clrIntercept(svm: VcpuSvm, off: number, mask: number): void {
  svm.words[svm.vmcb01.word + (off >> 2)]! &= ~mask;
  recalcIntercepts(svm);
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
