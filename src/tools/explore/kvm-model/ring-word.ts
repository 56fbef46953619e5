/**
 * A dirty ring of a scene as one word: how many entries are used, and for each, oldest first, the page, the slot and whether userspace has
 * harvested it. Where in its memory a ring begins is nobody's business.
 */
import { type DirtyRing, KVM_DIRTY_GFN_F_DIRTY, KVM_DIRTY_GFN_F_RESET } from '../../../kvm/dirty/dirty-ring.ts';

/** An entry: page of its slot (3 bits), slot id (1 bit), harvested (1 bit). */
const ENTRY_BITS = 5;
const MAX_USED = 5;

function wordsOf(ring: DirtyRing): Int32Array {
  return new Int32Array(ring.bytes.buffer);
}

/** First word of entry `i`, counted from the oldest that is used. */
function entryAt(ring: DirtyRing, i: number): number {
  return ((ring.resetIndex + i) & (ring.size - 1)) << 2;
}

export function ringWord(ring: DirtyRing): number {
  const words = wordsOf(ring);
  const { used } = ring;
  if (used > MAX_USED) throw new Error(`a scene's dirty ring has ${used} entries, ${MAX_USED} are the most`);
  let word = used;
  for (let i = 0; i < used; i++) {
    const at = entryAt(ring, i);
    const harvested = (words[at]! & KVM_DIRTY_GFN_F_RESET) !== 0 ? 1 : 0;
    word |= ((words[at + 2]! & 7) | ((words[at + 1]! & 1) << 3) | (harvested << 4)) << (3 + ENTRY_BITS * i);
  }
  return word;
}

export function restoreRing(ring: DirtyRing, word: number): void {
  const words = wordsOf(ring);
  words.fill(0);
  ring.resetIndex = 0;
  ring.dirtyIndex = word & 7;
  for (let i = 0; i < ring.dirtyIndex; i++) {
    const entry = word >>> (3 + ENTRY_BITS * i);
    const at = entryAt(ring, i);
    words[at] = KVM_DIRTY_GFN_F_DIRTY | ((entry & 16) !== 0 ? KVM_DIRTY_GFN_F_RESET : 0);
    words[at + 1] = (entry >>> 3) & 1;
    words[at + 2] = entry & 7;
  }
}

/** What userspace does with a ring: marks all new entries for reset. Answers their pages of slot `id`, as bits. */
export function harvestRing(ring: DirtyRing, id: number): number {
  const words = wordsOf(ring);
  let pages = 0;
  for (let i = 0; i < ring.used; i++) {
    const at = entryAt(ring, i);
    if ((words[at]! & KVM_DIRTY_GFN_F_RESET) !== 0) continue;
    words[at]! |= KVM_DIRTY_GFN_F_RESET;
    if (words[at + 1] === id) pages |= 1 << words[at + 2]!;
  }
  return pages;
}

/** An entry for this page that userspace has not harvested. */
export function ringHas(ring: DirtyRing, id: number, page: number): boolean {
  const words = wordsOf(ring);
  for (let i = 0; i < ring.used; i++) {
    const at = entryAt(ring, i);
    if ((words[at]! & KVM_DIRTY_GFN_F_RESET) === 0 && words[at + 1] === id && words[at + 2] === page) return true;
  }
  return false;
}
