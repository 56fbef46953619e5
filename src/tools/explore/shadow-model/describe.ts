/** A state under shadow paging in words, one fact a line. */
import { ROLE_DIRECT, ROLE_INVALID, roleAccess, roleLevel } from '../../../kvm/mmu/role.ts';
import { sptepOf } from '../../../kvm/mmu/shadow/translation.ts';
import type { ShadowPage } from '../../../kvm/mmu/shadow-page.ts';
import { isLargePte, isMmioSpte, isShadowPresent, isWritable, sptePfn } from '../../../kvm/mmu/spte.ts';
import type { ShadowState } from './state.ts';

function hex(n: number): string {
  return `0x${n.toString(16)}`;
}

function entryText(state: ShadowState, sp: ShadowPage, index: number): string {
  const { vm, shadow } = state;
  const lo = vm.memory.i32[sptepOf(sp, index)]!;
  const hi = vm.memory.i32[sptepOf(sp, index) + 1]!;
  if (isShadowPresent(lo)) {
    const pfn = sptePfn(lo, hi);
    if (roleLevel(sp.role) > 1 && !isLargePte(lo)) return `[${index}] page ${shadow.rootNumber(pfn)}`;
    return `[${index}] frame ${hex(pfn)}${isWritable(lo) ? ' W' : ''}`;
  }
  return isMmioSpte(vm.mmu.masks, lo, hi) ? `[${index}] MMIO` : '';
}

function pageText(state: ShadowState, sp: ShadowPage, n: number): string {
  const marks = [
    (sp.role & ROLE_DIRECT) !== 0 ? 'direct' : '',
    (sp.role & ROLE_INVALID) !== 0 ? 'invalid' : '',
    sp.mmuValidGen !== state.vm.mmu.mmuValidGen ? 'obsolete' : '',
    sp.unsync ? 'unsync' : '',
    sp.rootCount > 0 ? `root of ${sp.rootCount}` : '',
    (roleAccess(sp.role) & 2) === 0 ? 'read-only' : '',
  ].filter((m) => m !== '');
  const entries = state.shadow.indices.map((index) => entryText(state, sp, index)).filter((e) => e !== '');
  const how = marks.length === 0 ? '' : ` (${marks.join(', ')})`;
  return `page ${n}: level ${roleLevel(sp.role)} of gfn ${hex(sp.gfn)}${how}: ${entries.length === 0 ? 'empty' : entries.join(', ')}`;
}

export function describeShadow(state: ShadowState): readonly string[] {
  const { vm } = state;
  const range =
    vm.mmuInvalidateInProgress === 0
      ? ''
      : `, ${vm.mmuInvalidateInProgress} in progress on gfns ${hex(vm.mmuInvalidateRangeStart)} to ${hex(vm.mmuInvalidateRangeEnd)}`;
  const lines = [`mmu_invalidate_seq ${vm.mmuInvalidateSeq}${range}`];
  for (const gfn of state.gfns) {
    const slot = vm.slots.sets[0]!.find(gfn);
    const pfn = state.hostFrame(0, gfn);
    const where = slot === null ? 'no slot' : `slot ${slot.id}${(slot.flags & 0x10000) !== 0 ? ' (invalid)' : ''}`;
    lines.push(`gfn ${hex(gfn)}, ${where}, ${pfn < 0 ? 'no host frame' : `host frame ${hex(pfn)}`}`);
  }
  lines.push(...state.guest.describe());
  state.shadow.list.forEach((sp, i) => {
    lines.push(pageText(state, sp, i + 1));
  });
  for (const actor of state.actors) lines.push(actor.describe());
  return lines;
}
