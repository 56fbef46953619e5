/** What an enumeration of the input space found: for every input, in which class of differences it is. */
import type { FaultInput } from '../fault-machine/fault-input.ts';

/** No input: the values cannot occur together. */
export const INVALID_INPUT = 0xffff;
/** Both revisions answer alike. */
export const EQUAL = 0;

export interface Dimension {
  readonly name: string;
  readonly values: readonly string[];
}

export interface DifferenceStep<Outcome> {
  readonly label: string;
  readonly before: Outcome;
  readonly after: Outcome;
}

export interface DifferenceClass<Outcome> {
  /** Labels of the steps that changed it, at the strongest level at which the outcomes differ: `row 7, row 10`, or `stage X`. */
  readonly cause: string;
  /** Labels of the steps that changed something at weaker levels only; empty for none. */
  readonly also?: string;
  /** Every step that changed it, at any level, in order, with the outcomes on both sides of the step; empty without a history. */
  readonly steps: readonly DifferenceStep<Outcome>[];
  readonly before: Outcome;
  readonly after: Outcome;
}

export interface SpaceResult<Outcome = object> {
  readonly dims: readonly Dimension[];
  /** Over the dimensions, the first one slowest. */
  readonly classOf: Uint16Array;
  readonly classes: readonly DifferenceClass<Outcome>[];
  readonly inputs: number;
  readonly runs: number;
  readonly seconds: number;
  readonly excluded: readonly string[];
  inputAt(index: number): FaultInput;
}
