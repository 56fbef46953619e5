/** The code of threads: main.ts as it was built, from wherever this file went. */
import { fileURLToPath } from 'node:url';
import { parallelSearch } from '../tools/explore/parallel.ts';

/** A module whose exports are what threads run. */
export const BUILT_MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url));

type Rest = Parameters<typeof parallelSearch> extends [infer _Code, ...infer R] ? R : never;

/** A search with several threads of this build. */
export function builtParallelSearch(...args: Rest): ReturnType<typeof parallelSearch> {
  return parallelSearch({ file: BUILT_MAIN, name: 'exploreThread' }, ...args);
}
