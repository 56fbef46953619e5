/**
 * The real KVM under shadow paging as a model: a VM of the product whose guest has tables of its own, whose faults run the stages of the
 * revision, and whose other actors run the lists of src/kvm/actors, one atomic step at a time.
 */
import { RES_ALL, RES_HOST, RES_REQUESTS, RES_ROOTS, RES_SRCU, RES_TABLES } from '../../../kvm/actors/actor.ts';
import { LOCK_MMU_WRITE } from '../../../kvm/locks.ts';
import { tryEverySlotChange } from '../kvm-model/every-slot.ts';
import { BUG, lockBits, restLocks, SceneModel } from '../kvm-model/scene-model.ts';
import { RES_GUESTS } from '../kvm-model/state.ts';
import type { SceneOverrides } from '../kvm-model/vm.ts';
import { VmWords } from '../kvm-model/vm-words.ts';
import type { Footprint } from '../model.ts';
import type { Scene } from '../scene.ts';
import { describeShadow } from './describe.ts';
import { firstShadowViolation, invariantBits, shadowInvariantTexts } from './invariants.ts';
import { makeShadowState } from './make.ts';
import type { ShadowState } from './state.ts';
import type { ShadowVcpu } from './vcpu.ts';

/** Who flushes in this stage waits for it in a later one. */
const FLUSH_STAGE = 'flush';
const EVERYTHING = RES_ALL | RES_GUESTS;
/** What a flush touches: it stops others, and asks them for something. */
const FLUSH_BITS = RES_GUESTS | RES_SRCU | RES_REQUESTS;

export class ShadowModel extends SceneModel {
  readonly stateWords: number;
  readonly invariants = shadowInvariantTexts;
  readonly state: ShadowState;
  protected readonly vcpus: readonly ShadowVcpu[];
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

  constructor(scene: Scene, overrides: SceneOverrides = {}) {
    const state = makeShadowState(scene, overrides);
    super(state);
    const { vm } = state;
    this.vcpus = state.vcpus;
    this.state = state;
    this.passed = invariantBits(scene.vm?.passesOver ?? []);
    this.watchLog((this.passed & (1 << BUG)) !== 0);
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
    vm.mmu.nRequestedMmuPages = vm.mmu.nMaxMmuPages;
    scene.actors.forEach((spec, i) => {
      if (spec.kind === 'vcpu' && spec.guest!.before.length > 0) this.warmUp(i, spec.guest!.before);
    });
    if (scene.vm?.mmuPages !== undefined) vm.mmu.nMaxMmuPages = scene.vm.mmuPages;
    vm.mmu.nRequestedMmuPages = vm.mmu.nMaxMmuPages;
    state.unreported = 0;
    this.settle();
    tryEverySlotChange(this, this.list, this.slotChangers);
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

  private scan(): void {
    if (this.scanned) return;
    this.state.shadow.scan();
    this.scanned = true;
  }

  // ---- steps ----

  step(index: number, choice: number): void {
    if (this.state.pages.tablesLeft < 24) this.settle();
    const actor = this.beginStep(index);
    this.scanned = false;
    this.state.noteRequests();
    const flushesLater = actor.stageName() === FLUSH_STAGE;
    this.run(actor, choice);
    // Who flushes within a step waits within it until nobody runs on with what went.
    if (!flushesLater) this.state.deliverRequests(actor);
    this.endStep(index, actor);
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
    const { state, counted } = this;
    const a = this.list[actor]!;
    a.resources();
    const locks = lockBits(a.takes() | a.held);
    out.reads = (state.reads & counted) | locks;
    // Who changes tables may flush, and so stop others.
    const flushes = (state.writes & (RES_TABLES | RES_ROOTS)) !== 0 ? FLUSH_BITS : 0;
    out.writes = ((state.writes | flushes) & counted) | locks;
  }

  restFootprint(actor: number, out: Footprint): void {
    const { state, counted } = this;
    const a = this.list[actor]!;
    a.restResources();
    const locks = restLocks(a, LOCK_MMU_WRITE);
    out.reads = (state.reads & counted) | locks;
    out.writes = ((state.writes | (a.finished ? 0 : FLUSH_BITS)) & counted) | locks;
  }

  /** Resources in which two states differ, what belongs to `actor` alone left out: to check footprints by. */
  changed(a: Int32Array, b: Int32Array, actor: number): number {
    let mask = this.vmWords.changed(a, b);
    this.list.forEach((other, i) => {
      mask |= other.changed(a, b, this.actorWords[i]!, i === actor);
    });
    for (let w = this.guestWords; w < this.shadowWords; w++) if (a[w] !== b[w]) mask |= RES_HOST;
    for (let w = this.shadowWords; w < this.flagWord; w++) if (a[w] !== b[w]) mask |= RES_TABLES;
    return mask & this.counted;
  }

  describe(): readonly string[] {
    this.scan();
    return describeShadow(this.state);
  }
}
