/**
 * The real KVM as a model: a VM of the product, whose faults run the stages of the revision and whose other actors run the lists of
 * src/kvm/actors, one atomic step at a time. All state that a step can change is a few words, which are captured and restored.
 */
import { NestedWalker } from '../../cpu/mmu/nested-walker.ts';
import { siliconEpyc } from '../../cpu/profiles/silicon-epyc.ts';
import {
  RES_ALL,
  RES_ATTRIBUTES,
  RES_DIRTY_LOG,
  RES_GMEM,
  RES_HOST,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../kvm/actors/actor.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE, LOCK_SLOTS, LOCK_SLOTS_ARCH } from '../../kvm/locks.ts';
import { slotHva } from '../../kvm/memslots/hva.ts';
import type { Memslot } from '../../kvm/memslots/memslot.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { explanationLines } from '../explain/explain-text.ts';
import { FaultLog } from '../explain/fault-log.ts';
import { BUG, firstViolation, invariantTexts } from './invariants.ts';
import { type KernelPart, SceneKernelActor } from './kvm-model-kernel.ts';
import { SceneSlots } from './kvm-model-slots.ts';
import { type ModelActor, RES_GUESTS, RES_MMU_LOCK, RES_QUIET, RES_SLOTS_LOCK, SceneState } from './kvm-model-state.ts';
import { SceneTables } from './kvm-model-tables.ts';
import { SceneVcpu } from './kvm-model-vcpu.ts';
import { addSceneVcpu, DATA_FRAMES, makeSceneVm, type SceneOverrides } from './kvm-model-vm.ts';
import type { Actor, Footprint, Model } from './model.ts';
import type { Scene } from './scene.ts';

/** Roots at a time: the one in use, one of SMM, and those that slot changes made obsolete. */
function maxRoots(scene: Scene): number {
  const smm = scene.actors.some((a) => a.kind === 'vcpu' && a.smm) ? 1 : 0;
  const changers = scene.actors.filter((a) => a.kind === 'kernel' && a.changesSlots === true).length;
  return 1 + smm + (changers > 0 ? 1 + smm : 0) + changers - (changers > 0 ? 1 : 0);
}

/** Fixed words at the start of a state. */
const W_COUNTS = 0;
const W_RANGE_START = 1;
const W_RANGE_END = 2;
const W_STATS = 3;
const W_FRAMES = 4;
const W_ATTRIBUTES = 5;
const W_DIRTY = 6;
const W_MIXED = 7;
const W_MORE = 8;
const FIXED_WORDS = 9;
/** In W_MORE: KVM has warned. */
const BROKEN = 1 << 30;
const EMULATED_PRIVATE = 1 << 17;
const FIRST_BOUND = 1 << 18;
/** Which part of the state a word belongs to, as bits: one for each actor from REGION_ACTOR on. */
const REGION_FIXED = 1 << 0;
const REGION_SLOTS = 1 << 1;
const REGION_HOST = 1 << 2;
const REGION_TABLES = 1 << 3;
const REGION_ACTOR = 1 << 4;
const REGION_ACTORS = -REGION_ACTOR;
const TABLE_BITS = RES_TABLES | RES_ROOTS;
/** In `stale`: somebody took a step. */
const STEPPED = 1 << 30;

