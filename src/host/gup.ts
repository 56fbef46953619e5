/**
 * Finding the frame behind an address of the process: what KVM's hva_to_pfn is made of, and what copies to and from the process use.
 *
 * @kvm gup.c
 */
import { hiOf, loOf, numberOf } from '../arch/halves.ts';
import { EAGAIN, EFAULT, EHWPOISON, ENOMEM } from './errno.ts';
import {
  FAULT_DONE,
  FAULT_FLAG_ASIDE,
  FAULT_FLAG_INTERRUPTIBLE,
  FAULT_FLAG_NOWAIT,
  FAULT_FLAG_WRITE,
  FAULT_HWPOISON,
  FAULT_OOM,
  FAULT_RETRY,
  type FaultResult,
  handleFault,
} from './fault.ts';
import type { Mm } from './mm.ts';
import {
  PTE_DIRTY,
  PTE_FRAME_MASK,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_USER,
  PTE_WRITE,
  PTE_YOUNG,
  pmdIndex,
  pteIndex,
} from './page-table.ts';
import { PROT_READ, PROT_WRITE, type Vma } from './vma.ts';

/** The access is a write. */
export const FOLL_WRITE = 1;
/** Do not sleep: answer -EAGAIN. */
export const FOLL_NOWAIT = 2;
/** A signal may end the sleep. A sleep is an answer here (-EAGAIN), so the caller decides what ends it. */
export const FOLL_INTERRUPTIBLE = 4;
/** On behalf of another task, which sleeps while the caller goes on: answer -EAGAIN, with whatever ends the sleep under way. */
export const FOLL_ASIDE = 8;

/** Where `getUserPages` writes its answer; made once and used again. */
export interface GupResult {
  /** The frame of the 4 KiB page. */
  pfn: number;
  /** The process may write it. */
  writable: boolean;
}

/** Frame of `hva` (or its low half) within the leaf `word` found at `level`. HOT */
function frameOf(word: number, level: number, hva: number): number {
  const first = word & PTE_FRAME_MASK;
  if (level === 1) return first;
  return first + (level === 2 ? pteIndex(hva) : (pmdIndex(hva) << 9) + pteIndex(hva));
}

/**
 * The frame that the page tables map now for such an access to the address with these halves, or -1; changes nothing. The 4 KiB zero
 * page and frames mapped by number are not found. HOT. @kvm gup.c get_user_page_fast_only
 */
export function getUserPageFastOnly(mm: Mm, hvaLo: number, hvaHi: number, write: boolean): number {
  const word = mm.table.lookupAt(hvaLo, hvaHi);
  const want = write ? PTE_PRESENT | PTE_USER | PTE_WRITE : PTE_PRESENT | PTE_USER;
  if ((word & want) !== want) return -1;
  if (mm.table.level === 1 && (word & PTE_SPECIAL) !== 0) return -1;
  return frameOf(word, mm.table.level, hvaLo);
}

/** True when the mapping allows the access to get_user_pages. @kvm gup.c check_vma_flags */
function gupAllowed(vma: Vma, write: boolean): boolean {
  if (vma.pfnmap) return false;
  return (vma.prot & (write ? PROT_WRITE : PROT_READ)) !== 0;
}

/** Errno of a failed fault. @kvm mm.h vm_fault_to_errno */
function errnoOf(result: FaultResult): number {
  if (result === FAULT_RETRY) return -EAGAIN;
  if (result === FAULT_OOM) return -ENOMEM;
  if (result === FAULT_HWPOISON) return -EHWPOISON;
  return -EFAULT;
}

/**
 * Makes the page of the address with these halves present for the access and finds its frame. `flags` are FOLL_*.
 * Returns 0 and fills `out`, or -EFAULT (no mapping, not allowed, beyond the file), -EHWPOISON, -ENOMEM, or -EAGAIN: the task would
 * sleep until I/O ends or somebody provides the page (with FOLL_NOWAIT nothing has been queued for it).
 * HOT. @kvm gup.c get_user_pages_unlocked
 */
