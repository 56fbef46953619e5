/** Scenes: a VM with a few guest frames and the actors that race for them, declared. `kvm-model/` makes a model of one. */
import { remove } from '../../kvm/mmu/revisions/edit.ts';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import type { FaultStage, Revision, RevisionRules } from '../../kvm/mmu/revisions/revision.ts';
import type { mapInstall } from '../../kvm/mmu/tdp-mmu/map.ts';
import type { KvmParams } from '../../kvm/params.ts';
import type { KernelActor } from './kvm-model/kernel-actor.ts';
import { sceneProblem } from './scene-checks.ts';
import type { GuestSpec, GuestTable, ShadowGuard } from './shadow-scene.ts';

/**
 * One thing that a vCPU does. `pre-fault` is KVM_PRE_FAULT_MEMORY, `page-ready` the end of an asynchronous page fault; `walk` the processor's look
 * at a table of the guest's own, without which no instruction can be fetched; `emulated-read` and `emulated-write` what the emulator does to
 * memory for an instruction that it got for another reason.
 */
export interface VcpuOp {
  readonly kind: 'read' | 'write' | 'fetch' | 'walk' | 'pre-fault' | 'page-ready' | 'emulated-read' | 'emulated-write';
  readonly gfn: number;
  /**
   * The guest says itself that the access is private, as under SNP, whatever KVM's attribute says: a mapping of other memory than the guest_memfd's
   * does not do.
   */
  readonly isPrivate?: boolean;
}

export interface VcpuSpec {
  readonly kind: 'vcpu';
  readonly ops: readonly VcpuOp[];
  /** Done before anybody else begins: the vCPU is in the guest then, with these translations in its TLB. */
  readonly before: readonly VcpuOp[];
  /** Runs in system management mode: sees the other address space. */
  readonly smm: boolean;
  /** Where the host has to read a page from swap it goes to sleep meanwhile, as with asynchronous page faults. */
  readonly async?: boolean;
  /** Where KVM shadows the guest's tables: what the guest does under them, instead of `ops` and `before`. */
  readonly guest?: GuestSpec;
}

/** One actor on the kernel's side: what it does, in order. */
export interface KernelSpec {
  readonly kind: 'kernel';
  readonly name: string;
  /** Makes the actor for the scene's VM. */
  readonly make: KernelActor;
  /** Frames that it concerns. */
  readonly gfns: readonly number[];
  /** It makes, replaces or removes slots. */
  readonly changesSlots?: boolean;
  /** It takes pages of the process away without giving others. */
  readonly dropsPages?: boolean;
  /** It puts other pages in the place of those of its frames. */
  readonly movesPages?: boolean;
}

/** The stage `map` with another way to store what it makes: between its look at the entry and the store others may come in. */
export interface SteppedMap extends FaultStage {
  /** Instead of `mapInstall`: stores below the entry that the walk found, with the verdict of that. */
  readonly install: typeof mapInstall;
}

export type ActorSpec = VcpuSpec | KernelSpec;

export interface SlotSpec {
  readonly id: number;
  readonly gfn: number;
  readonly pages: number;
  /** KVM_MEM_* */
  readonly flags?: number;
  /** A guest_memfd is bound to it. */
  readonly gmem?: boolean;
  /** Address space: 1 is SMM's. */
  readonly asId?: number;
  /** It shows the same memory as the slot of this id in the first address space. */
  readonly sameMemoryAs?: number;
  /**
   * Host memory behind it: there and writable (the default), there but read-only until it is written, not there yet, in swap, one page of 2 MiB, or
   * one of 2 MiB for which pages are made at the first touch.
   */
  readonly host?: 'present' | 'read-only' | 'absent' | 'swapped' | 'huge';
}

