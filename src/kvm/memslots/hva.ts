/** Guest frame to host virtual address through a slot (@kvm kvm_main.c __gfn_to_hva_many). */
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_MEM_READONLY, KVM_MEMSLOT_INVALID, type Memslot } from './memslot.ts';
import { vcpuGfnToMemslot } from './memslots.ts';

/** No slot, or one on its way out. Any negative hva is an error. */
export const KVM_HVA_ERR_BAD = -1;
/** A write through a read-only slot. */
export const KVM_HVA_ERR_RO_BAD = -2;

/** Address of `gfn`'s page, or a KVM_HVA_ERR_* value. @kvm __gfn_to_hva_many. HOT */
export function gfnToHva(slot: Memslot | null, gfn: number, write: boolean): number {
  if (slot === null || (slot.flags & KVM_MEMSLOT_INVALID) !== 0) return KVM_HVA_ERR_BAD;
  if (write && (slot.flags & KVM_MEM_READONLY) !== 0) return KVM_HVA_ERR_RO_BAD;
  return slot.userspaceAddr + (gfn - slot.baseGfn) * 4096;
}

/** For a write: a read-only slot is an error. @kvm gfn_to_hva_memslot */
export function gfnToHvaMemslot(slot: Memslot | null, gfn: number): number {
  return gfnToHva(slot, gfn, true);
}

/** For a read. @kvm gfn_to_hva_memslot_prot */
export function gfnToHvaMemslotProt(slot: Memslot | null, gfn: number): number {
  return gfnToHva(slot, gfn, false);
}

/** The host address of a gfn as the vCPU sees it, and whether its slot can be written. @kvm kvm_vcpu_gfn_to_hva_prot */
export function vcpuGfnToHvaProt(vcpu: VcpuState, gfn: number): { hva: number; writable: boolean } {
  const slot = vcpuGfnToMemslot(vcpu, gfn);
  const hva = gfnToHva(slot, gfn, false);
  return { hva, writable: hva >= 0 && slot !== null && (slot.flags & KVM_MEM_READONLY) === 0 };
}
