/** The kernel-side actors that a scene can name. Each takes, as its last argument, another list of stages than KVM's: one with a guard out. */
import { PTE_FRAME_MASK, PTE_PRESENT, PTE_SPECIAL } from '../../host/page-table.ts';
import { type ActorStage, RES_DIRTY_LOG, RES_HOST, RES_SLOTS, STAGE_DONE, STAGE_NEXT } from '../../kvm/actors/actor.ts';
import { Aging, agingStages } from '../../kvm/actors/aging.ts';
import { AttributeChange, attributeChangeStages } from '../../kvm/actors/attribute-change.ts';
import { DirtyLogHarvest, dirtyLogStages } from '../../kvm/actors/dirty-log.ts';
import { HvaInvalidation, rangeEndStages, rangeStartStages } from '../../kvm/actors/hva-range.ts';
import { MemslotUpdate, memslotInvalidateStages, memslotReplaceStages } from '../../kvm/actors/memslot-update.ts';
import { GmemInvalidation, punchHoleStages } from '../../kvm/actors/punch-hole.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE } from '../../kvm/attributes.ts';
import { LOCK_SLOTS } from '../../kvm/locks.ts';
import { slotHva } from '../../kvm/memslots/hva.ts';
import { KVM_MEM_READONLY, Memslot, type MemslotChange } from '../../kvm/memslots/memslot.ts';
import { ageGfn } from '../../kvm/mmu/notifier-handlers.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { part } from './kvm-model/kernel-actor.ts';
import type { SceneWorld } from './kvm-model/state.ts';
import { hostMemory } from './kvm-model/vm.ts';
import type { KernelSpec } from './scene.ts';

/** The list without the stages of these names. @throws Error when one is not there */
export function without<C>(stages: readonly ActorStage<C>[], ...names: string[]): readonly ActorStage<C>[] {
  for (const name of names) if (!stages.some((s) => s.name === name)) throw new Error(`no stage ${name} to leave out`);
  return stages.filter((s) => !names.includes(s.name));
}

/** The list in which the stages named `name` are `stage`. */
export function withStage<C>(
  stages: readonly ActorStage<C>[],
  name: string,
  stage: Partial<ActorStage<C>>,
): readonly ActorStage<C>[] {
  if (!stages.some((s) => s.name === name)) throw new Error(`no stage ${name} to replace`);
  return stages.map((s) => (s.name === name ? { ...s, ...stage } : s));
}

function kernel(name: string, gfns: readonly number[], make: KernelSpec['make']): KernelSpec {
  return { kind: 'kernel', name, gfns, make };
}

/** An actor that changes slots. */
function slotKernel(name: string, gfns: readonly number[], make: KernelSpec['make']): KernelSpec {
  return { ...kernel(name, gfns, make), changesSlots: true };
}

/** One actor that does what these do, one after the other. */
export function inTurn(...actors: readonly KernelSpec[]): KernelSpec {
  return {
    kind: 'kernel',
    name: actors.map((a) => a.name).join(', '),
    gfns: actors.flatMap((a) => a.gfns),
    changesSlots: actors.some((a) => a.changesSlots === true),
    dropsPages: actors.some((a) => a.dropsPages === true),
    make: (state) => actors.flatMap((a) => a.make(state)),
  };
}

// ---- attributes ----

/** KVM_SET_MEMORY_ATTRIBUTES on `pages` frames from `gfn`. */
export function setAttributes(
  gfn: number,
  pages: number,
  to: 'private' | 'shared',
  stages = attributeChangeStages,
): KernelSpec {
  return kernel(`make ${to}`, [], ({ vm }) => [
    part(stages, new AttributeChange(vm, gfn, gfn + pages, to === 'private' ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0)),
  ]);
}

// ---- slots ----

/** Finds the slot and makes the one that is to take its place, under slots_lock (@kvm kvm_main.c __kvm_set_memory_region). */
class RegionUpdate extends MemslotUpdate {
  readonly state: SceneWorld;
  readonly id: number;
  readonly makeNext: (old: Memslot | null) => Memslot | null;

  constructor(state: SceneWorld, change: MemslotChange, id: number, makeNext: (old: Memslot | null) => Memslot | null) {
    super(state.vm, null, null, change);
    this.state = state;
    this.id = id;
    this.makeNext = makeNext;
  }
}

