/** Guest frame to host virtual address through a slot (@kvm kvm_main.c __gfn_to_hva_many). */
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_MEM_READONLY, KVM_MEMSLOT_INVALID, type Memslot } from './memslot.ts';
import { vcpuGfnToMemslot } from './memslots.ts';

/** No slot, or one on its way out. Any negative hva is an error. */
export const KVM_HVA_ERR_BAD = -1;
/** A write through a read-only slot. */
export const KVM_HVA_ERR_RO_BAD = -2;

/** Why an access through the slot has no host address, KVM_HVA_ERR_*; 0 when it has one. HOT */
export function hvaError(slot: Memslot | null, write: boolean): number {
  if (slot === null || (slot.flags & KVM_MEMSLOT_INVALID) !== 0) return KVM_HVA_ERR_BAD;
  return write && (slot.flags & KVM_MEM_READONLY) !== 0 ? KVM_HVA_ERR_RO_BAD : 0;
}

/** Address of `gfn`'s page, whatever the slot is for. @kvm kvm_main.c __gfn_to_hva_memslot. HOT */
export function slotHva(slot: Memslot, gfn: number): number {
  return slot.userspaceAddr + (gfn - slot.baseGfn) * 4096;
}

/** Address of `gfn`'s page, or a KVM_HVA_ERR_* value. @kvm kvm_main.c __gfn_to_hva_many */
export function gfnToHva(slot: Memslot | null, gfn: number, write: boolean): number {
  const error = hvaError(slot, write);
  return error !== 0 ? error : slotHva(slot!, gfn);
}

/** For a write: a read-only slot is an error. @kvm kvm_main.c gfn_to_hva_memslot */
export function gfnToHvaMemslot(slot: Memslot | null, gfn: number): number {
  return gfnToHva(slot, gfn, true);
}

/** For a read. @kvm kvm_main.c gfn_to_hva_memslot_prot */
export function gfnToHvaMemslotProt(slot: Memslot | null, gfn: number): number {
  return gfnToHva(slot, gfn, false);
}

/** The host address of a gfn as the vCPU sees it, and whether its slot can be written. @kvm kvm_main.c kvm_vcpu_gfn_to_hva_prot */
export function vcpuGfnToHvaProt(vcpu: VcpuState, gfn: number): { hva: number; writable: boolean } {
  const slot = vcpuGfnToMemslot(vcpu, gfn);
  const hva = gfnToHva(slot, gfn, false);
  return { hva, writable: hva >= 0 && slot !== null && (slot.flags & KVM_MEM_READONLY) === 0 };
}
