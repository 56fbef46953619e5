import { expect, it } from 'vitest';
import type { FaultContext } from '../fault-machine/machine-vm.ts';
import { sidesOfRow } from './series.ts';
import { onlyFieldsDiffer, onlyTheApicPageDiffers } from './space-equality.ts';

const SECONDS = 120_000;

it('row 13 changes nothing but what its message announces, over the whole space', { timeout: SECONDS }, () => {
  const { before, after } = sidesOfRow(13);
  const result = onlyTheApicPageDiffers(before, after);
  expect(result).toMatchObject({ equal: true });
  expect(result.inputs).toBeGreaterThan(1_000_000);
  expect(result.announced).toBeGreaterThan(0);
  expect(result.different).toBe(result.announced);
});

it('a patch that changes an answer is found out', { timeout: SECONDS }, () => {
  const { before, after } = sidesOfRow(11);
  const only = (c: FaultContext): boolean => c.nested && c.mmioCaching && c.hardware === 'ept' && c.paging === 'tdp';
  expect(onlyFieldsDiffer(before, after, { only }).equal).toBe(false);
  expect(onlyTheApicPageDiffers(before, after, { only }).equal).toBe(false);
});
