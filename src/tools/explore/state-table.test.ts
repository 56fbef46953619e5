import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Cursor, StateTable } from './state-table.ts';

/** Puts the cursor at a state; afterwards that is what it is at. */
function goTo(table: StateTable, cursor: Cursor, state: ArrayLike<number>): void {
  const list = Array.from(state).flatMap((word, i) => (cursor.data[i] === word ? [] : [i]));
  const values = list.map((i) => state[i]!);
  table.change(cursor, Int32Array.from(list), Int32Array.from(values), list.length);
}

describe('StateTable', () => {
  it.each([1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 300])('keeps %i words apart and gives them back', (words) => {
    const word = fc.integer({ min: -3, max: 3 });
    const edit = fc.record({ at: fc.nat(words - 1), value: word });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 200 }), (edits) => {
        const table = new StateTable(words);
        const known = new Map<string, number>();
        const state = new Int32Array(words);
        const cursor = table.cursor();
        const undone = table.cursor();
        for (const { at, value } of edits) {
          state[at] = value;
          goTo(table, cursor, state);
          const id = table.insert(cursor);
          if (table.crowded) table.grow();
          goTo(table, undone, state);
          table.undo(undone);
          expect(undone.data).toEqual(table.cursor().data);
          expect(undone.hash).toBe(table.cursor().hash);
          const before = known.get(state.join());
          expect(table.fresh).toBe(before === undefined);
          if (before !== undefined) expect(id).toBe(before);
          known.set(state.join(), id);
        }
        for (const [text, id] of known) {
          table.decode(id, cursor);
          expect(cursor.data.subarray(0, words).join()).toBe(text);
          const again = table.cursor();
          goTo(table, again, cursor.data.subarray(0, words));
          expect(again.data).toEqual(cursor.data);
          expect(again.hash).toBe(cursor.hash);
          expect(table.insert(again)).toBe(id);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('stays exact while it grows', () => {
    const table = new StateTable(9);
    const cursor = table.cursor();
    const list = Int32Array.of(2, 8);
    const n = 50_000;
    for (let round = 0; round < 2; round++)
      for (let i = 0; i < n; i++) {
        table.change(cursor, list, Int32Array.of(i % 100, Math.floor(i / 100)), 2);
        expect(table.insert(cursor)).toBe(i);
        table.undo(cursor);
        if (table.crowded) table.grow();
      }
    expect(table.count).toBe(n);
    expect(table.bytes / n).toBeLessThan(120);
  });
});
