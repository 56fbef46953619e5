/** One thread of a search with several, but the first. */
import type { MessagePort } from 'node:worker_threads';
import type { Part } from './conclusion.ts';
import { takePart } from './explorer.ts';
import type { Model, ModelSpec } from './model.ts';
import { Searcher } from './searcher.ts';
import { StateTable, type TableMemory } from './state-table.ts';
import { abortTeam, Team, type TeamBounds, type TeamSpace } from './team.ts';

export interface WorkerTask {
  readonly space: TeamSpace;
  /** The thread's number, from 1. */
  readonly me: number;
  readonly table: TableMemory;
  /** Through which it hears of new memory for the tables. */
  readonly port: MessagePort;
  readonly spec: ModelSpec;
  readonly reduce: boolean;
  readonly bounds: TeamBounds;
}

/** A part, in a form that can be handed over without copying; null: the search had ended before this thread could join. */
export type WorkerAnswer =
  | (Omit<Part, 'edges' | 'finished'> & { readonly edges: Pieces; readonly finished: Pieces })
  | null;

export interface Pieces {
  readonly pieces: readonly Int32Array<ArrayBuffer>[];
  readonly length: number;
}

/** Makes the model again, joins the others, and searches with them. */
export async function runThread(
  task: WorkerTask,
  makeModel: (spec: ModelSpec) => Model | Promise<Model>,
): Promise<WorkerAnswer> {
  const { space, me, port, bounds, reduce } = task;
  try {
    const model = await makeModel(task.spec);
    const table = new StateTable(model.stateWords, true, task.table);
    const team = new Team(space, me, table, bounds, [port]);
    if (!team.join()) return null;
    const searcher = new Searcher(model, reduce, table);
    const part = await takePart(searcher, team, () => undefined);
    const pieces = (list: typeof searcher.edges): Pieces => ({ pieces: list.pieces, length: list.length });
    return { ...part, edges: pieces(searcher.edges), finished: pieces(searcher.finished) };
  } catch (error) {
    abortTeam(space);
    throw error;
  } finally {
    port.close();
  }
}

/** The buffers of an answer, which go over with it. */
export function buffersOf(answer: WorkerAnswer): ArrayBuffer[] {
  if (answer === null) return [];
  const arrays = [...answer.edges.pieces, ...answer.finished.pieces];
  return [...new Set(arrays.map((array) => array.buffer))];
}
