/** What the reverse map says of the pages that a walk comes to (@apm 15.36.10). */
import { PFERR_GUEST_RMP, PFERR_PRESENT } from '../../arch/error-code.ts';
import { VMPL_EXECUTE_SUPERVISOR, VMPL_EXECUTE_USER, VMPL_READ, VMPL_WRITE } from '../../arch/rmp.ts';
import { type AccessCheck, RMP_NOT_VALIDATED, RMP_OK, RMP_VIOLATION } from '../snp/access-check.ts';
import type { GuestWalker } from './guest-walker.ts';
import { WALK_NOT_VALIDATED, WALK_OK } from './walk-result.ts';

/** Of the page that the walk ended in: as GuestWalker.walk; takes away what the level may not do with it. HOT */
export function finalOwner(
  walker: GuestWalker,
  rmp: AccessCheck,
  offset: number,
  store: boolean,
  fetch: boolean,
): number {
  const npt = walker.nestedWalker;
  const user = walker.index === 1;
  rmp.ownerOnly = walker.validating;
  const verdict = rmp.check(npt.pfn, walker.gfn, walker.mappedLevel, walker.encrypted, store, fetch, user);
  if (verdict === RMP_OK) {
    const may = rmp.permissions;
    if ((may & VMPL_READ) === 0) walker.readable = false;
    if ((may & VMPL_WRITE) === 0) walker.writable = false;
    if ((may & (user ? VMPL_EXECUTE_USER : VMPL_EXECUTE_SUPERVISOR)) === 0) walker.executable = false;
    return WALK_OK;
  }
  if (verdict === RMP_NOT_VALIDATED) return WALK_NOT_VALIDATED;
  npt.error = PFERR_PRESENT | PFERR_GUEST_RMP;
  npt.blameFinal(store, fetch, walker.linear);
  return walker.nestedFault(walker.gfn, offset, walker.encrypted, rmp.errorHi);
}

/** Of the table in guest frame `gfn`, whose accesses are writes: RMP_OK, or another verdict with the nested walker's error. */
export function tableOwner(walker: GuestWalker, rmp: AccessCheck, gfn: number, encrypted: boolean): number {
  const npt = walker.nestedWalker;
  rmp.ownerOnly = false;
  const verdict = rmp.check(npt.pfn, gfn, walker.mappedLevel, encrypted, true, false, false);
  if (verdict === RMP_VIOLATION) npt.error = PFERR_PRESENT | PFERR_GUEST_RMP;
  return verdict;
}
