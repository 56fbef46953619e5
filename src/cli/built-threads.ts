/** The code of threads: main.ts as it was built, from wherever this file went. */
import { fileURLToPath } from 'node:url';
import type { ThreadCode } from '../tools/explore/parallel.ts';

/** A module whose exports are what threads run. */
export const BUILT_MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url));

/** A thread of a search. */
export const THREAD_CODE: ThreadCode = { file: BUILT_MAIN, name: 'exploreThread' };
