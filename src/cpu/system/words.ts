/** Indexes, in 32-bit words, of the parts of the processor's state that are used all the time (layout: state.ts). */
import {
  CODE_MODE_AT,
  CPL_AT,
  CR0_AT,
  CR3_AT,
  CR4_AT,
  EFER_AT,
  GPR,
  MMU_INDEX_AT,
  PKRU_AT,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_SIZE,
} from '../state.ts';

export const W_GPR = GPR >> 2;
export const W_RIP = RIP_AT >> 2;
export const W_RFLAGS = RFLAGS_AT >> 2;
export const W_SEG = SEG >> 2;
export const SEG_WORDS = SEG_SIZE >> 2;
export const W_CR0 = CR0_AT >> 2;
export const W_CR3 = CR3_AT >> 2;
export const W_CR4 = CR4_AT >> 2;
export const W_EFER = EFER_AT >> 2;
export const W_CPL = CPL_AT >> 2;
export const W_CODE_MODE = CODE_MODE_AT >> 2;
export const W_MMU_INDEX = MMU_INDEX_AT >> 2;
export const W_PKRU = PKRU_AT >> 2;
