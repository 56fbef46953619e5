/** Reads out what a fault left behind, into words (outcome-words.ts). Nothing that depends on addresses goes in. */
import {
  PFERR_GUEST_PAGE_HI,
  PFERR_IMPLICIT_ACCESS_HI,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_SYNTHETIC_MASK_HI,
} from '../../arch/error-code.ts';
import { KVM_EXIT_MEMORY_FAULT } from '../../kvm/kvm-run.ts';
import { KVM_HVA_ERR_BAD, KVM_HVA_ERR_RO_BAD } from '../../kvm/memslots/hva.ts';
import { mmioGeneration } from '../../kvm/mmu/mmio-spte.ts';
import {
  isAccessTrack,
  isExecutable,
  isMmioSpte,
  isMmuWritable,
  isShadowPresent,
  isWritable,
  mmioSpteGeneration,
  mmioSpteGfn,
  SHADOW_NONPRESENT_HI,
  SHADOW_NONPRESENT_LO,
  type SpteMasks,
  sptePfn,
} from '../../kvm/mmu/spte.ts';
import { REQ_APF_HALT } from '../../kvm/vcpu-state.ts';
import type { FaultMachine } from './fault-machine.ts';
import { names } from './names.ts';
import * as O from './outcome-words.ts';
import type { TappedRevision } from './tapped-revision.ts';

/** (reportedLo, reportedHi) is the code that was given in. HOT */
export function packOutcome(
  machine: FaultMachine,
  tapped: TappedRevision,
  verdict: number,
  reportedLo: number,
  reportedHi: number,
): void {
  const { words, vm, taps } = machine;
  const { decided } = taps;
  const bug = verdict === O.VERDICT_BUG;
  const ran = taps.running >= 0;
  words[O.W_VERDICT] = verdict;
  words[O.W_RET] = bug ? 0 : decided >= 0 ? taps.ret : ran ? 0 : O.retOfReservedBits(verdict, machine.emulated);
  words[O.W_DECIDED] =
    decided >= 0 && !bug
      ? tapped.nameNumbers[decided]!
      : bug
        ? tapped.nameNumbers[taps.running]!
        : O.DECIDED_BEFORE_STAGES;
  packExit(machine);
  words[O.W_EMULATED] = machine.emulated;
  packSpte(machine);
  words[O.W_MMIO_CACHE] = cacheWord(machine);
  words[O.W_STATS] = statsWord(machine);
  words[O.W_LOG] = vm.log.entries.length === 0 ? 0 : names.logBits(vm.log.entries);
  words[O.W_ASYNC] = asyncWord(machine, reportedLo, reportedHi);
  words[O.W_SIGNALS] =
    (vm.mm.signals.length > 0 ? O.SIGNALLED : 0) |
    (machine.vcpu.x86.exception.pending ? O.GUEST_FAULT : 0) |
    (isDirty(machine) ? O.PAGE_DIRTY : 0);
  words[O.W_FIELDS] = ran ? fieldsWord(machine, reportedLo, reportedHi) : 0;
}

function isDirty({ place: { slot, gfn } }: FaultMachine): boolean {
  if (slot === null || slot.dirtyBitmap === null) return false;
  const page = gfn - slot.baseGfn;
  return ((slot.dirtyBitmap[page >>> 3]! >>> (page & 7)) & 1) !== 0;
}

function packExit(machine: FaultMachine): void {
  const { words, place } = machine;
  const { run } = machine.vcpu;
  const reason = run.exitReason;
  words[O.W_EXIT] = reason;
  words[O.W_EXIT_DATA] = 0;
  if (reason !== KVM_EXIT_MEMORY_FAULT) return;
  const { memoryFault } = run;
  const here = memoryFault.gpa === place.gfn * 4096 ? O.EXIT_THIS_PAGE : 0;
  words[O.W_EXIT_DATA] = (memoryFault.flags & 0xff) | here | (memoryFault.size << 9);
}

function packSpte(machine: FaultMachine): void {
  const { words, place, vm } = machine;
  const leaf = machine.leaf.sptep;
  if (leaf < 0) {
    words[O.W_SPTE_LO] = O.SPTE_NO_TABLE;
    words[O.W_SPTE_HI] = 0;
    return;
  }
  const lo = vm.memory.i32[leaf]!;
  const hi = vm.memory.i32[leaf + 1]!;
  const m = vm.mmu.masks;
  if (isShadowPresent(lo)) {
    const pfn = sptePfn(lo, hi);
    const frame =
      pfn === place.hostPfn
        ? O.SPTE_FRAME_HOST
        : pfn === place.gmemPfn
          ? O.SPTE_FRAME_GMEM
          : pfn === 0
            ? O.SPTE_FRAME_ZERO
            : 0;
    words[O.W_SPTE_LO] = (lo & 0xfff) | O.SPTE_LEAF | frame | rights(m, lo, hi);
    words[O.W_SPTE_HI] = hi & ~0xfffff;
  } else if (lo === SHADOW_NONPRESENT_LO && hi === SHADOW_NONPRESENT_HI) {
    words[O.W_SPTE_LO] = O.SPTE_ABSENT;
    words[O.W_SPTE_HI] = 0;
  } else if (vm.mmu.enableMmioCaching && isMmioSpte(m, lo, hi)) {
    const gfn = mmioSpteGfn(m, lo, hi) === place.gfn ? O.SPTE_GFN_OK : 0;
    const current = mmioSpteGeneration(lo, hi) === mmioGeneration(machine.vcpu) ? O.SPTE_GEN_CURRENT : 0;
    words[O.W_SPTE_LO] = (lo & 7) | O.SPTE_MMIO | gfn | current;
    words[O.W_SPTE_HI] = 0;
  } else {
    words[O.W_SPTE_LO] = (lo & 0xfff) | O.SPTE_OTHER;
    words[O.W_SPTE_HI] = hi & ~0xfffff;
  }
}

