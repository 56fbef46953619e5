import { describe, expect, it } from 'vitest';
import { historyBetween, patchCount, revisionByName, revisions } from './index.ts';
import { linux69 } from './linux-6.9.ts';
import { linux610 } from './linux-6.10.ts';
import { linux612 } from './linux-6.12.ts';
import type { Revision } from './revision.ts';
import { seriesRows } from './rows.ts';
import { seriesV1 } from './series-v1.ts';
import { seriesV2 } from './series-v2.ts';

const names = (r: Revision): string[] => r.stages.map((s) => s.name);

describe('the history of the fault path', () => {
  it('has the lists that were posted and released', () => {
    expect(names(linux69)).toEqual([
      'guest-walk',
      'write-tracking',
      'fast-path',
      'snapshot-sequence',
      'invalidation-precheck',
      'invalid-slot',
      'internal-slots',
      'private-mismatch',
      'fault-in-private',
      'fault-in-shared',
      'error-pfn',
      'no-slot',
      'invalidation-recheck',
      'stale-check',
      'map',
    ]);
    expect(names(seriesV2)).toEqual([
      'guest-walk',
      'write-tracking',
      'fast-path',
      'snapshot-sequence',
      'private-mismatch',
      'no-slot',
      'invalid-slot',
      'apic-access-page',
      'snapshot-sequence-again',
      'invalidation-precheck',
      'fault-in-private',
      'fault-in-shared',
      'error-pfn',
      'noslot-pfn',
      'invalidation-recheck',
      'stale-check',
      'map',
    ]);
    expect(names(linux610)).toEqual(names(seriesV2).filter((n) => n !== 'snapshot-sequence-again'));
  });

  it('brings version 1 to version 2 by the patches that differ', () => {
    const steps = historyBetween(seriesV1, seriesV2)!;
    expect(steps.map((s) => s.label)).toEqual(['row 1', 'row 8', 'row 9']);
    let { stages, rules } = seriesV1 as Pick<Revision, 'stages' | 'rules'>;
    for (const { patch } of steps) ({ stages, rules } = patch.apply({ stages, rules }));
    expect(stages).toEqual(seriesV2.stages);
    expect(rules).toEqual(seriesV2.rules);
  });

  it('leads from every revision to every other, and back the same way', () => {
    for (const a of revisions)
      for (const b of revisions) {
        const there = historyBetween(a, b)!;
        const back = historyBetween(b, a)!;
        expect(back.map((s) => s.patch).reverse()).toEqual(there.map((s) => s.patch));
        expect(there.length === 0 ? a : there.at(-1)!.revision).toBe(b);
      }
    expect(historyBetween({ ...linux612, name: 'mine' }, linux612)).toBeNull();
  });

  it('names every state in between', () => {
    expect(revisionByName('series-v2@17')).toBe(seriesV2);
    expect(names(revisionByName('series-v2@9'))).not.toContain('snapshot-sequence-again');
    for (const r of revisions)
      for (let n = 1; n <= patchCount(r); n++)
        expect(revisionByName(`${r.name}@${n}`).name).toBe(n === patchCount(r) ? r.name : `${r.name}@${n}`);
    expect(() => revisionByName('series-v2@18')).toThrow(/has patches 1 to 17/);
    expect(() => revisionByName('linux-6.9@1')).toThrow(/unknown/);
  });

  it('has seventeen rows, each patch of version 2 once', () => {
    expect(seriesRows.map((r) => r.row)).toEqual(Array.from({ length: 17 }, (_, i) => i + 1));
    expect(new Set(seriesRows.map((r) => r.v2)).size).toBe(17);
    expect(seriesRows.filter((r) => r.v1 === null).map((r) => r.row)).toEqual([8]);
  });
});
