/**
 * The real KVM as a model: a VM of the product, whose faults run the stages of the revision and whose other actors run the lists of
 * src/kvm/actors, one atomic step at a time. All state that a step can change is a few words, which are captured and restored.
 */
import { RES_ALL, RES_REQUESTS, RES_ROOTS, RES_SEQUENCE, RES_SLOTS, RES_TABLES } from '../../../kvm/actors/actor.ts';
import { LOCK_MMU_READ } from '../../../kvm/locks.ts';
import type { Footprint } from '../model.ts';
import type { Scene } from '../scene.ts';
import { refuseEndless } from './bounded.ts';
import { describeScene } from './describe-scene.ts';
import { tryEverySlotChange } from './every-slot.ts';
import { firstViolation, invariantTexts } from './invariants.ts';
import { SceneKernelActor } from './kernel-actor.ts';
import { makeSceneState } from './make-state.ts';
import { BUG, lockBits, restLocks, SceneModel } from './scene-model.ts';
import { RES_GUESTS, type SceneState } from './state.ts';
import type { SceneVcpu } from './vcpu.ts';
import type { SceneOverrides } from './vm.ts';
import { REGION_ACTOR, REGION_ACTOR_SHIFT, REGION_ACTORS, REGION_TABLES, VmWords } from './vm-words.ts';

const TABLE_BITS = RES_TABLES | RES_ROOTS;
/** In `stale`: somebody took a step. */
const STEPPED = 1 << 30;

export class KvmModel extends SceneModel {
  readonly stateWords: number;
  readonly invariants = invariantTexts;
  readonly state: SceneState;
  protected readonly vcpus: readonly SceneVcpu[];
  private scanned = false;
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

  constructor(scene: Scene, overrides: SceneOverrides = {}) {
    const { state, attributeBounds } = makeSceneState(scene, overrides);
    super(state);
    const { vm } = state;
    this.vcpus = state.vcpus;
    this.state = state;
    this.watchLog();
    this.words = new VmWords(state, attributeBounds);
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
    scene.actors.forEach((spec, i) => {
      if (spec.kind === 'vcpu' && spec.before.length > 0) (this.list[i] as SceneVcpu).warmUp(spec.before);
    });
    state.unreported = 0;
    this.settle();
    tryEverySlotChange(this, this.list, this.slotChangers);
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

  private scan(): void {
    if (this.scanned) return;
    this.state.tables.scan();
    this.scanned = true;
  }

  // ---- steps ----

  step(index: number, choice: number): void {
    if (this.state.pages.tablesLeft < 16) this.settle();
    const actor = this.beginStep(index);
    actor.resources();
    const { writes } = this.state;
    this.stale |= writes | STEPPED;
    this.stepped |= 1 << index;
    if ((writes & RES_SLOTS) !== 0) this.slotsReplaced = true;
    if ((writes & TABLE_BITS) !== 0) this.scanned = false;
    this.run(actor, choice);
    this.stepped |= this.state.interrupted;
    this.state.interrupted = 0;
    this.endStep(index, actor);
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
    const { state, counted } = this;
    const a = this.list[actor]!;
    a.resources();
    const locks = lockBits(a.takes() | a.held);
    out.reads = (state.reads & counted) | locks;
    out.writes = (state.writes & counted) | locks;
  }

  restFootprint(actor: number, out: Footprint): void {
    const { state, counted } = this;
    const a = this.list[actor]!;
    a.restResources();
    const locks = restLocks(a, LOCK_MMU_READ);
    out.reads = (state.reads & counted) | locks;
    out.writes = (state.writes & counted) | locks;
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
    return mask & this.counted;
  }

  describe(): readonly string[] {
    this.scan();
    return describeScene(this.state);
  }
}