function rights(m: SpteMasks, lo: number, hi: number): number {
  return (
    ((lo & 1) !== 0 ? O.SPTE_R : 0) |
    (isWritable(lo) ? O.SPTE_W : 0) |
    (isExecutable(m, lo, hi) ? O.SPTE_X : 0) |
    ((lo & m.accessed) !== 0 ? O.SPTE_ACCESSED : 0) |
    ((lo & m.dirty) !== 0 ? O.SPTE_DIRTY : 0) |
    (isMmuWritable(m, lo, hi) ? O.SPTE_MMU_WRITABLE : 0) |
    (isAccessTrack(m, lo, hi) ? O.SPTE_TRACKED : 0)
  );
}

function cacheWord(machine: FaultMachine): number {
  const { vm, place } = machine;
  const { mmu } = machine.vcpu;
  if (mmu.mmioGen === -1) return 0;
  return (
    O.CACHE_SET |
    (mmu.mmioGfn === place.gfn ? O.CACHE_THIS_GFN : 0) |
    ((mmu.mmioGvaLo | mmu.mmioGvaHi) !== 0 ? O.CACHE_HAS_GVA : 0) |
    (mmu.mmioGen === vm.slots.generation(0) ? O.CACHE_CURRENT : 0) |
    (mmu.mmioAccess << O.CACHE_ACCESS_SHIFT)
  );
}

function nibble(value: number, index: number): number {
  return (value > 15 ? 15 : value) << (4 * index);
}

function statsWord(machine: FaultMachine): number {
  const { stats } = machine.vcpu;
  return (
    nibble(stats.pf_taken, 0) |
    nibble(stats.pf_fixed, 1) |
    nibble(stats.pf_emulate, 2) |
    nibble(stats.pf_spurious, 3) |
    nibble(stats.pf_fast, 4) |
    nibble(stats.pf_mmio_spte_created, 5) |
    nibble(stats.signal_exits, 6)
  );
}

/** How a code that was kept stands to the one that was reported. */
function relation(lo: number, hi: number, reportedLo: number, reportedHi: number): number {
  let r = 0;
  if (lo !== reportedLo) r |= lo === 0 ? O.CODE_LOW_LOST : O.CODE_OTHER;
  const high = hi & ~PFERR_SYNTHETIC_MASK_HI;
  if (high !== (reportedHi & ~PFERR_SYNTHETIC_MASK_HI)) {
    if (reportedHi === 0 && high === PFERR_GUEST_PAGE_HI) r |= O.CODE_GUEST_PAGE;
    else r |= high === 0 ? O.CODE_HIGH_LOST : O.CODE_OTHER;
  }
  if ((hi & PFERR_PRIVATE_ACCESS_HI) !== 0) r |= O.CODE_PRIVATE;
  if ((hi & PFERR_IMPLICIT_ACCESS_HI) !== 0) r |= O.CODE_IMPLICIT;
  return r;
}

function asyncWord(machine: FaultMachine, reportedLo: number, reportedHi: number): number {
  const { vcpu } = machine;
  const { waiting } = vcpu.x86.asyncPf;
  const halted = (vcpu.requests & REQ_APF_HALT) !== 0 ? O.ASYNC_HALTED : 0;
  if (waiting.length === 0) return halted;
  const work = waiting[0]!;
  const code = relation(work.errorLo, work.errorHi, reportedLo, reportedHi);
  return O.ASYNC_QUEUED | halted | (code << O.ASYNC_CODE_SHIFT);
}

function fieldsWord(machine: FaultMachine, reportedLo: number, reportedHi: number): number {
  const { place } = machine;
  const { fault } = machine.vcpu.mmu;
  const { pfn, hva } = fault;
  const p =
    pfn < 0
      ? -pfn
      : pfn === 0
        ? O.PFN_ZERO
        : pfn === place.hostPfn
          ? O.PFN_HOST
          : pfn === place.gmemPfn
            ? O.PFN_GMEM
            : O.PFN_OTHER;
  const h =
    hva === 0
      ? O.HVA_ZERO
      : hva === KVM_HVA_ERR_BAD
        ? O.HVA_BAD
        : hva === KVM_HVA_ERR_RO_BAD
          ? O.HVA_RO_BAD
          : hva === place.hva
            ? O.HVA_PAGE
            : O.HVA_OTHER;
  return (
    O.FIELDS_PRESENT |
    (fault.isPrivate ? O.FIELD_PRIVATE : 0) |
    (fault.mapWritable ? O.FIELD_MAP_WRITABLE : 0) |
    (fault.slot !== null ? O.FIELD_HAS_SLOT : 0) |
    (relation(fault.errorLo, fault.errorHi, reportedLo, reportedHi) << O.FIELD_CODE_SHIFT) |
    (p << O.FIELD_PFN_SHIFT) |
    (h << O.FIELD_HVA_SHIFT)
  );
}
