/** fork, of a child that exits at once: what stays is that private pages of the parent are write-protected for a while. */
import type { Mm } from './mm.ts';
import { MMU_NOTIFY_PROTECTION_PAGE } from './mmu-notifier.ts';
import {
  alignDown,
  PTE_ANON,
  PTE_EXCLUSIVE,
  PTE_PRESENT,
  PTE_WRITE,
  pmdIndex,
  pteIndex,
  SIZE_1G,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import type { Vma } from './vma.ts';

/**
 * Copies and drops the address space. Private mappings that were written are announced and write-protected; as the child is
 * gone, the next write finds its page unshared and takes it over without a copy. @kvm memory.c copy_page_range
 */
export function forkAndExit(mm: Mm): void {
  for (const vma of [...mm.vmas.list]) {
    if (!vma.hasAnonVma || vma.shared) continue;
    mm.notifiers.start(vma.start, vma.end, MMU_NOTIFY_PROTECTION_PAGE);
    protectCopies(mm, vma);
    mm.notifiers.end(vma.start, vma.end);
  }
}

function protectCopies(mm: Mm, vma: Vma): void {
  for (let at = vma.start; at < vma.end; ) {
    const g = mm.table.gigabyte(at);
    if (g === null) {
      at = alignDown(at, SIZE_1G) + SIZE_1G;
      continue;
    }
    const i = pmdIndex(at);
    const next = Math.min(vma.end, alignDown(at, SIZE_2M) + SIZE_2M);
    g.pmd[i] = sharedWord(g.pmd[i]!);
    const table = g.tables[i]!;
    if (table !== null) {
      const first = pteIndex(at);
      for (let n = first; n < first + (next - at) / SIZE_4K; n++) table[n] = sharedWord(table[n]!);
    }
    at = next;
  }
}

function sharedWord(word: number): number {
  return (word & (PTE_PRESENT | PTE_ANON)) === (PTE_PRESENT | PTE_ANON) ? word & ~(PTE_WRITE | PTE_EXCLUSIVE) : word;
}
