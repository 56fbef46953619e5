/** Installing the entry that a fault needs, with the page tables above it (@kvm tdp_mmu.c kvm_tdp_mmu_map). */
import { ENOMEM } from '../../../host/errno.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { isAccessAllowed } from '../fast-page-fault.ts';
import type { PageFault } from '../fault.ts';
import { disallowedHugepageAdjust, hugepageAdjust } from '../hugepage-adjust.ts';
import { makeSpte } from '../make-spte.ts';
import { mmioGeneration } from '../mmio-spte.ts';
import { traceMarkMmioSpte, traceSetSpte, traceSpteRequested } from '../mmutrace.ts';
import {
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
  RET_PF_WRITE_PROTECTED,
} from '../ret-pf.ts';
import { ACC_ALL, ROLE_IS_MIRROR } from '../role.ts';
import { isFrozenSpte, isLargePte, isLastSpte, isMmioSpte, isShadowPresent, makeMmioSpte, sptePfn } from '../spte.ts';
import type { TdpIter } from '../tdp-iter.ts';
import { flushRemoteTlbsGfn } from '../tlb-flush.ts';
import { setSpteAtomic } from './changed-spte.ts';
import { linkSp } from './link.ts';
import { allocExternalSpt, allocSp, freeSp, initChildSp, trackPossibleNxHugePage } from './pages.ts';
import { splitHugePage } from './split.ts';

/** The entry the iterator is on maps the page for this access already. */
function allowsAccess(vm: VmState, fault: PageFault, iter: TdpIter): boolean {
  const { oldLo, oldHi } = iter;
  if (!isShadowPresent(oldLo) || !isLastSpte(oldLo, iter.level)) return false;
  if (!isAccessAllowed(vm.mmu.masks, fault, oldLo, oldHi)) return false;
  vm.log.warnOnOnce(fault.pfn !== sptePfn(oldLo, oldHi), 'tdp_mmu_map_handle_target_level', 'another frame is mapped');
  return true;
}

/** @kvm tdp_mmu.c tdp_mmu_map_handle_target_level. HOT */
function mapTargetLevel(vcpu: VcpuState, fault: PageFault, iter: TdpIter): number {
  const vm = vcpu.vm;
  const mmu = vm.mmu;
  if (vm.revision.rules.keepsAllowingEntries === true && allowsAccess(vm, fault, iter)) return RET_PF_SPURIOUS;
  const spte = mmu.newSpte;
  let wrprot = false;
  if (fault.slot === null) {
    makeMmioSpte(mmu.masks, spte, mmioGeneration(vcpu), iter.gfn, ACC_ALL);
  } else {
    const role = mmu.shadowPage(iter.sptep >>> 10).role;
    wrprot = makeSpte(
      vcpu,
      role,
      fault.slot,
      ACC_ALL,
      iter.gfn,
      // KVM_PFN_NOSLOT is bit 63 alone: shifted to an address, nothing is left of it.
      fault.pfn < 0 ? 0 : fault.pfn,
      iter.oldLo,
      fault.prefetch,
      true,
      fault.mapWritable,
    );
  }
  const lo = spte.lo;
  const hi = spte.hi;
  let ret = RET_PF_FIXED;
  if (lo === iter.oldLo && hi === iter.oldHi) ret = RET_PF_SPURIOUS;
  else if (setSpteAtomic(vm, iter, lo, hi) !== 0) return RET_PF_RETRY;
  else if (isShadowPresent(iter.oldLo) && !isLastSpte(iter.oldLo, iter.level)) {
    flushRemoteTlbsGfn(vm, iter.gfn, iter.level);
  }
  if (wrprot && fault.write) ret = RET_PF_WRITE_PROTECTED;
  if (mmu.enableMmioCaching && isMmioSpte(mmu.masks, lo, hi)) {
    vcpu.stats.pf_mmio_spte_created++;
    if (vm.trace.enabled) traceMarkMmioSpte(vm, iter.gfn, lo, hi);
    return RET_PF_EMULATE;
  }
  if (vm.trace.enabled) traceSetSpte(vm, iter.level, iter.gfn, lo, hi);
  return ret;
}

