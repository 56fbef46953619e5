/**
 * A vCPU of a scene, with the processor it runs on: enters the guest, accesses memory through its TLB or by a walk of the nested tables,
 * and takes each fault through the revision's own stages, one a step. What runs is KVM's code; here is only where it stops.
 */
import {
  PFERR_FETCH,
  PFERR_GUEST_FINAL_HI,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { hiOf, loOf } from '../../arch/halves.ts';
import type { NestedWalker } from '../../cpu/mmu/nested-walker.ts';
import { PTE_EXCLUSIVE, PTE_PRESENT, PTE_WRITE } from '../../host/page-table.ts';
import {
  RES_ALL,
  RES_ATTRIBUTES,
  RES_DIRTY_LOG,
  RES_GMEM,
  RES_HOST,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../kvm/actors/actor.ts';
import { memIsPrivate } from '../../kvm/attributes.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../../kvm/locks.ts';
import { slotHva } from '../../kvm/memslots/hva.ts';
import { beginPageFault, endPageFault } from '../../kvm/mmu/do-page-fault.ts';
import {
  fastPageFaultDirty,
  fastPageFaultExchange,
  fastPageFaultWants,
  pageFaultCanBeFast,
} from '../../kvm/mmu/fast-page-fault.ts';
import { INVALID_ROOT } from '../../kvm/mmu/mmu-context.ts';
import { isObsoleteSp } from '../../kvm/mmu/obsolete.ts';
import { reservedBitFault, withPrivateAccess } from '../../kvm/mmu/page-fault.ts';
import type { FaultRecorder } from '../../kvm/mmu/recorder.ts';
import {
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_INVALID,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
  RET_PF_WRITE_PROTECTED,
  retPfName,
} from '../../kvm/mmu/ret-pf.ts';
import type { FaultStage } from '../../kvm/mmu/revisions/revision.ts';
import { mmuReload } from '../../kvm/mmu/roots.ts';
import { isLargePte, isShadowPresent, SPTE_MMU_PRESENT_MASK } from '../../kvm/mmu/spte.ts';
import { TdpIter } from '../../kvm/mmu/tdp-iter.ts';
import { mapBegin, mapInstall, mapWalk } from '../../kvm/mmu/tdp-mmu/map.ts';
import { walkToLastSpte } from '../../kvm/mmu/tdp-mmu/walk.ts';
import {
  REQ_MMU_FREE_OBSOLETE_ROOTS,
  REQ_TLB_FLUSH,
  REQ_TLB_FLUSH_CURRENT,
  type VcpuState,
} from '../../kvm/vcpu-state.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { serviceRequests } from '../../kvm/x86/run.ts';
import { type ModelActor, RES_GUESTS, type SceneState } from './kvm-model-state.ts';
import type { VcpuOp } from './scene.ts';

/** Where the vCPU is. From PHASE_STAGE on: before the stage of that number. */
const PHASE_ENTER = 0;
const PHASE_GUEST = 1;
const PHASE_CODE = 2;
const PHASE_BEGIN = 3;
const PHASE_WALK = 4;
const PHASE_INSTALL = 5;
const PHASE_EMULATE = 6;
/** All is done, the vCPU is still in the guest with what its TLB holds. */
const PHASE_IDLE = 7;
const PHASE_DONE = 8;
const PHASE_FAST_EXCHANGE = 9;
const PHASE_FAST_DIRTY = 10;
const PHASE_STAGE = 11;

/** The vCPU has a fault object that counts. */
function isFaulting(phase: number): boolean {
  return phase >= PHASE_FAST_EXCHANGE || phase === PHASE_WALK || phase === PHASE_INSTALL;
}

/** ... and stands on an entry, with what it read there. */
function hasEntry(phase: number): boolean {
  return phase === PHASE_INSTALL || phase === PHASE_FAST_EXCHANGE || phase === PHASE_FAST_DIRTY;
}

export const TLB_VALID = 1;
export const TLB_WRITE = 2;
export const TLB_EXEC = 4;
const TLB_PFN_SHIFT = 4;

const FLUSH_REQUESTS = REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT;

/** What the stages of any revision read and change, by name; unknown ones count as everything. */
const STAGE_RESOURCES: Readonly<Record<string, readonly [number, number]>> = {
  // Under two-dimensional paging: the guest's own tables are the processor's business.
  'guest-walk': [0, 0],
  'write-tracking': [0, 0],
  'fast-path': [RES_TABLES | RES_ATTRIBUTES | RES_ROOTS, 0],
  'snapshot-sequence': [RES_SEQUENCE, 0],
  'snapshot-sequence-again': [RES_SEQUENCE, 0],
  'private-mismatch': [RES_ATTRIBUTES, 0],
  'no-slot': [RES_SLOTS, 0],
  'invalid-slot': [0, 0],
  'apic-access-page': [RES_SLOTS, 0],
  'internal-slots': [RES_SLOTS, 0],
  'invalidation-precheck': [RES_SEQUENCE, 0],
  'invalidation-recheck': [RES_SEQUENCE, 0],
  'fault-in-private': [RES_GMEM, RES_GMEM],
  'fault-in-shared': [RES_HOST, RES_HOST],
  'error-pfn': [0, 0],
  'noslot-pfn': [RES_SLOTS, 0],
  'stale-check': [RES_SEQUENCE | RES_ROOTS, 0],
};
const ENTER_READS = RES_REQUESTS | RES_ROOTS;
const ENTER_WRITES = RES_REQUESTS | RES_ROOTS | RES_SRCU | RES_TABLES;
const MAP_READS = RES_TABLES | RES_SLOTS | RES_HOST | RES_ATTRIBUTES | RES_ROOTS | RES_DIRTY_LOG;
const MAP_WRITES = RES_TABLES | RES_DIRTY_LOG | RES_REQUESTS;

export class SceneVcpu implements ModelActor {
  readonly name: string;
  readonly cpu: string;
  readonly words: number;
  held = 0;
  srcu = 0;
  /** A step that started before a slot swap is still on: the swap waits for it. */
  phase = PHASE_ENTER;
  op = 0;
  /** By gfn number: TLB_* and the frame. */
  readonly tlb: Int32Array;
  private errorLo = 0;
  private errorHi = 0;
  /** The last thing that happened, for the report. */
  note = '';
  private ops: readonly VcpuOp[];
  private readonly stages: readonly FaultStage[];
  /** Hears what each stage says, while a schedule is explained. */
  recorder: FaultRecorder | null = null;
  private readonly mapAt: number;
  private readonly fastAt: number;
  /** A stage of somebody's own revision: it may do anything. */
  private readonly hasUnknownStage: boolean;
  /** The zero page may come to be mapped, and then be copied. */
  private readonly mayCopy: boolean;
  private readonly iter: TdpIter;
  private readonly walker: NestedWalker;
  readonly vcpu: VcpuState;
  private readonly vm: VmState;
  private readonly state: SceneState;
  private readonly gfns: readonly number[];

  constructor(state: SceneState, vcpu: VcpuState, walker: NestedWalker, ops: readonly VcpuOp[]) {
    this.state = state;
    this.vm = state.vm;
    this.vcpu = vcpu;
    this.walker = walker;
    this.ops = ops;
    this.gfns = state.gfns;
    this.name = `vcpu${vcpu.id}`;
    this.cpu = `CPU${vcpu.id}`;
    this.tlb = new Int32Array(this.gfns.length);
    this.words = 8 + this.gfns.length;
    this.stages = this.vm.revision.stages;
    this.mapAt = this.stages.length - 1;
    this.hasUnknownStage = this.stages.some((s) => s.name !== 'map' && STAGE_RESOURCES[s.name] === undefined);
    this.mayCopy = state.mayCopy;
    this.fastAt = this.stages.findIndex((s) => s.name === 'fast-path');
    this.iter = new TdpIter(this.vm.memory);
  }

  get finished(): boolean {
    return this.phase === PHASE_DONE;
  }

  /** Translations in the TLB can be used without another flush before. */
  get tlbLive(): boolean {
    const { vcpu } = this;
    if (vcpu.inGuest) return true;
    if ((vcpu.requests & FLUSH_REQUESTS) !== 0) return false;
    const { pfn } = vcpu.mmu.mmu.root;
    return pfn !== INVALID_ROOT && !(this.rootObsolete && (vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) !== 0);
  }

  private get rootObsolete(): boolean {
    const { pfn } = this.vcpu.mmu.mmu.root;
    return pfn !== INVALID_ROOT && isObsoleteSp(this.vm, this.vm.mmu.shadowPage(pfn));
  }

  /** All is done, and the TLB still there. */
  get idle(): boolean {
    return this.phase === PHASE_IDLE;
  }

  private get current(): VcpuOp {
    return this.ops[this.op]!;
  }

  /** Does `ops` with nobody else around, then begins with `ops` of the scene. */
  warmUp(ops: readonly VcpuOp[]): void {
    const own = this.ops;
    this.ops = ops;
    for (let steps = 0; !this.idle && !this.finished; steps++) {
      if (steps > 1000) throw new Error(`${this.name}: what comes before the scene does not end`);
      this.vm.locks.held = this.held;
      this.step(0);
      this.held = this.vm.locks.held;
    }
    this.ops = own;
    this.op = 0;
    const inGuest = this.phase === PHASE_IDLE;
    if (own.length > 0) this.phase = inGuest ? PHASE_GUEST : PHASE_ENTER;
  }

  ready(): boolean {
    if (this.phase === PHASE_DONE) return false;
    if (this.phase !== PHASE_IDLE) return true;
    return this.vcpu.requests !== 0 || this.state.othersRest(this);
  }

  takes(): number {
    const { phase, vcpu } = this;
    if (phase === PHASE_ENTER) {
      const drops =
        this.current.kind !== 'pre-fault' && (vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) !== 0 && this.rootObsolete;
      return drops || vcpu.mmu.mmu.root.pfn === INVALID_ROOT ? LOCK_MMU_READ : 0;
    }
    if (phase < PHASE_STAGE || this.held !== 0) return 0;
    const stage = this.stages[phase - PHASE_STAGE]!;
    if (stage.name === 'fault-in-shared' && this.hostCopies()) return LOCK_MMU_WRITE;
    return stage.underMmuLock ? LOCK_MMU_READ : 0;
  }

  /**
   * Whether the host has to copy the page (the zero page) to make it writable for this fault. It invalidates the old one on the way, within this
   * step: everybody is told, and interrupted, at once.
   */
  private hostCopies(): boolean {
    const { fault } = this.vcpu.mmu;
    if (fault.isPrivate || fault.slot === null || !fault.write) return false;
    const word = this.vm.mm.table.lookup(slotHva(fault.slot, fault.gfn));
    return (word & PTE_PRESENT) !== 0 && (word & (PTE_WRITE | PTE_EXCLUSIVE)) === 0;
  }

  /** Leaves the guest for the requests that it has. */
  interrupt(): void {
    this.vcpu.inGuest = false;
    if (this.phase === PHASE_GUEST) this.exit(PHASE_ENTER);
    else this.phase = PHASE_DONE;
  }

  choices(): number {
    return this.phase === PHASE_GUEST && this.vcpu.requests !== 0 ? 2 : 1;
  }

  step(choice: number): void {
    const { phase } = this;
    this.note = '';
    if (phase >= PHASE_STAGE) this.stage(phase - PHASE_STAGE);
    else if (phase === PHASE_GUEST) this.inGuest(choice);
    else if (phase === PHASE_ENTER) this.enter();
    else if (phase === PHASE_CODE) this.errorCode();
    else if (phase === PHASE_BEGIN) this.begin();
    else if (phase === PHASE_WALK) this.walk();
    else if (phase === PHASE_INSTALL) this.install();
    else if (phase === PHASE_EMULATE) this.emulate();
    else if (phase === PHASE_FAST_EXCHANGE) this.fastExchange();
    else if (phase === PHASE_FAST_DIRTY) this.fastDirty();
    else this.leave();
  }

  /** Back to the guest: requests are served, a root is loaded (@kvm x86.c vcpu_enter_guest). */
  private enter(): void {
    const { vcpu } = this;
    const { kind } = this.current;
    this.setSrcu(1);
    if (vcpu.requests !== 0 && kind !== 'pre-fault') serviceRequests(vcpu);
    if (mmuReload(vcpu) !== 0) throw new Error('no memory for a root');
    if (kind === 'pre-fault' || kind === 'page-ready') {
      this.errorLo = kind === 'page-ready' ? PFERR_USER | PFERR_WRITE : 0;
      this.errorHi = PFERR_GUEST_FINAL_HI;
      this.phase = PHASE_CODE;
      return;
    }
    vcpu.inGuest = true;
    this.setSrcu(0);
    this.phase = PHASE_GUEST;
  }

  private setSrcu(depth: number): void {
    this.srcu = depth;
    this.vm.locks.srcuDepth = depth;
  }

  /** One access, or the interrupt of somebody who has a request. */
  private inGuest(choice: number): void {
    const { vcpu } = this;
    if (choice === 1) {
      this.note = 'interrupted';
      this.exit(PHASE_ENTER);
      return;
    }
    const { kind, gfn } = this.current;
    const g = this.gfns.indexOf(gfn);
    const isWrite = kind === 'write';
    const isFetch = kind === 'fetch';
    const word = this.tlb[g]!;
    const want = TLB_VALID | (isWrite ? TLB_WRITE : 0) | (isFetch ? TLB_EXEC : 0);
    if ((word & want) === want) {
      this.note = 'through the TLB';
    } else {
      const { walker } = this;
      walker.rootPfn = vcpu.mmu.mmu.root.pfn;
      if (!walker.walk(gfn, isWrite, isFetch)) {
        this.errorLo = walker.error | PFERR_USER | (isWrite ? PFERR_WRITE : 0) | (isFetch ? PFERR_FETCH : 0);
        this.errorHi = PFERR_GUEST_FINAL_HI;
        this.note = '#NPF';
        this.exit(PHASE_CODE);
        return;
      }
      this.tlb[g] =
        TLB_VALID |
        (walker.writable ? TLB_WRITE : 0) |
        (walker.executable ? TLB_EXEC : 0) |
        (walker.pfn << TLB_PFN_SHIFT);
      this.note = 'by a walk';
    }
    if (isWrite) this.state.guestWrote(g);
    this.opDone();
  }

  private exit(phase: number): void {
    this.vcpu.inGuest = false;
    this.setSrcu(1);
    this.phase = phase;
  }

  /** The next thing to do; in the guest when it is one of the guest's. */
  private opDone(): void {
    this.op++;
    if (!this.vcpu.inGuest) this.setSrcu(0);
    if (this.op < this.ops.length) {
      this.phase = this.vcpu.inGuest ? PHASE_GUEST : PHASE_ENTER;
      return;
    }
    if (this.vcpu.inGuest) {
      this.phase = PHASE_IDLE;
      return;
    }
    this.phase = PHASE_DONE;
  }

  /** Nobody is left who could ask for anything, or somebody asks for a flush. */
  private leave(): void {
    this.vcpu.inGuest = false;
    this.phase = PHASE_DONE;
  }

  /** @kvm mmu.c kvm_mmu_page_fault, up to kvm_mmu_do_page_fault */
  private errorCode(): void {
    const { vcpu, vm } = this;
    const gpa = this.current.gfn * 4096;
    const lo = loOf(gpa);
    const hi = hiOf(gpa);
    const { kind } = this.current;
    if (kind === 'pre-fault') {
      // The attribute, whatever the VM's type (@kvm mmu.c kvm_arch_vcpu_pre_fault_memory).
      if (memIsPrivate(vm, this.current.gfn)) this.errorHi |= PFERR_PRIVATE_ACCESS_HI;
      this.phase = PHASE_BEGIN;
      return;
    }
    if (kind === 'page-ready') {
      this.phase = PHASE_BEGIN;
      return;
    }
    this.errorHi = withPrivateAccess(vcpu, lo, hi, this.errorLo, this.errorHi);
    let ret = RET_PF_INVALID;
    if ((this.errorLo & PFERR_RSVD) !== 0) ret = reservedBitFault(vcpu, lo, hi, this.errorLo, this.errorHi, true);
    if (ret === RET_PF_INVALID) this.phase = PHASE_BEGIN;
    else this.verdict(ret);
  }

  private begin(): void {
    const { kind, gfn } = this.current;
    const gpa = gfn * 4096;
    const prefetch = kind === 'pre-fault' || kind === 'page-ready';
    beginPageFault(this.vcpu, loOf(gpa), hiOf(gpa), this.errorLo, this.errorHi, prefetch);
    this.recorder?.begin(this.vcpu.mmu.fault);
    this.phase = PHASE_STAGE;
  }

  private stage(n: number): void {
    const { vcpu, vm } = this;
    const stage = this.stages[n]!;
    vm.mmu.faultIter = this.iter;
    if (stage.underMmuLock && (vm.locks.held & LOCK_MMU_READ) === 0) vm.locks.acquire(LOCK_MMU_READ);
    if (n === this.mapAt && stage.name === 'map') {
      mapBegin(vcpu, vcpu.mmu.fault);
      this.afterWalk(mapWalk(vcpu, vcpu.mmu.fault));
      return;
    }
    if (stage.name === 'fast-path' && pageFaultCanBeFast(vm, vcpu.mmu.fault)) {
      const found = fastPageFaultWants(vcpu, vcpu.mmu.fault, walkToLastSpte(vcpu, vcpu.mmu.fault.gfn));
      if (found === RET_PF_CONTINUE) this.phase = PHASE_FAST_EXCHANGE;
      else {
        this.recordStage(n, found === RET_PF_INVALID ? RET_PF_CONTINUE : found);
        if (found === RET_PF_INVALID) this.phase = PHASE_STAGE + n + 1;
        else this.decided(found);
      }
      return;
    }
    const seq = vm.mmuInvalidateSeq;
    const ret = stage.run(vcpu, vcpu.mmu.fault);
    if (vm.mmuInvalidateSeq !== seq) this.state.deliverRequests(this);
    this.recorder?.stage(stage.name, ret, stage.explain(vcpu, vcpu.mmu.fault, ret));
    if (ret !== RET_PF_CONTINUE) this.decided(ret);
    else if (n === this.mapAt) throw new Error(`no stage of ${vm.revision.name} decided the fault`);
    else this.phase = PHASE_STAGE + n + 1;
  }

  /** When the entry has changed, the fast path looks again. */
  private fastExchange(): void {
    this.vm.mmu.faultIter = this.iter;
    const done = fastPageFaultExchange(this.vcpu, this.vcpu.mmu.fault, this.iter);
    this.phase = done ? PHASE_FAST_DIRTY : PHASE_STAGE + this.fastAt;
  }

  private fastDirty(): void {
    this.vm.mmu.faultIter = this.iter;
    fastPageFaultDirty(this.vcpu, this.vcpu.mmu.fault, this.iter);
    this.recordStage(this.fastAt, RET_PF_FIXED);
    this.decided(RET_PF_FIXED);
  }

  private walk(): void {
    this.vm.mmu.faultIter = this.iter;
    this.afterWalk(mapWalk(this.vcpu, this.vcpu.mmu.fault));
  }

  private afterWalk(ret: number): void {
    if (ret === RET_PF_CONTINUE) this.phase = PHASE_INSTALL;
    else this.mapped(ret);
  }

  private install(): void {
    this.vm.mmu.faultIter = this.iter;
    const ret = mapInstall(this.vcpu, this.vcpu.mmu.fault);
    if (ret === RET_PF_CONTINUE) this.phase = PHASE_WALK;
    else this.mapped(ret);
  }

  private mapped(ret: number): void {
    this.recordStage(this.mapAt, ret);
    this.decided(ret);
  }

  /** Says what a stage that takes several steps has come to. */
  private recordStage(n: number, ret: number): void {
    const stage = this.stages[n]!;
    this.recorder?.stage(stage.name, ret, stage.explain(this.vcpu, this.vcpu.mmu.fault, ret));
  }

  /** The stages have an answer: mmu_lock is dropped. */
  private decided(stagesSay: number): void {
    const { vcpu, vm } = this;
    if ((vm.locks.held & LOCK_MMU_READ) !== 0) vm.locks.release(LOCK_MMU_READ);
    const ret = endPageFault(vcpu, stagesSay);
    this.recorder?.end(vcpu.mmu.fault, ret);
    this.verdict(ret);
  }

  private verdict(ret: number): void {
    this.note = retPfName(ret);
    const { kind } = this.current;
    if (kind === 'page-ready') this.opDone();
    else if (kind === 'pre-fault') {
      // Tries again at once, with the root that it has, until the fault is settled (@kvm mmu.c kvm_tdp_map_page).
      if (ret === RET_PF_RETRY) this.phase = PHASE_BEGIN;
      else this.opDone();
    } else if (ret === RET_PF_EMULATE || ret === RET_PF_WRITE_PROTECTED) this.phase = PHASE_EMULATE;
    else if (ret === RET_PF_RETRY || ret === RET_PF_FIXED || ret === RET_PF_SPURIOUS) this.phase = PHASE_ENTER;
    else this.opDone();
  }

  /** The emulator, or userspace, does the access instead of the guest. */
  private emulate(): void {
    this.state.emulated(this.current.gfn);
    this.opDone();
  }

  // ---- state as words ----

  save(into: Int32Array, at: number): void {
    const { vcpu, phase, state, gfns } = this;
    const { fault } = vcpu.mmu;
    const { tables } = state;
    const inFault = isFaulting(phase);
    const hasCode = inFault || phase === PHASE_CODE || phase === PHASE_BEGIN;
    const root = vcpu.mmu.mmu.root.pfn;
    let a =
      phase |
      (this.op << 6) |
      ((vcpu.inGuest ? 1 : 0) << 10) |
      ((this.held !== 0 ? 1 : 0) << 11) |
      (this.srcu << 12) |
      ((root === INVALID_ROOT ? 0 : tables.rootIndex(root) + 1) << 13);
    into[at + 1] = vcpu.requests;
    into[at + 2] = 0;
    into[at + 3] = 0;
    into[at + 4] = 0;
    into[at + 5] = 0;
    into[at + 6] = 0;
    if (hasCode) into[at + 2] = this.errorLo | ((this.errorHi & PFERR_PRIVATE_ACCESS_HI) !== 0 ? 0x100 : 0);
    if (inFault) {
      into[at + 3] =
        state.slots.number(fault.slot) |
        ((fault.isPrivate ? 1 : 0) << 6) |
        ((fault.mapWritable ? 1 : 0) << 7) |
        (fault.maxLevel << 8) |
        (fault.reqLevel << 10) |
        (fault.goalLevel << 12) |
        ((fault.mmuSeq === this.vm.mmuInvalidateSeq ? 1 : 0) << 14) |
        ((fault.hugePageDisallowed ? 1 : 0) << 15);
      into[at + 4] = fault.pfn;
    }
    if (hasEntry(phase) || phase === PHASE_WALK) {
      const { iter } = this;
      const linked = tables.isLinked(iter.sptep >>> 10);
      a |= (iter.level << 16) | ((linked ? 0 : 1) << 19);
      if (hasEntry(phase)) {
        const isTable = iter.level > 1 && isShadowPresent(iter.oldLo) && !isLargePte(iter.oldLo);
        const place = isTable ? tables.placeOfTable(iter.oldLo, iter.oldHi) : -1;
        into[at + 5] = isTable ? (iter.oldLo & 0xfff) | ((place + 1) << 12) : iter.oldLo;
        into[at + 6] = isTable ? iter.oldHi & ~0xfffff : iter.oldHi;
      }
    }
    into[at] = a;
    const { mmioGfn, mmioGen, mmioAccess } = vcpu.mmu;
    into[at + 7] = mmioGfn === 0 ? 0 : (gfns.indexOf(mmioGfn) + 1) | (mmioAccess << 4) | ((mmioGen + 1) << 8);
    for (let g = 0; g < gfns.length; g++) into[at + 8 + g] = this.tlb[g]!;
  }

  load(from: Int32Array, at: number): void {
    const { vcpu, state, gfns, vm } = this;
    const a = from[at]!;
    const phase = a & 63;
    this.phase = phase;
    this.op = (a >>> 6) & 15;
    vcpu.inGuest = (a & (1 << 10)) !== 0;
    this.held = (a & (1 << 11)) !== 0 ? LOCK_MMU_READ : 0;
    this.srcu = (a >>> 12) & 1;
    const root = (a >>> 13) & 7;
    vcpu.mmu.mmu.root.pfn = root === 0 ? INVALID_ROOT : vm.mmu.tdpMmuRoots[root - 1]!.pfn;
    vcpu.requests = from[at + 1]!;
    const code = from[at + 2]!;
    this.errorLo = code & 0xff;
    this.errorHi = PFERR_GUEST_FINAL_HI | ((code & 0x100) !== 0 ? PFERR_PRIVATE_ACCESS_HI : 0);
    const inFault = isFaulting(phase);
    if (inFault) {
      const { fault } = vcpu.mmu;
      const { kind, gfn } = this.current;
      const f = from[at + 3]!;
      const gpa = gfn * 4096;
      const rules = vm.revision.rules;
      const prefetch = kind === 'pre-fault' || kind === 'page-ready';
      const hi = rules.fullErrorCode ? this.errorHi : 0;
      fault.reset(loOf(gpa), hiOf(gpa), this.errorLo, hi, prefetch, rules.faultStartsWithErrors);
      fault.isTdp = true;
      fault.inTdpMmu = true;
      fault.nxHugePageWorkaroundEnabled = vm.mmu.nxHugePages;
      fault.slot = state.slots.slot(f & 63);
      fault.isPrivate = (f & 64) !== 0;
      fault.mapWritable = (f & 128) !== 0;
      fault.maxLevel = (f >>> 8) & 3;
      fault.reqLevel = (f >>> 10) & 3;
      fault.goalLevel = (f >>> 12) & 3;
      fault.mmuSeq = (f & (1 << 14)) !== 0 ? vm.mmuInvalidateSeq : -1;
      fault.hugePageDisallowed = (f & (1 << 15)) !== 0;
      fault.pfn = from[at + 4]!;
    }
    if (hasEntry(phase) || phase === PHASE_WALK) this.loadIter(from, at, a);
    const mmio = from[at + 7]!;
    vcpu.mmu.mmioGfn = mmio === 0 ? 0 : gfns[(mmio & 15) - 1]!;
    vcpu.mmu.mmioAccess = (mmio >>> 4) & 15;
    vcpu.mmu.mmioGen = mmio === 0 ? -1 : (mmio >>> 8) - 1;
    for (let g = 0; g < gfns.length; g++) this.tlb[g] = from[at + 8 + g]!;
  }

  private loadIter(from: Int32Array, at: number, a: number): void {
    const { iter, vm, state } = this;
    const { tables } = state;
    const { gfn } = this.current;
    const level = (a >>> 16) & 7;
    const cutOff = (a & (1 << 19)) !== 0;
    if (cutOff) {
      iter.start(vm.mmu.shadowPage(tables.cutOffFrame(level)), 1, gfn);
    } else {
      iter.start(vm.mmu.shadowPage(this.vcpu.mmu.mmu.root.pfn), 1, gfn);
      while (iter.level > level) if (!iter.stepDown()) throw new Error('a walk does not find its place again');
    }
    let lo = from[at + 5]!;
    let hi = from[at + 6]!;
    if ((a & 63) === PHASE_WALK) {
      // A table was just hung here.
      lo = SPTE_MMU_PRESENT_MASK;
      hi = 0;
    } else if (level > 1 && isShadowPresent(lo) && !isLargePte(lo)) {
      const place = (lo >>> 12) - 1;
      const pfn = place < 0 ? 0 : tables.frameOf(place);
      lo = (lo & 0xfff) | (pfn << 12);
      hi |= Math.floor(pfn / 0x100000);
    }
    iter.oldLo = lo;
    iter.oldHi = hi;
  }

  // ---- for the explorer ----

  /** Reads and writes of the next step go into `state.reads`, `state.writes`, with what enables it. */
  resources(): void {
    const { phase, state } = this;
    let reads = 0;
    let writes = 0;
    if (phase >= PHASE_STAGE) {
      const stage = this.stages[phase - PHASE_STAGE]!;
      const known = STAGE_RESOURCES[stage.name];
      if (stage.name === 'map') {
        reads = MAP_READS;
      } else {
        reads = known === undefined ? RES_ALL : known[0];
        writes = known === undefined ? RES_ALL : known[1];
        if (stage.name === 'fault-in-shared' && this.hostCopies()) {
          reads |= RES_SLOTS | RES_NOTIFIER_COUNT;
          writes |= RES_SEQUENCE | RES_TABLES | RES_REQUESTS | RES_NOTIFIER_COUNT | RES_GUESTS;
        }
      }
      // The last step of a fault may drop mmu_lock.
    } else if (phase === PHASE_ENTER) {
      reads = ENTER_READS;
      writes = ENTER_WRITES | state.guestBit(this);
    } else if (phase === PHASE_GUEST) {
      reads = RES_TABLES | RES_REQUESTS;
      writes = RES_TABLES | RES_SRCU | RES_REQUESTS | RES_DIRTY_LOG | state.guestBit(this);
    } else if (phase === PHASE_CODE) {
      reads = RES_ATTRIBUTES | RES_SLOTS | RES_TABLES;
    } else if (phase === PHASE_BEGIN) {
      reads = RES_SLOTS | RES_ATTRIBUTES;
    } else if (phase === PHASE_WALK) {
      reads = MAP_READS;
    } else if (phase === PHASE_INSTALL) {
      reads = MAP_READS;
      writes = MAP_WRITES;
    } else if (phase === PHASE_FAST_EXCHANGE) {
      reads = RES_TABLES;
      writes = RES_TABLES;
    } else if (phase === PHASE_FAST_DIRTY) {
      writes = RES_DIRTY_LOG;
    } else if (phase === PHASE_EMULATE) {
      reads = RES_SLOTS | RES_ATTRIBUTES;
      writes = RES_HOST | RES_DIRTY_LOG;
    } else {
      reads = RES_ALL;
      writes = RES_REQUESTS | state.guestBit(this);
    }
    // Any stage can be the last one, after which the vCPU may return to userspace.
    if (isFaulting(phase) || phase === PHASE_CODE || phase === PHASE_EMULATE) {
      writes |= RES_SRCU;
    }
    state.reads = reads;
    state.writes = writes;
  }

  restResources(): void {
    const { state } = this;
    const rest = this.phase === PHASE_DONE ? 0 : RES_ALL;
    state.reads = rest;
    const notOurs = this.hasUnknownStage ? 0 : RES_ATTRIBUTES | RES_SLOTS | RES_SEQUENCE;
    state.writes =
      rest === 0 ? 0 : (rest & ~notOurs) | (this.mayCopy ? RES_GUESTS | RES_SEQUENCE : state.guestBit(this));
  }

  changed(a: Int32Array, b: Int32Array, at: number, own: boolean): number {
    let mask = 0;
    if (a[at + 1] !== b[at + 1]) mask |= RES_REQUESTS;
    let guest = ((a[at]! ^ b[at]!) & (1 << 10)) !== 0;
    for (let g = 0; g < this.gfns.length; g++) if (a[at + 8 + g] !== b[at + 8 + g]) guest = true;
    if (guest) mask |= this.state.guestBit(this);
    if (((a[at]! ^ b[at]!) & (1 << 12)) !== 0) mask |= RES_SRCU;
    if (own) return mask;
    // Of what the vCPU remembers, others change only what it is worth: whether its snapshot is still the last one, and what its walk stands on.
    const others =
      ((a[at]! ^ b[at]!) & 0x3ff) !== 0 || a[at + 2] !== b[at + 2] || ((a[at + 3]! ^ b[at + 3]!) & ~(1 << 14)) !== 0;
    return others ? -1 : mask;
  }

  stageName(): string {
    const { phase } = this;
    if (phase >= PHASE_STAGE) return this.stages[phase - PHASE_STAGE]!.name;
    const level = this.iter.level;
    if (phase === PHASE_INSTALL) {
      return level === this.vcpu.mmu.fault.goalLevel ? 'map: install the entry' : `map: hang a table at level ${level}`;
    }
    if (phase === PHASE_GUEST) {
      const { kind, gfn } = this.current;
      return `guest: ${kind} gfn 0x${gfn.toString(16)}`;
    }
    const names = [
      'enter the guest',
      '',
      'error code',
      'fault object',
      'map: walk',
      '',
      'emulate',
      'leave the guest',
      '',
      'fast path: exchange the entry',
      'fast path: mark the page dirty',
    ];
    return names[phase]!;
  }

  describe(): string {
    const { vcpu, phase } = this;
    const where = vcpu.inGuest ? 'in the guest' : phase === PHASE_DONE ? 'done' : `at ${this.stageName()}`;
    const tlb = this.gfns
      .map((gfn, g) => [gfn, this.tlb[g]!] as const)
      .filter(([, word]) => word !== 0)
      .map(
        ([gfn, word]) =>
          `0x${gfn.toString(16)} -> 0x${(word >>> TLB_PFN_SHIFT).toString(16)}${(word & TLB_WRITE) !== 0 ? ' W' : ''}`,
      );
    const asked = vcpu.requests === 0 ? '' : `, requests 0x${vcpu.requests.toString(16)}`;
    const { fault } = vcpu.mmu;
    const inFault = isFaulting(phase);
    const pf = !inFault
      ? ''
      : `, ${fault.isPrivate ? 'private' : 'shared'} fault${fault.pfn >= 0 ? ` with frame 0x${fault.pfn.toString(16)}` : ''}`;
    return `${this.name} ${where}${pf}${asked}, TLB: ${tlb.length === 0 ? 'empty' : tlb.join(', ')}`;
  }

  /** Frame of a TLB word. */
  static frame(word: number): number {
    return word >>> TLB_PFN_SHIFT;
  }

  /** The TLB is flushed. */
  flushTlb(): void {
    this.tlb.fill(0);
  }
}
