/**
 * The real KVM under shadow paging as a model: a VM of the product whose guest has tables of its own, whose faults run the stages of the
 * revision, and whose other actors run the lists of src/kvm/actors, one atomic step at a time.
 */
import {
  RES_ALL,
  RES_HOST,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SRCU,
  RES_TABLES,
} from '../../../kvm/actors/actor.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE, LOCK_SLOTS, LOCK_SLOTS_ARCH } from '../../../kvm/locks.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { explanationLines } from '../../explain/explain-text.ts';
import { FaultLog } from '../../explain/fault-log.ts';
import { tryEverySlotChange } from '../kvm-model/every-slot.ts';
import { SceneKernelActor } from '../kvm-model/kernel-actor.ts';
import { type ModelActor, RES_GUESTS, RES_MMU_LOCK, RES_QUIET, RES_SLOTS_LOCK } from '../kvm-model/state.ts';
import type { SceneOverrides } from '../kvm-model/vm.ts';
import { VmWords } from '../kvm-model/vm-words.ts';
import type { Actor, Footprint, Model } from '../model.ts';
import type { Scene } from '../scene.ts';
import { describeShadow } from './describe.ts';
import { BUG, firstShadowViolation, invariantBits, shadowInvariantTexts } from './invariants.ts';
import { makeShadowState } from './make.ts';
import type { ShadowState } from './state.ts';
import type { ShadowVcpu } from './vcpu.ts';

/** Who flushes in this stage waits for it in a later one. */
const FLUSH_STAGE = 'flush';
const EVERYTHING = RES_ALL | RES_GUESTS;

export class ShadowModel implements Model {
  readonly actors: readonly Actor[];
  readonly stateWords: number;
  readonly invariants = shadowInvariantTexts;
  readonly observed = (RES_ALL & ~(RES_SEQUENCE | RES_NOTIFIER_COUNT | RES_SRCU)) | RES_GUESTS | RES_QUIET;
  readonly state: ShadowState;
  private readonly vm: VmState;
  private readonly list: readonly ModelActor[];
  private readonly logs = new Map<ModelActor, FaultLog>();
  private readonly vmWords: VmWords;
  private readonly scratch: Int32Array;
  private readonly actorWords: readonly number[];
  /** First words of the guest's tables, of the shadow pages, and the one of flags. */
  private readonly guestWords: number;
  private readonly shadowWords: number;
  private readonly flagWord: number;
  /** Invariants that are passed over, as bits. */
  private readonly passed: number;
  private scanned = false;
  private broken = 0;
  private brokenText = '';
  /** Somebody waits for SRCU grace periods: without, read sections are nobody's business. */
  private readonly usesSrcu: boolean;

  constructor(scene: Scene, overrides: SceneOverrides = {}) {
    const state = makeShadowState(scene, overrides);
    const { vm } = state;
    this.state = state;
    this.vm = vm;
    this.passed = invariantBits(scene.vm?.passesOver ?? []);
    this.watchLog();
    this.list = state.actors;
    this.actors = this.list.map((a, i) => ({ name: a.name, cpu: `CPU${i}` }));
    this.vmWords = new VmWords(state, []);
    let next = this.vmWords.count;
    this.actorWords = this.list.map((a) => {
      next += a.words;
      return next - a.words;
    });
    this.guestWords = next;
    this.shadowWords = next + state.guest.words;
    this.flagWord = this.shadowWords + state.shadow.words;
    this.stateWords = this.flagWord + 1;
    this.scratch = new Int32Array(this.stateWords);
    for (let asId = 0; asId < vm.slots.count; asId++) state.slots.active(asId);
    const changers = this.list.flatMap((a, i) => (a instanceof SceneKernelActor && a.changesSlots ? [i] : []));
    this.usesSrcu = changers.length > 0;
    vm.mmu.nRequestedMmuPages = vm.mmu.nMaxMmuPages;
    scene.actors.forEach((spec, i) => {
      if (spec.kind === 'vcpu' && spec.guest!.before.length > 0) this.warmUp(i, spec.guest!.before);
    });
    if (scene.vm?.mmuPages !== undefined) vm.mmu.nMaxMmuPages = scene.vm.mmuPages;
    vm.mmu.nRequestedMmuPages = vm.mmu.nMaxMmuPages;
    state.unreported = 0;
    this.settle();
    tryEverySlotChange(this, this.list, changers);
    state.slots.complete = true;
  }

