/**
 * mmap, munmap, mprotect and what else changes the list of mappings.
 *
 * @kvm mmap.c, vma.c, mprotect.c
 */
import { EINVAL, ENOMEM } from './errno.ts';
import type { Mm } from './mm.ts';
import { MMU_NOTIFY_PROTECTION_VMA, MMU_NOTIFY_UNMAP } from './mmu-notifier.ts';
import {
  alignDown,
  alignUp,
  levelSize,
  PTE_ANON,
  PTE_EXCLUSIVE,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_USER,
  PTE_WRITE,
  pmdIndex,
  pteIndex,
  SIZE_1G,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import { PROT_READ, PROT_WRITE, type Vma } from './vma.ts';
import { adjustForPmdSharing, splitHugePmd, zapRange } from './zap.ts';

/** Top of the area that mmap fills downwards. */
export const MMAP_TOP = 0x7f80_0000_0000;
/** First address that is not the process's. */
export const TASK_SIZE = 0x7fff_ffff_f000;

/** 0 when [hva, hva + length) is a range of pages in user space, else -EINVAL. */
export function checkRange(hva: number, length: number): number {
  if (!Number.isSafeInteger(hva) || !Number.isSafeInteger(length)) return -EINVAL;
  if (hva < 0 || hva % SIZE_4K !== 0 || length <= 0 || hva + alignUp(length, SIZE_4K) > TASK_SIZE) return -EINVAL;
  return 0;
}

/** Adds a mapping record, joined with its neighbours where they are alike. */
export function addVma(mm: Mm, vma: Vma): void {
  mm.vmas.insert(vma);
  vma.file?.attach(vma, mm);
  mergeAround(mm, vma.start, vma.end);
}

/** Joins records that meet in or at the ends of [start, end) and have become alike. @kvm vma.c vma_merge_existing_range */
function mergeAround(mm: Mm, start: number, end: number): void {
  const list = mm.vmas.list;
  let i = Math.max(0, mm.vmas.firstEndingAfter(start) - 1);
  while (i + 1 < list.length && list[i]!.start <= end) {
    const a = list[i]!;
    const b = list[i + 1]!;
    if (!a.continuesIn(b)) {
      i++;
      continue;
    }
    a.end = b.end;
    a.hasAnonVma ||= b.hasAnonVma;
    mm.vmas.remove(b);
    b.file?.detach(b);
  }
}

/** Cuts a mapping in two at `at`; a 2 MiB entry across the cut is split first. @kvm vma.c __split_vma, vma_adjust_trans_huge */
function splitVma(mm: Mm, vma: Vma, at: number): void {
  const around = alignDown(at, SIZE_2M);
  if (at % SIZE_2M !== 0 && around >= vma.start && around + SIZE_2M <= vma.end && mm.table.hasPmdTable(at)) {
    splitHugePmd(mm, at);
  }
  const upper = vma.copy(at, vma.end);
  vma.end = at;
  mm.vmas.insert(upper);
  upper.file?.attach(upper, mm);
}

/** Runs `change` over exactly the mappings of [start, end), cut to fit; joins them again afterwards. */
export function changeVmas(mm: Mm, start: number, end: number, change: (vma: Vma) => void): void {
  for (const vma of mm.vmas.overlapping(start, end)) {
    let part = vma;
    if (part.start < start) {
      splitVma(mm, part, start);
      part = mm.vmas.find(start)!;
    }
    if (part.end > end) splitVma(mm, part, end);
    change(part);
  }
  mergeAround(mm, start, end);
}

/** @kvm vma.c do_vmi_align_munmap */
export function unmapRange(mm: Mm, hva: number, length: number): number {
  const bad = checkRange(hva, length);
  if (bad !== 0) return bad;
  const end = hva + alignUp(length, SIZE_4K);
  const hit = mm.vmas.overlapping(hva, end);
  if (hit.length === 0) return 0;
  for (const vma of hit) {
    const unit = levelSize(vma.hugetlbLevel);
    if (Math.max(vma.start, hva) % unit !== 0 || Math.min(vma.end, end) % unit !== 0) return -EINVAL;
  }
  const first = hit[0]!;
  if (first.start < hva) splitVma(mm, first, hva);
  const last = mm.vmas.find(end - 1);
  if (last !== null && last.end > end) splitVma(mm, last, end);
  const gone = mm.vmas.overlapping(hva, end);
  for (const vma of gone) mm.vmas.remove(vma);
  mm.notifiers.start(hva, end, MMU_NOTIFY_UNMAP);
  for (const vma of gone) zapRange(mm, vma, vma.start, vma.end, true);
  mm.notifiers.end(hva, end);
  const { floor, ceiling } = mm.vmas.gapAround(hva, end);
  mm.table.freeTables(alignUp(floor, SIZE_2M), alignDown(Math.min(ceiling, TASK_SIZE), SIZE_2M));
  for (const vma of gone) vma.file?.detach(vma);
  return 0;
}

/** @kvm mprotect.c do_mprotect_pkey */
export function protectRange(mm: Mm, hva: number, length: number, prot: number): number {
  const bad = checkRange(hva, length);
  if (bad !== 0) return bad;
  const end = hva + alignUp(length, SIZE_4K);
  for (const vma of mm.vmas.overlapping(hva, end)) {
    const unit = levelSize(vma.hugetlbLevel);
    if (Math.max(vma.start, hva) % unit !== 0 || Math.min(vma.end, end) % unit !== 0) return -EINVAL;
  }
  const complete = mm.vmas.covers(hva, end);
  changeVmas(mm, hva, end, (vma) => {
    if (vma.prot === prot) return;
    vma.prot = prot;
    changeProtection(mm, vma);
  });
  return complete ? 0 : -ENOMEM;
}

/** Brings the entries of a mapping in line with its new protection. @kvm mprotect.c change_protection */
function changeProtection(mm: Mm, vma: Vma): void {
  const range = { start: vma.start, end: vma.end };
  if (vma.hugetlbLevel > 1) {
    adjustForPmdSharing(vma, range);
  } else {
    while (range.start < range.end && mm.table.gigabyte(range.start) === null) {
      range.start = alignDown(range.start, SIZE_1G) + SIZE_1G;
    }
    if (range.start >= range.end) return;
  }
  mm.notifiers.start(range.start, range.end, MMU_NOTIFY_PROTECTION_VMA);
  for (let at = vma.start; at < vma.end; ) at = protectStep(mm, vma, at);
  mm.notifiers.end(range.start, range.end);
}

/** Changes the entry or table at `at`; returns where to go on. */
function protectStep(mm: Mm, vma: Vma, at: number): number {
  const g = mm.table.gigabyte(at);
  if (g === null) return alignDown(at, SIZE_1G) + SIZE_1G;
  if (g.leaf !== 0) {
    g.leaf = protectedWord(vma, g.leaf);
    return at + SIZE_1G;
  }
  const i = pmdIndex(at);
  const next = Math.min(vma.end, alignDown(at, SIZE_2M) + SIZE_2M);
  if (g.pmd[i] !== 0) {
    if (next - at === SIZE_2M) {
      g.pmd[i] = protectedWord(vma, g.pmd[i]!);
      return next;
    }
    splitHugePmd(mm, at);
  }
  const table = g.tables[i]!;
  if (table !== null) {
    const first = pteIndex(at);
    const last = first + (next - at) / SIZE_4K;
    for (let n = first; n < last; n++) table[n] = protectedWord(vma, table[n]!);
  }
  return next;
}

/** An entry under a new protection: write access comes back at once only where no copy could be due. */
function protectedWord(vma: Vma, word: number): number {
  if ((word & PTE_PRESENT) === 0) return word;
  let changed = word & ~(PTE_USER | PTE_WRITE);
  if (vma.prot !== 0) changed |= PTE_USER;
  if ((vma.prot & PROT_WRITE) !== 0 && (word & PTE_SPECIAL) === 0) {
    if (vma.shared || (word & (PTE_ANON | PTE_EXCLUSIVE)) === (PTE_ANON | PTE_EXCLUSIVE)) changed |= PTE_WRITE;
  }
  return changed;
}

/** A range of `length` free addresses below everything mapped so far, or -ENOMEM. */
export function findFree(mm: Mm, length: number, align: number): number {
  const lowest = mm.vmas.list.length === 0 ? MMAP_TOP : Math.min(MMAP_TOP, mm.vmas.list[0]!.start - SIZE_2M);
  const at = alignDown(lowest - length, align);
  return at < SIZE_2M ? -ENOMEM : at;
}

/** Frames mapped by number, as a driver's mmap does. @kvm memory.c remap_pfn_range */
export function mapFrames(mm: Mm, vma: Vma, firstFrame: number): void {
  const access = (vma.prot & PROT_WRITE) !== 0 ? PTE_USER | PTE_WRITE : (vma.prot & PROT_READ) !== 0 ? PTE_USER : 0;
  for (let at = vma.start; at < vma.end; at += SIZE_4K) {
    mm.table.setPte(at, PTE_PRESENT | PTE_SPECIAL | access | (firstFrame + (at - vma.start) / SIZE_4K));
  }
}
