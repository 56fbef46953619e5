/** The revisions of the fault path, by name. */
import { linux612 } from './linux-6.12.ts';
import type { Revision } from './revision.ts';

/** Those that can run. */
export const revisions: readonly Revision[] = [linux612];

/** Those that are planned: named here so that asking for one gets a clear answer. */
const planned = ['base', 'series-v1', 'series-v2', 'linux-6.10', 'linux-6.13'];

/** @throws RangeError for a name that is unknown or not supported yet. */
export function revisionByName(name: string): Revision {
  const found = revisions.find((r) => r.name === name);
  if (found !== undefined) return found;
  const known = revisions.map((r) => r.name).join(', ');
  if (planned.includes(name)) throw new RangeError(`revision ${name} is not supported yet; supported: ${known}`);
  throw new RangeError(`unknown revision ${name}; supported: ${known}`);
}
