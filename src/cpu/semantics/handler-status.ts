/** What a handler answers besides the STATUS_* of src/cpu/state.ts: for the interpreter's loop alone. */

/** A direct branch was taken: RIP is set, the record's TAKEN link may be followed. */
export const STATUS_TAKEN = 5;
/** The record is no longer valid; nothing was executed. */
export const STATUS_STALE = 6;
/** A repeated string instruction did some of its iterations and stays where it is. */
export const STATUS_REPEAT = 7;
/** An indirect jump: RIP is set, nothing else changed. */
export const STATUS_JUMPED = 8;
/** A record cannot vouch for the page that its instruction ends in: fetch again. */
export const STATUS_REFETCH = 9;
/** Compiled code ended at an indirect jump: RIP is set and everything is counted. */
export const STATUS_LEFT = 11;
/**
 * Compiled code also answers a record, which is a multiple of 16, plus where in it things go on: before the record, which compiled code
 * cannot execute now; before it; behind it by its NEXT or TAKEN link. RIP is set and everything is counted.
 */
export const LEFT_BEFORE_PLAIN = 0;
export const LEFT_BEFORE = 1;
export const LEFT_NEXT = 2;
export const LEFT_TAKEN = 3;
/** Before the record, whose access failed with the status in SharedFunctions.fault; 0 there: as LEFT_BEFORE_PLAIN. */
export const LEFT_MISSED = 4;
