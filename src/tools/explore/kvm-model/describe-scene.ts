/** The state of a scene in words. */
import { slotHva } from '../../../kvm/memslots/hva.ts';
import type { SceneState } from './state.ts';

/** The state in words, one fact a line. The tables have been scanned. */
export function describeScene(state: SceneState): readonly string[] {
  const { vm } = state;
  const lines: string[] = [];
  const range =
    vm.mmuInvalidateInProgress === 0
      ? ''
      : `, ${vm.mmuInvalidateInProgress} in progress on gfns 0x${vm.mmuInvalidateRangeStart.toString(16)} to 0x${vm.mmuInvalidateRangeEnd.toString(16)}`;
  lines.push(`mmu_invalidate_seq ${vm.mmuInvalidateSeq}${range}`);
  state.gfns.forEach((gfn, g) => {
    const parts = [`gfn 0x${gfn.toString(16)}`];
    if (vm.hasPrivateMem) parts.push(vm.attributes.private.has(gfn) ? 'private' : 'shared');
    const slot = vm.slots.sets[0]!.find(gfn);
    if (slot === null) parts.push('no slot');
    else {
      parts.push(`slot ${slot.id}${(slot.flags & 0x10000) !== 0 ? ' (invalid)' : ''}`);
      const word = vm.mm.table.lookup(slotHva(slot, gfn));
      parts.push((word & (1 << 20)) !== 0 ? `host frame 0x${(word & 0xfffff).toString(16)}` : 'no host frame');
      if (slot.gmem?.file)
        parts.push(`guest_memfd frame ${hexOrNone(slot.gmem.file.peekPage(gfn - slot.baseGfn + slot.gmem.pgoff))}`);
    }
    for (let r = 0; r < state.tables.roots; r++) {
      const leaf = state.tables.leaf(r, g);
      const invalid = (vm.mmu.tdpMmuRoots[r]!.role & (1 << 11)) !== 0 ? ' (invalid root)' : '';
      const what =
        leaf.pfn >= 0
          ? `maps 0x${leaf.pfn.toString(16)}${(leaf.lo & 2) !== 0 ? ' W' : ''}${leaf.level > 1 ? ' huge' : ''}`
          : leaf.lo === 0
            ? 'nothing'
            : `0x${(leaf.hi >>> 0).toString(16)}${(leaf.lo >>> 0).toString(16).padStart(8, '0')}`;
      parts.push(`entry${invalid}: ${what}`);
    }
    lines.push(parts.join(', '));
  });
  for (const actor of state.actors) lines.push(actor.describe());
  return lines;
}

function hexOrNone(n: number): string {
  return n < 0 ? 'none' : `0x${n.toString(16)}`;
}
