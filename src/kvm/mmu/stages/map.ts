/** The entry is made: page tables down to it where they are missing, as large a page as is allowed. */
import { ENOSPC } from '../../../host/errno.ts';
import { isNoslotPfn } from '../pfn.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE, RET_PF_FIXED, RET_PF_SPURIOUS, RET_PF_WRITE_PROTECTED } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { ROLE_DIRECT } from '../role.ts';
import { directMap } from '../shadow/direct-map.ts';
import { shadowFetch } from '../shadow/fetch.ts';
import { makeMmuPagesAvailable } from '../shadow/recycle.ts';
import { tdpMmuMap } from '../tdp-mmu/map.ts';

/** @kvm tdp_mmu.c kvm_tdp_mmu_map; mmu.c direct_map; paging_tmpl.h FNAME(fetch) */
export const map: FaultStage = {
  name: 'map',
  kvmFunction: 'kvm_tdp_mmu_map',
  underMmuLock: true,
  run(vcpu, fault) {
    if (fault.inTdpMmu) return tdpMmuMap(vcpu, fault);
    const room = vcpu.vm.revision.rules.roomBeforeStale ? RET_PF_CONTINUE : makeMmuPagesAvailable(vcpu.vm);
    if (room !== RET_PF_CONTINUE) return room;
    return (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0 ? directMap(vcpu, fault) : shadowFetch(vcpu, fault);
  },
  explain(_vcpu, fault, verdict) {
    const size = fault.goalLevel === 1 ? '4 KiB' : fault.goalLevel === 2 ? '2 MiB' : '1 GiB';
    if (verdict === RET_PF_FIXED && fault.pfn < 0)
      return 'mapped a frame that is no frame: an error value as if it were one';
    if (verdict === RET_PF_FIXED) return `mapped ${size} of frame 0x${fault.pfn.toString(16)}`;
    if (verdict === RET_PF_SPURIOUS) return 'the entry was there already';
    if (verdict === RET_PF_EMULATE && isNoslotPfn(fault.pfn)) return 'an MMIO entry was made: emulate';
    if (verdict === RET_PF_EMULATE || verdict === RET_PF_WRITE_PROTECTED)
      return 'the page holds page tables that KVM shadows: mapped read-only, and this is a write to it';
    if (verdict === -ENOSPC) return 'the limit of shadow pages leaves no room';
    return 'the entry could not be made now';
  },
};