  private warmUp(i: number, before: Parameters<ShadowVcpu['warmUp']>[0]): void {
    const vcpu = this.list[i] as ShadowVcpu;
    this.state.noteRequests();
    vcpu.warmUp(before);
    this.vm.locks.srcuDepth = 0;
    this.state.deliverRequests(vcpu);
    this.scanned = false;
  }

  private settle(): void {
    this.capture(this.scratch, 0);
    this.restore(this.scratch, 0);
  }

  /** What KVM warns of is a violation. */
  private watchLog(): void {
    const { log } = this.vm;
    log.warnOnOnce = (condition, where, message) => {
      if (condition && (this.passed & (1 << BUG)) === 0) this.breaks(`WARN in ${where}: ${message}`);
      return condition;
    };
    log.kvmBugOn = (condition, where, message) => {
      if (condition) this.breaks(`KVM_BUG in ${where}: ${message}`);
      return condition;
    };
    log.prWarnRatelimited = () => {};
  }

  private breaks(text: string): void {
    if (this.broken !== 0) return;
    this.broken = BUG;
    this.brokenText = text;
  }

  private scan(): void {
    if (this.scanned) return;
    this.state.shadow.scan();
    this.scanned = true;
  }

  // ---- steps ----

  enabled(): number {
    let mask = 0;
    for (let i = 0; i < this.list.length; i++) {
      const actor = this.list[i]!;
      if (actor.ready() && !this.conflicts(i, actor.takes())) mask |= 1 << i;
    }
    return mask;
  }

  /** Somebody else holds one of the locks in `takes` in a mode that excludes it. */
  private conflicts(self: number, takes: number): boolean {
    if (takes === 0) return false;
    return this.list.some(({ held }, i) => {
      if (i === self || held === 0) return false;
      if ((held & takes & (LOCK_SLOTS | LOCK_SLOTS_ARCH)) !== 0) return true;
      if ((takes & LOCK_MMU_WRITE) !== 0 && (held & (LOCK_MMU_READ | LOCK_MMU_WRITE)) !== 0) return true;
      return (takes & LOCK_MMU_READ) !== 0 && (held & LOCK_MMU_WRITE) !== 0;
    });
  }

  unfinished(): number {
    let mask = 0;
    for (let i = 0; i < this.list.length; i++) if (!this.list[i]!.finished) mask |= 1 << i;
    return mask;
  }

  choices(actor: number): number {
    return this.list[actor]!.choices();
  }