/** Frames of the scene, in order. */
function framesOf(scene: Scene): number[] {
  const all = new Set<number>(scene.gfns ?? []);
  for (const actor of scene.actors) {
    if (actor.kind === 'vcpu') for (const op of [...actor.before, ...actor.ops]) all.add(op.gfn);
    else for (const gfn of actor.gfns) all.add(gfn);
  }
  return [...all].sort((a, b) => a - b);
}

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
  /** Addresses of the process behind the scene's frames, and pages of the guest_memfd. */
  private readonly hvas: readonly number[];
  private readonly gmemPages: readonly number[];
  /** Slots with a guest_memfd, at the start. */
  private readonly gmemSlots: readonly Memslot[];
  /** Ranges of frames that have one attribute throughout: bounds. */
  private readonly attributeBounds: readonly number[];
  /** The words of the present state, but for what `stale` (resources) and `stepped` (actors, as bits) say has changed since. */
  private readonly live: Int32Array;
  private stale = RES_ALL | RES_GUESTS;
  private stepped = -1;
  /** A step since the last restore may have put new objects in the place of slots or of their parts. */
  private slotsReplaced = true;
  /** First words of the host's page tables, of each actor, and of the VM's page tables. */
  private readonly hostWords: number;
  private readonly actorWords: readonly number[];
  private readonly tableWords: number;
  /** REGION_* by word. */
  private readonly regionOf: Int32Array;
  private readonly scratch: Int32Array;
  /** Somebody waits for SRCU grace periods: without, read sections are nobody's business. */
  private readonly usesSrcu: boolean;

  constructor(scene: Scene, overrides: SceneOverrides = {}) {
    const gfns = framesOf(scene);
    const flushed = (id: number): void => this.state?.vcpus[id]?.flushTlb();
    const { vm, pages, gmem } = makeSceneVm(scene, overrides, flushed);
    this.vm = vm;
    for (const spec of scene.actors) if (spec.kind === 'vcpu') addSceneVcpu(vm, spec.smm);
    const tables = new SceneTables(vm, pages, gfns, maxRoots(scene));
    const slots = new SceneSlots(vm, gfns);
    const state = new SceneState(vm, pages, gfns, tables, slots, gmem);
    state.mayCopy =
      scene.slots.some((s) => s.host === 'absent') ||
      scene.actors.some((a) => a.kind === 'kernel' && a.dropsPages === true);
    this.state = state;
    const walker = new NestedWalker(vm.memory, siliconEpyc);
    let id = 0;
    for (const spec of scene.actors) {
      if (spec.kind !== 'vcpu') continue;
      const vcpu = new SceneVcpu(state, vm.vcpus[id++]!, walker, spec.ops);
      state.vcpus.push(vcpu);
    }
    this.watchLog();
    findHostAddresses(state);
    this.gmemPages = gmemIndices(state);
    this.gmemSlots = vm.slots.sets[0]!.slots.filter((s) => s.gmem !== null);
    if (this.gmemSlots.length > 8) throw new Error(`scene ${scene.name}: too many slots with guest_memfd`);
    state.forbidsPrivateEmulation = scene.alsoForbids?.includes('private-emulation') === true;
    let nextVcpu = 0;
    const edges = new Set<number>();
    scene.actors.forEach((spec, i) => {
      if (spec.kind === 'vcpu') {
        state.actors.push(state.vcpus[nextVcpu++]!);
        return;
      }
      const parts: readonly KernelPart[] = spec.make(state);
      const actor = new SceneKernelActor(state, spec.name, `CPU${i}`, parts);
      state.actors.push(actor);
      state.kernels.push(actor);
      for (const gfn of spec.gfns) edges.add(gfn);
      for (const { context } of parts) {
        const range = context as { attrs?: number; start?: number; end?: number };
        if (range.attrs === undefined) continue;
        edges.add(range.start!);
        edges.add(range.end!);
      }
    });
    for (const [start, count] of scene.private ?? []) {
      edges.add(start);
      edges.add(start + count);
    }
    for (const gfn of gfns) {
      edges.add(gfn);
      edges.add(gfn + 1);
    }
    this.hvas = [...state.hvas].sort((a, b) => a - b);
    this.attributeBounds = [...edges].sort((a, b) => a - b);
    if (this.attributeBounds.length > 32) throw new Error(`scene ${scene.name}: too many ranges of attributes`);
    this.list = state.actors;
    this.actors = this.list.map((a, i) => ({ name: a.name, cpu: `CPU${i}` }));
    this.hostWords = FIXED_WORDS + 2 * vm.slots.count;
    let next = this.hostWords + this.hvas.length + this.gmemPages.length;
    this.actorWords = this.list.map((a) => {
      next += a.words;
      return next - a.words;
    });
    this.tableWords = next;
    this.stateWords = next + tables.words;
    this.live = new Int32Array(this.stateWords);
    this.scratch = new Int32Array(this.stateWords);
    this.regionOf = this.regions();
    // What is active at the start is what restores use.
    for (let asId = 0; asId < vm.slots.count; asId++) slots.active(asId);
    this.usesSrcu = state.actors.some((a) => a instanceof SceneKernelActor && a.changesSlots);
    scene.actors.forEach((spec, i) => {
      if (spec.kind === 'vcpu' && spec.before.length > 0) (this.list[i] as SceneVcpu).warmUp(spec.before);
    });
    state.unreported = 0;
    this.settle();
    this.numberSlots();
  }

  /**
   * Numbers every slot that there can be, the same in each model of the scene: slots_lock lets changes of slots happen only one after the
   * other, so all orders of them are tried.
   */
  private numberSlots(): void {
    const { list, scratch, state } = this;
    const first = scratch.slice();
    const changers = list.flatMap((a, i) => (a instanceof SceneKernelActor && a.changesSlots ? [i] : []));
    const go = (left: readonly number[]): void => {
      const here = new Int32Array(this.stateWords);
      this.capture(here, 0);
      for (const i of left) {
        this.restore(here, 0);
        this.runAlone(i);
        go(left.filter((j) => j !== i));
      }
    };
    go(changers);
    state.slots.complete = true;
    this.restore(first, 0);
  }

  /** Runs one actor to its end; others only get out of its way. */
  private runAlone(actor: number): void {
    for (let steps = 0; !this.list[actor]!.finished; steps++) {
      if (steps > 500) throw new Error(`${this.list[actor]!.name} does not come to an end by itself`);
      const enabled = this.enabled();
      const next = (enabled & (1 << actor)) !== 0 ? actor : this.list.findIndex((_, i) => (enabled & (1 << i)) !== 0);
      if (next < 0) throw new Error(`${this.list[actor]!.name} cannot go on by itself`);
      this.step(next, next === actor ? 0 : this.choices(next) - 1);
      this.capture(this.scratch, 0);
    }
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
    regions.fill(REGION_HOST, this.hostWords, this.actorWords[0]!);
    regions.fill(REGION_SLOTS, FIXED_WORDS, this.hostWords);
    regions.fill(REGION_FIXED, 0, FIXED_WORDS);
    regions[W_FRAMES] = REGION_HOST;
    regions[W_ATTRIBUTES] = 0;
    regions[W_DIRTY] = REGION_SLOTS;
    regions[W_MIXED] = REGION_SLOTS;
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
    const { stale, vm, state, live, list } = this;
    if (stale === 0) return;
    this.stale = 0;
    this.scan();
    const { pages } = vm.host;
    const busy = vm.mmuInvalidateInProgress !== 0;
    let flags = 0;
    for (let asId = 0; asId < vm.slots.count; asId++) if (vm.slots.updateInProgress(asId)) flags |= 1 << asId;
    live[W_COUNTS] =
      (vm.mmuInvalidateSeq & 0x3ff) |
      (vm.mmuInvalidateInProgress << 10) |
      (vm.notifier.activeInvalidateCount << 13) |
      (flags << 16) |
      (vm.locks.srcuGrace << 18);
    live[W_RANGE_START] = busy ? vm.mmuInvalidateRangeStart : -1;
    live[W_RANGE_END] = busy ? vm.mmuInvalidateRangeEnd : -1;
    live[W_STATS] =
      (vm.stats.pages_4k & 0xffff) | (vm.stats.pages_2m << 16) | (vm.stats.pages_1g << 20) | (vm.mmu.tdpMmuPages << 24);
    live[W_MORE] =
      state.unreported |
      (vm.mmu.possibleNxHugePages << 8) |
      (vm.mmu.mmuValidGen << 16) |
      (state.emulatedPrivate ? EMULATED_PRIVATE : 0) |
      this.boundSlots() |
      (this.broken !== 0 ? BROKEN : 0);
    if ((stale & (RES_HOST | RES_GMEM)) !== 0) {
      let frames = 0;
      for (let i = 0; i < DATA_FRAMES; i++) frames |= (pages.refs[state.pages.data[i]!]! & 3) << (2 * i);
      live[W_FRAMES] = frames;
      let w = this.hostWords;
      for (let i = 0; i < this.hvas.length; i++) live[w++] = vm.mm.table.lookup(this.hvas[i]!);
      for (let i = 0; i < this.gmemPages.length; i++) live[w++] = state.gmem!.peekPage(this.gmemPages[i]!);
    }
    if ((stale & RES_ATTRIBUTES) !== 0 && vm.hasPrivateMem) {
      let attributes = 0;
      const { attributeBounds } = this;
      for (let i = 0; i + 1 < attributeBounds.length; i++) {
        if (vm.attributes.private.has(attributeBounds[i]!)) attributes |= 1 << i;
      }
      live[W_ATTRIBUTES] = attributes;
    }
    if ((stale & RES_SLOTS) !== 0) {
      let w = FIXED_WORDS;
      for (let asId = 0; asId < vm.slots.count; asId++) {
        live[w++] = state.slots.active(asId);
        live[w++] = vm.slots.generation(asId);
      }
      live[W_MIXED] = state.slots.mixedBits();
    }
    if ((stale & (RES_SLOTS | RES_DIRTY_LOG)) !== 0) live[W_DIRTY] = state.slots.dirtyBits();
    if ((stale & TABLE_BITS) !== 0) state.tables.capture(live, this.tableWords);
    // What a vCPU has in hand is worth something else when these change.
    const all = (stale & (TABLE_BITS | RES_SEQUENCE | RES_REQUESTS)) !== 0;
    const { actorWords } = this;
    for (let i = 0; i < list.length; i++) {
      if (all || (this.stepped & (1 << i)) !== 0) list[i]!.save(live, actorWords[i]!);
    }
    this.stepped = 0;
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

  restore(from: Int32Array, at: number): void {
    const { vm, state, live, stateWords, regionOf } = this;
    // New objects for slots, and parts of slots, may be in use: then nothing of the present is kept.
    const whole = this.slotsReplaced;
    this.refresh();
    this.slotsReplaced = false;
    this.broken = 0;
    const attributes = live[W_ATTRIBUTES]!;
    let differ = 0;
    for (let i = 0; i < stateWords; i++) {
      const word = from[at + i]!;
      if (live[i] === word) continue;
      live[i] = word;
      differ |= regionOf[i]!;
    }
    if (whole) differ = -1;
    if ((differ & REGION_FIXED) !== 0) {
      const counts = live[W_COUNTS]!;
      if (vm.mmuInvalidateSeq !== (counts & 0x3ff)) differ |= REGION_ACTORS;
      this.restoreFixed(counts);
    }
    if (live[W_ATTRIBUTES] !== attributes)
      this.restoreAttributes(attributes ^ live[W_ATTRIBUTES]!, live[W_ATTRIBUTES]!);
    if ((differ & REGION_SLOTS) !== 0) {
      let w = FIXED_WORDS;
      for (let asId = 0; asId < vm.slots.count; asId++, w += 2) {
        state.slots.restoreActive(asId, live[w]!);
        vm.slots.sets[asId]!.generation = live[w + 1]!;
      }
      state.slots.restoreDirtyBits(live[W_DIRTY]!);
      state.slots.restoreMixedBits(live[W_MIXED]!);
      differ |= REGION_ACTORS;
    }
    if ((differ & REGION_HOST) !== 0) this.restoreHost();
    if ((differ & REGION_TABLES) !== 0) {
      state.tables.restore(live, this.tableWords);
      this.scanned = false;
      differ |= REGION_ACTORS;
    }
    if ((differ & REGION_ACTORS) !== 0) this.loadActors(differ);
    if ((live[W_MORE]! & BROKEN) !== 0) this.broken = BUG;
  }

  private loadActors(differ: number): void {
    const { list, actorWords, live } = this;
    for (let i = 0; i < list.length; i++) {
      if ((differ & (REGION_ACTOR << i)) !== 0) list[i]!.load(live, actorWords[i]!);
    }
  }

  private restoreFixed(counts: number): void {
    const { vm, state, live } = this;
    vm.mmuInvalidateSeq = counts & 0x3ff;
    vm.mmuInvalidateInProgress = (counts >>> 10) & 7;
    vm.notifier.activeInvalidateCount = (counts >>> 13) & 7;
    vm.locks.srcuGrace = counts >>> 18;
    for (let asId = 0; asId < vm.slots.count; asId++) {
      vm.slots.sets[asId]!.updateInProgress = (counts & (1 << (16 + asId))) !== 0;
    }
    vm.mmuInvalidateRangeStart = live[W_RANGE_START]!;
    vm.mmuInvalidateRangeEnd = live[W_RANGE_END]!;
    const stats = live[W_STATS]!;
    vm.stats.pages_4k = (stats << 16) >> 16;
    vm.stats.pages_2m = (stats >>> 16) & 15;
    vm.stats.pages_1g = (stats >>> 20) & 15;
    vm.mmu.tdpMmuPages = stats >>> 24;
    const more = live[W_MORE]!;
    state.unreported = more & 255;
    vm.mmu.possibleNxHugePages = (more >>> 8) & 255;
    vm.mmu.mmuValidGen = (more >>> 16) & 1;
    state.emulatedPrivate = (more & EMULATED_PRIVATE) !== 0;
    for (let i = 0; i < this.gmemSlots.length; i++) {
      state.gmem!.setBound(this.gmemSlots[i]!, (more & (FIRST_BOUND << i)) !== 0);
    }
  }

  private restoreHost(): void {
    const { vm, state, live } = this;
    const { refs } = vm.host.pages;
    const frames = live[W_FRAMES]!;
    for (let i = 0; i < DATA_FRAMES; i++) refs[state.pages.data[i]!] = (frames >>> (2 * i)) & 3;
    const { table } = vm.mm;
    let w = this.hostWords;
    for (let i = 0; i < this.hvas.length; i++, w++) {
      const word = live[w]!;
      if (table.lookup(this.hvas[i]!) !== word) table.replace(this.hvas[i]!, Math.max(1, table.level), word);
    }
    for (let i = 0; i < this.gmemPages.length; i++, w++) state.gmem!.placePage(this.gmemPages[i]!, live[w]!);
  }

  /** Slots that still have their guest_memfd, as bits of W_MORE. */
  private boundSlots(): number {
    let bits = 0;
    for (let i = 0; i < this.gmemSlots.length; i++) {
      if (this.gmemSlots[i]!.gmem!.file !== null) bits |= FIRST_BOUND << i;
    }
    return bits;
  }

  private restoreAttributes(changed: number, attributes: number): void {
    const { attributeBounds, vm } = this;
    if (!vm.hasPrivateMem) return;
    for (let i = 0; i + 1 < attributeBounds.length; i++) {
      if ((changed & (1 << i)) === 0) continue;
      vm.attributes.private.set(attributeBounds[i]!, attributeBounds[i + 1]!, (attributes & (1 << i)) !== 0);
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
    const { vm } = this;
    let mask = 0;
    const differ = (w: number, bits = -1): boolean => ((a[w]! ^ b[w]!) & bits) !== 0;
    if (differ(W_COUNTS, 0x1fff) || differ(W_RANGE_START) || differ(W_RANGE_END)) mask |= RES_SEQUENCE;
    if (differ(W_COUNTS, 7 << 13)) mask |= RES_NOTIFIER_COUNT;
    if (differ(W_COUNTS, 3 << 16) || differ(W_MIXED)) mask |= RES_SLOTS;
    if (differ(W_COUNTS, -1 << 18)) mask |= RES_SRCU;
    if (differ(W_STATS)) mask |= RES_TABLES;
    if (differ(W_ATTRIBUTES)) mask |= RES_ATTRIBUTES;
    if (differ(W_DIRTY) || differ(W_MORE, 255)) mask |= RES_DIRTY_LOG;
    if (differ(W_MORE, EMULATED_PRIVATE)) mask |= RES_HOST;
    if (differ(W_MORE, 255 << 18)) mask |= RES_GMEM;
    let w = FIXED_WORDS;
    for (let i = 0; i < 2 * vm.slots.count; i++) if (differ(w++)) mask |= RES_SLOTS;
    for (let i = 0; i < this.hvas.length; i++) if (differ(w++)) mask |= RES_HOST;
    for (let i = 0; i < this.gmemPages.length; i++) if (differ(w++)) mask |= RES_GMEM;
    // Frames are the host's or the guest_memfd's.
    if (differ(W_FRAMES) && (mask & RES_GMEM) === 0) mask |= RES_HOST;
    this.list.forEach((other, i) => {
      mask |= other.changed(a, b, w, i === actor);
      w += other.words;
    });
    for (; w < this.stateWords; w++)
      if (differ(w)) mask |= this.state.tables.isHeader(w - this.stateWords) ? RES_ROOTS : RES_TABLES;
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
    const { vm, state } = this;
    const lines: string[] = [];
    const range =
      vm.mmuInvalidateInProgress === 0
        ? ''
        : `, ${vm.mmuInvalidateInProgress} in progress on gfns 0x${vm.mmuInvalidateRangeStart.toString(16)} to 0x${vm.mmuInvalidateRangeEnd.toString(16)}`;
    lines.push(`mmu_invalidate_seq ${vm.mmuInvalidateSeq}${range}`);
    state.gfns.forEach((gfn, g) => {
      const parts = [`gfn 0x${gfn.toString(16)}`];
      if (vm.hasPrivateMem) parts.push(vm.attributes.private.has(gfn) ? 'private' : 'shared');
      const slot = vm.slots.sets[0]!.find(gfn);
      if (slot === null) parts.push('no slot');
      else {
        parts.push(`slot ${slot.id}${(slot.flags & 0x10000) !== 0 ? ' (invalid)' : ''}`);
        const word = vm.mm.table.lookup(slotHva(slot, gfn));
        parts.push((word & (1 << 20)) !== 0 ? `host frame 0x${(word & 0xfffff).toString(16)}` : 'no host frame');
        if (slot.gmem?.file)
          parts.push(`guest_memfd frame ${hexOrNone(slot.gmem.file.peekPage(gfn - slot.baseGfn + slot.gmem.pgoff))}`);
      }
      for (let r = 0; r < state.tables.roots; r++) {
        const leaf = state.tables.leaf(r, g);
        const invalid = (vm.mmu.tdpMmuRoots[r]!.role & (1 << 11)) !== 0 ? ' (invalid root)' : '';
        const what =
          leaf.pfn >= 0
            ? `maps 0x${leaf.pfn.toString(16)}${(leaf.lo & 2) !== 0 ? ' W' : ''}${leaf.level > 1 ? ' huge' : ''}`
            : leaf.lo === 0
              ? 'nothing'
              : `0x${(leaf.hi >>> 0).toString(16)}${(leaf.lo >>> 0).toString(16).padStart(8, '0')}`;
        parts.push(`entry${invalid}: ${what}`);
      }
      lines.push(parts.join(', '));
    });
    for (const actor of this.list) lines.push(actor.describe());
    return lines;
  }
}

function hexOrNone(n: number): string {
  return n < 0 ? 'none' : `0x${n.toString(16)}`;
}

function lockBits(locks: number): number {
  return (
    ((locks & (LOCK_MMU_READ | LOCK_MMU_WRITE)) !== 0 ? RES_MMU_LOCK : 0) |
    ((locks & (LOCK_SLOTS | LOCK_SLOTS_ARCH)) !== 0 ? RES_SLOTS_LOCK : 0)
  );
}

/** Host pages behind the scene's frames in any slot; a huge page is one. */
function findHostAddresses(state: SceneState): void {
  const { table } = state.vm.mm;
  for (const set of state.vm.slots.sets) {
    for (const slot of set.slots) {
      for (const gfn of state.gfns) {
        if (gfn < slot.baseGfn || gfn >= slot.baseGfn + slot.npages) continue;
        const hva = slotHva(slot, gfn);
        table.lookup(hva);
        state.hvas.add(table.level === 2 ? hva - (hva % 0x200000) : hva);
      }
    }
  }
}

function gmemIndices(state: SceneState): number[] {
  const found = new Set<number>();
  for (const slot of state.vm.slots.sets[0]!.slots) {
    if (slot.gmem === null) continue;
    for (const gfn of state.gfns) {
      if (gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.npages) found.add(gfn - slot.baseGfn + slot.gmem.pgoff);
    }
  }
  return [...found].sort((a, b) => a - b);
}
