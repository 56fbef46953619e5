/**
 * A process's memory as its users see it: the system calls on one side, what KVM asks of the kernel on the other.
 * Addresses are hvas (numbers); calls return 0 or a negative errno like the kernel's, unless said otherwise.
 */
import { hiOf, loOf } from '../arch/halves.ts';
import { BackingFile } from './backing-file.ts';
import { EEXIST, EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM } from './errno.ts';
import { forkAndExit } from './fork.ts';
import {
  FOLL_ASIDE,
  type GupResult,
  getUserPageFastOnly,
  getUserPages,
  hostMappingLevel,
  userPage,
  userPageInatomic,
} from './gup.ts';
import type { HostSignal } from './host-signal.ts';
import { type Advice, adviseRange } from './madvise.ts';
import { addVma, changeVmas, checkRange, findFree, mapFrames, protectRange, TASK_SIZE, unmapRange } from './mapping.ts';
import { MemoryLimit } from './memory-limit.ts';
import { Mm, type MmHost } from './mm.ts';
import type { MmuNotifier } from './mmu-notifier.ts';
import { markIdle, readIdle } from './page-idle.ts';
import {
  alignDown,
  alignUp,
  levelSize,
  PTE_ANON,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_FRAME_MASK,
  PTE_POISON,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_USER,
  PTE_WRITE,
  PTE_YOUNG,
  SIZE_1G,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import { PAGE_SIZE } from './physical-memory.ts';
import { type IoClock, SwapReads } from './swap-reads.ts';
import { PROT_READ, PROT_WRITE, type UffdMode, Vma } from './vma.ts';
import { zapRange } from './zap.ts';

/**
 * What a mapping is made of: `anon` private anonymous memory without huge pages, `thp` the same with MADV_HUGEPAGE, `hugetlb2m` and
 * `hugetlb1g` shared hugetlbfs pages, `memfd` a shared and `privfile` a private mapping of a memory file, `shared` shared anonymous
 * memory, `frames` physical frames by number (device memory).
 */
export type MemoryKind = 'anon' | 'thp' | 'hugetlb2m' | 'hugetlb1g' | 'memfd' | 'privfile' | 'shared' | 'frames';

/** What mmap(2) is asked for. */
export interface MmapOptions {
  /** Bytes; rounded up to the page size of the kind. */
  readonly size: number;
  readonly kind: MemoryKind;
  /** PROT_* bits; read and write if absent. */
  readonly prot?: number;
  /** Alignment of the address in bytes; 2 MiB if absent. */
  readonly align?: number;
  /** Map exactly here, in place of what is there (MAP_FIXED). */
  readonly at?: number;
  /** Show this file from `offset` on, instead of a new one of the mapping's size. */
  readonly file?: BackingFile;
  readonly offset?: number;
  /** First frame of a `frames` mapping. */
  readonly firstFrame?: number;
}

/** What the kernel knows of the mapping at an address. */
export interface VmaInfo {
  readonly start: number;
  readonly end: number;
  readonly prot: number;
  readonly shared: boolean;
  readonly pfnmap: boolean;
}

/** One process. Made by HostMachine; the VMM of a system is `kvm.mm`. */
export class AddressSpace extends Mm {
  private readonly host: MmHost;
  private readonly aside: GupResult = { pfn: -1, writable: false };

  constructor(host: MmHost) {
    super(host);
    this.host = host;
  }

  // ---- mappings ----

  /** A file in memory; the folios are 4 KiB pages, or 2 MiB or 1 GiB ones (hugetlbfs). @kvm memfd.c memfd_create */
  createFile(size: number, level: 1 | 2 | 3 = 1): BackingFile {
    return new BackingFile(this.host.memory, this.host.pages, level, alignUp(size, level === 1 ? 1 : levelSize(level)));
  }

  /** Maps memory; the address, or -EINVAL, -ENOMEM, -ENODEV. @kvm mmap.c do_mmap */
  mmap(options: MmapOptions): number {
    const { kind } = options;
    const level = kind === 'hugetlb1g' ? 3 : kind === 'hugetlb2m' ? 2 : 1;
    const unit = levelSize(level);
    const size = alignUp(options.size, unit);
    const align = Math.max(options.align ?? SIZE_2M, unit);
    if (!Number.isSafeInteger(size) || size <= 0 || align % SIZE_4K !== 0) return -EINVAL;
    const offset = options.offset ?? 0;
    if (offset < 0 || offset % unit !== 0) return -EINVAL;
    const hva = options.at ?? findFree(this, size, align);
    if (hva < 0) return hva;
    if (hva % unit !== 0 || checkRange(hva, size) !== 0) return -EINVAL;
    const isAnon = kind === 'anon' || kind === 'thp';
    if (kind === 'frames' && options.firstFrame === undefined) return -EINVAL;
    if (options.file !== undefined && (isAnon || kind === 'frames' || options.file.level !== level)) return -ENODEV;
    if (options.at !== undefined) unmapRange(this, hva, size);
    const ownFile = !isAnon && kind !== 'frames' && options.file === undefined;
    const file = ownFile ? this.createFile(offset + size, level) : (options.file ?? null);
    const prot = options.prot ?? PROT_READ | PROT_WRITE;
    const vma = new Vma(hva, hva + size, prot, !isAnon && kind !== 'privfile', file, offset, kind === 'frames');
    if (isAnon) vma.thp = kind === 'thp' ? 'hugepage' : 'nohugepage';
    addVma(this, vma);
    if (ownFile) file!.release();
    if (kind === 'frames') mapFrames(this, vma, options.firstFrame!);
    return hva;
  }

  /** Removes the mappings of [hva, hva + length). */
  munmap(hva: number, length: number): number {
    return unmapRange(this, hva, length);
  }

  /** Changes the protection of [hva, hva + length); -ENOMEM when part of it is not mapped. */
  mprotect(hva: number, length: number, prot: number): number {
    return protectRange(this, hva, length, prot);
  }

  madvise(hva: number, length: number, advice: Advice): number {
    return adviseRange(this, hva, length, advice);
  }

  /** A child is forked and exits at once. */
  fork(): number {
    forkAndExit(this);
    return 0;
  }

  /** The process ends: mirrors are released, everything is unmapped. @kvm mmap.c exit_mmap */
  exit(): void {
    this.notifiers.release();
    for (const vma of [...this.vmas.list]) {
      zapRange(this, vma, vma.start, vma.end, true);
      this.vmas.remove(vma);
      vma.file?.detach(vma);
    }
    this.table.freeTables(0, TASK_SIZE);
  }

  /** The mapping that contains `hva`, or null. */
  vmaAt(hva: number): VmaInfo | null {
    return this.vmas.find(hva);
  }

  /** The file behind `hva`, or null. */
  fileAt(hva: number): BackingFile | null {
    return this.vmas.find(hva)?.file ?? null;
  }

  // ---- what KVM asks ----

  registerNotifier(notifier: MmuNotifier): void {
    this.notifiers.register(notifier);
  }

  unregisterNotifier(notifier: MmuNotifier): void {
    this.notifiers.unregister(notifier);
  }

  /** See gup.ts; hot code goes there. */
  getUserPageFastOnly(hva: number, write: boolean): number {
    return getUserPageFastOnly(this, loOf(hva), hiOf(hva), write);
  }

  /** See gup.ts; hot code goes there. */
  getUserPages(hva: number, flags: number, out: GupResult): number {
    return getUserPages(this, loOf(hva), hiOf(hva), flags, out);
  }

  /** A kernel thread gets the page: while it sleeps, the others go on. 0, or a negative errno: -EAGAIN when it sleeps. */
  getUserPagesAside(hva: number, flags: number): number {
    const { userfaults } = this;
    const { whileAsleep } = userfaults;
    userfaults.whileAsleep = null;
    const r = getUserPages(this, loOf(hva), hiOf(hva), flags | FOLL_ASIDE, this.aside);
    userfaults.whileAsleep = whileAsleep;
    return r;
  }

  /** See gup.ts; hot code goes there. */
  hostMappingLevel(hva: number): 1 | 2 | 3 {
    return hostMappingLevel(this, loOf(hva), hiOf(hva));
  }

  /** Frame of `hva` in a mapping of frames by number, or -1. @kvm memory.c follow_pfnmap_start */
  followPfnmap(hva: number, out: GupResult): number {
    const vma = this.vmas.find(hva);
    const word = this.table.lookup(hva);
    if (vma === null || !vma.pfnmap || (word & PTE_PRESENT) === 0) return -EINVAL;
    out.pfn = word & PTE_FRAME_MASK;
    out.writable = (word & PTE_WRITE) !== 0;
    return 0;
  }

  /** True when the page of `hva` was lost to a memory error. @kvm kvm_main.c check_user_page_hwpoison */
  isPoisoned(hva: number): boolean {
    return (this.table.lookup(hva) & PTE_POISON) !== 0;
  }

  /** Sends a signal to the process. */
  sendSignal(signal: HostSignal): void {
    this.signals.push(signal);
  }

  /** Takes the signals that arrived. */
  takeSignals(): HostSignal[] {
    return this.signals.splice(0);
  }

  // ---- software access, page by page; bytes before a page that fails have been copied ----

  /** Frame for an access by the process itself, faulted in; or a negative errno. */
  userPage(hva: number, write: boolean): number {
    return userPage(this, hva, write);
  }

  /** The same with page faults disabled. */
  userPageInatomic(hva: number, write: boolean): number {
    return userPageInatomic(this, hva, write);
  }

  /** Copies from the process; 0 or -EFAULT, -EHWPOISON, -EAGAIN, -ENOMEM. @kvm uaccess.h copy_from_user */
  read(hva: number, buf: Uint8Array, off = 0, len = buf.length - off): number {
    return this.copy(hva, buf, off, len, false, false);
  }

  /** Copies to the process. @kvm uaccess.h copy_to_user */
  write(hva: number, buf: Uint8Array, off = 0, len = buf.length - off): number {
    return this.copy(hva, buf, off, len, true, false);
  }

  /** Copies from pages that are present; -EFAULT at the first that is not. @kvm uaccess.h __copy_from_user_inatomic */
  readInatomic(hva: number, buf: Uint8Array, off = 0, len = buf.length - off): number {
    return this.copy(hva, buf, off, len, false, true);
  }

  writeInatomic(hva: number, buf: Uint8Array, off = 0, len = buf.length - off): number {
    return this.copy(hva, buf, off, len, true, true);
  }

  private copy(hva: number, buf: Uint8Array, off: number, len: number, write: boolean, inatomic: boolean): number {
    if (hva < 0 || hva + len > TASK_SIZE) return -EFAULT;
    const u8 = this.memory.u8;
    let done = 0;
    while (done < len) {
      const at = hva + done;
      const inPage = at % SIZE_4K;
      const count = Math.min(len - done, SIZE_4K - inPage);
      const pfn = inatomic ? userPageInatomic(this, at, write) : userPage(this, at, write);
      if (pfn < 0) return pfn;
      if (this.memory.owners?.isForeign(pfn) === true) {
        // #PF with the RMP bit; what is read is ciphertext.
        if (write) return -EFAULT;
        const page = this.memory.owners.seenFromOutside(pfn);
        buf.set(page.subarray(inPage, inPage + count), off + done);
        done += count;
        continue;
      }
      const address = pfn * PAGE_SIZE + inPage;
      if (write) this.memory.noteWrite(pfn);
      const from = off + done;
      if (count > 32) {
        if (write) u8.set(buf.subarray(from, from + count), address);
        else buf.set(u8.subarray(address, address + count), from);
      } else if (write) {
        for (let i = 0; i < count; i++) u8[address + i] = buf[from + i]!;
      } else {
        for (let i = 0; i < count; i++) buf[from + i] = u8[address + i]!;
      }
      done += count;
    }
    return 0;
  }

  // ---- userfaultfd ----

  /** Watches missing pages of [hva, hva + length). @kvm userfaultfd.c userfaultfd_register */
  userfaultRegister(hva: number, length: number, mode: Exclude<UffdMode, 'off'>): number {
    const bad = checkRange(hva, length);
    if (bad !== 0) return bad;
    if (!this.vmas.covers(hva, hva + length)) return -EINVAL;
    changeVmas(this, hva, hva + length, (vma) => {
      vma.uffd = mode;
    });
    return 0;
  }

  /** Stops watching; whoever sleeps tries again. */
  userfaultUnregister(hva: number, length: number): number {
    const bad = checkRange(hva, length);
    if (bad !== 0) return bad;
    changeVmas(this, hva, hva + length, (vma) => {
      vma.uffd = 'off';
    });
    this.userfaults.wake(hva, hva + length);
    return 0;
  }

  /**
   * Provides the missing page at `hva` with `data` (short data is followed by zeros), or with the zero page when it is null, and
   * wakes its sleepers unless `wake` is false. -EEXIST when there is a page. @kvm mm/userfaultfd.c mfill_atomic
   */
  userfaultCopy(hva: number, data: Uint8Array | null, wake = true): number {
    const vma = this.vmas.find(hva);
    if (hva % SIZE_4K !== 0) return -EINVAL;
    if (vma === null || vma.uffd === 'off' || vma.hugetlbLevel > 1) return -ENOENT;
    if (this.table.lookup(hva) !== 0) return -EEXIST;
    const access = vma.prot === 0 ? 0 : PTE_USER;
    const write = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
    if (data === null && vma.file === null) {
      this.table.setPte(hva, PTE_PRESENT | PTE_SPECIAL | access | this.zero.small);
    } else {
      if (vma.file?.hasFolioAt(vma.offsetOf(hva)) === true) return -EEXIST;
      const pfn = vma.file === null ? this.pages.allocPage() : vma.file.folioAt(vma.offsetOf(hva));
      if (pfn < 0) return -ENOMEM;
      if (data !== null) this.memory.u8.set(data.subarray(0, PAGE_SIZE), pfn * PAGE_SIZE);
      const own = vma.file === null ? PTE_ANON | PTE_EXCLUSIVE : 0;
      if (vma.file === null) vma.hasAnonVma = true;
      else this.pages.get(pfn);
      const writable = vma.file === null || vma.shared ? write : 0;
      this.table.setPte(hva, PTE_PRESENT | PTE_YOUNG | PTE_DIRTY | access | writable | own | pfn);
    }
    if (wake) this.userfaults.wake(hva, hva + SIZE_4K);
    return 0;
  }

  /** Of what is mapped at most `bytes` stay in memory, the rest goes to swap. @kvm memcontrol.c memory_max_write */
  limitMemory(bytes: number): void {
    this.limit = new MemoryLimit(bytes);
  }

  /** Reads from swap take `latency` nanoseconds of `clock`. */
  swapTakesTime(clock: IoClock, latency: number): void {
    this.swap.io = new SwapReads(clock, latency);
  }

  // ---- looking at pages ----

  idleMark(hva: number): void {
    markIdle(this, hva);
  }

  idleRead(hva: number): boolean {
    return readIdle(this, hva);
  }

  /** True when the page table maps a page at `hva` (pagemap, bit 63). */
  residency(hva: number): boolean {
    return (this.table.lookup(hva) & PTE_PRESENT) !== 0;
  }

  /** The state of a page as /proc/pid/pagemap shows it: an entry that says where a page went counts as swapped. */
  pageState(hva: number): { present: boolean; swapped: boolean } {
    const word = this.table.lookup(hva);
    return { present: (word & PTE_PRESENT) !== 0, swapped: (word & (PTE_SWAP | PTE_POISON)) !== 0 };
  }

  /** 4 KiB pages that the page tables map, for statistics. */
  residentPages(): number {
    let count = 0;
    for (const g of this.table.gigabytes.values()) {
      if (g.leaf !== 0) count += SIZE_1G / SIZE_4K;
      for (const leaf of g.pmd) if (leaf !== 0) count += SIZE_2M / SIZE_4K;
      for (const table of g.tables) {
        if (table !== null) for (const word of table) if ((word & PTE_PRESENT) !== 0) count++;
      }
    }
    return count;
  }

  /** Start of the page that `hva` is in. */
  static pageOf(hva: number): number {
    return alignDown(hva, SIZE_4K);
  }
}
