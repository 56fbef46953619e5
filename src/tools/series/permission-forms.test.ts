import { expect, it } from 'vitest';
import { byMask, bySum, permissionFormsAgree } from './permission-forms.ts';

it('row 2: both forms of the index and the product agree on every input', () => {
  const result = permissionFormsAgree();
  expect(result).toMatchObject({ inputs: 16 * 4 * 33 * 8 * 4, different: 0, equal: true });
});

it('a form that forgets AC, or the entry’s U, is found out', () => {
  const forgetsAc = { ...byMask, index: (access: number) => access >>> 1 };
  const forgetsUser = { ...byMask, pkruOffset: (access: number) => access & ~1 };
  for (const wrong of [forgetsAc, forgetsUser]) {
    expect(permissionFormsAgree(bySum, wrong).different).toBeGreaterThan(100);
    expect(permissionFormsAgree(wrong, byMask).equal).toBe(false);
  }
});
