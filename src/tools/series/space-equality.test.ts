import { expect, it } from 'vitest';
import type { FaultContext } from '../fault-machine/machine-vm.ts';
import { sidesOfRow } from './series.ts';
import { onlyFieldsDiffer, onlyTheApicPageDiffers } from './space-equality.ts';

/** Of the whole space, which `softkvm series all` goes over, the part of one processor. */
const only = (c: FaultContext): boolean => c.hardware === 'npt' && c.paging === 'tdp';

it('row 13 changes nothing but what its message announces', () => {
  const { before, after } = sidesOfRow(13);
  const result = onlyTheApicPageDiffers(before, after, { only });
  expect(result).toMatchObject({ equal: true });
  expect(result.inputs).toBeGreaterThan(100_000);
  expect(result.announced).toBeGreaterThan(0);
  expect(result.different).toBe(result.announced);
});

it('row 14 changes neither exits nor state', () => {
  const { before, after } = sidesOfRow(14);
  const result = onlyFieldsDiffer(before, after, { only });
  expect(result).toMatchObject({ equal: true, different: 0 });
  expect(result.inputs).toBeGreaterThan(100_000);
});

it('a patch that changes an answer is found out', () => {
  const { before, after } = sidesOfRow(11);
  const nested = (c: FaultContext): boolean => c.nested && c.mmioCaching && c.hardware === 'ept' && c.paging === 'tdp';
  expect(onlyFieldsDiffer(before, after, { only: nested }).equal).toBe(false);
  expect(onlyTheApicPageDiffers(before, after, { only: nested }).equal).toBe(false);
});
