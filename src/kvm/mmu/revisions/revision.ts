/** A revision of the fault path: which stages run, in what order, and under which rules. */
import type { VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';

export interface FaultStage {
  /** The name that explain prints, the file's own name. */
  readonly name: string;
  /** The kernel function that decides the same. */
  readonly kvmFunction: string;
  /** RET_PF_CONTINUE to go on, another RET_PF_* or a negative errno to stop. */
  readonly run: (vcpu: VcpuState, fault: PageFault) => number;
}

/** Rules outside the list of stages that differ between revisions. */
export interface RevisionRules {
  /** A private fault that ends in emulation leaves with a memory-fault exit. */
  readonly privateEmulationExits: boolean;
  /** A reserved-bit fault on a private access fails with EFAULT and never reaches the MMIO path. */
  readonly privateRsvdFails: boolean;
}

export interface Revision {
  readonly name: string;
  readonly title: string;
  /** Stages of a TDP fault after the fault object is made, in order. */
  readonly stages: readonly FaultStage[];
  readonly rules: RevisionRules;
}
