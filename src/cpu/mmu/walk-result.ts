/** What a walk of the guest's page tables (guest-walker.ts) answers; the fields are the walker's. */

/** The page was reached: `pfn`. */
export const WALK_OK = 0;
/** #PF: `error`. */
export const WALK_PAGE_FAULT = 1;
/** #NPF: `error`, `errorHi`, `gfn` and `gpaOffset`. */
export const WALK_NESTED_FAULT = 2;
/** #VC for private memory that was not validated. */
export const WALK_NOT_VALIDATED = 3;
