import { describe, expect, it } from 'vitest';
import { type Answer, contractDifference, internalsDifference } from './compare.ts';
import type { Expectation } from './scenario.ts';

const theirs: Expectation = {
  ret: 0,
  errno: null,
  run: { exit_reason: 6, data: '' },
  regs: { rip: '0xa', rax: '0x1' },
  trace: [],
  stats: {},
};
const ours: Answer = {
  ret: 0,
  errno: null,
  run: { exit_reason: 6, data: '' },
  regs: { rip: '0xa', rax: '0x1' },
  trace: [],
  stats: {},
};

describe('comparison', () => {
  it('finds nothing in equal answers', () => {
    expect(contractDifference(ours, theirs, false, new Set())).toBeNull();
    expect(internalsDifference(ours, theirs)).toBeNull();
  });

  it('names the first place that differs', () => {
    expect(
      contractDifference({ ...ours, run: { exit_reason: 6, data: '00' } }, theirs, false, new Set()),
    ).toMatchObject({ path: 'run.data', ours: '00', theirs: '' });
    expect(
      contractDifference({ ...ours, run: { exit_reason: 6, data: '', extra: 1 } }, theirs, false, new Set())?.path,
    ).toBe('run.extra');
    expect(internalsDifference({ ...ours, stats: { '+vcpu0.pf_taken': 1 } }, theirs)?.path).toBe(
      'stats.+vcpu0.pf_taken',
    );
  });

  it('takes a different event as one difference', () => {
    const event = (name: string) => ({ event: name, fields: { gfn: '0x1' } });
    expect(internalsDifference({ ...ours, trace: [event('a')] }, { ...theirs, trace: [event('b')] })).toMatchObject({
      path: 'trace[0]',
      ours: event('a'),
    });
    expect(internalsDifference({ ...ours, trace: [] }, { ...theirs, trace: [event('b')] })).toMatchObject({
      path: 'trace[0]',
      ours: undefined,
    });
  });

  it('leaves registers alone that stale completion data loaded, then and later, but not rip', () => {
    const chance = new Set<string>();
    const loaded = { ...ours, regs: { rip: '0xa', rax: '0x99' } };
    expect(contractDifference(loaded, theirs, true, chance)).toBeNull();
    expect(contractDifference(loaded, theirs, false, chance)).toBeNull();
    expect(contractDifference({ ...loaded, regs: { rip: '0xb', rax: '0x99' } }, theirs, false, chance)?.path).toBe(
      'regs.rip',
    );
  });
});
