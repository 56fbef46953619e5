/** Row 2: no functional change, which is held for every input there is. */
import type { Demonstration } from './demonstration.ts';
import { permissionFormsAgree } from './permission-forms.ts';

export const permissionIndexRow: Demonstration = {
  row: 2,
  differs: "nothing: the permission check's index by masks instead of bit numbers",
  purpose:
    'One definition a flag, a mask: with a bit number beside it, one of the two was sooner or later used for the other.',
  cases: [],
  equality: () => permissionFormsAgree(),
};