/** A list of KVM's that runs under a lock, with taking and dropping the lock around it. */
function locked<C extends { readonly vm: VmState }>(
  take: ActorStage<C>,
  stages: readonly ActorStage<C>[],
  drop: ActorStage<C>,
): readonly ActorStage<C>[] {
  // Where KVM's list ends, the lock is still to be dropped.
  const inside = stages.map((stage, i) => ({
    ...stage,
    run(context: C) {
      const answer = stage.run(context);
      return answer === STAGE_DONE ? stages.length - 1 - i : answer;
    },
  }));
  return [take, ...inside, drop];
}

/** @kvm kvm_main.c kvm_check_memslot_overlap */
function overlaps(vm: VmState, next: Memslot): boolean {
  let found = false;
  vm.slots.forEachInGfnRange(0, next.baseGfn, next.baseGfn + next.npages, (slot) => {
    if (slot.id !== next.id) found = true;
  });
  return found;
}

/**
 * Whether a slot may be written, and its guest_memfd, stay as they were made; and where nothing is to change, nothing is done (@kvm kvm_main.c
 * __kvm_set_memory_region).
 */
function mayNotChange(old: Memslot | null, next: Memslot): boolean {
  if (old === null) return false;
  const same = old.flags === next.flags && old.baseGfn === next.baseGfn;
  return same || ((old.flags ^ next.flags) & KVM_MEM_READONLY) !== 0 || old.gmem !== null;
}

const lockAndFind: ActorStage<RegionUpdate> = {
  name: 'slots-lock',
  kvmFunction: 'kvm_set_memory_region',
  takes: LOCK_SLOTS,
  reads: RES_SLOTS,
  writes: 0,
  run(update) {
    const { vm, id, change } = update;
    vm.locks.acquire(LOCK_SLOTS);
    const old = vm.slots.sets[0]!.idToMemslot(id);
    const next = (old === null) === (change === 'create') ? update.makeNext(old) : undefined;
    // No such slot, one where another is already, a change that none may make, or none: EINVAL, EEXIST, 0.
    if (next === undefined || (next !== null && (overlaps(vm, next) || mayNotChange(old, next)))) {
      vm.locks.release(LOCK_SLOTS);
      return STAGE_DONE;
    }
    update.slotA = old;
    update.slotB = next;
    return STAGE_NEXT;
  },
};

/** From here on, userspace counts on the dirty log. */
const unlockSlots: ActorStage<RegionUpdate> = {
  name: 'slots-unlock',
  kvmFunction: 'kvm_set_memory_region',
  takes: 0,
  reads: 0,
  writes: RES_DIRTY_LOG,
  run({ vm, state, change }) {
    if (change === 'flags-only') state.unreported = 0;
    vm.locks.release(LOCK_SLOTS);
    return STAGE_DONE;
  },
};

function regionStages(stages: readonly ActorStage<MemslotUpdate>[]): readonly ActorStage<RegionUpdate>[] {
  return locked<RegionUpdate>(lockAndFind, stages, unlockSlots);
}

/** KVM_SET_USER_MEMORY_REGION with size 0. */
export function deleteSlot(id: number, stages = memslotInvalidateStages): KernelSpec {
  return slotKernel('delete slot', [], (state) => [
    part(regionStages(stages), new RegionUpdate(state, 'delete', id, () => null)),
  ]);
}

/** The slot goes to `gfn`. */
export function moveSlot(id: number, gfn: number, stages = memslotInvalidateStages): KernelSpec {
  return slotKernel('move slot', [gfn], (state) => [
    part(
      regionStages(stages),
      new RegionUpdate(
        state,
        'move',
        id,
        (old) => new Memslot(id, 0, gfn, old!.npages, old!.flags, old!.userspaceAddr),
      ),
    ),
  ]);
}

/** A new slot over new memory of the process. */
export function createSlot(id: number, gfn: number, pages: number, stages = memslotReplaceStages): KernelSpec {
  return slotKernel('create slot', [gfn], (state) => {
    const hva = hostMemory(state.vm, { pages }, []);
    for (let i = 0; i < pages; i++) if (state.gfns.includes(gfn + i)) state.hvas.add(hva + i * 4096);
    return [
      part(regionStages(stages), new RegionUpdate(state, 'create', id, () => new Memslot(id, 0, gfn, pages, 0, hva))),
    ];
  });
}

