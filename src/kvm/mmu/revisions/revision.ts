/** A revision of the fault path: which stages run, in what order, and under which rules. */
import type { VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';

/** One check or action of the fault path, with the words that explain its verdict. */
export interface FaultStage {
  /** The file's own name, which explain prints. */
  readonly name: string;
  /** The kernel function that decides the same. */
  readonly kvmFunction: string;
  /** mmu_lock is held (for read) from the first such stage to the end of the fault. */
  readonly underMmuLock: boolean;
  /** RET_PF_CONTINUE to go on, another RET_PF_* or a negative errno to stop. HOT */
  readonly run: (vcpu: VcpuState, fault: PageFault) => number;
  /** Why `run` gave `verdict`, in one sentence. Called only when a recorder listens. */
  readonly explain: (vcpu: VcpuState, fault: PageFault, verdict: number) => string;
}

/** Rules outside the list of stages that differ between revisions. */
export interface RevisionRules {
  /** A private fault that ends in emulation leaves with a memory-fault exit. */
  readonly privateEmulationExits: boolean;
  /** A reserved-bit fault on a private access fails with EFAULT and never reaches the MMIO path. */
  readonly privateRsvdFails: boolean;
}

/** One version of the fault path. */
export interface Revision {
  readonly name: string;
  readonly title: string;
  /** Stages of a TDP fault after the fault object is made, in order. The last never continues. */
  readonly stages: readonly FaultStage[];
  readonly rules: RevisionRules;
}