/** Puts the page table that the walk lacks below the entry it stands on. RET_PF_CONTINUE when it hangs there. HOT */
function mapTable(vcpu: VcpuState, fault: PageFault, iter: TdpIter): number {
  const vm = vcpu.vm;
  const sp = allocSp(vm);
  if (sp === null) return -ENOMEM;
  initChildSp(vm, sp, iter);
  if ((sp.role & ROLE_IS_MIRROR) !== 0 && !allocExternalSpt(vm, sp)) {
    freeSp(vm, sp);
    return -ENOMEM;
  }
  sp.nxHugePageDisallowed = fault.hugePageDisallowed;
  const level = iter.level;
  const r = isShadowPresent(iter.oldLo) ? splitHugePage(vm, iter, sp, true) : linkSp(vm, iter, sp, true);
  if (r !== 0) {
    freeSp(vm, sp);
    return RET_PF_RETRY;
  }
  if (fault.hugePageDisallowed && fault.reqLevel >= level) trackPossibleNxHugePage(vm, sp);
  // The walk goes on from the table's entry, and reads what is below only then.
  iter.refresh();
  return RET_PF_CONTINUE;
}

/** Decides the size of the mapping and begins the walk at the vCPU's root. HOT */
export function mapBegin(vcpu: VcpuState, fault: PageFault): void {
  const vm = vcpu.vm;
  hugepageAdjust(vcpu, fault);
  if (vm.trace.enabled) traceSpteRequested(vm, fault);
  const { mmu } = vcpu.mmu;
  // @kvm tdp_mmu.h tdp_mmu_get_root_for_fault
  const root = fault.isPrivate && vm.mmu.external !== null ? mmu.mirrorRoot : mmu.root.pfn;
  vm.mmu.faultIter.start(vm.mmu.shadowPage(root), 1, fault.gfn);
}

/** Walks to the next entry that has to change: RET_PF_CONTINUE on it, RET_PF_RETRY when somebody else works there. HOT */
export function mapWalk(vcpu: VcpuState, fault: PageFault): number {
  const vm = vcpu.vm;
  const iter = vm.mmu.faultIter;
  const end = fault.gfn + 1;
  for (; iter.valid && iter.gfn < end; iter.next()) {
    if (fault.nxHugePageWorkaroundEnabled) disallowedHugepageAdjust(vm, fault, iter.oldLo, iter.oldHi, iter.level);
    if (isFrozenSpte(iter.oldLo, iter.oldHi)) return RET_PF_RETRY;
    if (iter.level === fault.goalLevel || !isShadowPresent(iter.oldLo) || isLargePte(iter.oldLo))
      return RET_PF_CONTINUE;
  }
  vm.log.warnOnOnce(iter.level === fault.goalLevel, 'kvm_tdp_mmu_map', 'the walk ended at its goal');
  return RET_PF_RETRY;
}

/**
 * Replaces the entry that the walk found, if it is still the same: by the mapping, or by a page table, after which the walk goes on
 * (RET_PF_CONTINUE). HOT
 */
export function mapInstall(vcpu: VcpuState, fault: PageFault): number {
  const iter = vcpu.vm.mmu.faultIter;
  return iter.level === fault.goalLevel ? mapTargetLevel(vcpu, fault, iter) : mapTable(vcpu, fault, iter);
}

/**
 * Maps the fault's gfn in the vCPU's root. mmu_lock is held for read, so others may do the same at the same time: between reading an entry
 * (mapWalk) and replacing it (mapInstall) it may change.
 * @returns RET_PF_FIXED, SPURIOUS, RETRY, EMULATE (an MMIO entry was made), or -ENOMEM.
 * HOT
 * @kvm tdp_mmu.c kvm_tdp_mmu_map
 */
export function tdpMmuMap(vcpu: VcpuState, fault: PageFault): number {
  mapBegin(vcpu, fault);
  for (;;) {
    let ret = mapWalk(vcpu, fault);
    if (ret === RET_PF_CONTINUE) ret = mapInstall(vcpu, fault);
    if (ret !== RET_PF_CONTINUE) return ret;
  }
}