/** The slot gets other flags (KVM_MEM_*): dirty logging on or off. */
export function setFlags(id: number, flags: number, stages = memslotReplaceStages): KernelSpec {
  return slotKernel('set flags', [], (state) => [
    part(
      regionStages(stages),
      new RegionUpdate(
        state,
        'flags-only',
        id,
        (old) => new Memslot(id, 0, old!.baseGfn, old!.npages, flags, old!.userspaceAddr),
      ),
    ),
  ]);
}

// ---- the process's memory ----

/** What happens to a page of the process between the start and the end of an invalidation. */
export class PageChange extends HvaInvalidation {
  /** The frame that was there, to be freed; -1 for none. */
  old = -1;
  readonly state: SceneWorld;

  constructor(state: SceneWorld, start: number, end: number) {
    super(state.vm, start, end);
    this.state = state;
  }

  // What is the invalidation's own is written out: through `super` an accessor costs as much as a step.
  override get locals(): number {
    return (this.flush ? 1 : 0) | (this.found ? 2 : 0) | ((this.state.pages.data.indexOf(this.old) + 1) << 2);
  }

  override set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
    this.found = (bits & 2) !== 0;
    const index = bits >>> 2;
    this.old = index === 0 ? -1 : this.state.pages.data[index - 1]!;
  }
}

const replacePage: ActorStage<PageChange> = {
  name: 'replace-pte',
  kvmFunction: 'set_pte_at',
  takes: 0,
  reads: RES_HOST,
  writes: RES_HOST,
  run(change) {
    const { table } = change.vm.mm;
    const word = table.lookup(change.start);
    if ((word & PTE_PRESENT) === 0) return STAGE_NEXT;
    // The zero page stays where it is.
    if ((word & PTE_SPECIAL) !== 0) return STAGE_NEXT;
    change.old = word & PTE_FRAME_MASK;
    table.setPte(change.start, (word & ~PTE_FRAME_MASK) | change.vm.mm.pages.allocPage());
    return STAGE_NEXT;
  },
};

const clearPage: ActorStage<PageChange> = {
  ...replacePage,
  name: 'clear-pte',
  kvmFunction: 'ptep_clear_flush',
  run(change) {
    const { table } = change.vm.mm;
    const word = table.lookup(change.start);
    if ((word & PTE_PRESENT) === 0) return STAGE_NEXT;
    if ((word & PTE_SPECIAL) === 0) change.old = word & PTE_FRAME_MASK;
    table.setPte(change.start, 0);
    return STAGE_NEXT;
  },
};

export const freePage: ActorStage<PageChange> = {
  name: 'free-page',
  kvmFunction: 'put_page',
  takes: 0,
  reads: RES_HOST,
  writes: RES_HOST,
  run(change) {
    if (change.old >= 0) change.vm.mm.pages.put(change.old, 1);
    change.old = -1;
    return STAGE_NEXT;
  },
};

/** Start and end of an invalidation, the stages that a scene may take guards out of. */
export interface Bracket {
  readonly start: readonly ActorStage<HvaInvalidation>[];
  readonly end: readonly ActorStage<HvaInvalidation>[];
}

export const rangeBracket: Bracket = { start: rangeStartStages, end: rangeEndStages };

export function hvaOf(state: SceneWorld, gfn: number): number {
  const slot = state.vm.slots.sets[0]!.find(gfn);
  if (slot === null) throw new Error(`gfn 0x${gfn.toString(16)} of a scene has no slot, and so no host memory`);
  return slotHva(slot, gfn);
}

/** The page behind `gfn` moves to another frame, and its old one is freed. */
export function migratePage(gfn: number, bracket = rangeBracket): KernelSpec {
  const actor = kernel('migrate page', [gfn], (state) => {
    const hva = hvaOf(state, gfn);
    return [part([...bracket.start, replacePage, freePage, ...bracket.end], new PageChange(state, hva, hva + 4096))];
  });
  return { ...actor, movesPages: true };
}

/** The page behind `gfn` goes; a later touch makes a new one. */
export function dropPage(gfn: number, bracket = rangeBracket): KernelSpec {
  const actor = kernel('drop page', [gfn], (state) => {
    const hva = hvaOf(state, gfn);
    return [part([...bracket.start, clearPage, freePage, ...bracket.end], new PageChange(state, hva, hva + 4096))];
  });
  return { ...actor, dropsPages: true };
}

