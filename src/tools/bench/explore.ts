/** How many states a second: one scene, in one thread and in several, and the fault protocol beside spin. */

import { type ExploreOptions, exploreScene } from '../explore/explore-scene.ts';
import { SearchThreads, type ThreadCode } from '../explore/parallel.ts';
import type { ExploreReport } from '../explore/report.ts';
import { findScene, modelOf, PROTOCOL_LARGE } from '../explore/scene-library.ts';
import { runSpin, type SpinResult } from './spin.ts';

/** The real MMU, also where threads have much to do, and the rule that it follows by itself, which spin has as well. */
export const STANDARD_SCENES = ['standard', 'standard-large', 'fault-protocol-large'];
/** One round is enough where starting and compiling do not count. */
const LARGE_SCENES = new Set(['standard-large']);
const SPIN_SCENE = 'fault-protocol-large';
/** The first is for the compiler of the JavaScript engine, too; the fastest counts. */
const ROUNDS = 3;

export interface ExploreTiming {
  readonly workers: number;
  readonly states: number;
  readonly transitions: number;
  readonly seconds: number;
  /** Processor time of all threads: more than `seconds * workers` never; much less means that the machine was busy with something else. */
  readonly cpuSeconds: number;
  readonly statesPerSecond: number;
  readonly bytesPerState: number;
}

/** What `softkvm bench explore --json` prints. */
export interface ExploreBenches {
  readonly version: 1;
  readonly scenes: readonly ExploreBench[];
}

export interface ExploreBench {
  readonly scene: string;
  readonly stateWords: number;
  readonly verdict: ExploreReport['verdict'];
  /** Without reduction; in one thread, and in several. */
  readonly one: ExploreTiming;
  readonly several: ExploreTiming;
  readonly speedup: number;
  /** With the reduction, in one thread. */
  readonly reduced: ExploreTiming;
  /** Of the fault protocol, where spin and a C compiler are installed. */
  readonly spin: { readonly full: SpinResult; readonly reduced: SpinResult } | null;
  /** Ten million states need this much, at `one.bytesPerState`. */
  readonly tenMillionMiB: number;
}

/** @throws InputError when there is no such scene */
export async function benchExplore(
  scene: string,
  workers: number,
  code: ThreadCode,
  onPhase: (phase: string) => void = () => {},
): Promise<ExploreBench> {
  const model = await modelOf(await findScene(scene), { scene });
  const rounds = LARGE_SCENES.has(scene) ? 1 : ROUNDS;
  const threads = await SearchThreads.start(code, workers);
  const parallel: ExploreOptions['parallel'] = (m, spec, _workers, options) => threads.search(m, spec, options);
  const timed = async (n: number, reduce: boolean): Promise<readonly [ExploreReport, ExploreTiming]> => {
    let best: readonly [ExploreReport, ExploreTiming] | null = null;
    for (let round = 0; round < rounds; round++) {
      onPhase(
        `${scene}: ${n} thread${n === 1 ? '' : 's'}, ${reduce ? 'reduced' : 'every order'}, round ${round + 1} of ${rounds}`,
      );
      const cpu = process.cpuUsage();
      const report = await exploreScene({ scene }, { reduce, workers: n, parallel });
      const { user, system } = process.cpuUsage(cpu);
      const { states, transitions, seconds, statesPerSecond, bytesPerState } = report;
      const cpuSeconds = (user + system) / 1e6;
      const timing = { workers: n, states, transitions, seconds, cpuSeconds, statesPerSecond, bytesPerState };
      if (best === null || seconds < best[1].seconds) best = [report, timing];
    }
    return best!;
  };
  const [report, one] = await timed(1, false);
  const [, reduced] = await timed(1, true);
  const [, several] = await timed(workers, false).finally(() => threads.stop());
  let spin: ExploreBench['spin'] = null;
  if (scene === SPIN_SCENE) {
    onPhase('spin');
    const full = runSpin(PROTOCOL_LARGE, false);
    const less = full === null ? null : runSpin(PROTOCOL_LARGE, true);
    if (full !== null && less !== null) spin = { full, reduced: less };
  }
  return {
    scene,
    stateWords: model.stateWords,
    verdict: report.verdict,
    one,
    several,
    speedup: one.seconds / several.seconds,
    reduced,
    spin,
    tenMillionMiB: (one.bytesPerState * 1e7) / 1024 ** 2,
  };
}
