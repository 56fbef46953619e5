/** Where the fault path says what each of its stages decided and why. With no recorder nothing is said and nothing is allocated. */
import type { PageFault } from './fault.ts';

export interface FaultRecorder {
  /** A fault arrives; `fault` is reused afterwards, so what is to be kept must be copied. */
  begin(fault: PageFault): void;
  /**
   * Stage `name` (`reserved-bits` for the question that comes before the list) gave `verdict` (RET_PF_* or -errno); `reason` is one
   * sentence.
   */
  stage(name: string, verdict: number, reason: string): void;
  end(fault: PageFault, result: number): void;
}
