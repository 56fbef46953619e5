/** The code of threads that search toy models: what main.ts is for scenes. */
import { threadMain } from './parallel.ts';
import {
  counters,
  lostUpdate,
  peterson,
  philosophers,
  retryForever,
  type Toy,
  ToyModel,
} from './toy-models.testing.ts';
import type { WorkerTask } from './worker.ts';

export const toys: Readonly<Record<string, () => Toy>> = {
  counters: () => counters(4, 9),
  peterson: () => peterson(true, 8),
  unguarded: () => peterson(false, 3),
  philosophers: () => philosophers(5, true, 3),
  impolite: () => philosophers(7, false, 2),
  lost: () => lostUpdate(4, 2),
  retry: () => retryForever(false),
  livelock: () => retryForever(true),
};

export function toyThread(task: WorkerTask): Promise<unknown> {
  return threadMain(task, ({ scene }) => {
    if (scene === 'broken' && task.me === 1) throw new Error('this model cannot be made');
    return new ToyModel(toys[scene === 'broken' ? 'counters' : scene]!());
  });
}
