/** Bringing shadow pages in line with the tables they shadow (@kvm mmu.c kvm_sync_page, mmu_sync_children; paging_tmpl.h sync_spte). */
import { vcpuGfnToMemslot } from '../../memslots/memslots.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { gfnToGpa } from '../gpa.ts';
import { makeSpte } from '../make-spte.ts';
import { mmioGeneration } from '../mmio-spte.ts';
import { traceMarkMmioSpte } from '../mmutrace.ts';
import {
  ROLE_ACCESS_MASK,
  ROLE_DIRECT,
  ROLE_LEVEL_MASK,
  ROLE_PASSTHROUGH,
  ROLE_QUADRANT_MASK,
  ROLE_QUADRANT_SHIFT,
  roleAccess,
} from '../role.ts';
import { isCr4Pae } from '../role-bits.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isMmioSpte, makeMmioSpte, mmioSpteGfn, SHADOW_NONPRESENT_HI, SHADOW_NONPRESENT_LO, sptePfn } from '../spte.ts';
import { ENTRIES_PER_PAGE } from '../tdp-mmu/pages.ts';
import { gpte, gpteAccess, gpteCannotBePrefetched, gpteToGfn, protectCleanGpte, readGpte } from './gpte.ts';
import { dropSpte } from './rmap.ts';
import { mmuSpteClearNoTrack, mmuSpteSet, mmuSpteUpdate } from './spte-store.ts';
import { pageGetAccess, pageGetGfn, pageSetAccess, sptepOf } from './translation.ts';
import { UnsyncWalk, unlinkUnsyncPage } from './unsync.ts';
import { slotGfnWriteProtect } from './write-protect.ts';
import { prepareZapPage, remoteFlushOrZap } from './zap-page.ts';

/** Puts an MMIO entry in place. @kvm mmu.c mark_mmio_spte */
export function markMmioSpte(vcpu: VcpuState, sptep: number, gfn: number, access: number): void {
  const vm = vcpu.vm;
  const spte = vm.mmu.newSpte;
  makeMmioSpte(vm.mmu.masks, spte, mmioGeneration(vcpu), gfn, access);
  const { lo, hi } = spte;
  if (vm.trace.enabled) traceMarkMmioSpte(vm, gfn, lo, hi);
  mmuSpteSet(vm, sptep, lo, hi);
}

/** @kvm mmu.c sync_mmio_spte */
function syncMmioSpte(vcpu: VcpuState, sptep: number, gfn: number, access: number): boolean {
  const vm = vcpu.vm;
  const lo = vm.memory.i32[sptep]!;
  const hi = vm.memory.i32[sptep + 1]!;
  if (!vm.mmu.enableMmioCaching || !isMmioSpte(vm.mmu.masks, lo, hi)) return false;
  if (gfn !== mmioSpteGfn(vm.mmu.masks, lo, hi)) mmuSpteClearNoTrack(vm, sptep);
  else markMmioSpte(vcpu, sptep, gfn, access);
  return true;
}

/**
 * Brings one entry in line with the guest's.
 * @returns -1 it cannot be, 0 it is, 1 it is and TLBs must be flushed
 * @kvm mmu.c kvm_sync_spte, paging_tmpl.h sync_spte
 */
