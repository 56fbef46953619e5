/** One memory slot (@kvm kvm_host.h struct kvm_memory_slot): a range of guest frames and the host memory behind it. */
import type { GuestMemfdFile } from '../guest-memfd/guest-memfd.ts';
import type { SlotArch } from '../mmu/lpage-info.ts';

/** Flags of KVM_SET_USER_MEMORY_REGION(2). */
export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
export const KVM_MEM_READONLY = 1 << 1;
export const KVM_MEM_GUEST_MEMFD = 1 << 2;
/** Internal: the slot is being deleted or moved; faults on it retry, translations through it fail. */
export const KVM_MEMSLOT_INVALID = 1 << 16;

/** Slot ids: users have the first 32764, KVM itself the last three. @kvm kvm_host.h KVM_MEM_SLOTS_NUM */
export const KVM_MEM_SLOTS_NUM = 0x7fff;
export const KVM_INTERNAL_MEM_SLOTS = 3;
export const KVM_USER_MEM_SLOTS = KVM_MEM_SLOTS_NUM - KVM_INTERNAL_MEM_SLOTS;
export const TSS_PRIVATE_MEMSLOT = KVM_USER_MEM_SLOTS;
export const APIC_ACCESS_PAGE_PRIVATE_MEMSLOT = KVM_USER_MEM_SLOTS + 1;
export const IDENTITY_PAGETABLE_PRIVATE_MEMSLOT = KVM_USER_MEM_SLOTS + 2;
/** @kvm kvm_host.h KVM_MEM_MAX_NR_PAGES: pages of one slot. */
export const KVM_MEM_MAX_NR_PAGES = 0x7fff_ffff;

/** Where a slot's private memory comes from: `file` is null once the last reference to the guest_memfd is gone. */
export interface GmemBinding {
  file: GuestMemfdFile | null;
  /** Page offset in the file of the slot's first page. */
  pgoff: number;
}

export class Memslot {
  /** Set by the MMU when it prepares the slot; a moved slot gets a new one. */
  arch: SlotArch | null = null;
  /** One bit a page, byte 0 bit 0 = first page; rounded up to 8 bytes. Null when the slot has no bitmap. */
  dirtyBitmap: Uint8Array | null = null;
  gmem: GmemBinding | null = null;
  readonly id: number;
  /** Address space: 0 normal, 1 SMM. */
  readonly asId: number;
  readonly baseGfn: number;
  readonly npages: number;
  flags: number;
  /** Host virtual address of the first page, in the process that made the VM. */
  readonly userspaceAddr: number;

  constructor(id: number, asId: number, baseGfn: number, npages: number, flags: number, userspaceAddr: number) {
    this.id = id;
    this.asId = asId;
    this.baseGfn = baseGfn;
    this.npages = npages;
    this.flags = flags;
    this.userspaceAddr = userspaceAddr;
  }
}

/** @kvm kvm_main.c memslot_is_readonly */
export function memslotIsReadonly(slot: Memslot): boolean {
  return (slot.flags & KVM_MEM_READONLY) !== 0;
}

/** @kvm kvm_host.h kvm_slot_can_be_private: has guest_memfd. */
export function kvmSlotCanBePrivate(slot: Memslot | null): boolean {
  return slot !== null && (slot.flags & KVM_MEM_GUEST_MEMFD) !== 0;
}

/** @kvm kvm_host.h kvm_slot_dirty_track_enabled */
export function kvmSlotDirtyTrackEnabled(slot: Memslot): boolean {
  return (slot.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0;
}

/** @kvm kvm_host.h kvm_is_visible_memslot: a user's slot that is not on its way out. */
export function isVisibleMemslot(slot: Memslot | null): boolean {
  return slot !== null && slot.id < KVM_USER_MEM_SLOTS && (slot.flags & KVM_MEMSLOT_INVALID) === 0;
}

/** What an update does to a slot. @kvm kvm_host.h enum kvm_mr_change */
export type MemslotChange = 'create' | 'delete' | 'move' | 'flags-only';
