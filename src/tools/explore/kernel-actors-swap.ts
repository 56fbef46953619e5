/** Pages that go to swap and come back, as actors of scenes. */
import { PTE_FRAME_MASK, PTE_PRESENT, PTE_SPECIAL, PTE_SWAP } from '../../host/page-table.ts';
import { type ActorStage, RES_ALL, RES_HOST, RES_REQUESTS, STAGE_DONE, STAGE_NEXT } from '../../kvm/actors/actor.ts';
import { freePage, hvaOf, PageChange, rangeBracket } from './kernel-actors.ts';
import { part } from './kvm-model/kernel-actor.ts';
import type { SceneWorld } from './kvm-model/state.ts';
import { finishIo } from './kvm-model/vcpu-async.ts';
import type { KernelSpec } from './scene.ts';

/** The entry says from now on where in swap the page is. */
const swapEntry: ActorStage<PageChange> = {
  name: 'swap-entry',
  kvmFunction: 'try_to_unmap_one',
  takes: 0,
  reads: RES_HOST,
  writes: RES_HOST,
  run(change) {
    const { table } = change.vm.mm;
    const word = table.lookup(change.start);
    if ((word & PTE_PRESENT) === 0 || (word & PTE_SPECIAL) !== 0) return STAGE_NEXT;
    change.old = word & PTE_FRAME_MASK;
    table.setPte(change.start, PTE_SWAP | [...change.state.hvas].indexOf(change.start));
    return STAGE_NEXT;
  },
};

/** The page behind `gfn` goes to swap: it is unmapped within an invalidation, written out, and its frame freed. */
export function pageOut(gfn: number, bracket = rangeBracket): KernelSpec {
  const make: KernelSpec['make'] = (state) => {
    const hva = hvaOf(state, gfn);
    const stages = [...bracket.start, swapEntry, ...bracket.end, { ...freePage, name: 'write-out, free-page' }];
    return [part(stages, new PageChange(state, hva, hva + 4096))];
  };
  return { kind: 'kernel', name: 'page out', gfns: [gfn], make, movesPages: true };
}

/** The process itself reads the page behind `gfn`: it comes back from swap, with nobody told. */
export function touchPage(gfn: number): KernelSpec {
  const touch: ActorStage<PageChange> = {
    name: 'host fault',
    kvmFunction: 'do_swap_page',
    takes: 0,
    reads: RES_HOST,
    writes: RES_HOST,
    run({ vm, start }) {
      vm.mm.userPage(start, false);
      return STAGE_DONE;
    },
  };
  const make: KernelSpec['make'] = (state) => {
    const hva = hvaOf(state, gfn);
    return [part([touch], new PageChange(state, hva, hva + 4096))];
  };
  return { kind: 'kernel', name: 'host reads page', gfns: [gfn], make, movesPages: true };
}

/** What the worker of asynchronous page faults works on. */
class Io {
  locals = 0;
  readonly state: SceneWorld;

  constructor(state: SceneWorld) {
    this.state = state;
  }
}

/** Everybody else has come to an end, or sleeps in the guest. */
function othersRest(state: SceneWorld): boolean {
  return state.actors.every((a) => a.finished || a.name.startsWith(NAME) || (a as { idle?: boolean }).idle === true);
}

const NAME = 'async page fault worker';

const readIn: ActorStage<Io> = {
  name: 'read from swap',
  kvmFunction: 'async_pf_execute',
  takes: 0,
  reads: RES_ALL,
  writes: RES_HOST | RES_REQUESTS,
  ready: ({ state }) => state.vm.vcpus.some((v) => v.x86.asyncPf.waiting.length > 0) || othersRest(state),
  run({ state }) {
    for (const vcpu of state.vm.vcpus) if (finishIo(vcpu)) break;
    return STAGE_DONE;
  },
};

/** The I/O for an asynchronous page fault ends, if a vCPU waits for one. */
export function swapIn(): KernelSpec {
  return { kind: 'kernel', name: NAME, gfns: [], make: (state) => [part([readIn], new Io(state))], movesPages: true };
}
