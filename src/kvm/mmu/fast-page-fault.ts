/** Fixing a fault by changing one entry, without mmu_lock (@kvm mmu.c fast_page_fault). */
import { PT_PRESENT_MASK, PT_WRITABLE_MASK } from '../../arch/paging.ts';
import { memIsPrivate } from '../attributes.ts';
import { markPageDirtyInSlot } from '../dirty/mark-dirty.ts';
import { kvmSlotDirtyTrackEnabled } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import type { PageFault } from './fault.ts';
import { traceFastPageFault } from './mmutrace.ts';
import { RET_PF_FIXED, RET_PF_INVALID, RET_PF_SPURIOUS } from './ret-pf.ts';
import { ROLE_DIRECT } from './role.ts';
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
function pageFaultCanBeFast(vm: VmState, fault: PageFault): boolean {
  if (fault.rsvd) return false;
  if (vm.revision.rules.fastPathChecksPrivacy && vm.hasPrivateMem && fault.isPrivate !== memIsPrivate(vm, fault.gfn)) {
    return false;
  }
  // With A/D bits a missing entry is missing; without, its rights may only have been taken to see the access.
  if (!fault.present) return vm.mmu.masks.accessed === 0;
  return fault.write;
}

/** @kvm mmu.c is_access_allowed */
function isAccessAllowed(m: SpteMasks, fault: PageFault, lo: number, hi: number): boolean {
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

function fixFast(vcpu: VcpuState, fault: PageFault): number {
  const vm = vcpu.vm;
  const iter = lastSpteOf(vcpu, fault.addrLo, fault.addrHi);
  const ret = tryFix(vcpu, fault, iter.sptep, iter.level, iter.oldLo, iter.oldHi);
  if (vm.trace.enabled) {
    const i32 = vm.memory.i32;
    traceFastPageFault(vcpu, fault, iter.oldLo, iter.oldHi, i32[iter.sptep]!, i32[iter.sptep + 1]!, ret);
  }
  if (ret !== RET_PF_INVALID) vcpu.stats.pf_fast++;
  return ret;
}

function tryFix(vcpu: VcpuState, fault: PageFault, sptep: number, level: number, lo: number, hi: number): number {
  const vm = vcpu.vm;
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
  if (!isAccessAllowed(m, fault, spte.lo, spte.hi)) return RET_PF_INVALID;
  writeSpte(vm.memory.i32, sptep, spte.lo, spte.hi);
  if (isWritable(spte.lo) && !isWritable(lo)) markPageDirtyInSlot(vm, vcpu, fault.slot, fault.gfn);
  return RET_PF_FIXED;
}
