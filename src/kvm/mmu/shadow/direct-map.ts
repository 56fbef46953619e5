/**
 * Installing the entry for a gpa in the shadow MMU's own tables: nested paging without the TDP MMU, and guests without paging
 * (@kvm mmu.c direct_map).
 */
import { EFAULT } from '../../../host/errno.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import type { PageFault } from '../fault.ts';
import { disallowedHugepageAdjust, hugepageAdjust } from '../hugepage-adjust.ts';
import { traceSpteRequested } from '../mmutrace.ts';
import { RET_PF_SPURIOUS } from '../ret-pf.ts';
import { ACC_ALL } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { gfnRoundForLevel } from '../tdp-iter.ts';
import { trackPossibleNxHugePage } from '../tdp-mmu/pages.ts';
import { getChildSp } from './get-page.ts';
import { linkShadowPage } from './link.ts';
import { directPtePrefetch, mmuSetSpte } from './set-spte.ts';
import { ShadowWalk } from './walk.ts';

/** The page is there because a huge page would have been executable. @kvm mmu.c account_nx_huge_page */
export function accountNxHugePage(vm: VmState, sp: ShadowPage, possible: boolean): void {
  sp.nxHugePageDisallowed = true;
  if (possible) trackPossibleNxHugePage(vm, sp);
}

/** RET_PF_* or -EFAULT. mmu_lock is held for write. @kvm mmu.c direct_map */
export function directMap(vcpu: VcpuState, fault: PageFault): number {
  const vm = vcpu.vm;
  hugepageAdjust(vcpu, fault);
  if (vm.trace.enabled) traceSpteRequested(vm, fault);
  const walk = new ShadowWalk(vm);
  if (!walk.start(vcpu.mmu.mmu, fault.addrLo, fault.addrHi)) return -EFAULT;
  let baseGfn = fault.gfn;
  do {
    if (fault.nxHugePageWorkaroundEnabled) disallowedHugepageAdjust(vm, fault, walk.oldLo, walk.oldHi, walk.level);
    baseGfn = gfnRoundForLevel(fault.gfn, walk.level);
    if (walk.level === fault.goalLevel) break;
    const sp = getChildSp(vcpu, walk.sptep, baseGfn, true, ACC_ALL);
    if (sp === null) continue;
    linkShadowPage(vm, walk.sptep, sp);
    if (fault.hugePageDisallowed) accountNxHugePage(vm, sp, fault.reqLevel >= walk.level);
  } while (walk.next());
  if (vm.log.warnOnOnce(walk.level !== fault.goalLevel, 'direct_map', 'the walk missed its goal')) return -EFAULT;
  const ret = mmuSetSpte(vcpu, fault.slot, walk.sptep, ACC_ALL, baseGfn, fault.pfn, fault);
  if (ret !== RET_PF_SPURIOUS) directPtePrefetch(vcpu, walk.sptep);
  return ret;
}
