/**
 * The fault path as a function: a described state and a fault go in, what became of it comes out. Everything is real but the processor
 * and the emulator: memslots, attributes, guest_memfd, host mappings, page tables, the vendor's handler, the stages.
 */
import { PFERR_GUEST_FINAL_HI, PFERR_RSVD, PFERR_SYNTHETIC_MASK_HI } from '../../arch/error-code.ts';
import { loOf } from '../../arch/halves.ts';
import { X86EMUL_RETRY_INSTR } from '../../kvm/emulate/ops.ts';
import { LOCK_MMU_WRITE } from '../../kvm/locks.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../kvm/memslots/memslot.ts';
import { handlePageFault } from '../../kvm/mmu/handle-page-fault.ts';
import { mmuPageFault } from '../../kvm/mmu/page-fault.ts';
import { preFaultMemory } from '../../kvm/mmu/pre-fault.ts';
import { RET_PF_RETRY } from '../../kvm/mmu/ret-pf.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { SpteWord } from '../../kvm/mmu/spte.ts';
import { mmuInvalidateBegin, mmuInvalidateEnd, mmuUnmapGfnRange } from '../../kvm/notifier.ts';
import { handleNpf } from '../../kvm/svm/npf.ts';
import { MP_STATE_RUNNABLE, type VcpuState } from '../../kvm/vcpu-state.ts';
import { destroyVm } from '../../kvm/vm-lifecycle.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { eptErrorHi } from '../../kvm/vmx/ept-violation.ts';
import { clearAsyncPf } from '../../kvm/x86/async-pf.ts';
import { checkAsyncPfCompletion } from '../../kvm/x86/async-pf-ready.ts';
import { clearExceptionQueue } from '../../kvm/x86/exceptions.ts';
import { inputImpossible } from './constraints.ts';
import type {
  AttributeName,
  BackingName,
  EntryName,
  FaultInput,
  Invalidation,
  SlotName,
  SpteName,
} from './fault-input.ts';
import type { GuestTables } from './guest-tables.ts';
import { Leaf } from './leaf.ts';
import { leafWord } from './leaf-words.ts';
import { type FaultContext, makeMachineVm } from './machine-vm.ts';
import { names } from './names.ts';
import type { Outcome } from './outcome.ts';
import { OUTCOME_WORDS, outcomeOf, VERDICT_BUG, VERDICT_MAPPED } from './outcome-words.ts';
import { packOutcome } from './pack-outcome.ts';
import { type Place, type PlaceSource, Places } from './places.ts';
import { TappedRevision, TapState } from './tapped-revision.ts';

/** No invalidation, for `fire`. */
export const INVALIDATION_NONE = 0;
const INVALIDATION_IN_PROGRESS = 1;
const INVALIDATION_DONE_AT = 2;
const INVALIDATION_BEGUN_AT = 3;

/** Kinds of invalidation, for `fire`. */
export const INVALIDATION_KINDS: Record<Invalidation['kind'], number> = {
  none: INVALIDATION_NONE,
  'in-progress': INVALIDATION_IN_PROGRESS,
  'done-at': INVALIDATION_DONE_AT,
  'begun-at': INVALIDATION_BEGUN_AT,
};

/** mmu_invalidate_seq at the start of every fault. */
const FIRST_SEQUENCE = 7;

/** A stage of a revision threw. */
export class StageError extends Error {
  readonly revision: string;
  readonly stage: string;

