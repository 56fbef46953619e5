/** Userspace that reaps the dirty rings, as an actor of scenes. */
import { type ActorStage, RES_DIRTY_LOG, STAGE_NEXT } from '../../kvm/actors/actor.ts';
import { DirtyRingReset, dirtyRingResetStages } from '../../kvm/actors/dirty-ring-reset.ts';
import { part } from './kvm-model/kernel-actor.ts';
import { harvestRing } from './kvm-model/ring-word.ts';
import type { SceneWorld } from './kvm-model/state.ts';
import type { KernelSpec } from './scene.ts';

/** Pages of a slot that fit what an actor remembers. */
const PAGES = 5;

/** A reset, and what userspace has harvested before it: pages of one slot as bits. */
class SceneRingReset extends DirtyRingReset {
  harvested = 0;
  readonly state: SceneWorld;
  readonly id: number;
  private readonly baseGfn: number;

  constructor(state: SceneWorld, id: number) {
    super(state.vm);
    this.state = state;
    this.id = id;
    this.baseGfn = state.vm.slots.sets[0]!.idToMemslot(id)!.baseGfn;
    this.slot = id;
  }

  override get locals(): number {
    const batch = (this.mask.lo << this.offset) & ((1 << PAGES) - 1);
    return super.locals | (batch << 5) | (this.harvested << (5 + PAGES));
  }

  override set locals(bits: number) {
    super.locals = bits & 31;
    this.offset = 0;
    this.mask.lo = (bits >>> 5) & ((1 << PAGES) - 1);
    this.mask.hi = 0;
    this.harvested = bits >>> (5 + PAGES);
  }

  /** The harvested pages as bits of the scene's frames. */
  get frames(): number {
    let bits = 0;
    this.state.gfns.forEach((gfn, g) => {
      const page = gfn - this.baseGfn;
      if (page >= 0 && page < PAGES && (this.harvested & (1 << page)) !== 0) bits |= 1 << g;
    });
    return bits;
  }
}

const harvest: ActorStage<SceneRingReset> = {
  name: 'userspace harvests',
  kvmFunction: 'kvm_dirty_gfn_harvested',
  takes: 0,
  reads: RES_DIRTY_LOG,
  writes: RES_DIRTY_LOG,
  run(reset) {
    for (const { dirtyRing } of reset.vm.vcpus)
      if (dirtyRing !== null) reset.harvested |= harvestRing(dirtyRing, reset.id);
    return STAGE_NEXT;
  },
};

/** From here on userspace counts on hearing of the next write. */
const told: ActorStage<SceneRingReset> = {
  name: 'userspace copies',
  kvmFunction: 'kvm_vm_ioctl_reset_dirty_pages',
  takes: 0,
  reads: 0,
  writes: RES_DIRTY_LOG,
  run(reset) {
    reset.state.unreported &= ~reset.frames;
    return STAGE_NEXT;
  },
};

/** Userspace harvests all rings, resets them (KVM_RESET_DIRTY_RINGS), and then copies the pages that it found; they are of slot `id`. */
export function reapRings(id: number, stages = dirtyRingResetStages): KernelSpec {
  // Where KVM's list ends, userspace goes on.
  const inside = stages.map((stage, i) => ({
    ...stage,
    run(context: SceneRingReset) {
      const answer = stage.run(context);
      return answer === -1 ? stages.length - 1 - i : answer;
    },
  }));
  const make: KernelSpec['make'] = (state) => [part([harvest, ...inside, told], new SceneRingReset(state, id))];
  return { kind: 'kernel', name: 'reap dirty rings', gfns: [], make };
}
