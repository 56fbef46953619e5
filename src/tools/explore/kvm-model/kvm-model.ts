/**
 * The real KVM as a model: a VM of the product, whose faults run the stages of the revision and whose other actors run the lists of
 * src/kvm/actors, one atomic step at a time. All state that a step can change is a few words, which are captured and restored.
 */
import {
  RES_ALL,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../../kvm/actors/actor.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE, LOCK_SLOTS, LOCK_SLOTS_ARCH } from '../../../kvm/locks.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { explanationLines } from '../../explain/explain-text.ts';
import { FaultLog } from '../../explain/fault-log.ts';
import type { Actor, Footprint, Model } from '../model.ts';
import type { Scene } from '../scene.ts';
import { refuseEndless } from './bounded.ts';
import { describeScene } from './describe-scene.ts';
import { tryEverySlotChange } from './every-slot.ts';
import { BUG, firstViolation, invariantTexts } from './invariants.ts';
import { SceneKernelActor } from './kernel-actor.ts';
import { makeSceneState } from './make-state.ts';
import { type ModelActor, RES_GUESTS, RES_MMU_LOCK, RES_QUIET, RES_SLOTS_LOCK, type SceneState } from './state.ts';
import type { SceneVcpu } from './vcpu.ts';
import type { SceneOverrides } from './vm.ts';
import { REGION_ACTOR, REGION_ACTOR_SHIFT, REGION_ACTORS, REGION_TABLES, VmWords } from './vm-words.ts';

const TABLE_BITS = RES_TABLES | RES_ROOTS;
/** In `stale`: somebody took a step. */
const STEPPED = 1 << 30;

export class KvmModel implements Model {
  readonly actors: readonly Actor[];
  readonly stateWords: number;
  readonly invariants = invariantTexts;
  readonly observed = (RES_ALL & ~(RES_SEQUENCE | RES_NOTIFIER_COUNT | RES_SRCU)) | RES_GUESTS | RES_QUIET;
  readonly state: SceneState;
  private readonly vm: VmState;
  private readonly list: readonly ModelActor[];
  private readonly logs = new Map<ModelActor, FaultLog>();
  private scanned = false;
  private broken = 0;
  private brokenText = '';
  /** The words of the present state, but for what `stale` (resources) and `stepped` (actors, as bits) say has changed since. */
  private readonly live: Int32Array;
  /** The words of the state that was restored last, and the regions in which `live` may differ from it. */
  private readonly base: Int32Array;
  private touched = -1;
  /** Actors, as bits, that took steps since: more than their words may have changed. */
  private moved = -1;
  private stale = RES_ALL | RES_GUESTS;
  private stepped = -1;
  /** A step since the last restore may have put new objects in the place of slots or of their parts. */
  private slotsReplaced = true;
  private readonly words: VmWords;
  /** First words of each actor, and of the VM's page tables. */
  private readonly actorWords: readonly number[];
  private readonly tableWords: number;
  /** REGION_* by word. */
  private readonly regionOf: Int32Array;
  /** By word: the first one after it that belongs to another region. */
  private readonly regionEnd: Int32Array;
  private readonly scratch: Int32Array;
  /** Actors, as bits, whose words say something else when others change what all share. */
  private readonly dependents: number;
  /** Somebody waits for SRCU grace periods: without, read sections are nobody's business. */
  private readonly usesSrcu: boolean;

  constructor(scene: Scene, overrides: SceneOverrides = {}) {
    const { state, attributeBounds } = makeSceneState(scene, overrides);
    const { vm } = state;
    this.vm = vm;
    this.state = state;
    this.watchLog();
    this.words = new VmWords(state, attributeBounds);
    this.list = state.actors;
    this.actors = this.list.map((a, i) => ({ name: a.name, cpu: `CPU${i}` }));
    let next = this.words.count;
    this.actorWords = this.list.map((a) => {
      next += a.words;
      return next - a.words;
    });
    this.tableWords = next;
    this.stateWords = next + state.tables.words;
    this.live = new Int32Array(this.stateWords);
    this.scratch = new Int32Array(this.stateWords);
    this.base = new Int32Array(this.stateWords);
    this.regionOf = this.regions();
    this.regionEnd = new Int32Array(this.stateWords);
    for (let i = this.stateWords - 1; i >= 0; i--)
      this.regionEnd[i] = this.regionOf[i] === this.regionOf[i + 1] ? this.regionEnd[i + 1]! : i + 1;
    this.dependents = this.list.reduce((mask, a, i) => (a.selfContained === true ? mask : mask | (1 << i)), 0);
    // What is active at the start is what restores use.
    for (let asId = 0; asId < vm.slots.count; asId++) state.slots.active(asId);
    this.usesSrcu = state.actors.some((a) => a instanceof SceneKernelActor && a.changesSlots);
    scene.actors.forEach((spec, i) => {
      if (spec.kind === 'vcpu' && spec.before.length > 0) (this.list[i] as SceneVcpu).warmUp(spec.before);
    });
    state.unreported = 0;
    this.settle();
    tryEverySlotChange(
      this,
      this.list,
      this.list.flatMap((a, i) => (a instanceof SceneKernelActor && a.changesSlots ? [i] : [])),
    );
    state.slots.complete = true;
    refuseEndless(
      this,
      this.list,
      this.list.flatMap((a, i) => (a instanceof SceneKernelActor && !a.changesSlots ? [i] : [])),
    );
  }

