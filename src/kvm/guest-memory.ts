/**
 * KVM's own reads and writes of guest memory, through the host's addresses (@kvm kvm_main.c kvm_read_guest_page). 0 or -EFAULT; a page
 * that fails leaves the pages before it done. Private memory is out of reach: what is read is the shared memory behind the slot.
 */
import { EFAULT } from '../host/errno.ts';
import { markPageDirtyInSlot } from './dirty/mark-dirty.ts';
import { gfnToHva } from './memslots/hva.ts';
import type { Memslot } from './memslots/memslot.ts';
import { gfnToMemslot, vcpuGfnToMemslot } from './memslots/memslots.ts';
import { gpaToGfn } from './mmu/gpa.ts';
import type { VcpuState } from './vcpu-state.ts';
import type { VmState } from './vm-state.ts';

export { markPageDirty, markPageDirtyInSlot } from './dirty/mark-dirty.ts';
export { vcpuGfnToHvaProt } from './memslots/hva.ts';

/** Reads within one page of a slot. HOT */
function readSlotPage(
  vm: VmState,
  slot: Memslot | null,
  gfn: number,
  off: number,
  buf: Uint8Array,
  bufOff: number,
  len: number,
): number {
  const hva = gfnToHva(slot, gfn, false);
  if (hva < 0) return -EFAULT;
  return vm.mm.read(hva + off, buf, bufOff, len) === 0 ? 0 : -EFAULT;
}

/** Writes within one page of a slot and marks it dirty. HOT */
function writeSlotPage(
  vm: VmState,
  vcpu: VcpuState | null,
  slot: Memslot | null,
  gfn: number,
  off: number,
  buf: Uint8Array,
  bufOff: number,
  len: number,
): number {
  const hva = gfnToHva(slot, gfn, true);
  if (hva < 0) return -EFAULT;
  if (vm.mm.write(hva + off, buf, bufOff, len) !== 0) return -EFAULT;
  markPageDirtyInSlot(vm, vcpu, slot, gfn);
  return 0;
}

/** Reads `len` bytes at offset `off` of a page, not beyond its end. @kvm kvm_main.c kvm_read_guest_page */
export function readGuestPage(
  vm: VmState,
  asId: number,
  gfn: number,
  off: number,
  buf: Uint8Array,
  bufOff: number,
  len: number,
): number {
  return readSlotPage(vm, gfnToMemslot(vm, gfn, asId), gfn, off, buf, bufOff, len);
}

/** Reads guest memory as the vCPU sees it, page after page. @kvm kvm_main.c kvm_vcpu_read_guest. HOT */
export function readGuest(vcpu: VcpuState, gpa: number, buf: Uint8Array, off: number, len: number): number {
  let done = 0;
  while (done < len) {
    const gfn = gpaToGfn(gpa + done);
    const inPage = gpa + done - gfn * 4096;
    const count = Math.min(len - done, 4096 - inPage);
    const r = readSlotPage(vcpu.vm, vcpuGfnToMemslot(vcpu, gfn), gfn, inPage, buf, off + done, count);
    if (r < 0) return r;
    done += count;
  }
  return 0;
}

/** Writes guest memory as the vCPU sees it and marks the pages dirty. @kvm kvm_main.c kvm_vcpu_write_guest. HOT */
export function writeGuest(vcpu: VcpuState, gpa: number, buf: Uint8Array, off: number, len: number): number {
  let done = 0;
  while (done < len) {
    const gfn = gpaToGfn(gpa + done);
    const inPage = gpa + done - gfn * 4096;
    const count = Math.min(len - done, 4096 - inPage);
    const r = writeSlotPage(vcpu.vm, vcpu, vcpuGfnToMemslot(vcpu, gfn), gfn, inPage, buf, off + done, count);
    if (r < 0) return r;
    done += count;
  }
  return 0;
}

/** Reads within one page without faulting the host page in. @kvm kvm_main.c kvm_vcpu_read_guest_atomic. HOT */
export function readGuestAtomic(vcpu: VcpuState, gpa: number, buf: Uint8Array, off: number, len: number): number {
  const gfn = gpaToGfn(gpa);
  const hva = gfnToHva(vcpuGfnToMemslot(vcpu, gfn), gfn, false);
  if (hva < 0) return -EFAULT;
  return vcpu.vm.mm.readInatomic(hva + (gpa - gfn * 4096), buf, off, len) === 0 ? 0 : -EFAULT;
}

/**
 * Compare-and-exchange of 1, 2, 4 or 8 bytes within one page at a host address of the process, as the emulator's locked writes do it.
 * Marking the page dirty is the caller's.
 * @returns 0 exchanged, 1 the value was another, -EFAULT the page cannot be written
 * @kvm x86.c emulator_try_cmpxchg_user
 */
export function cmpxchgGuestUser(
  vm: VmState,
  hva: number,
  size: number,
  old: Uint8Array,
  oldOff: number,
  next: Uint8Array,
  nextOff: number,
): number {
  const pfn = vm.mm.userPage(hva, true);
  if (pfn < 0) return -EFAULT;
  const u8 = vm.memory.u8;
  const at = pfn * 4096 + (hva % 4096);
  for (let i = 0; i < size; i++) if (u8[at + i] !== old[oldOff + i]) return 1;
  vm.memory.noteWrite(pfn);
  for (let i = 0; i < size; i++) u8[at + i] = next[nextOff + i]!;
  return 0;
}
