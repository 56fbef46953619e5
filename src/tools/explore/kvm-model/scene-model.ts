/**
 * What the models of the real KVM have in common, whatever paging their guests are under: the locks between actors, the frame of a step, and
 * the words for it all.
 */
import { RES_ALL, RES_NOTIFIER_COUNT, RES_SEQUENCE, RES_SRCU } from '../../../kvm/actors/actor.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE, LOCK_SLOTS, LOCK_SLOTS_ARCH } from '../../../kvm/locks.ts';
import type { FaultRecorder } from '../../../kvm/mmu/recorder.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { explanationLines } from '../../explain/explain-text.ts';
import { FaultLog } from '../../explain/fault-log.ts';
import type { Actor, Footprint, Model } from '../model.ts';
import { SceneKernelActor } from './kernel-actor.ts';
import { type ModelActor, RES_GUESTS, RES_MMU_LOCK, RES_QUIET, RES_SLOTS_LOCK, type SceneWorld } from './state.ts';

/** The first invariant of every model: KVM neither warns nor breaks. */
export const BUG = 1;

/** A vCPU of a model: who follows its faults can be told so. */
interface FollowedVcpu extends ModelActor {
  recorder: FaultRecorder | null;
}

export abstract class SceneModel implements Model {
  readonly actors: readonly Actor[];
  readonly observed = (RES_ALL & ~(RES_SEQUENCE | RES_NOTIFIER_COUNT | RES_SRCU)) | RES_GUESTS | RES_QUIET;
  abstract readonly stateWords: number;
  abstract readonly invariants: readonly string[];
  protected abstract readonly vcpus: readonly FollowedVcpu[];
  protected readonly vm: VmState;
  protected readonly list: readonly ModelActor[];
  /** Numbers of the actors that change slots. */
  protected readonly slotChangers: readonly number[];
  /** Resources that count: without anybody who waits for SRCU grace periods, read sections are nobody's business. */
  protected readonly counted: number;
  protected broken = 0;
  private brokenText = '';
  private readonly logs = new Map<ModelActor, FaultLog>();

  protected constructor(world: SceneWorld) {
    this.vm = world.vm;
    this.list = world.actors;
    this.actors = this.list.map((a, i) => ({ name: a.name, cpu: `CPU${i}` }));
    this.slotChangers = this.list.flatMap((a, i) => (a instanceof SceneKernelActor && a.changesSlots ? [i] : []));
    this.counted = this.slotChangers.length > 0 ? -1 : ~RES_SRCU;
  }

  abstract capture(into: Int32Array, at: number): void;
  abstract restore(from: Int32Array, at: number): void;
  abstract step(actor: number, choice: number): void;
  abstract violation(): number;
  abstract footprint(actor: number, out: Footprint): void;
  abstract restFootprint(actor: number, out: Footprint): void;
  abstract describe(): readonly string[];
  /** Resources in which two states differ, what belongs to `actor` alone left out: to check footprints by. */
  abstract changed(a: Int32Array, b: Int32Array, actor: number): number;

  /** What KVM warns of is a violation. `deaf`: it is passed over, and only what breaks the VM is one. */
  protected watchLog(deaf = false): void {
    const { log } = this.vm;
    log.warnOnOnce = (condition, where, message) => {
      if (condition && !deaf) this.breaks(`WARN in ${where}: ${message}`);
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

  // ---- steps ----

  /* HOT */
  enabled(): number {
    const { list } = this;
    let mask = 0;
    for (let i = 0; i < list.length; i++) {
      const actor = list[i]!;
      if (actor.ready() && !this.conflicts(i, actor.takes())) mask |= 1 << i;
    }
    return mask;
  }

  /** Somebody else holds one of the locks in `takes` in a mode that excludes it. HOT */
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

  /* HOT */
  unfinished(): number {
    const { list } = this;
    let mask = 0;
    for (let i = 0; i < list.length; i++) if (!list[i]!.finished) mask |= 1 << i;
    return mask;
  }

  choices(actor: number): number {
    return this.list[actor]!.choices();
  }

  /** The locks are those that the actor holds, and it reads under SRCU as deep as it did. HOT */
  protected beginStep(index: number): ModelActor {
    const { list } = this;
    const { locks } = this.vm;
    const actor = list[index]!;
    let readers = 0;
    for (let i = 0; i < list.length; i++) if (i !== index && list[i]!.srcu > 0) readers |= 1 << i;
    locks.srcuReaders = readers;
    locks.held = actor.held;
    locks.srcuDepth = actor.srcu;
    return actor;
  }

  /** The actor's own part of a step; what it throws is a violation. HOT */
  protected run(actor: ModelActor, choice: number): void {
    try {
      actor.step(choice);
    } catch (error) {
      this.breaks(`${actor.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /* HOT */
  protected endStep(index: number, actor: ModelActor): void {
    const { locks } = this.vm;
    actor.held = locks.held;
    actor.srcu = locks.srcuDepth;
    if (actor.srcu === 0) locks.srcuGrace &= ~(1 << index);
    locks.held = 0;
    locks.srcuDepth = 0;
  }

  // ---- words ----

  stageName(actor: number): string {
    return this.list[actor]!.stageName();
  }

  /** Each vCPU's faults are followed from now on. */
  follow(): void {
    for (const vcpu of this.vcpus) {
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
    return n === BUG && this.broken !== 0 ? this.brokenText : (this.invariants[n - 1] ?? `violation ${n}`);
  }
}

/** The resources behind KVM's locks. HOT */
export function lockBits(locks: number): number {
  return (
    ((locks & (LOCK_MMU_READ | LOCK_MMU_WRITE)) !== 0 ? RES_MMU_LOCK : 0) |
    ((locks & (LOCK_SLOTS | LOCK_SLOTS_ARCH)) !== 0 ? RES_SLOTS_LOCK : 0)
  );
}

/** The locks that an actor may still take, with those that it holds: `ofVcpu` are a vCPU's. HOT */
export function restLocks(actor: ModelActor, ofVcpu: number): number {
  if (actor.finished) return 0;
  return lockBits(actor instanceof SceneKernelActor ? actor.takesFrom(actor.position) | actor.held : ofVcpu);
}
