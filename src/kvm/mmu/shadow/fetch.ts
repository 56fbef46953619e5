/** Installing the entry for a linear address, with a shadow of every table that the guest's walk went through (@kvm paging_tmpl.h FNAME(fetch)). */
import { EFAULT } from '../../../host/errno.ts';
import { makeRequest, REQ_MMU_FREE_OBSOLETE_ROOTS, type VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';
import { gfnToGpa } from '../gpa.ts';
import type { GuestWalker } from '../guest-walker.ts';
import { disallowedHugepageAdjust, hugepageAdjust } from '../hugepage-adjust.ts';
import type { Mmu } from '../mmu-context.ts';
import { traceSpteRequested } from '../mmutrace.ts';
import { isDummyRoot } from '../obsolete.ts';
import { RET_PF_RETRY, RET_PF_SPURIOUS } from '../ret-pf.ts';
import { ACC_EXEC_MASK, ACC_USER_MASK, ACC_WRITE_MASK, ROLE_DIRECT, roleAccess, roleLevel } from '../role.ts';
import { isCr0Wp, isCr4Pae, isCr4Smep } from '../role-bits.ts';
import { isShadowPresent } from '../spte.ts';
import { gfnRoundForLevel } from '../tdp-iter.ts';
import { accountNxHugePage } from './direct-map.ts';
import { getChildSp } from './get-page.ts';
import { gpte, gpteAccess, gpteCannotBePrefetched, gpteToGfn, protectCleanGpte, readGpte } from './gpte.ts';
import { linkShadowPage, validateDirectSpte } from './link.ts';
import { dropSpte } from './rmap.ts';
import { directPtePrefetchAround, mmuSetSpte, PTE_PREFETCH_NUM, pfnToPrefetch, slotToPrefetch } from './set-spte.ts';
import { syncChildren } from './sync.ts';
import { sptepToSp } from './translation.ts';
import { ShadowWalk } from './walk.ts';

/** The guest's entry is not what the walk saw. @kvm paging_tmpl.h gpte_changed */
function gpteChanged(vcpu: VcpuState, walker: GuestWalker, level: number): boolean {
  const i = level - 1;
  if (!readGpte(vcpu, gfnToGpa(walker.tableGfn[i]!) + walker.offset[i]!)) return true;
  return gpte.lo !== walker.ptes[2 * i] || gpte.hi !== walker.ptes[2 * i + 1];
}

/** Maps one entry of the guest ahead of its use. False when there is nothing to map. @kvm paging_tmpl.h prefetch_gpte */
function prefetchGpte(vcpu: VcpuState, sptep: number, gpa: number): boolean {
  const vm = vcpu.vm;
  if (!readGpte(vcpu, gpa)) return false;
  const { lo, hi } = gpte;
  if (gpteCannotBePrefetched(vcpu, lo, hi)) {
    dropSpte(vm, sptep);
    return false;
  }
  const gfn = gpteToGfn(isCr4Pae(vcpu.mmu.mmu), lo, hi);
  const { mmu } = vcpu.mmu;
  const access = protectCleanGpte(mmu, roleAccess(sptepToSp(vm, sptep).role) & gpteAccess(mmu, lo, hi), lo);
  const slot = slotToPrefetch(vcpu, gfn, access);
  if (slot === null) return false;
  const pfn = pfnToPrefetch(vcpu, slot, gfn);
  if (pfn < 0) return false;
  mmuSetSpte(vcpu, slot, sptep, access, gfn, pfn, null);
  return true;
}

/** Fills the empty entries among the eight around `sptep`. @kvm paging_tmpl.h pte_prefetch */
function ptePrefetch(vcpu: VcpuState, walker: GuestWalker, sptep: number): void {
  const vm = vcpu.vm;
  const { role } = sptepToSp(vm, sptep);
  if (roleLevel(role) > 1 || vm.mmuInvalidateInProgress !== 0) return;
  if ((role & ROLE_DIRECT) !== 0) {
    directPtePrefetchAround(vcpu, sptep);
    return;
  }
  const size = isCr4Pae(vcpu.mmu.mmu) ? 8 : 4;
  const group = walker.offset[0]! - (walker.offset[0]! % (PTE_PREFETCH_NUM * size));
  const gpa = gfnToGpa(walker.tableGfn[0]!) + group;
  const first = sptep & ~(2 * PTE_PREFETCH_NUM - 1);
  for (let i = 0; i < PTE_PREFETCH_NUM; i++) {
    const at = first + 2 * i;
    if (at === sptep || isShadowPresent(vm.memory.i32[at]!)) continue;
    if (!prefetchGpte(vcpu, at, gpa + i * size)) return;
  }
}

/**
 * Shadows the guest's tables from the root down to the one that holds the leaf, each checked again once it is protected. False when
 * the guest was faster. @kvm paging_tmpl.h FNAME(fetch)
 */
function shadowTables(vcpu: VcpuState, fault: PageFault, walker: GuestWalker, walk: ShadowWalk): boolean {
  const vm = vcpu.vm;
  do {
    sptepToSp(vm, walk.sptep).writeFloodingCount = 0;
    if (walk.level === walker.level) return true;
    const i = walk.level - 2;
    const tableGfn = walker.tableGfn[i]!;
    const sp = getChildSp(vcpu, walk.sptep, tableGfn, false, walker.ptAccess[i]!);
    if (sp !== null && sp.unsyncChildren !== 0) syncChildren(vcpu, sp);
    if (gpteChanged(vcpu, walker, walk.level - 1)) return false;
    if (sp !== null) linkShadowPage(vm, walk.sptep, sp);
    if (fault.write && tableGfn === fault.gfn) fault.writeFaultToShadowPgtable = true;
  } while (walk.next());
  return false;
}

/**
 * Rights of the entry. CR0.WP may be clear in the guest and is set in the shadow: a write by the guest's kernel to a read-only page of its
 * users gets an entry that the kernel may write and nobody else reads, nor the kernel execute where SMEP would not let it.
 * @kvm paging_tmpl.h FNAME(page_fault)
 */
function entryAccess(fault: PageFault, mmu: Mmu): number {
  const access = fault.ptAccess;
  // An MMIO entry remembers what the guest's tables say.
  if (!fault.write || (access & ACC_WRITE_MASK) !== 0 || isCr0Wp(mmu) || fault.user || fault.slot === null)
    return access;
  return (access | ACC_WRITE_MASK) & ~(isCr4Smep(mmu) ? ACC_USER_MASK | ACC_EXEC_MASK : ACC_USER_MASK);
}

/** RET_PF_* or -EFAULT. mmu_lock is held for write. @kvm paging_tmpl.h FNAME(fetch) */
export function shadowFetch(vcpu: VcpuState, fault: PageFault): number {
  const vm = vcpu.vm;
  const mmu = vcpu.mmu.mmu;
  const access = entryAccess(fault, mmu);
  const walker = vcpu.mmu.faultWalker;
  if (gpteChanged(vcpu, walker, walker.maxLevel)) return RET_PF_RETRY;
  if (isDummyRoot(vm, mmu.root.pfn)) {
    // The guest's root has become visible since the dummy took its place.
    makeRequest(vcpu, REQ_MMU_FREE_OBSOLETE_ROOTS);
    return RET_PF_RETRY;
  }
  const walk = new ShadowWalk(vm);
  if (!walk.start(mmu, fault.addrLo, fault.addrHi)) return -EFAULT;
  if (!shadowTables(vcpu, fault, walker, walk)) return RET_PF_RETRY;
  hugepageAdjust(vcpu, fault);
  if (vm.trace.enabled) traceSpteRequested(vm, fault);
  let baseGfn = fault.gfn;
  do {
    walk.refresh();
    if (fault.nxHugePageWorkaroundEnabled) disallowedHugepageAdjust(vm, fault, walk.oldLo, walk.oldHi, walk.level);
    baseGfn = gfnRoundForLevel(fault.gfn, walk.level);
    if (walk.level === fault.goalLevel) break;
    validateDirectSpte(vm, walk.sptep, access);
    const sp = getChildSp(vcpu, walk.sptep, baseGfn, true, access);
    if (sp === null) continue;
    linkShadowPage(vm, walk.sptep, sp);
    if (fault.hugePageDisallowed) accountNxHugePage(vm, sp, fault.reqLevel >= walk.level);
  } while (walk.next());
  if (vm.log.warnOnOnce(walk.level !== fault.goalLevel, 'fetch', 'the walk missed its goal')) return -EFAULT;
  const ret = mmuSetSpte(vcpu, fault.slot, walk.sptep, access, baseGfn, fault.pfn, fault);
  if (ret !== RET_PF_SPURIOUS) ptePrefetch(vcpu, walker, walk.sptep);
  return ret;
}
