import { describe, expect, it } from 'vitest';
import { demoLines, demoReport } from './demo.ts';

describe("the tour's report", () => {
  it('says of every class what decided it and what KVM did, and explains the memory fault', async () => {
    let output = '';
    const report = await demoReport((text) => {
      output += text;
    });
    expect(report.holds).toBe(true);
    expect(output).toBe(report.output);
    const row = (id: string) => report.classes.find((c) => c.id === id);
    expect(row('demand-paging')).toMatchObject({ faults: 16384, decidedBy: ['map'], did: '16384 mapped 4K' });
    expect(row('dirty-log')?.decidedBy).toEqual(['fast-path']);
    expect(row('mmio-again')?.decidedBy).toEqual(['reserved-bits']);
    expect(report.explained?.stages.at(-1)).toMatchObject({ name: 'fault-in-private', verdict: 'EFAULT' });
    expect(report.left).toMatchObject({ errno: 'EFAULT', run: { exit_name: 'MEMORY_FAULT', flags: '0x8' } });
    expect(demoLines(report).join('\n')).toContain('bind one (KVM_MEM_GUEST_MEMFD)');
  });
});