/** An invalidation of `pages` pages from `gfn` on that leaves them as they are. */
export function invalidateRange(gfn: number, pages: number, bracket = rangeBracket): KernelSpec {
  return kernel('invalidate range', [gfn], (state) => {
    const hva = hvaOf(state, gfn);
    return [part([...bracket.start, ...bracket.end], new PageChange(state, hva, hva + pages * 4096))];
  });
}

/** Asks whether the page behind `gfn` was used, and forgets it. */
export function agePage(gfn: number, flush: boolean, stages = agingStages): KernelSpec {
  return kernel('age page', [gfn], (state) => {
    const hva = hvaOf(state, gfn);
    return [part(stages, new Aging(state.vm, hva, hva + 4096, ageGfn, flush))];
  });
}

/** The private page of `gfn` goes from the guest_memfd. */
export function punchHole(gfn: number, stages = punchHoleStages): KernelSpec {
  return kernel('punch hole', [gfn], (state) => {
    const slot = state.vm.slots.sets[0]!.find(gfn);
    if (slot?.gmem == null || state.gmem === null) throw new Error('the frame of a scene has no guest_memfd');
    const page = gfn - slot.baseGfn + slot.gmem.pgoff;
    return [part(stages, new GmemInvalidation(state.gmem, page, page + 1))];
  });
}

// ---- dirty log ----

class SceneHarvest extends DirtyLogHarvest {
  readonly state: SceneWorld;
  readonly id: number;
  /** First frame of the slot. */
  private readonly baseGfn: number;

  constructor(state: SceneWorld, id: number) {
    super(state.vm, null, 0, new Int32Array(2));
    this.state = state;
    this.id = id;
    this.baseGfn = state.vm.slots.sets[0]!.idToMemslot(id)!.baseGfn;
  }

  /** Bits of the scene's frames that were taken. */
  get taken(): number {
    const { gfns } = this.state;
    let bits = 0;
    for (let g = 0; g < gfns.length; g++) {
      const page = gfns[g]! - this.baseGfn;
      if (page >= 0 && page < 32 && (this.words[0]! & (1 << page)) !== 0) bits |= 1 << g;
    }
    return bits;
  }

  override get locals(): number {
    return super.locals | (this.taken << 1);
  }

  override set locals(bits: number) {
    super.locals = bits;
    const { gfns } = this.state;
    this.words[0] = 0;
    this.words[1] = 0;
    for (let g = 0; g < gfns.length; g++) if ((bits & (2 << g)) !== 0) this.words[0]! |= 1 << (gfns[g]! - this.baseGfn);
  }
}

const lockAndFindLogged: ActorStage<SceneHarvest> = {
  name: 'slots-lock',
  kvmFunction: 'kvm_get_dirty_log_protect',
  takes: LOCK_SLOTS,
  reads: RES_SLOTS,
  writes: 0,
  run(harvest) {
    const { vm } = harvest;
    vm.locks.acquire(LOCK_SLOTS);
    const slot = vm.slots.sets[0]!.idToMemslot(harvest.id);
    if (slot === null || slot.dirtyBitmap === null) {
      vm.locks.release(LOCK_SLOTS);
      return STAGE_DONE;
    }
    harvest.slotA = slot;
    return STAGE_NEXT;
  },
};

const returnLog: ActorStage<SceneHarvest> = {
  name: 'return-log',
  kvmFunction: 'kvm_vm_ioctl_get_dirty_log',
  takes: 0,
  reads: 0,
  writes: RES_DIRTY_LOG,
  run(harvest) {
    harvest.state.unreported &= ~harvest.taken;
    harvest.vm.locks.release(LOCK_SLOTS);
    return STAGE_DONE;
  },
};

/** KVM_GET_DIRTY_LOG of a slot of at most 32 pages: userspace has heard of what it answers. */
export function getDirtyLog(id: number, stages = dirtyLogStages): KernelSpec {
  const asks: ActorStage<DirtyLogHarvest> = {
    ...stages[0]!,
    run(harvest) {
      harvest.words.fill(-1);
      return stages[0]!.run(harvest);
    },
  };
  return kernel('get dirty log', [], (state) => [
    part(locked<SceneHarvest>(lockAndFindLogged, [asks, ...stages.slice(1)], returnLog), new SceneHarvest(state, id)),
  ]);
}
