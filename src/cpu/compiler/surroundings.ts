/** What translation needs of the machine that the code is for. */
import type { FlagFunctions } from '../semantics/flags.ts';
import type { FunctionRef } from '../wasm/function.ts';

/** The machine as the translator sees it. */
export interface Surroundings {
  readonly u8: Uint8Array;
  readonly i32: Int32Array;
  readonly flags: FlagFunctions;
  /** (operation, argument) -> status: floating point that TypeScript does */
  readonly assist: FunctionRef;
  /** (record, linear, size, access, segment) -> host pointer, 0: what LEFT_MISSED says */
  readonly reach: FunctionRef;
}
