/** PAE's directory pointers in registers, where CR3 is loaded with them (@sdm 4.4.1). */
import { EPT_VIOLATION_GVA_IS_VALID } from '../../arch/ept-qualification.ts';
import { PAE_PDPTE_RSVD_HI, PAE_PDPTE_RSVD_LO, PT_PRESENT_MASK } from '../../arch/paging.ts';
import { PDPTR_AT } from '../state.ts';
import type { GuestWalker } from './guest-walker.ts';
import { WALK_NESTED_FAULT, WALK_OK, WALK_PAGE_FAULT } from './walk-result.ts';

/**
 * Loads them from the table that `cr3Lo` points to: WALK_OK, WALK_NESTED_FAULT, or WALK_PAGE_FAULT for #GP, when a present one has
 * reserved bits set.
 */
export function loadPdptes(walker: GuestWalker, i32: Int32Array, cr3Lo: number): number {
  const word = walker.entryWord(cr3Lo >>> 12, cr3Lo & 0xfe0);
  if (word < 0) {
    // No linear address is being translated.
    walker.error &= ~EPT_VIOLATION_GVA_IS_VALID;
    return WALK_NESTED_FAULT;
  }
  for (let i = 0; i < 8; i += 2) {
    const lo = i32[word + i]!;
    const hi = i32[word + i + 1]!;
    const rsvd = (hi & (walker.physHi | PAE_PDPTE_RSVD_HI)) | (lo & PAE_PDPTE_RSVD_LO);
    if ((lo & PT_PRESENT_MASK) !== 0 && rsvd !== 0) return WALK_PAGE_FAULT;
  }
  for (let i = 0; i < 8; i++) i32[(PDPTR_AT >> 2) + i] = i32[word + i]!;
  return WALK_OK;
}
