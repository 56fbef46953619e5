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

export interface DifferenceClass<Outcome> {
  readonly cause: string;
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
