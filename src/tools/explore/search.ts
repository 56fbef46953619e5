/** What a search is asked for and what it answers, whoever does it: one shard here, or several in threads. */
import type { Move } from './schedule.ts';

export interface Bounds {
  /** Most steps of a schedule. */
  readonly depth?: number;
  /** Most states, nearly: a search stops expanding once it has so many. */
  readonly maxStates?: number;
}

export interface SearchOptions extends Bounds {
  /** Whether steps that touch nothing of the others' may go first, alone. */
  readonly reduce: boolean;
  /** Whether to keep the transitions and look for livelocks in them at the end. */
  readonly livelock: boolean;
  /** Of several threads none begins before all are ready: to test that they go together, or to measure it. */
  readonly assemble?: boolean;
  readonly interrupted?: () => boolean;
  readonly onProgress?: (progress: Progress) => void;
}

export interface Progress {
  readonly states: number;
  readonly depth: number;
  /** States of the level that is being expanded. */
  readonly level: number;
}

export const STOPS = ['depth', 'max-states', 'interrupted'] as const;
export type Stop = (typeof STOPS)[number];

export interface SearchResult {
  readonly verdict: 'holds' | 'violation' | 'deadlock' | 'livelock';
  /** Of 'violation': the invariant, from 1. */
  readonly violation: number;
  /** Everything that can be reached was reached (and, of a finding, nothing was: it ends the search). */
  readonly complete: boolean;
  readonly stopped: Stop | null;
  /** Levels that were looked at in full: their states, the transitions between them, the steps to the last of them. */
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  readonly reducedStates: number;
  readonly seconds: number;
  /** Of the tables, the queues and the transitions, as allocated. */
  readonly bytes: number;
  /** The way to the finding; of a livelock, to a state from which nobody's finish can be reached. */
  readonly moves: readonly Move[];
}