export function getUserPages(mm: Mm, hvaLo: number, hvaHi: number, flags: number, out: GupResult): number {
  const vma = mm.vmas.findAt(hvaLo, hvaHi);
  const write = (flags & FOLL_WRITE) !== 0;
  if (vma === null || !gupAllowed(vma, write)) return -EFAULT;
  const want = write ? PTE_PRESENT | PTE_USER | PTE_WRITE : PTE_PRESENT | PTE_USER;
  const faultFlags =
    (write ? FAULT_FLAG_WRITE : 0) |
    ((flags & FOLL_NOWAIT) !== 0 ? FAULT_FLAG_NOWAIT : 0) |
    ((flags & FOLL_INTERRUPTIBLE) !== 0 ? FAULT_FLAG_INTERRUPTIBLE : 0) |
    ((flags & FOLL_ASIDE) !== 0 ? FAULT_FLAG_ASIDE : 0);
  for (let tries = 0; tries < 8; tries++) {
    const word = mm.table.lookupAt(hvaLo, hvaHi);
    if ((word & want) === want) {
      out.pfn = frameOf(word, mm.table.level, hvaLo);
      out.writable = (word & PTE_WRITE) !== 0;
      return 0;
    }
    const result = handleFault(mm, vma, hvaLo, hvaHi, faultFlags);
    if (result !== FAULT_DONE) return errnoOf(result);
  }
  throw new Error(`host fault at ${numberOf(hvaLo, hvaHi).toString(16)} makes no progress`);
}

/**
 * The frame behind `hva` for an access by a task of the process itself (a copy to or from user memory), faulting it in.
 * The frame, or -EFAULT, -EHWPOISON, -ENOMEM, -EAGAIN as above. @kvm arch/x86/mm/fault.c do_user_addr_fault
 */
export function userPage(mm: Mm, hva: number, write: boolean): number {
  const want = write ? PTE_PRESENT | PTE_USER | PTE_WRITE : PTE_PRESENT | PTE_USER;
  let word = mm.table.lookup(hva);
  if ((word & want) === want) return touched(mm, hva, word, write);
  const vma = mm.vmas.find(hva);
  if (vma === null || (write ? (vma.prot & PROT_WRITE) === 0 : vma.prot === 0)) return -EFAULT;
  for (let tries = 0; tries < 8; tries++) {
    const result = handleFault(mm, vma, loOf(hva), hiOf(hva), write ? FAULT_FLAG_WRITE : 0);
    if (result !== FAULT_DONE) return errnoOf(result);
    word = mm.table.lookup(hva);
    if ((word & want) === want) return touched(mm, hva, word, write);
  }
  throw new Error(`host fault at ${hva.toString(16)} makes no progress`);
}

/** The same with page faults disabled: -EFAULT unless the page is mapped for the access already. @kvm uaccess.h pagefault_disable */
export function userPageInatomic(mm: Mm, hva: number, write: boolean): number {
  const want = write ? PTE_PRESENT | PTE_USER | PTE_WRITE : PTE_PRESENT | PTE_USER;
  const word = mm.table.lookup(hva);
  return (word & want) === want ? touched(mm, hva, word, write) : -EFAULT;
}

/** The frame of an access through the entry just looked up, whose accessed and dirty bits it sets as the processor would. */
function touched(mm: Mm, hva: number, word: number, write: boolean): number {
  const level = mm.table.level;
  const bits = write ? PTE_YOUNG | PTE_DIRTY : PTE_YOUNG;
  if ((word & bits) !== bits) mm.table.replace(hva, level, word | bits);
  return frameOf(word, level, hva);
}

/**
 * Level at which the process's page tables map the address with these halves now; 1 also when they do not. HOT
 * @kvm mmu.c host_pfn_mapping_level
 */
export function hostMappingLevel(mm: Mm, hvaLo: number, hvaHi: number): 1 | 2 | 3 {
  const word = mm.table.lookupAt(hvaLo, hvaHi);
  if ((word & PTE_PRESENT) === 0) return 1;
  return mm.table.level === 3 ? 3 : mm.table.level === 2 ? 2 : 1;
}
