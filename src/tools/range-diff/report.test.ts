import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ordinaryFault } from '../fault-machine/fault-input.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import { type RangeDiffReport, reportOf, sequential } from './report.ts';
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
const patch = (commit: string, title: string) => ({ commit, title, symptom: `what ${commit} does` });
const history = [
  { label: 'row 1', patch: patch('aaaa', 'The first'), undone: false, revision: 'new@1' },
  { label: 'row 2', patch: patch('bbbb', 'Nothing to see'), undone: false, revision: 'new@2' },
  { label: 'row 3', patch: patch('cccc', 'The third'), undone: false, revision: null },
];

/** A class with one step. */
function step(label: string, before: Outcome, after: Outcome): DifferenceClass<Outcome> {
  return { cause: label, steps: [{ label, before, after }], before, after };
}

/** The class of each (slot, attribute, nested), nested fastest. */
function space(classOf: readonly number[], classes: readonly DifferenceClass<Outcome>[]): SpaceResult<Outcome> {
  const inputs = classOf.filter((c) => c !== 0xffff).length;
  return {
    dims,
    classOf: Uint16Array.from(classOf),
    classes: [{ cause: '', steps: [], before: resumes, after: resumes }, ...classes],
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

/** The same keys, as deep as the shape has any; of a list the first entry, of values by name none. */
function sameFields(actual: unknown, shape: unknown, at: string): void {
  if (typeof shape !== 'object' || shape === null || at.endsWith('.values')) return;
  if (Array.isArray(shape)) {
    if (shape.length > 0) sameFields((actual as unknown[])[0], shape[0], `${at}[0]`);
    return;
  }
  if (Object.keys(shape).length === 0) return;
  expect(Object.keys(actual as object).sort(), at).toEqual(Object.keys(shape).sort());
  for (const key of Object.keys(shape))
    sameFields((actual as object)[key as never], shape[key as never], `${at}.${key}`);
}

const plain = { bold: String, dim: String, red: String, green: String, yellow: String };
const text = (r: RangeDiffReport, all = false): string =>
  reportLines(r, { colour: plain, all, excluded: false }).join('\n');

const noWord = { ...emulates, fields: { ...emulates.fields!, pfn: 'NOSLOT' } };
const uncounted = { ...resumes, stats: { pf_taken: 1 } };
const mixed = space(
  // none                 rw            ro
  [0, 0, 1, 2, /* */ 0, 0, 3, 0, /* */ 0, 0, 3, 0xffff],
  [
    step('row 1', emulates, exits),
    step('row 1', noWord, exits),
    {
      cause: 'row 1, row 3',
      steps: [
        { label: 'row 1', before: resumes, after: { ...resumes, log: ['where: what'] } },
        { label: 'row 3', before: { ...resumes, log: ['where: what'] }, after: uncounted },
      ],
      before: resumes,
      after: uncounted,
    },
  ],
);

describe('a range-diff report', () => {
  it('has for each change what it does, when, and a witness', () => {
    const r = report(mixed);
    expect(r.changes.map((c) => [c.label, c.from, c.to, c.different])).toEqual([
      ['row 1', 'old', 'new@1', { inputs: 4, exit: 2, state: 2, field: 0 }],
      ['row 2', 'new@1', 'new@2', { inputs: 0, exit: 0, state: 0, field: 0 }],
      ['row 3', 'old', "./it's.ts", { inputs: 2, exit: 0, state: 2, field: 0 }],
    ]);
    expect(r.changes[0]!.conditions).toMatchObject([
      { text: 'attribute private, not nested', inputs: 3, values: { attribute: ['private'], nested: ['no'] } },
      { text: 'slot none or ro, attribute private', inputs: 3 },
    ]);
    const [exit, state] = r.changes[0]!.differences;
    expect(exit).toMatchObject({
      level: 'exit',
      inputs: 2,
      leaves: { before: 'the instruction is emulated', after: 'memory-fault exit (private), EFAULT' },
      changes: [
        { field: 'SPTE after', before: 'MMIO, current', after: 'rwx host page', inputs: 2 },
        { field: 'statistics', before: 'pf_emulate +1', after: 'none', inputs: 2 },
        { field: 'pfn', before: 'NOSLOT', after: 'host page', inputs: 1, level: 'field' },
      ],
      conditions: [{ invalidation: 'any', text: 'slot none', inputs: 2 }],
      witness: {
        before: 'softkvm explain --slot none --revision old',
        compare: 'softkvm explain --slot none --revision old --compare new@1',
      },
    });
    expect(state).toMatchObject({
      level: 'state',
      leaves: { before: 'the guest resumes', after: 'the guest resumes' },
      changes: [{ field: 'kernel log', before: 'none', after: 'where: what' }],
      conditions: [{ text: 'any input', inputs: 2 }],
    });
    expect(r.changes[2]!.differences[0]!.witness.compare).toBe(
      "softkvm explain --slot rw --revision old --compare './it'\\''s.ts'",
    );
  });

  it('counts what differs in the end by level; a change without a difference says so', () => {
    const r = report(mixed);
    expect(r.different).toEqual({ inputs: 4, exit: 2, state: 2, field: 0, racing: 0, leftOut: 0, unattributed: 0 });
    expect(text(r)).toContain('= no observable difference: row 2');
    expect(text(r)).toContain('11 inputs, every one of them on both sides; nothing was sampled. 22 runs');
  });

  it('leaves weaker differences out when asked to, and says how many', () => {
    const r = report(mixed, 'exit');
    expect(r.changes.flatMap((c) => c.differences.map((d) => [c.label, d.level]))).toEqual([['row 1', 'exit']]);
    expect(r.different).toMatchObject({ inputs: 2, leftOut: 2 });
    expect(text(r)).toContain('= no observable difference at --level exit: row 2, row 3');
  });

  it('does not hide a difference that no change accounts for', () => {
    const nobody = { ...step('', emulates, exits), steps: [] };
    const r = report(space([1, ...new Array(11).fill(0)], [nobody]));
    expect(r.different.unattributed).toBe(1);
    expect(text(r)).toContain('no change accounts for this  1 input');
    expect(text(r)).toContain('1 input with a difference that no change accounts for.');
  });

  it('prints the largest parts of a condition, and all of them when asked to', () => {
    const checkers = [1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1];
    const r = report(space(checkers, [step('row 1', emulates, exits)]));
    expect(r.changes[0]!.conditions.map((c) => c.inputs)).toEqual([2, 2, 1, 1]);
    expect(text(r)).toContain('or              1 more, of 1 and fewer: --all');
    expect(text(r, true)).not.toContain('--all');
  });

  it('tells inputs with an invalidation from those without, and a race from the rest', () => {
    const moments = { name: 'invalidation', values: ['none', 'in-progress', 'done-at=map'] };
    const racy = (classOf: readonly number[]): SpaceResult<Outcome> => ({
      ...space([], [step('row 1', emulates, exits)]),
      dims: [dims[0]!, moments],
      classOf: Uint16Array.from(classOf),
      inputs: classOf.length,
      inputAt: () => ordinaryFault,
    });
    const conditionsOf = (s: SpaceResult<Outcome>) =>
      report(s).changes[0]!.conditions.map((c) => [c.invalidation, c.text]);
    expect(conditionsOf(racy([1, 1, 1, 0, 0, 0, 0, 0, 0]))).toEqual([['any', 'slot none']]);
    expect(conditionsOf(racy([1, 1, 1, 1, 0, 0, 0, 0, 0]))).toEqual([
      ['none', 'slot none or rw'],
      ['some', 'slot none'],
    ]);
    const race = racy([0, 0, 1, 0, 0, 0, 0, 0, 0]);
    expect(conditionsOf(race)).toEqual([['some', 'slot none, invalidation done-at=map']]);
    expect(report(race).different).toMatchObject({ inputs: 1, racing: 1 });
    expect(text(report(race))).toContain('Without one, no input differs.');
    expect(report(sequential(race)).different.inputs).toBe(0);
    expect(sequential(race).inputs).toBe(6);
  });

  it('has the documented fields and no others', () => {
    const docs = readFileSync(new URL('../../../docs/cli.md', import.meta.url), 'utf8');
    const block = /```jsonc\n(\{\n {2}"version": 1,[\s\S]*?)```/.exec(docs)![1]!;
    sameFields(report(mixed), JSON.parse(block.replace(/\s\/\/.*$/gm, '')), '');
  });

  it('reads like this', () => {
    expect(text(report(mixed))).toMatchInlineSnapshot(`
      "old (before) to new (after)

      row 1  aaaa  The first  4 inputs
        what aaaa does
          when            attribute private, not nested (3)
          or              slot none or ro, attribute private (3)
        exit  2 inputs
          if              slot none
                          old                                             new@1
          leaves          the instruction is emulated                     memory-fault exit (private), EFAULT
          SPTE after      MMIO, current                                   rwx host page
          statistics      pf_emulate +1                                   none
                          and 1 more: --all
          see             softkvm explain --slot none --revision old --compare new@1
        state  2 inputs
          otherwise
                          old                                             new@1
          leaves          the guest resumes, on both sides
          kernel log      none                                            where: what
          see             softkvm explain --slot rw --revision old --compare new@1

      row 3  cccc  The third  2 inputs
        what cccc does
          when            slot rw or ro, attribute private, not nested
        state  2 inputs
                          old                                             new
          leaves          the guest resumes, on both sides
          statistics      pf_fixed +1                                     none
          kernel log      where: what                                     none
          see             softkvm explain --slot rw --revision old --compare './it'\\''s.ts'

        change              exit     state     field
        row 1   aaaa !         2         2         -  The first
        row 2   bbbb =         -         -         -  Nothing to see
        row 3   cccc !         -         2         -  The third
        = no observable difference: row 2

      11 inputs, every one of them on both sides; nothing was sampled. 22 runs of the fault path, 0.5 s, 22 inputs/s.
      4 inputs differ: 2 in what userspace or the guest sees (exit), 2 in KVM's own state (state).
      Every difference belongs to a change.
      What is not an input, and why: --excluded (1)."
    `);
  });
});
