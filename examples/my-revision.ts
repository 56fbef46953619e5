// A patch to try before writing it in C: the private/shared check goes back behind the slot checks, where it was before row 10 of the
// series. Then: softkvm range-diff linux-6.12 examples/my-revision.ts
import { defineRevision, linux612, move } from 'softkvm';

export default defineRevision({
  name: 'my-revision',
  title: 'Linux 6.12 with the private/shared check behind the slot checks',
  stages: move(linux612.stages, 'private-mismatch', 'invalidation-precheck'),
  rules: linux612.rules,
});
