/** Replays scenario files and folders of them, and adds up what passed. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { InputError } from '../input-error.ts';
import { causeOf } from './causes.ts';
import { type FolderMachine, folderMachine } from './folders.ts';
import { type PermissionReplay, replayPermissionFaults } from './permission-faults.ts';
import { type Replayed, replayScenario, type StepDifference } from './replay.ts';
import { readScenario } from './validate.ts';

export interface ConformOptions {
  readonly contractOnly: boolean;
  /** Module parameters and hardware that take precedence over the folder's. */
  readonly params: { readonly [name: string]: string };
  readonly hardware?: string;
  readonly revision?: string;
  readonly onScenario?: (result: ScenarioResult, done: number, all: number) => void;
  /** Asked between scenarios; true ends the replay with what there is so far. */
  readonly stopped?: () => boolean;
}

export interface ScenarioResult {
  readonly name: string;
  readonly title: string;
  readonly path: string;
  readonly status: Replayed['status'];
  readonly contract: boolean;
  readonly full: boolean;
  readonly cause?: string;
  readonly firstDifference?: StepDifference;
  /** Where our own code broke, for a scenario that crashed. */
  readonly stack?: string;
}

/** What `softkvm conform --json` prints. */
export interface ConformReport {
  readonly version: 1;
  readonly total: {
    readonly scenarios: number;
    /** Scenarios that passed in everything that was compared. */
    readonly passed: number;
    readonly contractPassed: number;
    readonly unsupported: number;
    readonly failed: number;
  };
  /** Causes of what did not pass, most frequent first. */
  readonly causes: readonly { readonly cause: string; readonly scenarios: number }[];
  readonly permissionFault?: PermissionReplay;
  /** The replay was ended early. */
  readonly interrupted: boolean;
  readonly scenarios: readonly ScenarioResult[];
}

/** Replays everything under `paths`. @throws InputError */
export async function conform(paths: readonly string[], options: ConformOptions): Promise<ConformReport> {
  const files = paths.flatMap(filesUnder);
  if (files.length === 0) throw new InputError(`${paths.join(' ')}: no scenario in there`);
  const scenarioFiles = files.filter((f) => f.endsWith('.json'));
  const results: ScenarioResult[] = [];
  let interrupted = false;
  for (const path of scenarioFiles) {
    // Lets signals in.
    if (results.length % 8 === 7) await new Promise((resolve) => setImmediate(resolve));
    if (options.stopped?.() === true) {
      interrupted = true;
      break;
    }
    const result = conformScenario(path, options);
    results.push(result);
    options.onScenario?.(result, results.length, scenarioFiles.length);
  }
  const permissionFile = files.find((f) => f.endsWith('.txt'));
  return {
    version: 1,
    total: {
      scenarios: results.length,
      passed: results.filter((r) => r.full).length,
      contractPassed: results.filter((r) => r.contract).length,
      unsupported: results.filter((r) => r.status === 'unsupported').length,
      failed: results.filter((r) => r.status === 'failed' || r.status === 'crashed').length,
    },
    causes: countCauses(results),
    ...(permissionFile === undefined ? {} : { permissionFault: replayPermissionFaults(permissionFile) }),
    interrupted,
    scenarios: results,
  };
}

function conformScenario(path: string, options: ConformOptions): ScenarioResult {
  const scenario = readScenario(path);
  const replayed = replayScenario(scenario, {
    machine: machineFor(path, scenario.paging, options),
    contractOnly: options.contractOnly,
    ...(options.revision === undefined ? {} : { revision: options.revision }),
  });
  return {
    name: scenario.name,
    title: scenario.title ?? '',
    path,
    status: replayed.status,
    contract: replayed.contract,
    full: replayed.full,
    ...(replayed.full ? {} : { cause: causeOf(replayed) }),
    ...(replayed.difference === undefined ? {} : { firstDifference: replayed.difference }),
    ...(replayed.status === 'crashed' ? { stack: replayed.reason ?? '' } : {}),
  };
}

/** The machine of a scenario: the folder's, with what the options replace. @throws InputError */
export function machineFor(
  path: string,
  paging: string | undefined,
  options: Pick<ConformOptions, 'params' | 'hardware'>,
): FolderMachine {
  const own = folderMachine(dirname(path), paging);
  return {
    ...own,
    hardware: options.hardware ?? own.hardware,
    params: { ...own.params, ...options.params },
  };
}

function filesUnder(path: string): string[] {
  if (!existsSync(path)) throw new InputError(`${path}: no such file or folder`);
  if (!statSync(path).isDirectory()) {
    if (path.endsWith('.json') || basename(path) === 'permission-fault.txt') return [path];
    throw new InputError(`${path}: expected a scenario (.json), permission-fault.txt, or a folder of them`);
  }
  const found = readdirSync(path, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const inside = join(path, entry.name);
      if (entry.isDirectory()) return filesUnder(inside);
      return (entry.name.endsWith('.json') && entry.name !== 'machine.json') || entry.name === 'permission-fault.txt'
        ? [inside]
        : [];
    });
  return found;
}

function countCauses(results: readonly ScenarioResult[]): { cause: string; scenarios: number }[] {
  const counts = new Map<string, number>();
  for (const r of results) if (r.cause !== undefined) counts.set(r.cause, (counts.get(r.cause) ?? 0) + 1);
  return [...counts].map(([cause, scenarios]) => ({ cause, scenarios })).sort((a, b) => b.scenarios - a.scenarios);
}