export function syncSpte(vcpu: VcpuState, sp: ShadowPage, index: number): number {
  const vm = vcpu.vm;
  const i32 = vm.memory.i32;
  const sptep = sptepOf(sp, index);
  if (i32[sptep] === SHADOW_NONPRESENT_LO && i32[sptep + 1] === SHADOW_NONPRESENT_HI) return 0;
  const wide = isCr4Pae(vcpu.mmu.mmu);
  const quadrant = wide ? 0 : (sp.role & ROLE_QUADRANT_MASK) >> ROLE_QUADRANT_SHIFT;
  const gpa = gfnToGpa(sp.gfn) + (quadrant * ENTRIES_PER_PAGE + index) * (wide ? 8 : 4);
  if (!readGpte(vcpu, gpa)) return -1;
  const { lo, hi } = gpte;
  if (gpteCannotBePrefetched(vcpu, lo, hi)) {
    dropSpte(vm, sptep);
    return 1;
  }
  const gfn = gpteToGfn(wide, lo, hi);
  const { mmu } = vcpu.mmu;
  const access = protectCleanGpte(mmu, roleAccess(sp.role) & gpteAccess(mmu, lo, hi), lo);
  if (syncMmioSpte(vcpu, sptep, gfn, access)) return 0;
  // Without a present bit an entry needs some right.
  if ((access === 0 && vm.mmu.masks.presentLo === 0) || gfn !== pageGetGfn(sp, index)) {
    dropSpte(vm, sptep);
    return 1;
  }
  if (pageGetAccess(sp, index) === access) return 0;
  pageSetAccess(vm, sp, index, access);
  const oldLo = i32[sptep]!;
  const oldHi = i32[sptep + 1]!;
  const m = vm.mmu.masks;
  const hostWritable = ((oldLo & m.hostWritableLo) | (oldHi & m.hostWritableHi)) !== 0;
  const slot = vcpuGfnToMemslot(vcpu, gfn)!;
  makeSpte(vcpu, sp.role, slot, access, gfn, sptePfn(oldLo, oldHi), oldLo, true, false, hostWritable);
  return mmuSpteUpdate(vm, sptep, vm.mmu.newSpte.lo, vm.mmu.newSpte.hi) ? 1 : 0;
}

/** Bits of a role in which a page may differ from the MMU's root. */
const SYNC_IGNORED = ROLE_LEVEL_MASK | ROLE_ACCESS_MASK | ROLE_QUADRANT_MASK | ROLE_PASSTHROUGH;

/** @kvm mmu.c __kvm_sync_page */
function syncEntries(vcpu: VcpuState, sp: ShadowPage): number {
  const vm = vcpu.vm;
  const wrong = (sp.role & ROLE_DIRECT) !== 0 || ((sp.role ^ vcpu.mmu.mmu.rootRole) & ~SYNC_IGNORED) !== 0;
  if (vm.log.warnOnOnce(wrong, 'kvm_sync_page_check', 'a page of another kind of MMU')) return -1;
  let flush = 0;
  for (let i = 0; i < ENTRIES_PER_PAGE; i++) flush |= syncSpte(vcpu, sp, i);
  return flush;
}

/** As for one entry, for all of an unsync page; one that cannot be synced is put on the list. @kvm mmu.c kvm_sync_page */
export function syncPage(vcpu: VcpuState, sp: ShadowPage, invalid: ShadowPage[]): number {
  const ret = syncEntries(vcpu, sp);
  if (ret < 0) prepareZapPage(vcpu.vm, sp, invalid);
  return ret;
}

/** Syncs everything below `parent`, write-protecting the tables again. mmu_lock held for write. @kvm mmu.c mmu_sync_children */
export function syncChildren(vcpu: VcpuState, parent: ShadowPage): void {
  const vm = vcpu.vm;
  const walk = new UnsyncWalk(vm);
  const invalid: ShadowPage[] = [];
  let flush = false;
  while (walk.walk(parent)) {
    let isProtected = false;
    for (let sp = walk.first(); sp !== null; sp = walk.next()) {
      if (slotGfnWriteProtect(vm, vcpuGfnToMemslot(vcpu, sp.gfn)!, sp.gfn, 1)) isProtected = true;
    }
    if (isProtected) {
      remoteFlushOrZap(vm, invalid, true);
      flush = false;
    }
    for (let sp = walk.first(); sp !== null; sp = walk.next()) {
      unlinkUnsyncPage(vm, sp);
      if (syncPage(vcpu, sp, invalid) > 0) flush = true;
      walk.clearParents();
    }
  }
  remoteFlushOrZap(vm, invalid, flush);
}