export interface SceneSpec {
  /** The scene's name on the command line. */
  readonly name: string;
  /** One line. */
  readonly title: string;
  /** What KVM's sources say that is tested here: function, and the claim in our own words. */
  readonly claim: string;
  /** The revision to run on when none is asked for: its name, or one of the scene's own. */
  readonly revision?: string | Revision;
  readonly vm?: {
    readonly type?: 'default' | 'sw-protected';
    /** `shadow`: no two-dimensional paging, KVM shadows the tables in `tables`. */
    readonly paging?: 'tdp' | 'shadow';
    /** Limit of shadow pages, KVM_SET_NR_MMU_PAGES. */
    readonly mmuPages?: number;
    /** Under shadow paging: invariants, by the beginning of their texts, that are passed over, for what comes of their violation. */
    readonly passesOver?: readonly string[];
    /** Guards of the shadow MMU that this twin goes without. */
    readonly without?: readonly ShadowGuard[];
    readonly params?: Partial<KvmParams>;
    readonly quirks?: number;
    /**
     * Each vCPU has a dirty ring of `entries` (8), of which `reserved` (4) are kept free: with fewer left the guest is not entered, unless
     * `stops` is false.
     */
    readonly dirtyRing?: { readonly entries?: number; readonly reserved?: number; readonly stops?: boolean };
  };
  readonly slots: readonly SlotSpec[];
  /** The guest's own tables, where KVM shadows them. */
  readonly tables?: readonly GuestTable[];
  /** Ranges that are private from the start: first frame and number. */
  readonly private?: readonly (readonly [number, number])[];
  readonly actors: readonly ActorSpec[];
  /** Frames to watch besides those that actors name. */
  readonly gfns?: readonly number[];
  /** Generation that the slots start with. */
  readonly generation?: number;
  /**
   * What must come out: nothing wrong; a violation of this invariant (by the beginning of its text); or an actor that can go round for ever
   * with nobody else in the way.
   */
  readonly expect: 'safe' | 'livelock' | { readonly violates: string };
  /**
   * What is not wrong in every scene but in this one: the emulation of an access to private memory; the use of a translation that another
   * processor's write has made void, flushed before KVM is done with the emulation of that write.
   */
  readonly alsoForbids?: readonly ('private-emulation' | 'stale-during-emulation')[];
  /** For what looks wrong and is so in Linux: intended, harmless or a bug, and what VMs whose memory the hardware protects do there. */
  readonly judgement?: string;
  /** The scene without its guard, of which this one is the twin. */
  readonly guardOf?: string;
}

export interface Scene extends SceneSpec {
  readonly isScene: true;
}

/** Declares a scene. @throws Error for one that cannot be: no actors, frames that are none, too much for one vCPU. */
export function scene(spec: SceneSpec): Scene {
  const problem = sceneProblem(spec);
  if (problem !== null) throw new Error(`scene ${spec.name}: ${problem}`);
  return { ...spec, isScene: true };
}

/** A revision with another list of stages: `edit` gets those of the revision called `name`. */
export function edited(
  name: string,
  what: string,
  edit: (stages: readonly FaultStage[]) => readonly FaultStage[],
): Revision {
  const base = revisionByName(name);
  return { ...base, name: `${name} ${what}`, stages: edit(base.stages) };
}

/** A revision without one of its stages. */
export function withoutStage(name: string, stage: string): Revision {
  return edited(name, `without ${stage}`, (stages) => remove(stages, stage));
}

/** A revision with other rules. */
export function ruled(name: string, what: string, rules: Partial<RevisionRules>): Revision {
  const base = revisionByName(name);
  return { ...base, name: `${name} ${what}`, rules: { ...base.rules, ...rules } };
}

/** A vCPU that does `ops` one after the other. */
export function vcpu(
  ops: readonly VcpuOp[],
  options: { before?: readonly VcpuOp[]; smm?: boolean; async?: boolean } = {},
): VcpuSpec {
  return { kind: 'vcpu', ops, before: options.before ?? [], smm: options.smm === true, async: options.async === true };
}

export function read(gfn: number): VcpuOp {
  return { kind: 'read', gfn };
}

export function write(gfn: number): VcpuOp {
  return { kind: 'write', gfn };
}

export function fetch(gfn: number): VcpuOp {
  return { kind: 'fetch', gfn };
}

/** The access as a guest makes it that decides itself what is private. */
export function privately(op: VcpuOp): VcpuOp {
  return { ...op, isPrivate: true };
}

export function walk(gfn: number): VcpuOp {
  return { kind: 'walk', gfn };
}

export function emulated(op: VcpuOp): VcpuOp {
  return { kind: op.kind === 'write' ? 'emulated-write' : 'emulated-read', gfn: op.gfn };
}

export function preFault(gfn: number): VcpuOp {
  return { kind: 'pre-fault', gfn };
}

export function pageReady(gfn: number): VcpuOp {
  return { kind: 'page-ready', gfn };
}
