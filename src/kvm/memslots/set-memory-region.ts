/** KVM_SET_USER_MEMORY_REGION(2) and KVM's own slots (@kvm kvm_main.c __kvm_set_memory_region): checks in the kernel's order. */
import { EBADF, EEXIST, EINVAL } from '../../host/errno.ts';
import { GuestMemfdFile, gmemUnbind } from '../guest-memfd/guest-memfd.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { VmState } from '../vm-state.ts';
import {
  KVM_MEM_GUEST_MEMFD,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_MAX_NR_PAGES,
  KVM_MEM_READONLY,
  KVM_MEM_SLOTS_NUM,
  KVM_USER_MEM_SLOTS,
  Memslot,
  type MemslotChange,
} from './memslot.ts';
import { setMemslot } from './set-memslot.ts';

/** struct kvm_userspace_memory_region2. */
export interface MemoryRegion {
  /** Slot id in the lower 16 bits, address space in the upper. */
  readonly slot: number;
  readonly flags: number;
  readonly guestPhysAddr: bigint;
  /** Bytes; 0 deletes the slot. */
  readonly memorySize: bigint;
  readonly userspaceAddr: bigint;
  readonly guestMemfdOffset: bigint;
  /** What the descriptor stands for: a guest_memfd, a file of another kind, or nothing open. */
  readonly guestMemfd: GuestMemfdFile | 'other-file' | 'not-open';
}

const U64 = 1n << 64n;
const PAGE_MASK = 0xfffn;
/** End of user addresses with four levels of host paging. @kvm page_64_types.h TASK_SIZE_MAX */
const TASK_SIZE_MAX = (1n << 47n) - 4096n;

/** @kvm kvm_main.c check_memory_region_flags */
function checkMemoryRegionFlags(vm: VmState, flags: number): number {
  const private_ = (flags & KVM_MEM_GUEST_MEMFD) !== 0;
  let valid = private_ ? 0 : KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY;
  if (vm.hasPrivateMem) valid |= KVM_MEM_GUEST_MEMFD;
  return (flags & ~valid) !== 0 ? -EINVAL : 0;
}

/** The checks that look at the arguments alone. */
function checkRegion(vm: VmState, region: MemoryRegion): number {
  const { memorySize: size, guestPhysAddr: gpa, userspaceAddr: hva, guestMemfdOffset: offset } = region;
  if ((size & PAGE_MASK) !== 0n || (gpa & PAGE_MASK) !== 0n || (hva & PAGE_MASK) !== 0n) return -EINVAL;
  if (hva + size >= TASK_SIZE_MAX + 1n) return -EINVAL;
  if ((region.flags & KVM_MEM_GUEST_MEMFD) !== 0 && ((offset & PAGE_MASK) !== 0n || offset + size >= U64))
    return -EINVAL;
  if (region.slot >>> 16 >= vm.slots.count || (region.slot & 0xffff) >= KVM_MEM_SLOTS_NUM) return -EINVAL;
  if (gpa + size >= U64) return -EINVAL;
  return size / 4096n > BigInt(KVM_MEM_MAX_NR_PAGES) ? -EINVAL : 0;
}

/** What is to be done with an existing slot, or why not. */
function changeOf(
  old: Memslot,
  region: MemoryRegion,
  baseGfn: number,
  npages: number,
): MemslotChange | 'none' | number {
  if ((region.flags & KVM_MEM_GUEST_MEMFD) !== 0) return -EINVAL;
  if (Number(region.userspaceAddr) !== old.userspaceAddr || npages !== old.npages) return -EINVAL;
  if (((region.flags ^ old.flags) & (KVM_MEM_READONLY | KVM_MEM_GUEST_MEMFD)) !== 0) return -EINVAL;
  if (baseGfn !== old.baseGfn) return 'move';
  return region.flags !== old.flags ? 'flags-only' : 'none';
}

/** @kvm kvm_main.c kvm_check_memslot_overlap */
function overlaps(vm: VmState, asId: number, id: number, start: number, end: number): boolean {
  let found = false;
  vm.slots.forEachInGfnRange(asId, start, end, (slot) => {
    if (slot.id !== id) found = true;
  });
  return found;
}

