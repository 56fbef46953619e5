/** How many states a second: one scene, in one thread and in several, and the fault protocol beside spin. */

import type { ExploreOptions } from '../explore/explore-scene.ts';
import { exploreScene } from '../explore/explore-scene.ts';
import type { ExploreReport } from '../explore/report.ts';
import { PROTOCOL_LARGE } from '../explore/scene-library.ts';
import { runSpin, type SpinResult } from './spin.ts';

export const STANDARD_SCENE = 'fault-protocol-large';
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
export interface ExploreBench {
  readonly version: 1;
  readonly scene: string;
  readonly verdict: ExploreReport['verdict'];
  /** Without reduction; in one thread, and in several. */
  readonly one: ExploreTiming;
  readonly several: ExploreTiming;
  readonly speedup: number;
  /** With the reduction, in one thread. */
  readonly reduced: ExploreTiming;
  /** Of the standard scene, where spin and a C compiler are installed. */
  readonly spin: { readonly full: SpinResult; readonly reduced: SpinResult } | null;
  /** Ten million states need this much, at `one.bytesPerState`. */
  readonly tenMillionMiB: number;
}

/** @throws InputError when there is no such scene */
export async function benchExplore(
  scene: string,
  workers: number,
  parallel: ExploreOptions['parallel'],
  onPhase: (phase: string) => void = () => {},
): Promise<ExploreBench> {
  const timed = async (threads: number, reduce: boolean): Promise<readonly [ExploreReport, ExploreTiming]> => {
    let best: readonly [ExploreReport, ExploreTiming] | null = null;
    for (let round = 0; round < ROUNDS; round++) {
      onPhase(
        `${threads} thread${threads === 1 ? '' : 's'}, ${reduce ? 'reduced' : 'every order'}, round ${round + 1}`,
      );
      const cpu = process.cpuUsage();
      const report = await exploreScene(
        { scene },
        { reduce, workers: threads, ...(parallel === undefined ? {} : { parallel }) },
      );
      const { user, system } = process.cpuUsage(cpu);
      const { states, transitions, seconds, statesPerSecond, bytesPerState } = report;
      const cpuSeconds = (user + system) / 1e6;
      const timing = { workers: threads, states, transitions, seconds, cpuSeconds, statesPerSecond, bytesPerState };
      if (best === null || seconds < best[1].seconds) best = [report, timing];
    }
    return best!;
  };
  const [report, one] = await timed(1, false);
  const [, reduced] = await timed(1, true);
  const [, several] = await timed(workers, false);
  let spin: ExploreBench['spin'] = null;
  if (scene === STANDARD_SCENE) {
    onPhase('spin');
    const full = runSpin(PROTOCOL_LARGE, false);
    const less = full === null ? null : runSpin(PROTOCOL_LARGE, true);
    if (full !== null && less !== null) spin = { full, reduced: less };
  }
  return {
    version: 1,
    scene,
    verdict: report.verdict,
    one,
    several,
    speedup: one.seconds / several.seconds,
    reduced,
    spin,
    tenMillionMiB: (one.bytesPerState * 1e7) / 1024 ** 2,
  };
}
