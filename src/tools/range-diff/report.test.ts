import { describe, expect, it } from 'vitest';
import { ordinaryFault } from '../fault-machine/fault-input.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import { type RangeDiffReport, reportOf } from './report.ts';
import { reportLines } from './report-text.ts';
import type { DifferenceClass, SpaceResult } from './space-result.ts';

const resumes: Outcome = {
  verdict: 'resume',
  ret: 'RET_PF_FIXED',
  exit: null,
  emulated: null,
  spteAfter: 'rwx host page',
  mmioCache: 'empty',
  stats: { pf_taken: 1, pf_fixed: 1 },
  log: [],
  asyncPf: null,
  signals: [],
  dirty: false,
  fields: {
    isPrivate: false,
    errorCode: 'as reported',
    pfn: 'host page',
    hva: "the page's address",
    mapWritable: true,
    hasSlot: true,
  },
  decidedBy: 'map',
};
const emulates: Outcome = {
  ...resumes,
  verdict: 'emulate',
  emulated: 'EMULTYPE_PF',
  spteAfter: 'MMIO, current',
  stats: { pf_taken: 1, pf_emulate: 1 },
};
const exits: Outcome = {
  ...resumes,
  verdict: 'EFAULT',
  exit: { reason: 'KVM_EXIT_MEMORY_FAULT', isPrivate: true, page: 'the faulting page', size: 4096 },
  stats: { pf_taken: 1 },
};
const dims = [
  { name: 'slot', values: ['none', 'rw', 'ro'] },
  { name: 'attribute', values: ['shared', 'private'] },
  { name: 'nested', values: ['no', 'yes'] },
];
const history = [
  { label: 'row 1', patch: { commit: 'aaaa', title: 'The first' }, undone: false },
  { label: 'row 2', patch: { commit: 'bbbb', title: 'Nothing to see' }, undone: false },
  { label: 'row 3', patch: { commit: 'cccc', title: 'The third' }, undone: false },
];

/** The class of each (slot, attribute, nested), nested fastest. */
function space(classOf: readonly number[], classes: readonly DifferenceClass<Outcome>[]): SpaceResult<Outcome> {
  const inputs = classOf.filter((c) => c !== 0xffff).length;
  return {
    dims,
    classOf: Uint16Array.from(classOf),
    classes: [{ cause: '', before: resumes, after: resumes }, ...classes],
    inputs,
    runs: 2 * inputs,
    seconds: 0.5,
    excluded: ['a private page of a default VM: it has none'],
    inputAt: (i) => ({ ...ordinaryFault, slot: (['none', 'rw', 'ro'] as const)[Math.floor(i / 4)]! }),
  };
}

function report(s: SpaceResult<Outcome>, level: 'exit' | 'state' | 'field' = 'field'): RangeDiffReport {
  return reportOf(s, {
    before: { argument: 'old', name: 'old', title: 'before' },
    after: { argument: "./it's.ts", name: 'new', title: 'after' },
    history,
    level,
    flagsOf: (input) => ['--slot', input.slot],
  });
}

const plain = { bold: String, dim: String, red: String, green: String, yellow: String };
const text = (r: RangeDiffReport, all = false): string =>
  reportLines(r, { colour: plain, all, excluded: false }).join('\n');

const noWord = { ...emulates, fields: { ...emulates.fields!, pfn: 'NOSLOT' } };
const mixed = space(
  // none                 rw            ro
  [0, 0, 1, 2, /* */ 0, 0, 3, 0, /* */ 0, 0, 3, 0xffff],
  [
    { cause: 'row 1', before: emulates, after: exits },
    { cause: 'row 1', before: noWord, after: exits },
    { cause: 'row 1, row 3', before: resumes, after: { ...resumes, stats: { pf_taken: 1 } } },
  ],
);

