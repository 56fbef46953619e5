/** What a walk of a guest's page tables found on its way (@kvm paging_tmpl.h struct guest_walker). One object a vCPU. */
import { X86Exception } from '../emulate/ops.ts';

const MAX_LEVELS = 5;

/** Arrays are indexed by level - 1. */
export class GuestWalker {
  /** Level of the leaf, and of the first table. */
  level = 0;
  maxLevel = 0;
  readonly tableGfn = new Float64Array(MAX_LEVELS);
  /** Entries as read or updated, low half at 2 * (level - 1). */
  readonly ptes = new Int32Array(2 * MAX_LEVELS);
  /** Byte offsets of the entries in their tables. */
  readonly offset = new Int32Array(MAX_LEVELS);
  /** Host addresses of the entries. */
  readonly hva = new Float64Array(MAX_LEVELS);
  readonly pteWritable = new Uint8Array(MAX_LEVELS);
  /** Rights that the tables above each entry leave, ACC_*. */
  readonly ptAccess = new Uint8Array(MAX_LEVELS);
  /** Rights of the whole translation, ACC_*. */
  pteAccess = 0;
  gfn = 0;
  readonly fault = new X86Exception();
}
