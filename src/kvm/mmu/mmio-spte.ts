/** MMIO entries and the generation they are good for (@kvm mmu.c mark_mmio_spte, check_mmio_spte). */
import { vcpuMemslotsId } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { traceCheckMmioSpte } from './mmutrace.ts';
import { MMIO_SPTE_GEN_MASK, mmioSpteGeneration } from './spte.ts';

/** The generation that a new MMIO entry of this vCPU carries. HOT */
export function mmioGeneration(vcpu: VcpuState): number {
  return vcpu.vm.slots.generation(vcpuMemslotsId(vcpu)) % (MMIO_SPTE_GEN_MASK + 1);
}

/** Whether the slots are still those for which the entry was made (@kvm mmu.c check_mmio_spte). */
export function checkMmioSpte(vcpu: VcpuState, lo: number, hi: number): boolean {
  const vm = vcpu.vm;
  if (vm.slots.updateInProgress(vcpuMemslotsId(vcpu))) return false;
  const kvmGen = mmioGeneration(vcpu);
  const spteGen = mmioSpteGeneration(lo, hi);
  if (vm.trace.enabled) traceCheckMmioSpte(vm, lo, hi, kvmGen, spteGen);
  return kvmGen === spteGen;
}
