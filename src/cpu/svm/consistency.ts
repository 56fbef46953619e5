/** The checks that VMRUN makes on a control block before it believes it (@apm 15.5.1). */
import {
  CR0_CD,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR4_PAE,
  EFER_FFXSR,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
  EFER_SCE,
  EFER_SVME,
} from '../../arch/registers.ts';
import {
  INTERCEPT_VMRUN,
  SVM_EVTINJ_TYPE_EXEPT,
  SVM_EVTINJ_TYPE_INTR,
  SVM_EVTINJ_TYPE_MASK,
  SVM_EVTINJ_TYPE_NMI,
  SVM_EVTINJ_TYPE_SOFT,
  SVM_EVTINJ_VEC_MASK,
  VMCB_ASID,
  VMCB_ATTR_DB,
  VMCB_ATTR_L,
  VMCB_CR0,
  VMCB_CR3,
  VMCB_CR4,
  VMCB_CS,
  VMCB_DR6,
  VMCB_DR7,
  VMCB_EFER,
  VMCB_EVENT_INJ,
  VMCB_INTERCEPT_WORD4,
  VMCB_NESTED_CR3,
  VMCB_NESTED_CTL,
} from '../../arch/vmcb.ts';
import type { Core } from '../system/core.ts';

const EFER_KNOWN = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_SVME | EFER_FFXSR | (1 << 13) | (1 << 15);

/** Low, and high, half of the word at byte offset `offset` of the block. */
function word(i32: Int32Array, block: number, offset: number): number {
  return i32[block + (offset >> 2)]!;
}
function high(i32: Int32Array, block: number, offset: number): number {
  return i32[block + (offset >> 2) + 1]!;
}

/** True when VMRUN may enter with the control block at word `block`. HOT */
export function consistent(core: Core, block: number): boolean {
  const i32 = core.i32;
  const efer = word(i32, block, VMCB_EFER);
  const cr0 = word(i32, block, VMCB_CR0);
  const cr4 = word(i32, block, VMCB_CR4);
  const physHi = core.walker.physHi;
  if ((efer & EFER_SVME) === 0 || (efer & ~EFER_KNOWN) !== 0 || high(i32, block, VMCB_EFER) !== 0) return false;
  if ((cr0 & CR0_NW) !== 0 && (cr0 & CR0_CD) === 0) return false;
  if ((high(i32, block, VMCB_CR0) | high(i32, block, VMCB_CR4)) !== 0 || (cr4 & ~core.cr4Known) !== 0) return false;
  if ((high(i32, block, VMCB_DR6) | high(i32, block, VMCB_DR7)) !== 0) return false;
  if ((efer & EFER_LME) !== 0 && (cr0 & CR0_PG) !== 0) {
    if ((cr4 & CR4_PAE) === 0 || (cr0 & CR0_PE) === 0) return false;
    const both = VMCB_ATTR_L | VMCB_ATTR_DB;
    if (((word(i32, block, VMCB_CS) >>> 16) & both) === both) return false;
    if ((high(i32, block, VMCB_CR3) & (physHi | 0xfff00000)) !== 0) return false;
  }
  if ((word(i32, block, VMCB_INTERCEPT_WORD4) & INTERCEPT_VMRUN) === 0) return false;
  if (word(i32, block, VMCB_ASID) === 0) return false;
  const nested = (word(i32, block, VMCB_NESTED_CTL) & 1) !== 0;
  if (nested && (high(i32, block, VMCB_NESTED_CR3) & physHi) !== 0) return false;
  return validEvent(word(i32, block, VMCB_EVENT_INJ));
}

/** EVENTINJ holds nothing, or an event that exists (@apm 15.20). */
function validEvent(event: number): boolean {
  if (event >= 0) return true;
  const vector = event & SVM_EVTINJ_VEC_MASK;
  switch (event & SVM_EVTINJ_TYPE_MASK) {
    case SVM_EVTINJ_TYPE_INTR:
    case SVM_EVTINJ_TYPE_SOFT:
    case SVM_EVTINJ_TYPE_NMI:
      return true;
    case SVM_EVTINJ_TYPE_EXEPT:
      return vector < 32 && vector !== 2;
    default:
      return false;
  }
}
