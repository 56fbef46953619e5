/**
 * A revision whose stages tell the machine how far a fault came, and between whose stages an invalidation can happen. The stages
 * themselves run unchanged; the product's own lists are not touched.
 */
import type { PageFault } from '../../kvm/mmu/fault.ts';
import { KVM_PFN_NOSLOT } from '../../kvm/mmu/pfn.ts';
import { RET_PF_CONTINUE } from '../../kvm/mmu/ret-pf.ts';
import type { FaultStage, Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import { names } from './names.ts';

/** What the taps report, and what they are asked to do. */
export class TapState {
  /** Position in the list of the stage that decided, -1 when none ran to a decision. */
  decided = -1;
  /** Its verdict. */
  ret = RET_PF_CONTINUE;
  /** Position of the stage that runs or ran last, -1 before the first. */
  running = -1;
  /** The furthest position that ran: a fault that is tried again may come less far. */
  furthest = -1;
  /** The page lookup is to answer KVM_PFN_NOSLOT for a slot. */
  noslotPfn = false;
  /** Does the invalidation, when it is its moment. */
  invalidate: () => void = () => {};
}

const KVM_HVA_ERR_BAD = -1;

/** Stages that send the guest back because something was invalidated. */
export const INVALIDATION_CHECKS: ReadonlySet<string> = new Set([
  'invalidation-precheck',
  'invalidation-recheck',
  'stale-check',
]);

class Tap implements FaultStage {
  readonly name: string;
  readonly kvmFunction: string;
  readonly underMmuLock: boolean;
  private readonly inner: FaultStage;
  private readonly index: number;
  private readonly state: TapState;

  constructor(inner: FaultStage, index: number, state: TapState) {
    this.inner = inner;
    this.index = index;
    this.state = state;
    this.name = inner.name;
    this.kvmFunction = inner.kvmFunction;
    this.underMmuLock = inner.underMmuLock;
  }

  /* HOT */
  run(vcpu: VcpuState, fault: PageFault): number {
    const { state } = this;
    const { pfn } = fault;
    state.running = this.index;
    if (this.index > state.furthest) state.furthest = this.index;
    const r = this.inner.run(vcpu, fault);
    // The bug that noslot-pfn stands for: a lookup that has just found a page says that there is no slot.
    if (state.noslotPfn && fault.pfn !== pfn && fault.pfn > 0) {
      fault.pfn = KVM_PFN_NOSLOT;
      fault.hva = KVM_HVA_ERR_BAD;
      fault.mapWritable = false;
    }
    if (r !== RET_PF_CONTINUE) {
      state.decided = this.index;
      state.ret = r;
    }
    return r;
  }

  explain(vcpu: VcpuState, fault: PageFault, verdict: number): string {
    return this.inner.explain(vcpu, fault, verdict);
  }
}

/** Stands in the list where the invalidation happens. */
class InvalidationPoint implements FaultStage {
  readonly name = 'invalidation';
  readonly kvmFunction = 'kvm_mmu_notifier_invalidate_range_start';
  readonly underMmuLock = false;
  private readonly state: TapState;

  constructor(state: TapState) {
    this.state = state;
  }

  run(): number {
    this.state.invalidate();
    return RET_PF_CONTINUE;
  }

  explain(): string {
    return 'another thread invalidates the range of the gfn here';
  }
}

/** One revision, tapped for one machine. */
export class TappedRevision {
  readonly revision: Revision;
  /** Names of the stages, in order. */
  readonly names: readonly string[];
  /** Their numbers in outcomes. */
  readonly nameNumbers: readonly number[];
  /** By position: the stage is one that sends the guest back because of an invalidation. */
  readonly checksInvalidation: readonly boolean[];
  /** Positions before which an invalidation can happen: up to where mmu_lock is taken. */
  readonly moments: number;
  private readonly plain: Revision;
  private readonly withInvalidation: (Revision | undefined)[] = [];
  private readonly taps: readonly FaultStage[];
  private readonly state: TapState;

  constructor(revision: Revision, state: TapState) {
    this.revision = revision;
    this.state = state;
    this.names = revision.stages.map((s) => s.name);
    this.nameNumbers = this.names.map((name) => names.stageNumber(name));
    this.checksInvalidation = this.names.map((name) => INVALIDATION_CHECKS.has(name));
    const locked = revision.stages.findIndex((s) => s.underMmuLock);
    this.moments = locked < 0 ? revision.stages.length : locked + 1;
    this.taps = revision.stages.map((stage, i) => new Tap(stage, i, state));
    this.plain = { ...revision, stages: this.taps };
  }

  /** The revision to run; with `moment` >= 0, an invalidation before the stage at that position. */
  at(moment: number): Revision {
    if (moment < 0) return this.plain;
    let found = this.withInvalidation[moment];
    if (found === undefined) {
      if (moment >= this.moments) throw new RangeError(`mmu_lock is held when stage ${this.names[moment]} runs`);
      found = { ...this.plain, stages: this.taps.toSpliced(moment, 0, new InvalidationPoint(this.state)) };
      this.withInvalidation[moment] = found;
    }
    return found;
  }

  /** Position of the stage. @throws RangeError naming the stages */
  momentOf(stage: string): number {
    const at = this.names.indexOf(stage);
    if (at < 0) {
      throw new RangeError(`revision ${this.revision.name} has no stage ${stage}: it has ${this.names.join(', ')}`);
    }
    return at;
  }
}
