/** The second level of address translation, whichever vendor's it is: nested page tables or EPT. */
export interface SecondWalker {
  /** Frame of the root table, from the control block. */
  rootPfn: number;
  /** Only looking: neither accessed nor dirty bits are set, here and in the guest's tables. */
  dry: boolean;
  /** After a walk that succeeded: host frame of the 4 KiB page. */
  pfn: number;
  /** A store needs no further walk: writable at every level, and dirty. */
  writable: boolean;
  executable: boolean;
  readable: boolean;
  /** After `blame`: what the exit reports, halves; its meaning is the vendor's. */
  error: number;
  errorHi: number;
  /** Translates `gfn` for a read, or a write, or a fetch; false when it cannot. HOT */
  walk(gfn: number, write: boolean, fetch: boolean): boolean;
  /** Fills `error` and `errorHi` after a walk that failed for the access itself; `linear` is GuestWalker.linear. */
  blameFinal(write: boolean, fetch: boolean, linear: number): void;
  /** The same for an access to the guest's own page tables. */
  blameTable(write: boolean): void;
  /** Every access to the guest's tables counts as a write. */
  readonly tablesAreWrites: boolean;
}
