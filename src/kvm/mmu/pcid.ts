/** Process-context identifiers, the low 12 bits of CR3 (@kvm mmu.h kvm_get_pcid). */
import { CR4_PCIDE } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** PCID of a CR3 value: 0 while PCIDs are off. @kvm mmu.h kvm_get_pcid */
export function getPcid(vcpu: VcpuState, cr3: number): number {
  return (vcpu.cr4 & CR4_PCIDE) !== 0 ? cr3 % 4096 : 0;
}

/** @kvm mmu.h kvm_get_active_pcid */
export function getActivePcid(vcpu: VcpuState): number {
  return getPcid(vcpu, vcpu.cr3Lo & 0xfff);
}