function bindGmem(vm: VmState, slot: Memslot, region: MemoryRegion): number {
  const file = region.guestMemfd;
  if (file === 'not-open' || (file instanceof GuestMemfdFile && file.closed)) return -EBADF;
  if (file === 'other-file') return -EINVAL;
  return file.bind(vm, slot, region.guestMemfdOffset);
}

/**
 * Creates, deletes, moves or re-flags a slot. Caller holds slots_lock.
 * @returns 0, -EINVAL (flags, alignment, range, slot id, change not allowed, nothing to delete), -EEXIST (overlap), -EBADF
 * @kvm kvm_main.c __kvm_set_memory_region
 */
export function setMemoryRegion(vm: VmState, region: MemoryRegion): number {
  vm.locks.assertHeld(LOCK_SLOTS);
  const bad = checkMemoryRegionFlags(vm, region.flags) || checkRegion(vm, region);
  if (bad !== 0) return bad;
  const asId = region.slot >>> 16;
  const id = region.slot & 0xffff;
  const old = vm.slots.sets[asId]!.idToMemslot(id);
  if (region.memorySize === 0n) return old === null ? -EINVAL : setMemslot(vm, old, null, 'delete');

  const baseGfn = Number(region.guestPhysAddr / 4096n);
  const npages = Number(region.memorySize / 4096n);
  const change = old === null ? 'create' : changeOf(old, region, baseGfn, npages);
  if (change === 'none') return 0;
  if (typeof change === 'number') return change;
  if (change !== 'flags-only' && overlaps(vm, asId, id, baseGfn, baseGfn + npages)) return -EEXIST;

  const next = new Memslot(id, asId, baseGfn, npages, region.flags, Number(region.userspaceAddr));
  if ((region.flags & KVM_MEM_GUEST_MEMFD) !== 0) {
    const r = bindGmem(vm, next, region);
    if (r !== 0) return r;
  }
  const r = setMemslot(vm, old, next, change);
  if (r !== 0) gmemUnbind(next);
  return r;
}

/**
 * The ioctls: ids of KVM's own slots are refused; the first version of the ioctl knows two flags.
 * @returns as `setMemoryRegion`
 * @kvm kvm_main.c kvm_vm_ioctl_set_memory_region
 */
export function setUserMemoryRegion(vm: VmState, region: MemoryRegion, version: 1 | 2): number {
  if (version === 1 && (region.flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) !== 0) return -EINVAL;
  if ((region.slot & 0xffff) >= KVM_USER_MEM_SLOTS) return -EINVAL;
  vm.locks.acquire(LOCK_SLOTS);
  const r = setMemoryRegion(vm, region);
  vm.locks.release(LOCK_SLOTS);
  return r;
}

/**
 * Sets up one of KVM's own slots over new shared anonymous memory of the process, in every address space, or with size 0 removes it.
 * Caller holds slots_lock.
 * @returns the host virtual address of the memory, or -EEXIST, -EINVAL, -ENOMEM
 * @kvm x86.c __x86_set_memory_region
 */
export function x86SetMemoryRegion(vm: VmState, id: number, gpa: number, size: number): number {
  vm.locks.assertHeld(LOCK_SLOTS);
  const slot = vm.slots.sets[0]!.idToMemslot(id);
  let hva: number;
  if (size !== 0) {
    if (slot !== null) return -EEXIST;
    hva = vm.mm.mmap({ size, kind: 'shared', align: 4096 });
    if (hva < 0) return hva;
  } else {
    if (slot === null) return 0;
    hva = slot.userspaceAddr;
  }
  for (let asId = 0; asId < vm.slots.count; asId++) {
    const r = setMemoryRegion(vm, {
      slot: id | (asId << 16),
      flags: 0,
      guestPhysAddr: BigInt(gpa),
      memorySize: BigInt(size),
      userspaceAddr: BigInt(hva),
      guestMemfdOffset: 0n,
      guestMemfd: 'not-open',
    });
    if (r < 0) return r;
  }
  if (size === 0 && slot !== null) vm.mm.munmap(hva, slot.npages * 4096);
  return hva;
}
