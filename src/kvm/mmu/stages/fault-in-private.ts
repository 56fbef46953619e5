/** A private page comes from the slot's guest_memfd. */
import { PG_LEVEL_1G, PG_LEVEL_2M, PG_LEVEL_4K } from '../../../arch/paging.ts';
import { EFAULT } from '../../../host/errno.ts';
import { gmemGetPfn } from '../../guest-memfd/guest-memfd.ts';
import { kvmSlotCanBePrivate, memslotIsReadonly } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { prepareMmuMemoryFaultExit } from '../memory-fault.ts';
import { isNoslotPfn } from '../pfn.ts';
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_max_level_for_order */
function levelOfOrder(order: number): number {
  return order >= 18 ? PG_LEVEL_1G : order >= 9 ? PG_LEVEL_2M : PG_LEVEL_4K;
}

/** @kvm mmu.c kvm_max_private_mapping_level */
function maxPrivateLevel(vm: VmState, pfn: number, limit: number, order: number): number {
  const level = Math.min(levelOfOrder(order), limit);
  if (level === PG_LEVEL_4K) return level;
  const vendor = vm.vendor.confidential?.privateMaxMappingLevel(vm, pfn) ?? 0;
  return vendor === 0 ? level : Math.min(vendor, level);
}

/** @kvm mmu.c kvm_faultin_pfn_private */
export const faultInPrivate: FaultStage = {
  name: 'fault-in-private',
  kvmFunction: 'kvm_faultin_pfn_private',
  underMmuLock: false,
  run(vcpu, fault) {
    const { slot } = fault;
    if (!fault.isPrivate || isNoslotPfn(fault.pfn)) return RET_PF_CONTINUE;
    if (slot === null || !kvmSlotCanBePrivate(slot)) {
      prepareMmuMemoryFaultExit(vcpu, fault);
      return -EFAULT;
    }
    const out = vcpu.mmu.gmemPfn;
    const r = gmemGetPfn(vcpu.vm, slot, fault.gfn, out);
    if (r !== 0) {
      prepareMmuMemoryFaultExit(vcpu, fault);
      return r;
    }
    fault.pfn = out.pfn;
    fault.mapWritable = !memslotIsReadonly(slot);
    fault.maxLevel = maxPrivateLevel(vcpu.vm, fault.pfn, fault.maxLevel, out.maxOrder);
    return RET_PF_CONTINUE;
  },
  explain(_vcpu, fault, verdict) {
    if (!fault.isPrivate) return 'the access is shared';
    if (isNoslotPfn(fault.pfn)) return 'no slot, no page';
    if (verdict === RET_PF_CONTINUE) return `guest_memfd gave frame 0x${fault.pfn.toString(16)}`;
    if (fault.slot === null) return 'no slot has the gfn, so there is no guest_memfd';
    return kvmSlotCanBePrivate(fault.slot) ? 'guest_memfd has no page for it' : 'the slot has no guest_memfd';
  },
};
