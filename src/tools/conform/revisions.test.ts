/** Recordings of the real kernel that only pass from a certain change on: evidence that the change is where it is said to be. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { revisions } from '../../kvm/mmu/revisions/index.ts';
import { machineFor } from './conform.ts';
import { type Replayed, replayScenario } from './replay.ts';
import { readScenario } from './validate.ts';

function replay(name: string, revision: string): Replayed {
  const path = fileURLToPath(new URL(`../../../conformance/npt/${name}.json`, import.meta.url));
  const scenario = readScenario(path);
  return replayScenario(scenario, {
    machine: machineFor(path, scenario.paging, { params: {} }),
    contractOnly: false,
    revision,
  });
}

describe('recordings that tell revisions apart', () => {
  it.each([
    [
      'priv-mmio-spte-then-private-gen',
      7,
      'a stale MMIO entry under a private gfn: the access is shared, and so a mismatch',
    ],
    ['priv-stale-mmio-gmem-slot-read', 7, 'the same where guest_memfd could have given a page'],
    ['priv-stale-mmio-gmem-slot-rmw', 7, 'the same for a read-modify-write'],
    ['ro-read-then-write', 5, 'the trace shows all 64 bits of the error code'],
  ])('%s needs patch %d: %s', (name, patch) => {
    expect(replay(name, `series-v2@${patch - 1}`).full).toBe(false);
    expect(replay(name, `series-v2@${patch}`).full).toBe(true);
  });

  it('the three of the private check leave otherwise on Linux 6.9, and the one of the trace does not', () => {
    expect(replay('priv-stale-mmio-gmem-slot-read', 'linux-6.9').contract).toBe(false);
    expect(replay('ro-read-then-write', 'linux-6.9').contract).toBe(true);
  });

  it('every named revision replays an ordinary scenario', () => {
    for (const { name } of revisions) expect(replay('mmio-cache-evict', name).contract).toBe(true);
  });
});
