/** A fault where there is no slot, or none that this vCPU may see (@kvm mmu.c kvm_handle_noslot_fault). */
import { EFAULT } from '../../host/errno.ts';
import { KVM_HVA_ERR_BAD } from '../memslots/hva.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { PageFault } from './fault.ts';
import { maxGfn } from './max-gfn.ts';
import { prepareMmuMemoryFaultExit } from './memory-fault.ts';
import { vcpuCacheMmioInfo } from './mmio-cache.ts';
import { KVM_PFN_NOSLOT } from './pfn.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE } from './ret-pf.ts';

/**
 * RET_PF_CONTINUE when an MMIO entry should be made, RET_PF_EMULATE when none can be, -EFAULT with an exit for a private access.
 * @kvm mmu.c kvm_handle_noslot_fault
 */
export function handleNoslotFault(vcpu: VcpuState, fault: PageFault, access: number): number {
  const { rules } = vcpu.vm.revision;
  if (fault.isPrivate && rules.noSlotPrivateExits) {
    prepareMmuMemoryFaultExit(vcpu, fault);
    return -EFAULT;
  }
  const mmu = vcpu.vm.mmu;
  const gvaLo = fault.isTdp ? 0 : fault.addrLo;
  const gvaHi = fault.isTdp ? 0 : fault.addrHi;
  vcpuCacheMmioInfo(vcpu, gvaLo, gvaHi, fault.gfn, access & mmu.masks.mmioAccess);
  fault.slot = null;
  fault.pfn = KVM_PFN_NOSLOT;
  fault.mapWritable = false;
  if (rules.noSlotSetsHva) fault.hva = KVM_HVA_ERR_BAD;
  if (!mmu.enableMmioCaching) return RET_PF_EMULATE;
  return fault.gfn > maxGfn(vcpu.vm) ? RET_PF_EMULATE : RET_PF_CONTINUE;
}
