import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { flagFaults } from './explain-flags.ts';
import { scenarioFaults } from './explain-scenario.ts';
import { explanationLines, outcomeSentence } from './explain-text.ts';

const scenario = (name: string): string =>
  fileURLToPath(new URL(`../../../conformance/npt/${name}.json`, import.meta.url));
const base = { errorCode: 0x100000006n, gpa: 0x800000n, slot: 'rw', attribute: 'shared', vmType: 'default' } as const;

describe('a fault made from flags', () => {
  it('is mapped where there is a slot', () => {
    const { faults, left } = flagFaults(base);
    const fault = faults.at(-1)!;
    expect(left).toBeNull();
    expect(fault.verdict).toBe('RET_PF_FIXED');
    expect(fault.stages.at(-1)).toMatchObject({ name: 'map', kvmFunction: 'kvm_tdp_mmu_map' });
    expect(fault.spteBefore?.words).toBe('nothing is mapped');
    expect(fault.spteAfter?.words).toMatch(/^4K page RWX, host frame 0x/);
  });

  it('leaves with a memory fault where attribute and slot do not fit, and says what to do', () => {
    const { faults, left } = flagFaults({ ...base, attribute: 'private', vmType: 'sw-protected' });
    expect(left).toMatchObject({
      ret: -1,
      errno: 'EFAULT',
      run: { exit_name: 'MEMORY_FAULT', flags: '0x8', gpa: '0x800000' },
    });
    expect(faults.at(-1)!.stages.at(-1)).toMatchObject({ name: 'fault-in-private', verdict: 'EFAULT' });
    const words = explanationLines(faults.at(-1)!, left).join('\n');
    expect(words).toContain('no guest_memfd: bind one');
    expect(words).toContain('PRIVATE_ACCESS: added by KVM on entry');
  });

  it('maps private memory from guest_memfd', () => {
    const { faults, left } = flagFaults({ ...base, slot: 'gmem', attribute: 'private', vmType: 'sw-protected' });
    expect(left).toBeNull();
    expect(faults.at(-1)!.verdict).toBe('RET_PF_FIXED');
  });

  it('is the same every time', () => {
    expect(flagFaults(base)).toEqual(flagFaults(base));
  });

  it('refuses private memory in a default VM', () => {
    expect(() => flagFaults({ ...base, attribute: 'private' })).toThrow(/need --vm-type sw-protected/);
  });
});

describe('the faults of a scenario', () => {
  it('follows the MMIO path: made, then found', () => {
    const first = scenarioFaults(scenario('mmio-cache-evict'), 0, undefined);
    expect(first.faults.at(-1)).toMatchObject({ gpa: '0xd0000000', slot: null, verdict: 'RET_PF_EMULATE' });
    expect(first.faults.at(-1)!.spteAfter?.words).toMatch(/^MMIO: gfn 0xd0000, generation 2/);
    const third = scenarioFaults(scenario('mmio-cache-evict'), 2, undefined);
    expect(third.faults).toHaveLength(1);
    expect(outcomeSentence(third.faults[0]!)).toMatch(/^reserved-bits: /);
    const words = explanationLines(third.faults[0]!, { ret: 0, errno: null, run: third.answer.run! }).join('\n');
    expect(words).toContain('KVM_EXIT_MMIO');
    expect(words).toContain('RSVD without P');
  });

  it('names a step that is not there', () => {
    expect(() => scenarioFaults(scenario('mmio-cache-evict'), 99, undefined)).toThrow(/--step 99: .* has steps 0 to 4/);
  });
});
