/**
 * Selectors and descriptors (@sdm 3.4, 3.5; @apm 4.7, 4.8). A descriptor is two int32 words; its attributes are kept in the control
 * block's packed form: type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11.
 *
 *   high word  31..24     23 22 21 20  19..16       15 14..13 12 11..8  7..0
 *              base 31:24 G  DB L AVL  limit 19:16  P  DPL    S  type   base 23:16
 *   low word   31..16 base 15:0                     15..0 limit 15:0
 */

export const SELECTOR_RPL = 3;
/** Table indicator: the selector is in the LDT. */
export const SELECTOR_TI = 4;

/** Type field of code and data descriptors. */
export const TYPE_ACCESSED = 1;
/** Writable (data) or readable (code). */
export const TYPE_RW = 2;
/** Expand-down (data) or conforming (code). */
export const TYPE_DC = 4;
export const TYPE_CODE = 8;

/** Type field of system descriptors. */
export const SYSTEM_TSS16 = 1;
export const SYSTEM_LDT = 2;
export const SYSTEM_TSS16_BUSY = 3;
export const SYSTEM_CALL_GATE16 = 4;
export const SYSTEM_TASK_GATE = 5;
export const SYSTEM_INTERRUPT_GATE16 = 6;
export const SYSTEM_TRAP_GATE16 = 7;
export const SYSTEM_TSS = 9;
export const SYSTEM_TSS_BUSY = 11;
export const SYSTEM_CALL_GATE = 12;
export const SYSTEM_INTERRUPT_GATE = 14;
export const SYSTEM_TRAP_GATE = 15;

/** Attributes of the descriptor with high word `hi`, packed as in the control block. */
export function descriptorAttributes(hi: number): number {
  return ((hi >>> 8) & 0xff) | ((hi >>> 12) & 0xf00);
}

/** Limit in bytes (unsigned), granularity applied. */
export function descriptorLimit(lo: number, hi: number): number {
  const limit = (lo & 0xffff) | (hi & 0xf0000);
  return (hi & (1 << 23)) !== 0 ? ((limit << 12) | 0xfff) >>> 0 : limit;
}

/** The 32-bit base (int32). */
export function descriptorBase(lo: number, hi: number): number {
  return (lo >>> 16) | ((hi & 0xff) << 16) | (hi & 0xff000000);
}

/** True for a segment attribute word that names code. */
export function isCode(attributes: number): boolean {
  return (attributes & 0x18) === 0x18;
}
