/**
 * The host's own page faults: what happens when a process touches a page that its tables do not map as wanted.
 *
 * @kvm memory.c handle_mm_fault
 */
import { numberOf } from '../arch/halves.ts';
import type { Mm } from './mm.ts';
import { MMU_NOTIFY_CLEAR } from './mmu-notifier.ts';
import { FRAME_DIRTY } from './page-allocator.ts';
import {
  alignDown,
  levelSize,
  PTE_ANON,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_FRAME_MASK,
  PTE_LAZYFREE,
  PTE_POISON,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_USER,
  PTE_WRITE,
  PTE_YOUNG,
  pmdIndex,
  pteIndex,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import { PAGE_SIZE } from './physical-memory.ts';
import { PROT_WRITE, type Vma } from './vma.ts';
import { splitHugePmd } from './zap.ts';

/** How a fault ended. */
export const FAULT_DONE = 0;
/** It would have to sleep. */
export const FAULT_RETRY = 1;
export const FAULT_OOM = 2;
export const FAULT_SIGBUS = 3;
export const FAULT_HWPOISON = 4;
/** Inside this file: the huge page did not work out, go on with small ones. */
const FAULT_FALLBACK = 5;
export type FaultResult =
  | typeof FAULT_DONE
  | typeof FAULT_RETRY
  | typeof FAULT_OOM
  | typeof FAULT_SIGBUS
  | typeof FAULT_HWPOISON;

/** Flags of `handleFault`. */
export const FAULT_FLAG_WRITE = 1;
/** Do not sleep, and leave no message behind. */
export const FAULT_FLAG_NOWAIT = 2;
/** A signal ends the sleep. */
export const FAULT_FLAG_INTERRUPTIBLE = 4;
/** It is another task that sleeps: the caller is told, and goes on. */
export const FAULT_FLAG_ASIDE = 8;

/**
 * Makes one step towards `hva` being accessible; the caller has found `vma` and checked its protection, and looks again afterwards.
 * HOT for the first touch of anonymous memory. @kvm memory.c __handle_mm_fault
 */
export function handleFault(mm: Mm, vma: Vma, hvaLo: number, hvaHi: number, flags: number): FaultResult {
  if (vma.hugetlbLevel > 1) return hugetlbFault(mm, vma, numberOf(hvaLo, hvaHi));
  const g = mm.table.makeGigabyteAt(hvaLo, hvaHi);
  const i = pmdIndex(hvaLo);
  let table = g.tables[i]!;
  if (table === null) {
    const leaf = g.pmd[i]!;
    let r: FaultResult | typeof FAULT_FALLBACK = FAULT_FALLBACK;
    if (leaf !== 0) r = hugeWriteFault(mm, vma, numberOf(hvaLo, hvaHi), leaf, flags);
    else if (vma.thp === 'hugepage') r = hugeAnonymousFault(mm, vma, numberOf(hvaLo, hvaHi), flags);
    if (r !== FAULT_FALLBACK) return r;
    table = g.tables[i]!;
    if (table === null) {
      table = new Int32Array(512);
      g.tables[i] = table;
    }
  }
  const n = pteIndex(hvaLo);
  const word = table[n]!;
  if (word === 0) {
    if (mm.limit !== null && vma.isAnonymous && (flags & FAULT_FLAG_WRITE) !== 0)
      mm.limit.charge(mm, numberOf(hvaLo, hvaHi));
    if (vma.uffd === 'off' && vma.file === null) return anonymousFault(mm, vma, table, n, flags);
    return missingFault(mm, vma, numberOf(hvaLo, hvaHi), table, n, flags);
  }
  if ((word & PTE_PRESENT) === 0) {
    if ((word & PTE_SWAP) === 0) return FAULT_HWPOISON;
    const hva = numberOf(hvaLo, hvaHi);
    const slept = awaitSwap(mm, hva, word & PTE_FRAME_MASK, flags);
    if (slept !== null) return slept;
    mm.limit?.charge(mm, hva);
    return swapFault(mm, vma, table, n, word, flags);
  }
  if ((flags & FAULT_FLAG_WRITE) !== 0 && (word & PTE_WRITE) === 0)
    return writeProtectFault(mm, vma, numberOf(hvaLo, hvaHi), table, n, word);
  table[n] = word | PTE_YOUNG | ((flags & FAULT_FLAG_WRITE) !== 0 ? PTE_DIRTY : 0);
  return FAULT_DONE;
}

/** The bits of a fresh entry for a page that the mapping may write at once. */
function freshBits(vma: Vma, writable: boolean): number {
  const access = vma.prot === 0 ? 0 : PTE_USER;
  return PTE_PRESENT | PTE_YOUNG | access | (writable && (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0);
}

/** A page that was never there, where a file or somebody in userspace provides it. @kvm memory.c do_pte_missing */
function missingFault(mm: Mm, vma: Vma, hva: number, table: Int32Array, n: number, flags: number): FaultResult {
  if (vma.file !== null) return fileFault(mm, vma, hva, table, n, flags);
  return vma.pfnmap ? FAULT_SIGBUS : userfault(mm, vma, hva, flags);
}

/** @kvm memory.c do_anonymous_page. HOT */
function anonymousFault(mm: Mm, vma: Vma, table: Int32Array, n: number, flags: number): FaultResult {
  if (vma.pfnmap) return FAULT_SIGBUS;
  if ((flags & FAULT_FLAG_WRITE) === 0) {
    table[n] = freshBits(vma, false) | PTE_SPECIAL | mm.zero.small;
    return FAULT_DONE;
  }
  const pfn = mm.pages.allocPage();
  if (pfn < 0) return FAULT_OOM;
  vma.hasAnonVma = true;
  table[n] = freshBits(vma, true) | PTE_ANON | PTE_EXCLUSIVE | PTE_DIRTY | pfn;
  return FAULT_DONE;
}

/** @kvm huge_memory.c do_huge_pmd_anonymous_page */
function hugeAnonymousFault(mm: Mm, vma: Vma, hva: number, flags: number): FaultResult | typeof FAULT_FALLBACK {
  const start = alignDown(hva, SIZE_2M);
  if (!vma.isAnonymous || vma.shared || start < vma.start || start + SIZE_2M > vma.end) return FAULT_FALLBACK;
  const write = (flags & FAULT_FLAG_WRITE) !== 0;
  vma.hasAnonVma = true;
  if (!write) {
    const zero = mm.zero.huge();
    if (zero < 0) return FAULT_FALLBACK;
    if (vma.uffd !== 'off') return userfault(mm, vma, hva, flags);
    mm.table.makeGigabyte(hva).pmd[pmdIndex(hva)] = freshBits(vma, false) | PTE_SPECIAL | zero;
    return FAULT_DONE;
  }
  if (vma.uffd !== 'off') return userfault(mm, vma, hva, flags);
  const pfn = mm.pages.allocHuge();
  if (pfn < 0) return FAULT_FALLBACK;
  const word = freshBits(vma, true) | PTE_ANON | PTE_EXCLUSIVE | PTE_DIRTY | pfn;
  mm.table.makeGigabyte(hva).pmd[pmdIndex(hva)] = word;
  return FAULT_DONE;
}

/** A fault on a present 2 MiB entry. @kvm huge_memory.c do_huge_pmd_wp_page */
function hugeWriteFault(
  mm: Mm,
  vma: Vma,
  hva: number,
  leaf: number,
  flags: number,
): FaultResult | typeof FAULT_FALLBACK {
  const g = mm.table.makeGigabyte(hva);
  const i = pmdIndex(hva);
  if ((flags & FAULT_FLAG_WRITE) === 0 || (leaf & PTE_WRITE) !== 0) {
    g.pmd[i] = leaf | PTE_YOUNG | ((flags & FAULT_FLAG_WRITE) !== 0 ? PTE_DIRTY : 0);
    return FAULT_DONE;
  }
  const reusable = (leaf & PTE_EXCLUSIVE) !== 0 || mm.pages.refs[leaf & PTE_FRAME_MASK] === 1;
  if ((leaf & PTE_ANON) !== 0 && reusable) {
    g.pmd[i] = leaf | freshBits(vma, true) | PTE_EXCLUSIVE | PTE_DIRTY;
    return FAULT_DONE;
  }
  splitHugePmd(mm, hva);
  return FAULT_FALLBACK;
}

/** A missing page of a shmem file. @kvm memory.c do_read_fault, do_cow_fault, do_shared_fault */
function fileFault(mm: Mm, vma: Vma, hva: number, table: Int32Array, n: number, flags: number): FaultResult {
  const file = vma.file!;
  const offset = vma.offsetOf(alignDown(hva, SIZE_4K));
  if (offset >= file.size) return FAULT_SIGBUS;
  if (vma.uffd !== 'off' && !file.hasFolioAt(offset)) return userfault(mm, vma, hva, flags);
  const pfn = file.folioAt(offset);
  if (pfn < 0) return FAULT_OOM;
  if (mm.pages.isPoisoned(pfn)) return FAULT_HWPOISON;
  if (vma.shared || (flags & FAULT_FLAG_WRITE) === 0) {
    const dirty = (flags & FAULT_FLAG_WRITE) !== 0 ? PTE_DIRTY : 0;
    mm.pages.get(pfn);
    table[n] = freshBits(vma, vma.shared) | dirty | pfn;
    return FAULT_DONE;
  }
  const copy = copyOf(mm, pfn);
  if (copy < 0) return FAULT_OOM;
  vma.hasAnonVma = true;
  table[n] = freshBits(vma, true) | PTE_ANON | PTE_EXCLUSIVE | PTE_DIRTY | copy;
  return FAULT_DONE;
}

/** A write to a present page that is mapped read-only. @kvm memory.c do_wp_page, wp_page_copy */
function writeProtectFault(mm: Mm, vma: Vma, hva: number, table: Int32Array, n: number, word: number): FaultResult {
  if (vma.shared) {
    table[n] = word | freshBits(vma, true) | PTE_DIRTY;
    return FAULT_DONE;
  }
  const pfn = word & PTE_FRAME_MASK;
  if ((word & PTE_ANON) !== 0 && ((word & PTE_EXCLUSIVE) !== 0 || mm.pages.refs[pfn] === 1)) {
    table[n] = (word & ~PTE_LAZYFREE) | freshBits(vma, true) | PTE_EXCLUSIVE | PTE_DIRTY;
    return FAULT_DONE;
  }
  if (vma.isAnonymous) mm.limit?.charge(mm, hva);
  const copy = (word & PTE_SPECIAL) !== 0 && pfn === mm.zero.small ? mm.pages.allocPage() : copyOf(mm, pfn);
  if (copy < 0) return FAULT_OOM;
  vma.hasAnonVma = true;
  const page = alignDown(hva, SIZE_4K);
  mm.notifiers.start(page, page + SIZE_4K, MMU_NOTIFY_CLEAR);
  table[n] = freshBits(vma, true) | PTE_ANON | PTE_EXCLUSIVE | PTE_DIRTY | copy;
  if ((word & PTE_SPECIAL) === 0) mm.pages.put(pfn, 1);
  mm.notifiers.end(page, page + SIZE_4K);
  return FAULT_DONE;
}

/** A new page with the contents of another; -1 when memory is full. */
export function copyOf(mm: Mm, pfn: number): number {
  const copy = mm.pages.allocPageForCopy();
  if (copy >= 0) mm.memory.u8.copyWithin(copy * PAGE_SIZE, pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
  return copy;
}

/**
 * null when the data of a page that was swapped out is there; else how the fault ends: a task that may sleep has slept, and looks
 * again, as others may have mapped the page meanwhile.
 */
function awaitSwap(mm: Mm, hva: number, slot: number, flags: number): FaultResult | null {
  const { io, synchronous } = mm.swap;
  if (io === null) return synchronous || (flags & FAULT_FLAG_NOWAIT) === 0 ? null : FAULT_RETRY;
  const page = alignDown(hva, SIZE_4K);
  if (io.ready(slot, () => mm.userfaults.wake(page, page + SIZE_4K))) return null;
  if ((flags & (FAULT_FLAG_NOWAIT | FAULT_FLAG_ASIDE)) !== 0) return FAULT_RETRY;
  io.wait(slot);
  return FAULT_DONE;
}

/** @kvm memory.c do_swap_page */
function swapFault(mm: Mm, vma: Vma, table: Int32Array, n: number, word: number, flags: number): FaultResult {
  const pfn = mm.pages.allocPageForCopy();
  if (pfn < 0) return FAULT_OOM;
  mm.swap.load(word & PTE_FRAME_MASK, mm.memory.u8.subarray(pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE));
  mm.pages.flags[pfn]! |= FRAME_DIRTY;
  const dirty = (flags & FAULT_FLAG_WRITE) !== 0 ? PTE_DIRTY : 0;
  table[n] = freshBits(vma, true) | PTE_ANON | PTE_EXCLUSIVE | dirty | pfn;
  return FAULT_DONE;
}

/** @kvm hugetlb.c hugetlb_fault */
function hugetlbFault(mm: Mm, vma: Vma, hva: number): FaultResult {
  const file = vma.file!;
  const word = mm.table.lookup(hva);
  if ((word & PTE_POISON) !== 0) return FAULT_HWPOISON;
  if (word !== 0) {
    mm.table.replace(hva, file.level, word | freshBits(vma, vma.shared));
    return FAULT_DONE;
  }
  const offset = vma.offsetOf(alignDown(hva, levelSize(file.level)));
  if (offset >= file.size) return FAULT_SIGBUS;
  const pfn = file.folioAt(offset);
  if (pfn < 0) return FAULT_SIGBUS;
  if (mm.pages.isPoisoned(pfn)) return FAULT_HWPOISON;
  mm.pages.get(pfn);
  mm.table.replace(hva, file.level, freshBits(vma, vma.shared) | PTE_DIRTY | pfn);
  return FAULT_DONE;
}

/** @kvm userfaultfd.c handle_userfault */
function userfault(mm: Mm, vma: Vma, hva: number, flags: number): FaultResult {
  if (vma.uffd === 'sigbus') return FAULT_SIGBUS;
  if ((flags & FAULT_FLAG_NOWAIT) === 0) {
    mm.userfaults.sleep(alignDown(hva, SIZE_4K), (flags & FAULT_FLAG_WRITE) !== 0);
    if (mm.userfaults.whileAsleep?.((flags & FAULT_FLAG_INTERRUPTIBLE) !== 0) === true) return FAULT_DONE;
  }
  return FAULT_RETRY;
}
