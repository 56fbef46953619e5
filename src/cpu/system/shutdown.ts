/** What was known of a guest when it met a triple fault; RIP is that of the instruction that the first exception came from. */
export interface Shutdown {
  /** As CODE_MODE_AT. */
  readonly mode: number;
  readonly ripLo: number;
  readonly ripHi: number;
  /** The exceptions, first to last. */
  readonly vectors: readonly number[];
  /** Error code of the first, or -1. */
  readonly error: number;
  /** Address that the first one faulted on, when it was a page fault. */
  readonly addressLo: number;
  readonly addressHi: number;
  /** Bytes at RIP to the end of the page, 32 at most; null when no code is mapped there. */
  readonly code: Uint8Array | null;
}
