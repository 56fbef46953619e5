/** What a shadowed table means for the page that it is in: no huge mapping around it, and no write unseen (@kvm mmu.c account_shadowed). */
import { PG_LEVEL_4K } from '../../../arch/paging.ts';
import { gfnToMemslot, type Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { updateDisallowLpageCount } from '../lpage-info.ts';
import { roleAsId, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { flushRemoteTlbs, flushRemoteTlbsGfn } from '../tlb-flush.ts';
import { slotGfnWriteProtect } from './write-protect.ts';

function slotOf(vm: VmState, sp: ShadowPage): Memslot {
  const slot = gfnToMemslot(vm, sp.gfn, roleAsId(sp.role));
  if (slot === null) throw new Error(`gfn 0x${sp.gfn.toString(16)} is shadowed, but has no slot`);
  return slot;
}

/** @kvm page_track.c update_gfn_write_track */
function updateWriteTrack(slot: Memslot, gfn: number, count: number): void {
  const index = gfn - slot.baseGfn;
  const { gfnWriteTrack } = slot.arch!;
  const now = (gfnWriteTrack.get(index) ?? 0) + count;
  if (now === 0) gfnWriteTrack.delete(index);
  else gfnWriteTrack.set(index, now);
}

/** A table of the lowest level is only write-protected, so that it can become unsync; the others are tracked. @kvm mmu.c account_shadowed */
export function accountShadowed(vm: VmState, sp: ShadowPage): void {
  vm.mmu.indirectShadowPages++;
  const slot = slotOf(vm, sp);
  const upper = roleLevel(sp.role) > PG_LEVEL_4K;
  if (upper) updateWriteTrack(slot, sp.gfn, 1);
  updateDisallowLpageCount(slot, sp.gfn, 1);
  if (!slotGfnWriteProtect(vm, slot, sp.gfn, PG_LEVEL_4K)) return;
  if (upper) flushRemoteTlbs(vm);
  else flushRemoteTlbsGfn(vm, sp.gfn, PG_LEVEL_4K);
}

/** @kvm mmu.c unaccount_shadowed */
export function unaccountShadowed(vm: VmState, sp: ShadowPage): void {
  vm.mmu.indirectShadowPages--;
  const slot = slotOf(vm, sp);
  if (roleLevel(sp.role) > PG_LEVEL_4K) updateWriteTrack(slot, sp.gfn, -1);
  updateDisallowLpageCount(slot, sp.gfn, -1);
}
