import { describe, expect, it } from 'vitest';
import { move } from '../../kvm/mmu/revisions/edit.ts';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { linux612 } from '../../kvm/mmu/revisions/linux-6.12.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import type { FaultContext } from '../fault-machine/machine-vm.ts';
import { outcomeDifferences } from '../fault-machine/outcome.ts';
import { enumerate } from './enumerate.ts';
import { EQUAL, INVALID_INPUT } from './space-result.ts';

const isProtected = (c: FaultContext): boolean =>
  c.hardware === 'npt' && c.vmType === 'sw-protected' && !c.nested && c.mmioCaching;
const isNestedProtected = (c: FaultContext): boolean =>
  c.hardware === 'npt' && c.vmType === 'sw-protected' && c.nested && c.mmioCaching;
const isNestedEpt = (c: FaultContext): boolean =>
  c.hardware === 'ept' && c.vmType === 'default' && c.paging === 'tdp' && c.nested && c.mmioCaching;

const before = revisionByName('linux-6.9');
const v2 = revisionByName('series-v2');

function positionsOf(classOf: Uint16Array): number[] {
  const found: number[] = [];
  for (let i = 0; i < classOf.length; i++) if (classOf[i] !== INVALID_INPUT) found.push(i);
  return found;
}

describe('the enumeration', () => {
  it('says of every input what both revisions say when they are run one by one', () => {
    const space = enumerate(before, v2, { only: isProtected });
    const positions = positionsOf(space.classOf);
    expect(positions.length).toBe(space.inputs);
    const machine = new FaultMachine(space.inputAt(positions[0]!));
    for (let n = 0; n < positions.length; n += 97) {
      const index = positions[n]!;
      const input = space.inputAt(index);
      const outcomes = [machine.run(input, before, true), machine.run(input, v2, true)] as const;
      const c = space.classOf[index]!;
      if (c === EQUAL) expect(outcomeDifferences(...outcomes)).toEqual([]);
      else expect(outcomes).toEqual([space.classes[c]!.before, space.classes[c]!.after]);
    }
  });

  it('finds the same twice', () => {
    const [one, two] = [enumerate(before, v2, { only: isNestedEpt }), enumerate(before, v2, { only: isNestedEpt })];
    expect(Buffer.compare(Buffer.from(two.classOf.buffer), Buffer.from(one.classOf.buffer))).toBe(0);
    expect(two.classes).toEqual(one.classes);
    expect([two.inputs, two.runs]).toEqual([one.inputs, one.runs]);
  });

  it('blames steps of the history, each row that can be seen among them', () => {
    const rowsOf = (only: (c: FaultContext) => boolean): Set<string> =>
      new Set(enumerate(before, v2, { only }).classes.flatMap((c) => c.steps.map((s) => s.label)));
    const rows = new Set([...rowsOf(isNestedProtected), ...rowsOf(isNestedEpt)]);
    for (const row of [1, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]) expect(rows).toContain(`row ${row}`);
    expect([...rows].every((r) => /^row \d+$/.test(r))).toBe(true);
  });

  it('finds nothing between a revision and itself', () => {
    const space = enumerate(linux612, { ...linux612, name: 'copy' }, { only: isProtected });
    expect(space.classes).toHaveLength(1);
    expect(space.classOf.every((c) => c === EQUAL || c === INVALID_INPUT)).toBe(true);
  });

  it('finds nothing in what 6.10 repaired: a race, which shows only when more than the mapping changes', () => {
    const space = enumerate(v2, revisionByName('linux-6.10'), { only: isProtected });
    expect(positionsOf(space.classOf).filter((i) => space.classOf[i] !== EQUAL)).toEqual([]);
  });

  it('without a history, names the stage in which the two disagree', () => {
    const swapped: Revision = {
      ...linux612,
      name: 'mine',
      stages: move(linux612.stages, 'private-mismatch', 'invalid-slot'),
    };
    const space = enumerate(linux612, swapped, { only: isProtected });
    expect(space.classes.length).toBeGreaterThan(1);
    expect(new Set(space.classes.slice(1).map((c) => c.cause))).toEqual(
      new Set(['stage no-slot', 'stage private-mismatch']),
    );
  });

  it('tells how far it is', () => {
    const told: number[] = [];
    const space = enumerate(before, v2, { only: isProtected, onProgress: (done) => told.push(done) });
    expect(told.at(-1)).toBe(space.inputs);
    expect(told).toEqual([...told].sort((a, b) => a - b));
  });
});
