/** Verdicts of the fault path (@kvm mmu_internal.h RET_PF_*). A negative number is an errno instead. */

/** Go on with the next stage. */
export const RET_PF_CONTINUE = 0;
/** Let the guest fault again. */
export const RET_PF_RETRY = 1;
/** Emulate the instruction. */
export const RET_PF_EMULATE = 2;
/** The gfn is write-protected: unprotect and retry, or emulate. */
export const RET_PF_WRITE_PROTECTED = 3;
/** The SPTE is stale: take the ordinary path. */
export const RET_PF_INVALID = 4;
/** The entry was fixed. */
export const RET_PF_FIXED = 5;
/** The entry already allowed the access. */
export const RET_PF_SPURIOUS = 6;

const NAMES = ['CONTINUE', 'RETRY', 'EMULATE', 'WRITE_PROTECTED', 'INVALID', 'FIXED', 'SPURIOUS'] as const;

/** `RET_PF_FIXED` and so on; a negative verdict is printed as the errno number. */
export function retPfName(verdict: number): string {
  return verdict < 0 ? `errno ${-verdict}` : `RET_PF_${NAMES[verdict] ?? verdict}`;
}