  /** Puts everything into the places that restores use. */
  private settle(): void {
    this.capture(this.scratch, 0);
    this.slotsReplaced = true;
    this.restore(this.scratch, 0);
  }

  private regions(): Int32Array {
    const regions = new Int32Array(this.stateWords).fill(REGION_TABLES);
    this.list.forEach((actor, i) => {
      regions.fill(REGION_ACTOR << i, this.actorWords[i]!, this.actorWords[i]! + actor.words);
    });
    this.words.regions(regions);
    return regions;
  }

  /** What KVM warns of is a violation. */
  private watchLog(): void {
    const { log } = this.vm;
    log.warnOnOnce = (condition, where, message) => {
      if (condition) this.breaks(`WARN in ${where}: ${message}`);
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
    this.state.tables.scan();
    this.scanned = true;
  }

  // ---- steps ----

  enabled(): number {
    const { list } = this;
    let mask = 0;
    for (let i = 0; i < list.length; i++) {
      const actor = list[i]!;
      if (actor.ready() && !this.conflicts(i, actor.takes())) mask |= 1 << i;
    }
    return mask;
  }

  /** Somebody else holds one of the locks in `takes` in a mode that excludes it. */
  private conflicts(self: number, takes: number): boolean {
    if (takes === 0) return false;
    const { list } = this;
    for (let i = 0; i < list.length; i++) {
      if (i === self) continue;
      const { held } = list[i]!;
      if (held === 0) continue;
      if ((held & takes & (LOCK_SLOTS | LOCK_SLOTS_ARCH)) !== 0) return true;
      if ((takes & LOCK_MMU_WRITE) !== 0 && (held & (LOCK_MMU_READ | LOCK_MMU_WRITE)) !== 0) return true;
      if ((takes & LOCK_MMU_READ) !== 0 && (held & LOCK_MMU_WRITE) !== 0) return true;
    }
    return false;
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
    if (this.state.pages.tablesLeft < 16) this.settle();
    let readers = 0;
    for (let i = 0; i < list.length; i++) if (i !== index && list[i]!.srcu > 0) readers |= 1 << i;
    locks.srcuReaders = readers;
    locks.held = actor.held;
    locks.srcuDepth = actor.srcu;
    actor.resources();
    const { writes } = this.state;
    this.stale |= writes | STEPPED;
    this.stepped |= 1 << index;
    if ((writes & RES_SLOTS) !== 0) this.slotsReplaced = true;
    if ((writes & TABLE_BITS) !== 0) this.scanned = false;
    try {
      actor.step(choice);
    } catch (error) {
      this.breaks(`${actor.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
    actor.held = locks.held;
    actor.srcu = locks.srcuDepth;
    this.stepped |= this.state.interrupted;
    this.state.interrupted = 0;
    if (actor.srcu === 0) locks.srcuGrace &= ~(1 << index);
    locks.held = 0;
    locks.srcuDepth = 0;
  }

  violation(): number {
    if (this.broken !== 0) return this.broken;
    this.scan();
    return firstViolation(this.state);
  }

  // ---- state ----

  /** Brings `live` up to date with what the steps since have changed, as far as they said. HOT */
  private refresh(): void {
    const { stale, state, live, list } = this;
    if (stale === 0) return;
    this.stale = 0;
    this.scan();
    let touched = this.words.refresh(live, stale, this.broken !== 0);
    if ((stale & TABLE_BITS) !== 0) {
      state.tables.capture(live, this.tableWords);
      touched |= REGION_TABLES;
    }
    // What a vCPU has in hand is worth something else when these change.
    let saved = this.stepped;
    if ((stale & (TABLE_BITS | RES_SEQUENCE | RES_REQUESTS)) !== 0) saved |= this.dependents;
    const { actorWords } = this;
    for (let i = 0; i < list.length; i++) {
      if ((saved & (1 << i)) === 0) continue;
      list[i]!.save(live, actorWords[i]!);
      touched |= REGION_ACTOR << i;
    }
    this.moved |= this.stepped;
    this.stepped = 0;
    this.touched |= touched;
  }

  /** The next capture looks at everything, whatever the steps since have said: to check them by. */
  lookAgain(): void {
    this.stale = RES_ALL | RES_GUESTS;
    this.stepped = -1;
    this.scanned = false;
  }

  capture(into: Int32Array, at: number): void {
    this.refresh();
    const { live, stateWords } = this;
    for (let i = 0; i < stateWords; i++) into[at + i] = live[i]!;
  }

  /* HOT */
  changes(list: Int32Array, values: Int32Array): number {
    this.refresh();
    const { live, base, touched, regionOf, stateWords, regionEnd } = this;
    let n = 0;
    for (let i = 0; i < stateWords; ) {
      if ((touched & regionOf[i]!) === 0) {
        i = regionEnd[i]!;
        continue;
      }
      const word = live[i]!;
      if (word !== base[i]) {
        list[n] = i;
        values[n++] = word;
      }
      i++;
    }
    return n;
  }

  /* HOT */
  rewind(): void {
    const whole = this.slotsReplaced;
    this.refresh();
    const { live, base, touched, regionOf, stateWords, regionEnd } = this;
    const attributes = this.words.attributesOf(live);
    let differ = 0;
    for (let i = 0; i < stateWords; ) {
      if ((touched & regionOf[i]!) === 0) {
        i = regionEnd[i]!;
        continue;
      }
      const word = base[i]!;
      if (live[i] !== word) {
        live[i] = word;
        differ |= regionOf[i]!;
      }
      i++;
    }
    this.putBack(whole ? -1 : differ, attributes);
  }

  /* HOT */
  restore(from: Int32Array, at: number): void {
    // New objects for slots, and parts of slots, may be in use: then nothing of the present is kept.
    const whole = this.slotsReplaced;
    this.refresh();
    const { live, base, stateWords, regionOf } = this;
    const attributes = this.words.attributesOf(live);
    let differ = 0;
    for (let i = 0; i < stateWords; i++) {
      const word = from[at + i]!;
      base[i] = word;
      if (live[i] === word) continue;
      live[i] = word;
      differ |= regionOf[i]!;
    }
    this.putBack(whole ? -1 : differ, attributes);
  }

  /** Makes the VM and its actors what `live` says now. `differ`: the regions in which they are not; `attributes`: the word as it was. HOT */
  private putBack(differ: number, attributes: number): void {
    const { live, dependents } = this;
    this.slotsReplaced = false;
    this.broken = 0;
    this.touched = 0;
    let all =
      this.words.restore(live, differ, attributes, dependents << REGION_ACTOR_SHIFT) |
      (this.moved << REGION_ACTOR_SHIFT);
    this.moved = 0;
    if ((differ & REGION_TABLES) !== 0) {
      this.state.tables.restore(live, this.tableWords);
      this.scanned = false;
      all |= dependents << REGION_ACTOR_SHIFT;
    }
    if ((all & REGION_ACTORS) !== 0) this.loadActors(all);
    if (this.words.isBroken(live)) this.broken = BUG;
  }

  private loadActors(differ: number): void {
    const { list, actorWords, live } = this;
    for (let i = 0; i < list.length; i++) {
      if ((differ & (REGION_ACTOR << i)) !== 0) list[i]!.load(live, actorWords[i]!);
    }
  }

  // ---- what a step touches ----

  footprint(actor: number, out: Footprint): void {
    const { state } = this;
    this.list[actor]!.resources();
    const takes = this.list[actor]!.takes() | this.list[actor]!.held;
    const mask = this.usesSrcu ? -1 : ~RES_SRCU;
    out.reads = (state.reads & mask) | lockBits(takes);
    out.writes = (state.writes & mask) | lockBits(takes);
  }

  restFootprint(actor: number, out: Footprint): void {
    const { state } = this;
    const a = this.list[actor]!;
    a.restResources();
    const takes = a instanceof SceneKernelActor ? a.takesFrom(a.position) | a.held : LOCK_MMU_READ;
    const locks = a.finished ? 0 : lockBits(takes);
    const mask = this.usesSrcu ? -1 : ~RES_SRCU;
    out.reads = (state.reads & mask) | locks;
    out.writes = (state.writes & mask) | locks;
  }

  /** Resources in which two states differ, what belongs to `actor` alone left out: to check footprints by. */
  changed(a: Int32Array, b: Int32Array, actor: number): number {
    const { tables } = this.state;
    let mask = this.words.changed(a, b);
    this.list.forEach((other, i) => {
      mask |= other.changed(a, b, this.actorWords[i]!, i === actor);
    });
    for (let w = this.tableWords; w < this.stateWords; w++)
      if (a[w] !== b[w]) mask |= tables.isHeader(w - this.stateWords) ? RES_ROOTS : RES_TABLES;
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
    return n === BUG && this.broken !== 0 ? this.brokenText : (invariantTexts[n - 1] ?? `violation ${n}`);
  }

  describe(): readonly string[] {
    this.scan();
    return describeScene(this.state);
  }
}

function lockBits(locks: number): number {
  return (
    ((locks & (LOCK_MMU_READ | LOCK_MMU_WRITE)) !== 0 ? RES_MMU_LOCK : 0) |
    ((locks & (LOCK_SLOTS | LOCK_SLOTS_ARCH)) !== 0 ? RES_SLOTS_LOCK : 0)
  );
}
