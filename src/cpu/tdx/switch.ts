/**
 * What the processor holds of a guest besides general registers and what a VMCS moves: the module puts a TD's in at an entry, and at the
 * exit takes it out and gives the host's back (@tdx base spec, "TD VCPU State").
 */
import { PAT_RESET_HI, PAT_RESET_LO } from '../../arch/msr.ts';
import {
  CR2_AT,
  CR8_AT,
  DR_AT,
  FPU_CW_AT,
  KERNEL_GS_BASE_AT,
  MXCSR_AT,
  PAT_AT,
  PKRU_AT,
  STAR_AT,
  STATE_END,
  TSC_AUX_AT,
  XCR0_AT,
} from '../state.ts';

/** Stretches of the state: first and last word. CR8, XCR0 and PKRU lie together, and DR0 to DR6, and the MSRs of SYSCALL. */
const RANGES: readonly (readonly [number, number])[] = [
  [CR2_AT >> 2, (CR2_AT >> 2) + 2],
  [CR8_AT >> 2, (PKRU_AT >> 2) + 1],
  [DR_AT >> 2, (DR_AT >> 2) + 14],
  [STAR_AT >> 2, (KERNEL_GS_BASE_AT >> 2) + 2],
  [PAT_AT >> 2, (PAT_AT >> 2) + 2],
  [TSC_AUX_AT >> 2, (TSC_AUX_AT >> 2) + 2],
  [FPU_CW_AT >> 2, STATE_END >> 2],
];

export const CONTEXT_WORDS = RANGES.reduce((sum, [start, end]) => sum + end - start, 0);

/** Copies the processor's to `out`. */
export function saveContext(i32: Int32Array, out: Int32Array): void {
  let at = 0;
  for (const [start, end] of RANGES) for (let i = start; i < end; i++) out[at++] = i32[i]!;
}

export function loadContext(i32: Int32Array, from: Int32Array): void {
  let at = 0;
  for (const [start, end] of RANGES) for (let i = start; i < end; i++) i32[i] = from[at++]!;
}

/** Where the word at byte address `address` of the state is in a context. */
function placeOf(address: number): number {
  let at = 0;
  for (const [start, end] of RANGES) {
    if (address >> 2 >= start && address >> 2 < end) return at + (address >> 2) - start;
    at += end - start;
  }
  throw new Error(`0x${address.toString(16)} is not part of a context`);
}

/** State at the reset vector. */
export function resetContext(context: Int32Array): void {
  context.fill(0);
  context[placeOf(XCR0_AT)] = 1;
  context[placeOf(DR_AT + 48)] = 0xffff0ff0;
  context[placeOf(PAT_AT)] = PAT_RESET_LO;
  context[placeOf(PAT_AT + 4)] = PAT_RESET_HI;
  context[placeOf(FPU_CW_AT)] = 0x37f;
  context[placeOf(MXCSR_AT)] = 0x1f80;
}
