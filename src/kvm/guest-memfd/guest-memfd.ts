/**
 * guest_memfd (@kvm guest_memfd.c): memory for guests only, which no process can map, read or write. A file belongs to one VM; ranges
 * of it are bound to slots, and what happens to a range takes the slots' private mappings away first.
 */
import { EFAULT, EFBIG, EHWPOISON, EINVAL, EIO, ENODEV, ENOMEM, EOPNOTSUPP, ESPIPE } from '../../host/errno.ts';
import { runActor } from '../actors/actor.ts';
import { GmemInvalidation, gmemInvalidateStages, punchHoleStages } from '../actors/punch-hole.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { Memslot } from '../memslots/memslot.ts';
import { type GfnRange, KVM_FILTER_PRIVATE } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import type { GmemPfn } from './gmem-pfn.ts';

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;

/** Largest file offset. @kvm fs.h MAX_LFS_FILESIZE */
const MAX_FILE_SIZE = 2n ** 63n - 1n;

/** A range of pages [start, end) of the file, bound to a slot. */
interface Binding {
  readonly start: number;
  readonly end: number;
  readonly slot: Memslot;
}

export class GuestMemfdFile {
  readonly vm: VmState;
  /** Bytes; never changes. */
  readonly size: number;
  /** The last descriptor is closed. */
  closed = false;
  /** Frame by page offset. */
  private readonly pages = new Map<number, number>();
  /** Pages that the vendor has made the guest's own. */
  private readonly prepared = new Set<number>();
  private readonly bindings: Binding[] = [];

  constructor(vm: VmState, size: number) {
    this.vm = vm;
    this.size = size;
  }

  /** Bindings that have pages in [start, end), in order of the file. */
  private bound(start: number, end: number): Binding[] {
    return this.bindings.filter((b) => b.start < end && b.end > start).sort((a, b) => a.start - b.start);
  }

  /**
   * Binds the slot's pages to the file from byte `offset` on.
   * @returns 0, or -EINVAL: other VM, unaligned, beyond the end, or overlapping another binding.
   * @kvm guest_memfd.c kvm_gmem_bind
   */
  bind(vm: VmState, slot: Memslot, offset: bigint): number {
    if (this.vm !== vm) return -EINVAL;
    const bytes = BigInt(slot.npages) * 4096n;
    if ((offset & 0xfffn) !== 0n || offset + bytes > BigInt(this.size)) return -EINVAL;
    const start = Number(offset / 4096n);
    const end = start + slot.npages;
    if (this.bound(start, end).length > 0) return -EINVAL;
    slot.gmem = { file: this, pgoff: start };
    this.bindings.push({ start, end, slot });
    return 0;
  }

  /** @kvm guest_memfd.c __kvm_gmem_unbind */
  unbind(slot: Memslot): void {
    const i = this.bindings.findIndex((b) => b.slot === slot);
    if (i >= 0) this.bindings.splice(i, 1);
    if (slot.gmem !== null) slot.gmem.file = null;
  }

  /** Whether page `index` is bound to this slot. HOT */
  isBoundTo(index: number, slot: Memslot): boolean {
    const bindings = this.bindings;
    for (let i = 0; i < bindings.length; i++) {
      const b = bindings[i]!;
      if (index >= b.start && index < b.end) return b.slot === slot;
    }
    return false;
  }

  /** The page at `index`, allocated when there is none: frame or -ENOMEM. @kvm guest_memfd.c kvm_gmem_get_folio. HOT */
  getPage(index: number): number {
    const pfn = this.pages.get(index);
    if (pfn !== undefined) return pfn;
    const fresh = this.vm.mm.pages.allocPage();
    if (fresh < 0) return -ENOMEM;
    this.pages.set(index, fresh);
    return fresh;
  }

  /** The page at `index` has been made the guest's own. */
  isPrepared(index: number): boolean {
    return this.prepared.has(index);
  }

  markPrepared(index: number): void {
    this.prepared.add(index);
  }

  /** Makes the page at `index`, frame `pfn`, the guest's own for `gfn`, once; 0 or a negative errno. @kvm guest_memfd.c kvm_gmem_prepare_folio */
  prepare(index: number, pfn: number, gfn: number): number {
    const { confidential } = this.vm.vendor;
    if (confidential === undefined || this.prepared.has(index)) return 0;
    const r = confidential.gmemPrepare(this.vm, pfn, gfn, 0);
    if (r !== 0) {
      const page = `page ${index.toString(16)}, gfn ${gfn.toString(16)}, frame ${pfn.toString(16)}: error ${r}`;
      this.vm.log.prWarnRatelimited('__kvm_gmem_prepare_folio', `gmem: cannot prepare ${page}`);
      return r;
    }
    this.prepared.add(index);
    return 0;
  }

  /** The frame at `index`, or -1. */
  peekPage(index: number): number {
    return this.pages.get(index) ?? -1;
  }

  /** Binds a slot of this file again, or unbinds it, as it was before. */
  setBound(slot: Memslot, bound: boolean): void {
    if (!bound) {
      this.unbind(slot);
    } else if (slot.gmem!.file === null) {
      slot.gmem!.file = this;
      this.bindings.push({ start: slot.gmem!.pgoff, end: slot.gmem!.pgoff + slot.npages, slot });
    }
  }

  /** Puts the file's page `index` back to what `peekPage` said; reference counts are the allocator's business. */
  placePage(index: number, pfn: number): void {
    if (pfn >= 0) this.pages.set(index, pfn);
    else this.pages.delete(index);
  }

