/** Fixing a fault by changing one entry, without mmu_lock (@kvm mmu.c fast_page_fault). */
import { PT_PRESENT_MASK, PT_WRITABLE_MASK } from '../../arch/paging.ts';
import { memIsPrivate } from '../attributes.ts';
import { markPageDirtyInSlot } from '../dirty/mark-dirty.ts';
import { kvmSlotDirtyTrackEnabled } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import type { PageFault } from './fault.ts';
import { traceFastPageFault } from './mmutrace.ts';
import { RET_PF_CONTINUE, RET_PF_FIXED, RET_PF_INVALID, RET_PF_SPURIOUS } from './ret-pf.ts';
import { ROLE_DIRECT } from './role.ts';
import type { LastSpte } from './shadow/last-spte.ts';
import {
  isAccessTrack,
  isExecutable,
  isLastSpte,
  isMmuWritable,
  isShadowPresent,
  isWritable,
  restoreAccTrackSpte,
  type SpteMasks,
} from './spte.ts';
import { writeSpte } from './tdp-mmu/write-spte.ts';
import { lastSpteOf } from './walk-to-last-spte.ts';

/** @kvm mmu.c page_fault_can_be_fast. HOT */
export function pageFaultCanBeFast(vm: VmState, fault: PageFault): boolean {
  if (fault.rsvd) return false;
  if (vm.revision.rules.fastPathChecksPrivacy && vm.hasPrivateMem && fault.isPrivate !== memIsPrivate(vm, fault.gfn)) {
    return false;
  }
  // With A/D bits a missing entry is missing; without, its rights may only have been taken to see the access.
  if (!fault.present) return vm.mmu.masks.accessed === 0;
  return fault.write;
}

/** @kvm mmu.c is_access_allowed */
export function isAccessAllowed(m: SpteMasks, fault: PageFault, lo: number, hi: number): boolean {
  if (fault.exec) return isExecutable(m, lo, hi);
  if (fault.write) return isWritable(lo);
  return (lo & PT_PRESENT_MASK) !== 0;
}

/** RET_PF_FIXED, RET_PF_SPURIOUS, or RET_PF_INVALID when the slow path is needed. @kvm mmu.c fast_page_fault. HOT */
export function fastPageFault(vcpu: VcpuState, fault: PageFault): number {
  if (!pageFaultCanBeFast(vcpu.vm, fault)) return RET_PF_INVALID;
  // The gfn of a shadowed table's entry may change at any time without the lock.
  if ((vcpu.mmu.mmu.rootRole & ROLE_DIRECT) === 0) return RET_PF_INVALID;
  return fixFast(vcpu, fault);
}

/** As often as an entry may change under the fast path before it gives up. */
const TRIES = 5;

function fixFast(vcpu: VcpuState, fault: PageFault): number {
  const vm = vcpu.vm;
  let iter: LastSpte = lastSpteOf(vcpu, fault.addrLo, fault.addrHi);
  let ret = RET_PF_INVALID;
  for (let tries = 0; tries < TRIES; tries++) {
    ret = wantedSpte(vm, fault, iter.level, iter.oldLo, iter.oldHi);
    if (ret !== RET_PF_CONTINUE) break;
    if (exchange(vm, iter)) {
      fastPageFaultDirty(vcpu, fault, iter);
      ret = RET_PF_FIXED;
      break;
    }
    ret = RET_PF_INVALID;
    iter = lastSpteOf(vcpu, fault.addrLo, fault.addrHi);
  }
  if (vm.trace.enabled) {
    const i32 = vm.memory.i32;
    traceFastPageFault(vcpu, fault, iter.oldLo, iter.oldHi, i32[iter.sptep]!, i32[iter.sptep + 1]!, ret);
  }
  if (ret !== RET_PF_INVALID) vcpu.stats.pf_fast++;
  return ret;
}

/**
 * For who lets time pass between the walk and the exchange: what is to be done about the entry that `lastSpteOf` found. RET_PF_CONTINUE when there
 * is something to exchange, RET_PF_SPURIOUS when the entry allows the access, RET_PF_INVALID when the slow path is needed.
 */
export function fastPageFaultWants(vcpu: VcpuState, fault: PageFault, at: LastSpte): number {
  return wantedSpte(vcpu.vm, fault, at.level, at.oldLo, at.oldHi);
}

/** Leaves in `vm.mmu.newSpte` what the entry (lo, hi) should become. */
function wantedSpte(vm: VmState, fault: PageFault, level: number, lo: number, hi: number): number {
  const m = vm.mmu.masks;
  if (!isShadowPresent(lo) || !isLastSpte(lo, level)) return RET_PF_INVALID;
  if (isAccessAllowed(m, fault, lo, hi)) return RET_PF_SPURIOUS;
  const spte = vm.mmu.newSpte;
  spte.lo = lo;
  spte.hi = hi;
  if (m.accessed === 0 && isAccessTrack(m, lo, hi)) restoreAccTrackSpte(m, spte);
  if (fault.write && isMmuWritable(m, lo, hi)) {
    spte.lo |= PT_WRITABLE_MASK;
    // Only one page would be marked dirty: a huge page of a logged slot is split on the slow path instead.
    if (level > 1 && kvmSlotDirtyTrackEnabled(fault.slot!)) return RET_PF_INVALID;
  }
  if (spte.lo === lo && spte.hi === hi) return RET_PF_INVALID;
  return isAccessAllowed(m, fault, spte.lo, spte.hi) ? RET_PF_CONTINUE : RET_PF_INVALID;
}

/** Exchanges the entry for `newSpte` if it is still what the walk read. @kvm mmu.c fast_pf_fix_direct_spte */
function exchange(vm: VmState, at: LastSpte): boolean {
  const { newSpte } = vm.mmu;
  const i32 = vm.memory.i32;
  if (i32[at.sptep] !== at.oldLo || i32[at.sptep + 1] !== at.oldHi) return false;
  writeSpte(i32, at.sptep, newSpte.lo, newSpte.hi);
  return true;
}

/** The exchange of what `fastPageFaultWants` found; false when the entry has changed since. */
export function fastPageFaultExchange(vcpu: VcpuState, fault: PageFault, at: LastSpte): boolean {
  return fastPageFaultWants(vcpu, fault, at) === RET_PF_CONTINUE && exchange(vcpu.vm, at);
}

/** The entry is exchanged: a page that became writable is dirty. @kvm mmu.c fast_pf_fix_direct_spte */
export function fastPageFaultDirty(vcpu: VcpuState, fault: PageFault, at: LastSpte): void {
  if (fault.write && !isWritable(at.oldLo)) markPageDirtyInSlot(vcpu.vm, vcpu, fault.slot, fault.gfn);
}
