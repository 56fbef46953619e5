/** One thread of a search with several: its shard, level by level in step with the others. */
import { type Part, partOf } from './conclusion.ts';
import { Rings, type SharedSpace } from './exchange.ts';
import type { ModelSpec } from './model.ts';
import type { Bounds, Stop } from './search.ts';
import { type Finding, Shard } from './shard.ts';

export interface WorkerTask {
  readonly space: SharedSpace;
  readonly me: number;
  readonly spec: ModelSpec;
  readonly reduce: boolean;
  readonly livelock: boolean;
  readonly bounds: Bounds;
}

/** A part, in a form that can be handed over without copying. */
export interface WorkerAnswer extends Omit<Part, 'edges' | 'finished'> {
  readonly depth: number;
  readonly stopped: Stop | null;
  readonly finding: Finding | null;
  readonly edges: Pieces;
  readonly finished: Pieces;
}

export interface Pieces {
  readonly pieces: readonly Int32Array<ArrayBuffer>[];
  readonly length: number;
}

/** States between two looks at what the others sent. */
const BATCH = 128;

export function runShard(model: ConstructorParameters<typeof Shard>[0], task: WorkerTask): WorkerAnswer {
  const { space, me, reduce, livelock, bounds } = task;
  const rings = new Rings(space, me);
  const shard = new Shard(model, reduce, livelock, rings);
  rings.serve(shard);
  shard.begin();
  const depthBound = bounds.depth ?? Number.POSITIVE_INFINITY;
  const most = bounds.maxStates ?? Number.POSITIVE_INFINITY;
  const share = Math.ceil(most / space.shards);
  let stopped: Stop | null = null;
  let depth = 0;
  let before = { transitions: 0, reducedStates: 0 };
  for (; ; depth++) {
    shard.nextLevel();
    before = { transitions: shard.transitions, reducedStates: shard.reducedStates };
    shard.expanding = depth < depthBound && stopped === null;
    let interrupted = false;
    let full = false;
    while (!shard.expandSome(BATCH)) {
      rings.takeIn();
      rings.showStates(shard.table.count);
      if (shard.table.count >= share && shard.expanding) {
        full = true;
        shard.expanding = false;
      }
      interrupted = rings.stopRequested;
      if (interrupted) break;
    }
    rings.barrier(true);
    if (reduce) {
      rings.barrier(true);
      shard.expandRefused();
      rings.barrier(true);
    }
    const total = shard.table.count;
    const all = rings.agree({ next: total - shard.levelEnd, total, found: shard.finding !== null, full, interrupted });
    if (all.interrupted) stopped = 'interrupted';
    else if (all.full || all.total >= most) stopped ??= 'max-states';
    if (all.found || all.interrupted || all.next === 0) {
      if (!all.found) before = { transitions: shard.transitions, reducedStates: shard.reducedStates };
      break;
    }
  }
  const part = partOf(shard, before);
  const pieces = (list: typeof shard.edges): Pieces => ({ pieces: list.pieces, length: list.length });
  return { ...part, depth, stopped, edges: pieces(shard.edges), finished: pieces(shard.finished) };
}

/** The buffers of an answer, which go over with it. */
export function buffersOf(answer: WorkerAnswer): ArrayBuffer[] {
  const arrays = [answer.parents, answer.steps, answer.hashes, ...answer.edges.pieces, ...answer.finished.pieces];
  return [...new Set(arrays.map((array) => array.buffer as ArrayBuffer))];
}