describe('a range-diff report', () => {
  it('has a block for each cause, with its condition, both outcomes and a witness', () => {
    const r = report(mixed);
    expect(r.blocks.map((b) => [b.cause, b.inputs])).toEqual([
      ['row 1', 2],
      ['row 1, row 3', 2],
    ]);
    const [first, second] = r.blocks.flatMap((b) => b.differences);
    expect(first).toMatchObject({
      level: 'exit',
      inputs: 2,
      changes: [
        { field: 'leaves', before: 'the instruction is emulated', after: 'memory-fault exit (private), EFAULT' },
      ],
      also: [
        { field: 'SPTE after', before: 'MMIO, current', after: 'rwx host page', inputs: 2 },
        { field: 'statistics', before: 'pf_emulate +1', after: 'none', inputs: 2 },
        { field: 'fault.pfn', before: 'NOSLOT', after: 'host page', inputs: 1 },
      ],
      conditions: [{ text: 'slot none, attribute private', inputs: 2 }],
      witness: {
        before: 'softkvm explain --slot none --revision old',
        after: "softkvm explain --slot none --revision './it'\\''s.ts'",
      },
    });
    expect(second).toMatchObject({
      level: 'state',
      leaves: 'the guest resumes',
      changes: [{ field: 'statistics', before: 'pf_fixed +1', after: 'none' }],
      conditions: [{ text: 'slot rw or ro, attribute private, not nested', inputs: 2 }],
    });
  });

  it('counts by change and by level; a change without a difference says so', () => {
    const r = report(mixed);
    expect(r.different).toEqual({ inputs: 4, exit: 2, state: 2, field: 0, leftOut: 0, unattributed: 0 });
    expect(r.changes.map((c) => c.different)).toEqual([
      { inputs: 4, exit: 2, state: 2, field: 0 },
      { inputs: 0, exit: 0, state: 0, field: 0 },
      { inputs: 2, exit: 0, state: 2, field: 0 },
    ]);
    expect(text(r)).toContain('= no observable difference: row 2');
    expect(text(r)).toContain('11 inputs, every one of them run on both sides (22 runs); nothing was sampled.');
  });

  it('leaves weaker differences out when asked to, and says how many', () => {
    const r = report(mixed, 'exit');
    expect(r.blocks.map((b) => b.cause)).toEqual(['row 1']);
    expect(r.different).toMatchObject({ inputs: 2, leftOut: 2 });
    expect(text(r)).toContain('= no observable difference at --level exit: row 2, row 3');
  });

  it('does not hide a difference that no change accounts for', () => {
    const r = report(space([1, ...new Array(11).fill(0)], [{ cause: 'row 4', before: emulates, after: exits }]));
    expect(r.different.unattributed).toBe(1);
    expect(text(r)).toContain('1 input with a difference that no change accounts for.');
  });

  it('prints the largest parts of a condition, and all of them when asked to', () => {
    const checkers = [1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1];
    const r = report(space(checkers, [{ cause: 'row 1', before: emulates, after: exits }]));
    expect(r.blocks[0]!.differences[0]!.conditions).toHaveLength(6 - 2);
    expect(text(r)).not.toContain('--all');
    const few = report(
      space([1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1], [{ cause: 'row 1', before: emulates, after: exits }]),
    );
    expect(few.blocks[0]!.differences[0]!.conditions.map((c) => c.inputs)).toEqual([2, 1, 1, 1]);
  });

  it('is the same text each time', () => {
    expect(text(report(mixed))).toBe(text(report(mixed)));
    expect(text(report(mixed))).toMatchInlineSnapshot(`
      "old (before) to new (after)

      row 1  aaaa  The first  2 inputs
        exit, 2 inputs
          when            slot none, attribute private
                          old                                             new
          leaves          the instruction is emulated                     memory-fault exit (private), EFAULT
          SPTE after      MMIO, current                                   rwx host page
          statistics      pf_emulate +1                                   none
          fault.pfn       NOSLOT                                          host page (1 of them)
          see             softkvm explain --slot none --revision old
                          softkvm explain --slot none --revision './it'\\''s.ts'

      together: row 1  aaaa  The first
                row 3  cccc  The third  2 inputs
        state, 2 inputs
          when            slot rw or ro, attribute private, not nested
                          old                                             new
          statistics      pf_fixed +1                                     none
          leaves          the guest resumes, on both sides
          see             softkvm explain --slot rw --revision old
                          softkvm explain --slot rw --revision './it'\\''s.ts'

        change              exit     state     field
        row 1   aaaa !         2         2         -  The first
        row 2   bbbb =         -         -         -  Nothing to see
        row 3   cccc !         -         2         -  The third
        = no observable difference: row 2

      11 inputs, every one of them run on both sides (22 runs); nothing was sampled. 0.5 s, 22 inputs/s.
      4 inputs differ: 2 in what userspace or the guest sees (exit), 2 in KVM's own state (state).
      Every difference belongs to a change.
      What is not an input, and why: --excluded (1)."
    `);
  });
});
