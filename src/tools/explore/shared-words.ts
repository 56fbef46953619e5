/**
 * Memory for tables that several threads fill at the same time.
 *
 * An entry of a hash table goes in like this: its place is claimed with one exchange (0 becomes BUSY), its words are written, and then the
 * place gets its number. Whoever finds a number finds the words, also with plain reads: where they are read depends on what was read
 * before, and processors keep that order. A place that reads as 0 or BUSY is looked at again with an atomic operation.
 */

export type Words = Int32Array<ArrayBuffer | SharedArrayBuffer>;

/** In a place of a hash table: somebody is writing what belongs here. */
export const BUSY = -1;

/** Entries beyond a table's limit that threads may still add before all have noticed. Memory that is not touched costs nothing. */
const SLACK = 1 << 16;
const SLACK_ALONE = 1 << 12;

/** All 0. */
export function words(length: number, shared: boolean): Words {
  return shared ? new Int32Array(new SharedArrayBuffer(4 * length)) : new Int32Array(length);
}

/** Entries to allocate for a table with this limit. */
export function roomFor(limit: number, shared: boolean): number {
  return limit + (shared ? SLACK : SLACK_ALONE);
}

/** The next limit of a table that has become too small. */
export function enlarged(limit: number): number {
  return limit * 2;
}

/** A copy with room for more. */
export function resized(array: Words, length: number, shared: boolean): Words {
  const larger = words(length, shared);
  larger.set(array);
  return larger;
}
