/** The shadow MMU keeps to its limit of pages: the oldest go where this fault might need more than are left. */
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { makeMmuPagesAvailable } from '../shadow/recycle.ts';

/** @kvm mmu.c make_mmu_pages_available */
export const mmuPages: FaultStage = {
  name: 'mmu-pages',
  kvmFunction: 'make_mmu_pages_available',
  underMmuLock: true,
  run(vcpu, fault) {
    return fault.isTdp && vcpu.vm.mmu.tdpMmuEnabled ? RET_PF_CONTINUE : makeMmuPagesAvailable(vcpu.vm);
  },
  explain(vcpu, fault, verdict) {
    if (fault.isTdp && vcpu.vm.mmu.tdpMmuEnabled) return 'the TDP MMU has no limit';
    return verdict < 0 ? 'every page is in use as a root' : `${vcpu.vm.mmu.nUsedMmuPages} pages are in use`;
  },
};
