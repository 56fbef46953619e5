import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StateTable } from './state-table.ts';

describe('StateTable', () => {
  it.each([1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 300])('keeps %i words apart and gives them back', (words) => {
    const word = fc.integer({ min: -3, max: 3 });
    const edit = fc.record({ at: fc.nat(words - 1), value: word });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 200 }), (edits) => {
        const table = new StateTable(words);
        const known = new Map<string, number>();
        const state = new Int32Array(words);
        let base = table.cursor();
        for (const { at, value } of edits) {
          state[at] = value;
          const cursor = table.cursor();
          cursor.data.set(state);
          table.fold(cursor, base);
          const id = table.insert(cursor);
          const before = known.get(state.join());
          expect(table.fresh).toBe(before === undefined);
          if (before !== undefined) expect(id).toBe(before);
          known.set(state.join(), id);
          base = cursor;
        }
        for (const [text, id] of known) {
          const cursor = table.cursor();
          table.decode(id, cursor);
          expect(cursor.data.subarray(0, words).join()).toBe(text);
          const again = table.cursor();
          again.data.set(cursor.data.subarray(0, words));
          table.fold(again, base);
          expect(again.hash).toBe(cursor.hash);
          expect(table.insert(again)).toBe(id);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('stays exact while it grows', () => {
    const table = new StateTable(9);
    const zero = table.cursor();
    const cursor = table.cursor();
    const n = 50_000;
    for (let round = 0; round < 2; round++)
      for (let i = 0; i < n; i++) {
        cursor.data[2] = i % 100;
        cursor.data[8] = Math.floor(i / 100);
        table.fold(cursor, zero);
        expect(table.insert(cursor)).toBe(i);
      }
    expect(table.count).toBe(n);
    expect(table.bytes / n).toBeLessThan(120);
  });
});