  step(index: number, choice: number): void {
    const { vm, list } = this;
    const { locks } = vm;
    const actor = list[index]!;
    if (this.state.pages.tablesLeft < 24) this.settle();
    let readers = 0;
    for (let i = 0; i < list.length; i++) if (i !== index && list[i]!.srcu > 0) readers |= 1 << i;
    locks.srcuReaders = readers;
    locks.held = actor.held;
    locks.srcuDepth = actor.srcu;
    this.scanned = false;
    this.state.noteRequests();
    const flushesLater = actor.stageName() === FLUSH_STAGE;
    try {
      actor.step(choice);
    } catch (error) {
      this.breaks(`${actor.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
    // Who flushes within a step waits within it until nobody runs on with what went.
    if (!flushesLater) this.state.deliverRequests(actor);
    actor.held = locks.held;
    actor.srcu = locks.srcuDepth;
    if (actor.srcu === 0) locks.srcuGrace &= ~(1 << index);
    locks.held = 0;
    locks.srcuDepth = 0;
  }

  violation(): number {
    if (this.broken !== 0) return this.broken;
    this.scan();
    return firstShadowViolation(this.state, this.passed);
  }

  /** For tests: an entry was made where the model does not look. */
  missesEntries(): boolean {
    this.scan();
    return this.state.shadow.strayEntry();
  }

  // ---- state ----

  capture(into: Int32Array, at: number): void {
    const { state, scratch } = this;
    this.scan();
    const words = at === 0 && into.length === this.stateWords ? into : scratch;
    this.vmWords.refresh(words, EVERYTHING, this.broken !== 0);
    this.list.forEach((actor, i) => {
      actor.save(words, this.actorWords[i]!);
    });
    state.guest.capture(words, this.guestWords);
    state.shadow.capture(words, this.shadowWords);
    words[this.flagWord] = state.usedStale ? 1 : 0;
    if (words !== into) into.set(words, at);
  }

  restore(from: Int32Array, at: number): void {
    const { state } = this;
    const words = from.subarray(at, at + this.stateWords);
    this.scan();
    state.shadow.forgetAll();
    this.vmWords.restore(words, -1, 0, 0);
    state.guest.restore(words, this.guestWords);
    state.shadow.restore(words, this.shadowWords);
    this.list.forEach((actor, i) => {
      actor.load(words, this.actorWords[i]!);
    });
    state.usedStale = words[this.flagWord] !== 0;
    this.broken = this.vmWords.isBroken(words) ? BUG : 0;
    // Roots that nobody uses any more are found through the vCPUs.
    this.scanned = false;
  }

  // ---- what a step touches ----

  footprint(actor: number, out: Footprint): void {
    const { state } = this;
    const a = this.list[actor]!;
    a.resources();
    const locks = lockBits(a.takes() | a.held);
    const mask = this.usesSrcu ? -1 : ~RES_SRCU;
    out.reads = (state.reads & mask) | locks;
    // Who changes tables may flush, and so stop others.
    const guests = (state.writes & (RES_TABLES | RES_ROOTS)) !== 0 ? (RES_GUESTS | RES_SRCU | RES_REQUESTS) & mask : 0;
    out.writes = (state.writes & mask) | locks | guests;
  }

  restFootprint(actor: number, out: Footprint): void {
    const { state } = this;
    const a = this.list[actor]!;
    a.restResources();
    const takes = a instanceof SceneKernelActor ? a.takesFrom(a.position) | a.held : LOCK_MMU_WRITE;
    const locks = a.finished ? 0 : lockBits(takes);
    const mask = this.usesSrcu ? -1 : ~RES_SRCU;
    out.reads = (state.reads & mask) | locks;
    out.writes = (state.writes & mask) | locks | (a.finished ? 0 : (RES_GUESTS | RES_SRCU | RES_REQUESTS) & mask);
  }

  /** Resources in which two states differ, what belongs to `actor` alone left out: to check footprints by. */
  changed(a: Int32Array, b: Int32Array, actor: number): number {
    let mask = this.vmWords.changed(a, b);
    this.list.forEach((other, i) => {
      mask |= other.changed(a, b, this.actorWords[i]!, i === actor);
    });
    for (let w = this.guestWords; w < this.shadowWords; w++) if (a[w] !== b[w]) mask |= RES_HOST;
    for (let w = this.shadowWords; w < this.flagWord; w++) if (a[w] !== b[w]) mask |= RES_TABLES;
    return this.usesSrcu ? mask : mask & ~RES_SRCU;
  }

  // ---- words ----

  stageName(actor: number): string {
    return this.list[actor]!.stageName();
  }

  /** Each vCPU's faults are followed from now on. */
  follow(): void {
    for (const vcpu of this.state.vcpus) {
      const log = new FaultLog(this.vm);
      vcpu.recorder = log;
      this.logs.set(vcpu, log);
    }
    this.vm.mmu.recorder = null;
  }

  explain(actor: number): readonly string[] {
    const log = this.logs.get(this.list[actor]!);
    log?.finish();
    const fault = log?.faults.at(-1);
    return fault === undefined ? [] : explanationLines(fault, null);
  }

  violationText(n: number): string {
    return n === BUG && this.broken !== 0 ? this.brokenText : (shadowInvariantTexts[n - 1] ?? `violation ${n}`);
  }

  describe(): readonly string[] {
    this.scan();
    return describeShadow(this.state);
  }
}

function lockBits(locks: number): number {
  return (
    ((locks & (LOCK_MMU_READ | LOCK_MMU_WRITE)) !== 0 ? RES_MMU_LOCK : 0) |
    ((locks & (LOCK_SLOTS | LOCK_SLOTS_ARCH)) !== 0 ? RES_SLOTS_LOCK : 0)
  );
}
