/** A revision by name, or from a user's file: type-checked, checked again as data, and guarded while it runs. */
import { existsSync, statSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { typeErrors } from '../check-types.ts';
import { InputError } from '../input-error.ts';
import { loadUserModule, placeIn } from '../user-module.ts';
import { guarded, revisionProblem } from './check-revision.ts';

export interface LoadedRevision {
  readonly revision: Revision;
  /** As the user named it: what --revision takes to get it again. */
  readonly argument: string;
  /** The name of its file; null for a revision of softkvm's. */
  readonly file: string | null;
  /** The types of its file were not checked, because there is no TypeScript compiler here. */
  readonly unchecked: boolean;
}

/** How many type errors are printed. */
const TYPE_ERRORS = 5;

/**
 * The revision of that name, or of the file at that path (.ts, .mts, .js, .mjs).
 * @throws InputError when there is none, or the file is not a revision that can run
 */
export async function loadRevision(argument: string): Promise<LoadedRevision> {
  if (isPath(argument)) return loadFile(argument);
  try {
    return { revision: revisionByName(argument), argument, file: null, unchecked: false };
  } catch (error) {
    if (error instanceof RangeError)
      throw new InputError(
        error.message.startsWith('unknown') ? `${error.message}; or a file, as ./my-revision.ts` : error.message,
      );
    throw error;
  }
}

function isPath(argument: string): boolean {
  return /[/\\]/.test(argument) || /\.[cm]?[jt]s$/.test(argument);
}

async function loadFile(argument: string): Promise<LoadedRevision> {
  const name = basename(argument);
  if (!/\.m?[jt]s$/.test(argument)) throw new InputError(`${argument}: expected a .ts, .mts, .js or .mjs file`);
  const file = resolve(argument);
  if (!existsSync(file)) throw new InputError(`${argument}: no such file`);
  if (!statSync(file).isFile()) throw new InputError(`${argument}: is a folder, expected a file`);
  const errors = /\.m?ts$/.test(file) ? typeErrors(file, { name: 'softkvm', source: 'index.ts' }) : [];
  if (errors !== null && errors.length > 0) throw new InputError(typeErrorText(name, errors));
  const value = await load(file, name);
  const problem = revisionProblem(value);
  if (problem !== null) throw new InputError(`${name}: ${problem}`);
  const revision = guarded(
    value as Revision,
    (what, thrown) => new InputError(`${name}: ${what}${placeOf(thrown, file)}`),
  );
  return { revision, argument, file: name, unchecked: errors === null };
}

function typeErrorText(name: string, errors: readonly string[]): string {
  const more = errors.length - TYPE_ERRORS;
  const lines = errors.slice(0, TYPE_ERRORS).map((e) => `  ${e}`);
  if (more > 0) lines.push(`  and ${more} more`);
  return [`${name}: ${errors.length === 1 ? 'a type error' : `${errors.length} type errors`}`, ...lines].join('\n');
}

/** The file's default export. Its `softkvm` is this one, so that the stages it names are the ones that run. */
async function load(file: string, name: string): Promise<unknown> {
  try {
    return (await loadUserModule(file, { softkvm: await import('../../index.ts') }))['default'];
  } catch (error) {
    const [first = 'cannot be loaded'] = String(error instanceof Error ? error.message : error).split('\n');
    throw new InputError(`${name}: ${first.trim()}${placeOf(error, file)}`);
  }
}

/** ` (line 12:5)`: where in the file something was thrown, or nothing. */
function placeOf(thrown: unknown, file: string): string {
  const place = placeIn(file, thrown);
  return place === null ? '' : ` (line ${place})`;
}
