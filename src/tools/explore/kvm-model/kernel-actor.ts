/** An actor on the kernel's side: lists of stages of src/kvm/actors, one after the other. */
import type { ActorContext, ActorStage } from '../../../kvm/actors/actor.ts';
import { RES_SRCU, STAGE_DONE } from '../../../kvm/actors/actor.ts';
import { MemslotUpdate } from '../../../kvm/actors/memslot-update.ts';
import { LOCK_MMU } from '../../../kvm/locks.ts';
import type { Memslot } from '../../../kvm/memslots/memslot.ts';
import { type ModelActor, RES_QUIET, type SceneWorld } from './state.ts';

/** A list of stages and what they work on. Slots that the context refers to are captured by number. */
export interface KernelPart {
  /** `mmap_lock` of the VMM's process and such: parts with the same word exclude each other. Absent: nothing but KVM's own locks. */
  readonly stages: readonly ActorStage<ActorContext>[];
  readonly context: ActorContext & { slotA?: Memslot | null; slotB?: Memslot | null };
}

/** Makes the parts of an actor for a scene's VM. */
export type KernelActor = (state: SceneWorld) => readonly KernelPart[];

/** A part of any kind of context. */
export function part<C extends ActorContext>(stages: readonly ActorStage<C>[], context: C): KernelPart {
  return { stages: stages as unknown as readonly ActorStage<ActorContext>[], context };
}

export class SceneKernelActor implements ModelActor {
  readonly name: string;
  readonly cpu: string;
  readonly words = 2;
  readonly idle = false;
  readonly selfContained = true;
  held = 0;
  srcu = 0;
  note = '';
  private pc = 0;
  /** The context that may hold something of a part that is under way. */
  private inHand: KernelPart['context'] | null = null;
  private readonly stages: ActorStage<ActorContext>[] = [];
  private readonly contexts: KernelPart['context'][] = [];
  /** By stage: the stage after the last one of its part. */
  private readonly partEnd: number[] = [];
  private readonly restReads: Int32Array;
  private readonly restWrites: Int32Array;
  private readonly state: SceneWorld;

  constructor(state: SceneWorld, name: string, cpu: string, parts: readonly KernelPart[]) {
    this.state = state;
    this.name = name;
    this.cpu = cpu;
    for (const { stages, context } of parts) {
      const end = this.stages.length + stages.length;
      for (const stage of stages) {
        this.stages.push(stage);
        this.contexts.push(context);
        this.partEnd.push(end);
      }
    }
    const n = this.stages.length;
    this.restReads = new Int32Array(n + 1);
    this.restWrites = new Int32Array(n + 1);
    for (let i = n - 1; i >= 0; i--) {
      this.restReads[i] = this.restReads[i + 1]! | this.stages[i]!.reads;
      this.restWrites[i] = this.restWrites[i + 1]! | this.stages[i]!.writes;
    }
    this.countLoops();
  }

  /** A stage that can go back to the one before it leaves as much as that one. */
  private countLoops(): void {
    const { stages, restReads, restWrites } = this;
    for (let i = 1; i < stages.length; i++) {
      if (stages[i]!.loops !== true) continue;
      restReads[i]! |= restReads[i - 1]!;
      restWrites[i]! |= restWrites[i - 1]!;
    }
  }

  /** It makes, replaces or removes slots. */
  get changesSlots(): boolean {
    return this.contexts.some((c) => c instanceof MemslotUpdate);
  }

  /** Locks that stages from `pc` on may take. */
  takesFrom(pc: number): number {
    let mask = 0;
    const from = pc > 0 && this.stages[pc]?.loops === true ? pc - 1 : pc;
    for (let i = from; i < this.stages.length; i++) {
      const { takes, takesNow } = this.stages[i]!;
      mask |= takesNow === undefined ? takes : takes | LOCK_MMU;
    }
    return mask;
  }

  get position(): number {
    return this.pc;
  }

  get finished(): boolean {
    return this.pc === this.stages.length;
  }

