import { describe, expect, it } from 'vitest';
import { runDemo } from './demo.ts';

describe('the tour', () => {
  it('takes every class of fault and accounts for it', async () => {
    const result = await runDemo();
    expect(result.output).toContain('all faults accounted for');
    expect(result.end).toMatchObject({ kind: 'debug-exit', status: 1 });
    expect(result.ok).toBe(true);
    const counts = Object.fromEntries(result.classes.map((c) => [c.id, c.counts]));
    expect(counts['demand-paging']).toMatchObject({ mapped4k: 16384 });
    expect(counts['huge-pages']).toMatchObject({ mapped2m: 2, faults: 2 });
    expect(counts['dirty-log']).toMatchObject({ splits: 2, fast: 16 });
    expect(counts['mmio-new']).toMatchObject({ mmioMade: 2, exitsMmio: 4 });
    expect(counts['mmio-again']).toMatchObject({ mmioMade: 0, exitsMmio: 18 });
    expect(counts['mmio-again']!.mmioFound).toBeGreaterThan(0);
    expect(counts['mmio-stale']).toMatchObject({ mmioStale: 2, mmioMade: 2 });
    expect(counts['read-only']).toMatchObject({ exitsMmio: 1 });
    expect(counts['conversion']).toMatchObject({ exitsHypercall: 2, exitsMemoryFault: 0 });
    expect(counts['memory-fault']).toMatchObject({ exitsHypercall: 1, exitsMemoryFault: 1 });
    expect(result.conversionsByFault).toBe(1);
  });

  it('gives the same account every time', async () => {
    const [a, b] = [await runDemo(), await runDemo()];
    expect(b).toEqual(a);
  });

  it('ends at the memory fault when the policy is to stop', async () => {
    const result = await runDemo({ onMemoryFault: 'stop' });
    expect(result.end).toMatchObject({ kind: 'memory-fault', status: 10 });
    expect(result.end.detail).toContain('private access to gpa 0x13000000');
    expect(result.ok).toBe(false);
  });
});