  constructor(revision: string, stage: string, cause: unknown) {
    super(`revision ${revision}, stage ${stage}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.revision = revision;
    this.stage = stage;
  }
}

/** One context: the rest of an input changes from run to run. */
export class FaultMachine {
  readonly context: FaultContext;
  readonly vm: VmState;
  readonly vcpu: VcpuState;
  /** What the last `fire` left: OUTCOME_WORDS words. */
  readonly words = new Int32Array(OUTCOME_WORDS);
  readonly taps = new TapState();
  /** Type of the emulation that was asked for, -1 for none. */
  emulated = -1;
  /** Where the loaded place is. */
  place: Place;
  /** Its last-level entry. */
  readonly leaf: Leaf;
  /** Address of the fault: the gpa, or where the guest's tables are shadowed one that they map to it. */
  private addrLo = 0;
  private addrHi = 0;
  private readonly guestTables: GuestTables | null;
  private readonly places: PlaceSource;
  /** Flags of the place's slot when nothing is loaded. */
  private slotFlags = 0;
  private word: SpteWord | null = null;
  private invalidationKind = INVALIDATION_NONE;
  private readonly tapped = new Map<Revision, TappedRevision>();
  private readonly unmapRange = { slot: null as never, start: 0, end: 0, attributes: 0, attrFilter: 0, mayBlock: true };

  /** @param makePlaces makes slots other than the machine's own */
  constructor(context: FaultContext, makePlaces: (vm: VmState) => PlaceSource = (vm) => new Places(vm)) {
    this.context = context;
    const emulate = (emulType: number): number => {
      this.emulated = emulType;
      return X86EMUL_RETRY_INSTR;
    };
    const made = makeMachineVm(context, emulate, makePlaces);
    this.vm = made.vm;
    this.vcpu = made.vcpu;
    this.places = made.places;
    this.guestTables = made.guestTables;
    this.leaf = new Leaf(made.vcpu, made.guestTables);
    this.place = this.places.place('none', 'shared', 'present');
    this.slotFlags = this.place.slot?.flags ?? 0;
    this.taps.invalidate = () => this.invalidateOnce();
    this.load('none', 'shared', 'present', 'absent');
  }

  /**
   * Prepares what the input describes, sends the fault in through the vendor's handler, and puts everything back.
   * @param toTheEnd also what comes of it: see `fire`
   * @throws RangeError for a state that cannot be; StageError when a stage throws
   */
  run(input: FaultInput, revision: Revision, toTheEnd = false): Outcome {
    const why = inputImpossible(input);
    if (why !== null) throw new RangeError(why);
    const tapped = this.tap(revision);
    const { invalidation } = input;
    const moment = 'stage' in invalidation ? tapped.momentOf(invalidation.stage) : -1;
    this.load(input.slot, input.attribute, input.backing, input.spte);
    this.fire(
      input.entry,
      input.errorLo,
      input.errorHi,
      tapped,
      moment,
      INVALIDATION_KINDS[invalidation.kind],
      toTheEnd,
    );
    const outcome = outcomeOf(this.words, 0, names);
    this.load('none', 'shared', 'present', 'absent');
    this.reset();
    return outcome;
  }

  /** The revision as `fire` takes it. */
  tap(revision: Revision): TappedRevision {
    let tapped = this.tapped.get(revision);
    if (tapped === undefined) {
      tapped = new TappedRevision(revision, this.taps);
      this.tapped.set(revision, tapped);
    }
    return tapped;
  }

  /** Chooses the gfn for the runs that follow, and the state of its entry. */
  load(slot: SlotName, attribute: AttributeName, backing: BackingName, spte: SpteName): void {
    const { vm, vcpu, leaf } = this;
    leaf.clear();
    if (this.place.slot !== null) this.place.slot.flags = this.slotFlags;
    const place = this.places.place(slot, attribute, backing);
    this.place = place;
    this.slotFlags = place.slot?.flags ?? 0;
    vm.x86.apicvActivated = slot === 'apic';
    this.taps.noslotPfn = backing === 'noslot-pfn';
    const address = this.guestTables === null ? place.gfn * 4096 : this.guestTables.gva(place.gfn);
    this.addrLo = loOf(address);
    this.addrHi = Math.floor(address / 0x1_0000_0000);
    leaf.find(this.addrLo, this.addrHi);
    if (leaf.sptep < 0 && spte !== 'absent') throw new RangeError(`no page table for an entry that is ${spte}`);
    this.word = leafWord(vcpu, leaf.role, place, attribute, spte);
    if (spte === 'write-protected') this.logDirty();
  }

  /**
   * One fault at the loaded place; `words` says what became of it. `moment` is a position in the revision's list, for the last two kinds
   * of invalidation. With `toTheEnd`, a fault that is sent back because of such an invalidation comes again, as it would, and the last try
   * is what counts; and an invalidation whose moment the fault does not reach happens after it has left. HOT
   */
  fire(
    entry: EntryName,
    lo: number,
    hi: number,
    tapped: TappedRevision,
    moment: number,
    kind: number,
    toTheEnd = false,
  ): void {
    this.reset();
    const { vm, place } = this;
    this.leaf.put(this.word!, place.slot, place.gfn);
    if (kind === INVALIDATION_IN_PROGRESS) this.beginInvalidation();
    this.invalidationKind = kind;
    (vm as { revision: Revision }).revision = tapped.at(moment);
    let verdict: number;
    try {
      verdict = this.enter(entry, lo, hi);
      if (toTheEnd && moment >= 0 && this.wasSentBack(tapped)) verdict = this.enterAgain(entry, lo, hi, tapped);
    } catch (error) {
      verdict = this.caught(error, tapped);
    }
    if (toTheEnd && moment >= 0) this.invalidateOnce();
    packOutcome(this, tapped, verdict, entry === 'pre-fault' ? 0 : lo, entry === 'pre-fault' ? 1 : hi);
  }

  /** Gives the machine's memory back. */
  close(): void {
    destroyVm(this.vm);
  }

  private wasSentBack(tapped: TappedRevision): boolean {
    const { decided, ret } = this.taps;
    return decided >= 0 && ret === RET_PF_RETRY && tapped.checksInvalidation[decided]!;
  }

  private enterAgain(entry: EntryName, lo: number, hi: number, tapped: TappedRevision): number {
    const { taps, vcpu, vm } = this;
    (vm as { revision: Revision }).revision = tapped.at(-1);
    taps.decided = -1;
    taps.running = -1;
    vcpu.stats.pf_taken = 0;
    return this.enter(entry, lo, hi);
  }

  private enter(entry: EntryName, lo: number, hi: number): number {
    const { vcpu, context, addrLo, addrHi } = this;
    if (entry === 'fault') {
      if (this.guestTables !== null) return handlePageFault(vcpu, lo, hi, addrLo, addrHi);
      if (context.hardware === 'npt') return handleNpf(vcpu, addrLo, addrHi, lo, hi);
      return mmuPageFault(vcpu, addrLo, addrHi, lo, this.eptHi(lo, hi));
    }
    if (entry === 'pre-fault') {
      const r = preFaultMemory(vcpu, this.place.gfn * 4096, 4096);
      return r < 0 ? r : VERDICT_MAPPED;
    }
    const apf = vcpu.x86.asyncPf;
    apf.queued = 1;
    apf.done.push({
      wakeupAll: false,
      hva: this.place.hva,
      gfn: this.place.gfn,
      addrLo,
      addrHi,
      errorLo: lo,
      errorHi: hi,
      directMap: this.guestTables === null,
      token: 1 << 12,
      notPresentInjected: false,
    });
    checkAsyncPfCompletion(vcpu);
    return 1;
  }

  /** Intel's handler makes the code itself: where the access was made is what the revision makes of the exit qualification. */
  private eptHi(lo: number, hi: number): number {
    const violation = (lo & PFERR_RSVD) === 0;
    const where = violation ? eptErrorHi(this.vcpu, hi !== 0, (hi & PFERR_GUEST_FINAL_HI) !== 0) : 0;
    return where | (hi & PFERR_SYNTHETIC_MASK_HI);
  }

  /** The kernel's BUG() on a leaf that changes its frame is an outcome; everything else is the stage's own failure. */
  private caught(error: unknown, tapped: TappedRevision): number {
    const { vm, taps } = this;
    vm.locks.held = 0;
    vm.locks.srcuDepth = 0;
    if (error instanceof Error && error.message.startsWith('present leaf replaced')) return VERDICT_BUG;
    throw new StageError(tapped.revision.name, tapped.names[taps.running] ?? 'none', error);
  }

  private invalidateOnce(): void {
    const kind = this.invalidationKind;
    if (kind === INVALIDATION_NONE) return;
    this.invalidationKind = INVALIDATION_NONE;
    this.beginInvalidation();
    if (kind === INVALIDATION_DONE_AT) {
      const { vm } = this;
      vm.locks.acquire(LOCK_MMU_WRITE);
      mmuInvalidateEnd(vm);
      vm.locks.release(LOCK_MMU_WRITE);
    }
  }

  /** As the notifier begins it: nothing happens where there is no slot. @kvm kvm_main.c kvm_mmu_notifier_invalidate_range_start */
  private beginInvalidation(): void {
    const { vm, place, unmapRange } = this;
    if (place.slot === null) return;
    vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateBegin(vm);
    unmapRange.slot = place.slot as never;
    unmapRange.start = place.gfn;
    unmapRange.end = place.gfn + 1;
    mmuUnmapGfnRange(vm, unmapRange);
    vm.locks.release(LOCK_MMU_WRITE);
  }

  /** An entry is write-protected because the slot's dirty log is on. */
  private logDirty(): void {
    const { slot } = this.place;
    if (slot === null) return;
    slot.flags |= KVM_MEM_LOG_DIRTY_PAGES;
    slot.dirtyBitmap ??= new Uint8Array(Math.ceil(slot.npages / 64) * 8);
  }

  /** Puts back what a run can change. HOT */
  private reset(): void {
    const { vm, vcpu, taps } = this;
    const { mmu, x86, stats } = vcpu;
    this.leaf.clear();
    this.emulated = -1;
    this.invalidationKind = INVALIDATION_NONE;
    taps.decided = -1;
    taps.running = -1;
    taps.furthest = -1;
    mmu.mmioGvaLo = 0;
    mmu.mmioGvaHi = 0;
    mmu.mmioGfn = 0;
    mmu.mmioAccess = 0;
    mmu.mmioGen = -1;
    mmu.faultBegun = false;
    vm.mmuInvalidateSeq = FIRST_SEQUENCE;
    vm.mmuInvalidateInProgress = 0;
    vm.mmuInvalidateRangeStart = -1;
    vm.mmuInvalidateRangeEnd = -1;
    stats.pf_taken = 0;
    stats.pf_fixed = 0;
    stats.pf_emulate = 0;
    stats.pf_spurious = 0;
    stats.pf_fast = 0;
    stats.pf_mmio_spte_created = 0;
    stats.signal_exits = 0;
    vcpu.requests = 0;
    vcpu.signal = false;
    vcpu.run.exitReason = 0;
    x86.lastRetryEipLo = 0;
    x86.lastRetryEipHi = 0;
    x86.lastRetryAddrLo = 0;
    x86.lastRetryAddrHi = 0;
    if (x86.exception.pending || x86.exception.injected) clearExceptionQueue(vcpu);
    if (vm.log.entries.length > 0) vm.log.clear();
    if (vm.mm.signals.length > 0) vm.mm.signals.length = 0;
    const apf = x86.asyncPf;
    if (apf.queued > 0 || apf.gfns.size > 0 || apf.done.length > 0) this.forgetAsync();
    const { slot, gfn } = this.place;
    if (slot !== null && slot.dirtyBitmap !== null) slot.dirtyBitmap[(gfn - slot.baseGfn) >>> 3] = 0;
  }

  private forgetAsync(): void {
    const { vm, vcpu, place } = this;
    clearAsyncPf(vcpu);
    vcpu.x86.asyncPf.nextId = 0;
    vcpu.x86.apfHalted = false;
    vcpu.mpState = MP_STATE_RUNNABLE;
    if (place.hva < 0) return;
    vm.mm.userfaults.cancel(place.hva, false);
    vm.mm.userfaults.cancel(place.hva, true);
  }
}
