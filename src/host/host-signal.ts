/** A signal that the kernel sends to the process for an address: SIGBUS of a memory error. */
export const SIGBUS = 7;

/** si_code: a thread touched the page (AR), or an error was found before anybody did (AO). */
export type MemoryErrorCode = 'MCEERR_AR' | 'MCEERR_AO';

export interface HostSignal {
  readonly signal: typeof SIGBUS;
  readonly code: MemoryErrorCode;
  /** The address that was hit. */
  readonly address: number;
  /** log2 of the size that is lost: 12, 21 or 30. */
  readonly lsb: number;
}
