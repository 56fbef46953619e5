import { describe, expect, it } from 'vitest';
import { benchFaults } from './faults.ts';

describe('the benchmark of faults', () => {
  it('runs, and its parts add up', () => {
    const b = benchFaults(4, undefined);
    expect(b).toMatchObject({ version: 1, mib: 4, faults: 1024, hardware: 'silicon-epyc' });
    expect(b.faultsPerSecond).toBeGreaterThan(0);
    expect(b.barePerSecond).toBeGreaterThan(0);
    expect(b.shadow.ratio).toBeCloseTo(b.shadow.nsPerFault / b.nsPerFault);
    expect(b.snp.ratio).toBeGreaterThan(0);
    expect(b.nsHardware + b.nsKvm).toBeCloseTo(b.nsPerFault);
  });

  it('runs under EPT, and on VMX without it', () => {
    const b = benchFaults(4, undefined, () => {}, 'intel');
    expect(b).toMatchObject({ mib: 4, faults: 1024, hardware: 'silicon-skylake' });
    expect(b.shadow.ratio).toBeGreaterThan(0);
  });

  it('refuses more memory than a machine has', () => {
    expect(() => benchFaults(1_000_000, undefined)).toThrow(/--mib 1000000: expected at most/);
  });
});