  get started(): boolean {
    return this.pc > 0;
  }

  ready(): boolean {
    const { pc } = this;
    if (pc === this.stages.length) return false;
    const stage = this.stages[pc]!;
    return stage.ready === undefined || stage.ready(this.contexts[pc]!);
  }

  takes(): number {
    const { pc } = this;
    if (pc === this.stages.length) return 0;
    const { takes, takesNow } = this.stages[pc]!;
    return takesNow === undefined ? takes : takesNow(this.contexts[pc]!);
  }

  choices(): number {
    return 1;
  }

  step(): void {
    const { pc } = this;
    this.inHand = this.contexts[pc]!;
    const answer = this.stages[pc]!.run(this.contexts[pc]!);
    this.pc = answer === STAGE_DONE ? this.partEnd[pc]! : pc + 1 + answer;
    if (this.finished && this.quietBit(pc) === 0) throw new Error(`${this.name} ended at ${this.stages[pc]!.name}`);
    // What a part remembers ends with it.
    if (this.pc !== this.partEnd[pc]) return;
    this.forget(this.contexts[pc]!);
    if (!this.finished) this.forget(this.contexts[this.pc]!);
  }

  private forget(context: KernelPart['context']): void {
    context.locals = 0;
    if (context.slotA !== undefined) context.slotA = null;
    if (context.slotB !== undefined) context.slotB = null;
  }

  save(into: Int32Array, at: number): void {
    const { pc, state } = this;
    into[at] = pc | (this.held << 8) | (this.srcu << 14);
    into[at + 1] = 0;
    if (pc === this.stages.length) return;
    const context = this.contexts[pc]!;
    const a = context.slotA === undefined ? 0 : state.slots.number(context.slotA);
    const b = context.slotB === undefined ? 0 : state.slots.number(context.slotB);
    into[at + 1] = context.locals | (a << 16) | (b << 22);
  }

  load(from: Int32Array, at: number): void {
    const { state } = this;
    const word = from[at]!;
    this.pc = word & 255;
    this.held = (word >>> 8) & 63;
    this.srcu = (word >>> 14) & 3;
    const context = this.pc === this.stages.length ? null : this.contexts[this.pc]!;
    if (this.inHand !== null && this.inHand !== context) this.forget(this.inHand);
    this.inHand = context;
    if (context === null) return;
    const rest = from[at + 1]!;
    context.locals = rest & 0xffff;
    if (context.slotA !== undefined) context.slotA = state.slots.slot((rest >>> 16) & 63);
    if (context.slotB !== undefined) context.slotB = state.slots.copy((rest >>> 22) & 63);
  }

  resources(): void {
    const { pc, state } = this;
    state.reads = pc === this.stages.length ? 0 : this.stages[pc]!.reads;
    state.writes = pc === this.stages.length ? 0 : this.stages[pc]!.writes | this.quietBit(pc);
  }

  /** With the first step it begins (and may end, finding nothing to do), with the last one it ends. */
  private quietBit(pc: number): number {
    return pc === 0 || pc === this.stages.length - 1 ? RES_QUIET : 0;
  }

  restResources(): void {
    this.state.reads = this.restReads[this.pc]!;
    this.state.writes = this.restWrites[this.pc]! | (this.finished ? 0 : RES_QUIET);
  }

  changed(a: Int32Array, b: Int32Array, at: number, own: boolean): number {
    if (!own) return a[at] === b[at] && a[at + 1] === b[at + 1] ? 0 : -1;
    // Its SRCU section is everybody's business.
    return ((a[at]! ^ b[at]!) & (3 << 14)) !== 0 ? RES_SRCU : 0;
  }

  stageName(): string {
    return this.finished ? 'done' : this.stages[this.pc]!.name;
  }

  describe(): string {
    return `${this.name} ${this.finished ? 'done' : this.pc === 0 ? 'not begun' : `before ${this.stageName()}`}`;
  }
}
