/** The last-level entry of a place in each state, as the MMU's own makers make it. */
import { PT_WRITABLE_MASK } from '../../arch/paging.ts';
import { memslotIsReadonly } from '../../kvm/memslots/memslot.ts';
import { makeSpte } from '../../kvm/mmu/make-spte.ts';
import { mmioGeneration } from '../../kvm/mmu/mmio-spte.ts';
import { ACC_ALL } from '../../kvm/mmu/role.ts';
import {
  MMIO_SPTE_GEN_MASK,
  makeMmioSpte,
  markSpteForAccessTrack,
  SHADOW_NONPRESENT_HI,
  SHADOW_NONPRESENT_LO,
  SpteWord,
} from '../../kvm/mmu/spte.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import type { AttributeName, SpteName } from './fault-input.ts';
import type { Place } from './places.ts';

/**
 * The entry for the place's gfn in a table of `role`.
 * @throws RangeError when there is no page that a present entry could map
 */
export function leafWord(
  vcpu: VcpuState,
  role: number,
  place: Place,
  attribute: AttributeName,
  spte: SpteName,
): SpteWord {
  const word = new SpteWord();
  const m = vcpu.vm.mmu.masks;
  if (spte === 'absent') {
    word.lo = SHADOW_NONPRESENT_LO;
    word.hi = SHADOW_NONPRESENT_HI;
    return word;
  }
  if (spte === 'mmio' || spte === 'mmio-stale') {
    const age = spte === 'mmio' ? 0 : 1;
    const generation = (mmioGeneration(vcpu) - age + MMIO_SPTE_GEN_MASK + 1) % (MMIO_SPTE_GEN_MASK + 1);
    makeMmioSpte(m, word, generation, place.gfn, ACC_ALL);
    return word;
  }
  const isPrivate = attribute === 'private';
  const pfn = isPrivate ? place.gmemPfn : place.hostPfn;
  if (pfn < 0 || place.slot === null) throw new RangeError(`no page for an entry that is ${spte}`);
  const writable = !memslotIsReadonly(place.slot) && (isPrivate || place.hostWritable);
  makeSpte(vcpu, role, place.slot, ACC_ALL, place.gfn, pfn, SHADOW_NONPRESENT_LO, false, true, writable);
  word.lo = vcpu.vm.mmu.newSpte.lo;
  word.hi = vcpu.vm.mmu.newSpte.hi;
  // As arming the dirty log does it: the entry stays MMU-writable.
  if (spte === 'write-protected') word.lo &= ~PT_WRITABLE_MASK;
  if (spte === 'access-tracked') markSpteForAccessTrack(m, word);
  return word;
}
