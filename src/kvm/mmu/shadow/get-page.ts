/** Shadow pages by role and gfn: the one there is, or a new one (@kvm mmu.c kvm_mmu_get_shadow_page). */
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_MAX_HUGEPAGE_LEVEL } from '../lpage-info.ts';
import { traceGetPage } from '../mmutrace.ts';
import { isObsoleteSp } from '../obsolete.ts';
import {
  ROLE_ACCESS_MASK,
  ROLE_ACCESS_SHIFT,
  ROLE_DIRECT,
  ROLE_HAS_4_BYTE_GPTE,
  ROLE_INVALID,
  ROLE_PASSTHROUGH,
  ROLE_QUADRANT_MASK,
  ROLE_QUADRANT_SHIFT,
  roleLevel,
} from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLargePte, isShadowPresent, sptePfn } from '../spte.ts';
import { allocSp, ENTRIES_PER_PAGE } from '../tdp-mmu/pages.ts';
import { flushRemoteTlbs } from '../tlb-flush.ts';
import { accountShadowed } from './account.ts';
import { syncPage } from './sync.ts';
import { spHasGptes, spteIndexOf, sptepToSp } from './translation.ts';
import { commitZapPage, prepareZapPage } from './zap-page.ts';

/** @param vcpu may be null for a direct page. @kvm mmu.c kvm_mmu_find_shadow_page */
function findPage(vm: VmState, vcpu: VcpuState | null, gfn: number, role: number): ShadowPage | null {
  const invalid: ShadowPage[] = [];
  let collisions = 0;
  let found: ShadowPage | null = null;
  for (let sp = vm.mmu.pageHash.bucket(gfn); sp !== null; sp = sp.hashNext) {
    if (isObsoleteSp(vm, sp)) continue;
    if (sp.gfn !== gfn) {
      collisions++;
      continue;
    }
    if (sp.role !== role) {
      // A new upper table is write-protected, so a lower one in the same place, which the guest may have given up, cannot stay unsync.
      if (roleLevel(role) > 1 && sp.unsync) prepareZapPage(vm, sp, invalid);
      continue;
    }
    if ((role & ROLE_DIRECT) === 0) {
      if (sp.unsync) {
        const ret = syncPage(vcpu!, sp, invalid);
        if (ret < 0) break;
        if (ret > 0) flushRemoteTlbs(vm);
      }
      sp.writeFloodingCount = 0;
    }
    found = sp;
    break;
  }
  if (found === null) vm.stats.mmu_cache_miss++;
  commitZapPage(vm, invalid);
  if (collisions > vm.stats.max_mmu_page_hash_collisions) vm.stats.max_mmu_page_hash_collisions = collisions;
  return found;
}

/** @throws Error when the host has no memory: callers make sure that it has. @kvm mmu.c kvm_mmu_alloc_shadow_page */
function allocPage(vm: VmState, gfn: number, role: number): ShadowPage {
  const sp = allocSp(vm);
  if (sp === null) throw new Error('no memory for a shadow page');
  sp.role = role;
  sp.gfn = gfn;
  sp.ptep = -1;
  sp.tdpMmuPage = false;
  sp.tdpMmuRootCount = 0;
  sp.nxHugePageDisallowed = false;
  sp.possibleNxHugePage = false;
  sp.unsync = false;
  sp.mmuValidGen = vm.mmu.mmuValidGen;
  sp.rootCount = 0;
  sp.parentPtes = 0;
  sp.unsyncChildren = 0;
  sp.unsyncChildBitmap?.fill(0);
  sp.writeFloodingCount = 0;
  const indirect = (role & ROLE_DIRECT) === 0;
  sp.shadowedTranslation =
    indirect && roleLevel(role) <= KVM_MAX_HUGEPAGE_LEVEL ? new Float64Array(ENTRIES_PER_PAGE) : null;
  vm.mmu.activePages.add(sp);
  vm.mmu.nUsedMmuPages++;
  vm.mmu.pageHash.add(sp);
  if (spHasGptes(sp)) accountShadowed(vm, sp);
  return sp;
}

/** @param vcpu may be null for a direct page. @kvm mmu.c __kvm_mmu_get_shadow_page */
export function getShadowPage(vm: VmState, vcpu: VcpuState | null, gfn: number, role: number): ShadowPage {
  const found = findPage(vm, vcpu, gfn, role);
  const sp = found ?? allocPage(vm, gfn, role);
  if (vm.trace.enabled) traceGetPage(vm, sp, found === null);
  return sp;
}

/**
 * Role of the page below the entry. Where the guest's entries have 4 bytes, two pages are needed for each of its tables, and the quadrant
 * says which half. @kvm mmu.c kvm_mmu_child_role
 */
export function childRole(vm: VmState, sptep: number, direct: boolean, access: number): number {
  const parent = sptepToSp(vm, sptep).role;
  let role = (parent - 1) & ~(ROLE_ACCESS_MASK | ROLE_DIRECT | ROLE_PASSTHROUGH | ROLE_INVALID);
  role |= (access << ROLE_ACCESS_SHIFT) | (direct ? ROLE_DIRECT : 0);
  if ((role & ROLE_HAS_4_BYTE_GPTE) === 0) return role;
  return (role & ~ROLE_QUADRANT_MASK) | ((spteIndexOf(sptep) & 1) << ROLE_QUADRANT_SHIFT);
}

/** The page that should hang below the entry; null when it does already. @kvm mmu.c kvm_mmu_get_child_sp */
export function getChildSp(
  vcpu: VcpuState,
  sptep: number,
  gfn: number,
  direct: boolean,
  access: number,
): ShadowPage | null {
  const vm = vcpu.vm;
  const role = childRole(vm, sptep, direct, access);
  const lo = vm.memory.i32[sptep]!;
  if (isShadowPresent(lo) && !isLargePte(lo)) {
    const child = vm.mmu.shadowPage(sptePfn(lo, vm.memory.i32[sptep + 1]!));
    const { childMatchesGfn, childMatchesRole } = vm.revision.rules;
    if ((child.gfn === gfn || !childMatchesGfn) && (child.role === role || !childMatchesRole)) return null;
  }
  return getShadowPage(vm, vcpu, gfn, role);
}