  /** The private frames of slots that pages [start, end) are behind, in order of the file. */
  boundRanges(start: number, end: number): GfnRange[] {
    return this.bound(start, end).map((b) => ({
      slot: b.slot,
      start: b.slot.baseGfn + Math.max(b.start, start) - b.start,
      end: b.slot.baseGfn + Math.min(b.end, end) - b.start,
      attributes: 0,
      attrFilter: KVM_FILTER_PRIVATE,
      mayBlock: true,
    }));
  }

  /**
   * fallocate(2): with PUNCH_HOLE frees whole pages, else allocates them.
   * @returns 0, -EINVAL (negative, empty, unaligned, or allocation beyond the end), -EOPNOTSUPP (mode), -EFBIG, -ENOMEM
   * @kvm guest_memfd.c kvm_gmem_fallocate
   */
  fallocate(mode: number, offset: bigint, length: bigint): number {
    if (offset < 0n || length <= 0n) return -EINVAL;
    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) !== 0) return -EOPNOTSUPP;
    if (offset + length > MAX_FILE_SIZE) return -EFBIG;
    if ((mode & FALLOC_FL_KEEP_SIZE) === 0) return -EOPNOTSUPP;
    if (((offset | length) & 0xfffn) !== 0n) return -EINVAL;
    if ((mode & FALLOC_FL_PUNCH_HOLE) !== 0) {
      this.punchHole(Number(offset / 4096n), Number((offset + length) / 4096n));
      return 0;
    }
    if (offset + length > BigInt(this.size)) return -EINVAL;
    return this.allocate(Number(offset / 4096n), Number((offset + length) / 4096n));
  }

  /** @kvm guest_memfd.c kvm_gmem_punch_hole */
  private punchHole(start: number, end: number): void {
    runActor(punchHoleStages, new GmemInvalidation(this, start, end));
  }

  /** @kvm guest_memfd.c kvm_gmem_allocate */
  private allocate(start: number, end: number): number {
    for (let index = start; index < end; index++) {
      const pfn = this.getPage(index);
      if (pfn < 0) return pfn;
    }
    return 0;
  }

  /** Frees the memory of pages [start, end), which nothing maps any more. */
  dropPages(start: number, end: number): void {
    for (const [index, pfn] of this.pages) {
      if (index < start || index >= end) continue;
      this.pages.delete(index);
      if (this.prepared.delete(index)) this.vm.vendor.confidential?.gmemInvalidate(this.vm, pfn, pfn + 1);
      this.vm.mm.pages.put(pfn, 1);
    }
  }

  /** ftruncate(2) is refused, even to the same size. @kvm guest_memfd.c kvm_gmem_setattr */
  truncate(): number {
    return -EINVAL;
  }

  /** mmap(2) is not implemented. */
  mmap(): number {
    return -ENODEV;
  }

  /** pread(2): the file has no position. */
  pread(): number {
    return -ESPIPE;
  }

  /** fstat(2): its pages are not counted. @kvm guest_memfd.c kvm_gmem_getattr */
  stat(): { size: number; blocks: number } {
    return { size: this.size, blocks: 0 };
  }

  /** A memory error hit page `index`: mappings go, the page stays and fails from now on. @kvm guest_memfd.c kvm_gmem_error_folio */
  errorPage(index: number): void {
    runActor(gmemInvalidateStages, new GmemInvalidation(this, index, index + 1));
  }

  /** The last descriptor is closed: slots lose their memory, it is freed. @kvm guest_memfd.c kvm_gmem_release */
  release(): void {
    if (this.closed) return;
    this.closed = true;
    const locks = this.vm.locks;
    locks.acquire(LOCK_SLOTS);
    for (const b of this.bindings) if (b.slot.gmem !== null) b.slot.gmem.file = null;
    runActor(gmemInvalidateStages, new GmemInvalidation(this, 0, Number.POSITIVE_INFINITY));
    this.bindings.length = 0;
    locks.release(LOCK_SLOTS);
    this.dropPages(0, Number.POSITIVE_INFINITY);
  }
}

/**
 * KVM_CREATE_GUEST_MEMFD.
 * @returns the file, or -EINVAL: flags, or a size that is not positive or not whole pages.
 * @kvm guest_memfd.c kvm_gmem_create
 */
export function gmemCreate(vm: VmState, size: bigint, flags: bigint): GuestMemfdFile | number {
  if (flags !== 0n) return -EINVAL;
  if (BigInt.asIntN(64, size) <= 0n || (size & 0xfffn) !== 0n) return -EINVAL;
  return new GuestMemfdFile(vm, Number(size));
}

/** Undoes a binding when its slot goes. @kvm guest_memfd.c kvm_gmem_unbind */
export function gmemUnbind(slot: Memslot): void {
  slot.gmem?.file?.unbind(slot);
}

/**
 * The frame that backs a private gfn, allocated and zeroed on first use.
 * @returns 0, -EFAULT (no file any more), -EIO (not bound), -ENOMEM, -EHWPOISON, or what the vendor says
 * @kvm guest_memfd.c kvm_gmem_get_pfn. HOT
 */
export function gmemGetPfn(vm: VmState, slot: Memslot, gfn: number, out: GmemPfn): number {
  const gmem = slot.gmem;
  if (gmem === null || gmem.file === null || gmem.file.closed) return -EFAULT;
  const index = gfn - slot.baseGfn + gmem.pgoff;
  if (!gmem.file.isBoundTo(index, slot)) return -EIO;
  const pfn = gmem.file.getPage(index);
  if (pfn < 0) return pfn;
  if (vm.mm.pages.isPoisoned(pfn)) return -EHWPOISON;
  out.pfn = pfn;
  out.maxOrder = 0;
  return gmem.file.prepare(index, pfn, gfn);
}
