import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { search } from './explorer.ts';
import { parallelSearch, type ThreadCode } from './parallel.ts';
import type { SearchOptions } from './search.ts';
import { ToyModel } from './toy-models.testing.ts';
import { toys } from './toy-thread.testing.ts';

// Threads cannot run TypeScript: their code is built first, next to the packages that it imports.
let folder: string;
let code: ThreadCode;

beforeAll(async () => {
  folder = mkdtempSync(fileURLToPath(new URL('../../../node_modules/.softkvm-threads-', import.meta.url)));
  const input = fileURLToPath(new URL('toy-thread.testing.ts', import.meta.url));
  const bundle = await rolldown({ input, platform: 'node', external: ['piscina'], logLevel: 'warn' });
  await bundle.write({ dir: folder, format: 'esm', entryFileNames: 'thread.mjs' });
  await bundle.close();
  code = { file: join(folder, 'thread.mjs'), name: 'toyThread' };
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function both(scene: string, workers: number, options: SearchOptions) {
  const model = new ToyModel(toys[scene]!());
  const alone = await search(model, options);
  const model2 = new ToyModel(toys[scene]!());
  const together = await parallelSearch(code, model2, { scene }, workers, { ...options, assemble: true });
  return { alone, together };
}

describe('a search in several threads', () => {
  it.each(Object.keys(toys).flatMap((scene) => [true, false].map((reduce) => [scene, reduce] as const)))(
    'finds of %s (reduction %s) what one thread finds: the same states, the same schedule',
    async (scene, reduce) => {
      for (const workers of [2, 3]) {
        const { alone, together } = await both(scene, workers, { reduce, livelock: true });
        expect({ ...together, seconds: 0, bytes: 0 }).toEqual({ ...alone, seconds: 0, bytes: 0 });
      }
    },
  );

  it('lets a thread in that comes late', async () => {
    const options = { reduce: false, livelock: true };
    const model = new ToyModel(toys['lost']!());
    const late = await parallelSearch(code, model, { scene: 'lost' }, 2, options);
    const alone = await search(new ToyModel(toys['lost']!()), options);
    expect({ ...late, seconds: 0, bytes: 0 }).toEqual({ ...alone, seconds: 0, bytes: 0 });
  });

  it('keeps to a depth', async () => {
    const { alone, together } = await both('counters', 2, { reduce: false, livelock: true, depth: 7 });
    expect(together).toMatchObject({ stopped: 'depth', complete: false, states: alone.states });
  });

  it('stops at a number of states, and when it is interrupted', async () => {
    const { together } = await both('counters', 2, { reduce: false, livelock: true, maxStates: 1000 });
    expect(together).toMatchObject({ stopped: 'max-states', complete: false });
    expect(together.states).toBeLessThan(5000);
    const stopped = await both('philosophers', 2, { reduce: false, livelock: true, interrupted: () => true });
    expect(stopped.alone).toMatchObject({ verdict: 'holds' });
    expect(['interrupted', null]).toContain(stopped.together.stopped);
  });

  it('ends with the cause when a thread fails', async () => {
    const options = { reduce: false, livelock: true };
    await expect(
      parallelSearch(code, new ToyModel(toys['counters']!()), { scene: 'broken' }, 2, options),
    ).rejects.toThrow('cannot be made');
  });
});
