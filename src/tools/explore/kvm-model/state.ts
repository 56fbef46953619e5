/** What the actors of a scene's model share. */
import { memIsPrivate } from '../../../kvm/attributes.ts';
import type { GuestMemfdFile } from '../../../kvm/guest-memfd/guest-memfd.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import type { SceneKernelActor } from './kernel-actor.ts';
import type { SceneSlots } from './slots.ts';
import type { SceneTables } from './tables.ts';
import type { SceneVcpu } from './vcpu.ts';
import type { ScenePages } from './vm.ts';

/** One actor of a model, whatever it is. */
export interface ModelActor {
  readonly name: string;
  readonly cpu: string;
  /** Words of its own state. */
  readonly words: number;
  /** Locks it holds between steps, and its depth of SRCU read sections. */
  held: number;
  srcu: number;
  readonly finished: boolean;
  /** It has nothing left to do and waits for the others to finish. */
  readonly idle: boolean;
  /** Its words say the same whatever others change: page tables, sequence, requests. */
  readonly selfContained?: boolean;
  /** What the last step came to, in a word. */
  note: string;
  /** The next step waits for nothing but locks. HOT */
  ready(): boolean;
  /** Locks that the next step takes. HOT */
  takes(): number;
  choices(): number;
  step(choice: number): void;
  save(into: Int32Array, at: number): void;
  load(from: Int32Array, at: number): void;
  /** Sets `state.reads` and `state.writes` for the next step, or for everything to come. */
  resources(): void;
  restResources(): void;
  /** Resources of which its words at `at` say something else in `b` than in `a`; `own`: it took the step itself. */
  changed(a: Int32Array, b: Int32Array, at: number, own: boolean): number;
  stageName(): string;
  describe(): string;
}

/** The state that is nobody's own, whatever KVM's page tables are. */
export class SceneWorld {
  readonly vm: VmState;
  readonly pages: ScenePages;
  readonly gfns: readonly number[];
  readonly slots: SceneSlots;
  readonly gmem: GuestMemfdFile | null;
  readonly actors: ModelActor[] = [];
  readonly kernels: SceneKernelActor[] = [];
  /** Addresses of the process behind the scene's frames: each is one page of some size. */
  readonly hvas = new Set<number>();
  /** Results of `ModelActor.resources`. */
  reads = 0;
  writes = 0;
  /** Frames (by gfn number, as bits) that the guest wrote since userspace last heard of it from the dirty log. */
  unreported = 0;
  /** An access to a private frame was emulated. */
  emulatedPrivate = false;

  constructor(vm: VmState, pages: ScenePages, gfns: readonly number[], slots: SceneSlots, gmem: GuestMemfdFile | null) {
    this.vm = vm;
    this.pages = pages;
    this.gfns = gfns;
    this.slots = slots;
    this.gmem = gmem;
  }
}

/** The same with the tables of the TDP MMU. */
export class SceneState extends SceneWorld {
  readonly tables: SceneTables;
  readonly vcpus: SceneVcpu[] = [];
  forbidsPrivateEmulation = false;
  /** Pages of the process may be missing at times: a read then maps the zero page, which a write copies. */
  mayCopy = false;
  /** A vCPU whose dirty ring is nearly full is not entered. */
  fullRingStops = true;
  /** vCPUs that the present step has interrupted, as bits by actor. */
  interrupted = 0;

  constructor(
    vm: VmState,
    pages: ScenePages,
    gfns: readonly number[],
    tables: SceneTables,
    slots: SceneSlots,
    gmem: GuestMemfdFile | null,
  ) {
    super(vm, pages, gfns, slots, gmem);
    this.tables = tables;
  }

  guestWrote(g: number): void {
    this.unreported |= 1 << g;
  }

  /** The emulator did an access: MMIO where there is no slot, else to memory through the slot's host address. */
  emulated(gfn: number): void {
    if (this.forbidsPrivateEmulation && memIsPrivate(this.vm, gfn)) this.emulatedPrivate = true;
  }

  /** Whoever has a request leaves the guest, within the present step. */
  deliverRequests(self: SceneVcpu): void {
    for (const other of this.vcpus) {
      if (other === self || !other.vcpu.inGuest || other.vcpu.requests === 0) continue;
      other.interrupt();
      this.interrupted |= 1 << this.actors.indexOf(other);
    }
  }

  /** Everybody but `self` has finished, or idles in the guest. */
  othersRest(self: ModelActor): boolean {
    const { actors } = this;
    for (let i = 0; i < actors.length; i++) {
      const actor = actors[i]!;
      if (actor !== self && !actor.finished && !actor.idle) return false;
    }
    return true;
  }

  /** Resource: what the vCPU's processor holds (TLB, guest mode). */
  guestBit(vcpu: SceneVcpu): number {
    return 1 << (RES_FIRST_GUEST + vcpu.vcpu.id);
  }
}

/** Resources of the model beyond those of actor.ts. */
export const RES_MMU_LOCK = 1 << 11;
export const RES_SLOTS_LOCK = 1 << 12;
/** Whether a kernel-side actor is in the middle of something: some invariants only hold while none is. */
export const RES_QUIET = 1 << 13;
const RES_FIRST_GUEST = 14;
export const RES_GUESTS = 0xff << RES_FIRST_GUEST;
