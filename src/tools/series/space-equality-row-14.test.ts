import { expect, it } from 'vitest';
import { sidesOfRow } from './series.ts';
import { onlyFieldsDiffer } from './space-equality.ts';

const SECONDS = 120_000;

it('row 14 changes neither exits nor state, over the whole space', { timeout: SECONDS }, () => {
  const { before, after } = sidesOfRow(14);
  const result = onlyFieldsDiffer(before, after);
  expect(result).toMatchObject({ equal: true, different: 0 });
  expect(result.inputs).toBeGreaterThan(1_000_000);
});
