/**
 * A limit to the memory that a process may keep, like a memory cgroup's: pages beyond it go to swap, the least recently used ones
 * first, in the order of their first use with a second chance for those that were used since.
 *
 * @kvm memcontrol.c try_charge_memcg; vmscan.c shrink_inactive_list, folio_check_references
 */
import type { Mm } from './mm.ts';
import { PTE_ANON, PTE_PRESENT, PTE_YOUNG, SIZE_4K } from './page-table.ts';
import { pageOut } from './reclaim.ts';

/** Pages that go at a time (@kvm swap.h SWAP_CLUSTER_MAX, of which a charge takes as many as it needs). */
const BATCH = 32;

export class MemoryLimit {
  /** Pages that have gone to swap. */
  pagedOut = 0;
  /** Anonymous pages of 4 KiB that may stay. */
  private readonly pages: number;
  /** Addresses of charged pages, the oldest at `head`; a ring. An entry may be out of date. */
  private ring = new Float64Array(1024);
  private head = 0;
  private count = 0;

  /** @param bytes that may stay in memory */
  constructor(bytes: number) {
    this.pages = Math.max(2 * BATCH, Math.floor(bytes / SIZE_4K));
  }

  /** A page is about to be made at `hva`: room is made for it. */
  charge(mm: Mm, hva: number): void {
    if (this.count >= this.pages) this.reclaim(mm);
    this.push(hva - (hva % SIZE_4K));
  }

  private push(hva: number): void {
    const { ring } = this;
    if (this.count === ring.length) {
      const larger = new Float64Array(2 * ring.length);
      for (let i = 0; i < this.count; i++) larger[i] = ring[(this.head + i) % ring.length]!;
      this.ring = larger;
      this.head = 0;
    }
    this.ring[(this.head + this.count++) % this.ring.length] = hva;
  }

  private pop(): number {
    const hva = this.ring[this.head]!;
    this.head = (this.head + 1) % this.ring.length;
    this.count--;
    return hva;
  }

  /** Pages out a batch. After a round in which all were used the oldest go all the same. */
  private reclaim(mm: Mm): void {
    const most = this.count;
    for (let gone = 0, seen = 0; gone < BATCH && this.count > 0; seen++) {
      const hva = this.pop();
      const word = mm.table.lookup(hva);
      const vma = mm.vmas.find(hva);
      if (vma === null || (word & (PTE_PRESENT | PTE_ANON)) !== (PTE_PRESENT | PTE_ANON) || mm.table.level !== 1)
        continue;
      if (seen < most && referenced(mm, hva, word)) {
        this.push(hva);
        continue;
      }
      pageOut(mm, vma, hva, hva + SIZE_4K);
      if ((mm.table.lookup(hva) & PTE_PRESENT) !== 0) this.push(hva);
      else this.pagedOut++;
      gone++;
    }
  }
}

/** The page was used since this was last asked, by the process or through a mirror of its tables. @kvm rmap.c folio_referenced_one */
function referenced(mm: Mm, hva: number, word: number): boolean {
  const own = (word & PTE_YOUNG) !== 0;
  if (own) mm.table.replace(hva, 1, word & ~PTE_YOUNG);
  return mm.notifiers.clearFlushYoung(hva, hva + SIZE_4K) || own;
}
