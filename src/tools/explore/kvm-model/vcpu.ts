/**
 * A vCPU of a scene, with the processor it runs on: enters the guest, accesses memory through its TLB or by a walk of the nested tables,
 * and takes each fault through the revision's own stages, one a step. What runs is KVM's code; here is only where it stops.
 */
import {
  PFERR_FETCH,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_USER,
  PFERR_WRITE,
} from '../../../arch/error-code.ts';
import type { NestedWalker } from '../../../cpu/mmu/nested-walker.ts';
import { PTE_EXCLUSIVE, PTE_PRESENT, PTE_WRITE } from '../../../host/page-table.ts';
import { markPageDirty } from '../../../kvm/dirty/mark-dirty.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../../../kvm/locks.ts';
import { slotHva } from '../../../kvm/memslots/hva.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { isObsoleteSp } from '../../../kvm/mmu/obsolete.ts';
import type { FaultRecorder } from '../../../kvm/mmu/recorder.ts';
import {
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
  RET_PF_WRITE_PROTECTED,
  retPfName,
} from '../../../kvm/mmu/ret-pf.ts';
import type { FaultStage } from '../../../kvm/mmu/revisions/revision.ts';
import { mmuReload } from '../../../kvm/mmu/roots.ts';
import { TdpIter } from '../../../kvm/mmu/tdp-iter.ts';
import {
  REQ_APF_HALT,
  REQ_APF_READY,
  REQ_DIRTY_RING_SOFT_FULL,
  REQ_MMU_FREE_OBSOLETE_ROOTS,
  REQ_TLB_FLUSH,
  REQ_TLB_FLUSH_CURRENT,
  type VcpuState,
} from '../../../kvm/vcpu-state.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import type { AsyncPfWork } from '../../../kvm/x86/async-pf-state.ts';
import { serviceRequests } from '../../../kvm/x86/run.ts';
import type { VcpuOp } from '../scene.ts';
import type { ModelActor, SceneState } from './state.ts';
import { TLB_EXEC, TLB_PFN_SHIFT, TLB_VALID, TLB_WRITE, tlbFrame } from './tlb-word.ts';
import { enableAsync, endReady, readyWork } from './vcpu-async.ts';
import {
  beginFault,
  fastDirty,
  fastExchange,
  faultErrorCode,
  faultStage,
  installEntry,
  walkForMap,
} from './vcpu-fault.ts';
import {
  PHASE_BEGIN,
  PHASE_CODE,
  PHASE_DONE,
  PHASE_EMULATE,
  PHASE_ENTER,
  PHASE_FAST_DIRTY,
  PHASE_FAST_EXCHANGE,
  PHASE_GUEST,
  PHASE_IDLE,
  PHASE_INSTALL,
  PHASE_STAGE,
  PHASE_WALK,
} from './vcpu-phase.ts';
import { hasUnknownStage, restVcpuResources, vcpuChanged, vcpuResources } from './vcpu-resources.ts';
import { describeVcpu, vcpuStageName } from './vcpu-text.ts';
import { loadVcpu, saveVcpu } from './vcpu-words.ts';

const FLUSH_REQUESTS = REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT;

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
  errorLo = 0;
  errorHi = 0;
  /** The last thing that happened, for the report. */
  note = '';
  private ops: readonly VcpuOp[];
  readonly stages: readonly FaultStage[];
  /** Hears what each stage says, while a schedule is explained. */
  recorder: FaultRecorder | null = null;
  readonly mapAt: number;
  readonly fastAt: number;
  /** A stage of somebody's own revision: it may do anything. */
  readonly hasUnknownStage: boolean;
  /** The zero page may come to be mapped, and then be copied. */
  readonly mayCopy: boolean;
  readonly iter: TdpIter;
  private readonly walker: NestedWalker;
  readonly vcpu: VcpuState;
  readonly vm: VmState;
  readonly state: SceneState;
  readonly gfns: readonly number[];
  /** It has asynchronous page faults. */
  readonly sleeps: boolean;
  /** The fault of a page that came is done again. */
  redoing = false;

  constructor(state: SceneState, vcpu: VcpuState, walker: NestedWalker, ops: readonly VcpuOp[], sleeps: boolean) {
    this.state = state;
    this.vm = state.vm;
    this.vcpu = vcpu;
    this.walker = walker;
    this.ops = ops;
    this.gfns = state.gfns;
    this.name = `vcpu${vcpu.id}`;
    this.cpu = `CPU${vcpu.id}`;
    this.tlb = new Int32Array(this.gfns.length);
    this.words = 8 + this.gfns.length + (sleeps ? 1 : 0);
    this.sleeps = sleeps;
    if (sleeps) enableAsync(vcpu);
    this.stages = this.vm.revision.stages;
    this.mapAt = this.stages.length - 1;
    this.hasUnknownStage = hasUnknownStage(this.stages);
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

  /** The guest is not entered before userspace has reset entries of the ring; it is told so, and tries again when it has. */
  private get ringFull(): boolean {
    const { requests, dirtyRing } = this.vcpu;
    return this.state.fullRingStops && (requests & REQ_DIRTY_RING_SOFT_FULL) !== 0 && dirtyRing?.softFull === true;
  }

  /** All is done, and the TLB still there. */
  get idle(): boolean {
    return this.phase === PHASE_IDLE;
  }

  get current(): VcpuOp {
    if (this.redoing) return { kind: 'page-ready', gfn: readyWork(this.vcpu)!.gfn };
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
    if (this.phase === PHASE_ENTER && this.ringFull) return this.state.othersRest(this);
    if (this.phase === PHASE_ENTER && this.vcpu.x86.apfHalted) return readyWork(this.vcpu) !== null;
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
  hostCopies(): boolean {
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
    // Whatever walks for this vCPU leaves the others' places alone.
    this.vm.mmu.faultIter = this.iter;
    if (phase >= PHASE_STAGE) faultStage(this, phase - PHASE_STAGE);
    else if (phase === PHASE_GUEST) this.inGuest(choice);
    else if (phase === PHASE_ENTER) this.enter();
    else if (phase === PHASE_CODE) faultErrorCode(this);
    else if (phase === PHASE_BEGIN) beginFault(this);
    else if (phase === PHASE_WALK) walkForMap(this);
    else if (phase === PHASE_INSTALL) installEntry(this);
    else if (phase === PHASE_EMULATE) this.emulate();
    else if (phase === PHASE_FAST_EXCHANGE) fastExchange(this);
    else if (phase === PHASE_FAST_DIRTY) fastDirty(this);
    else this.leave();
  }

  /** Back to the guest: requests are served, a root is loaded (@kvm x86.c vcpu_enter_guest). */
  private enter(): void {
    const { vcpu } = this;
    const { kind } = this.current;
    this.setSrcu(1);
    if (this.ringFull) {
      this.note = 'KVM_EXIT_DIRTY_RING_FULL';
      this.setSrcu(0);
      this.phase = PHASE_DONE;
      return;
    }
    const work = readyWork(vcpu);
    // First it goes to sleep, and is woken up at once.
    if (work !== null && (vcpu.requests & REQ_APF_HALT) === 0) {
      this.redo(work);
      return;
    }
    if (vcpu.requests !== 0 && kind !== 'pre-fault') serviceRequests(vcpu);
    if (vcpu.x86.apfHalted) {
      this.note = 'sleeps';
      this.setSrcu(0);
      return;
    }
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

  /** @kvm mmu.c kvm_arch_async_page_ready */
  private redo(work: AsyncPfWork): void {
    this.vcpu.requests &= ~REQ_APF_READY;
    if (mmuReload(this.vcpu) !== 0) throw new Error('no memory for a root');
    this.redoing = true;
    this.errorLo = this.vm.revision.rules.pageReadyKeepsErrorCode ? work.errorLo : 0;
    this.errorHi = PFERR_GUEST_FINAL_HI;
    this.phase = PHASE_BEGIN;
  }

  /** Upper half of a fault's code: whether the processor was at the access itself or at the guest's tables. */
  get walkErrorHi(): number {
    return this.current.kind === 'walk' ? PFERR_GUEST_PAGE_HI : PFERR_GUEST_FINAL_HI;
  }

  private redone(): void {
    endReady(this.vcpu);
    this.redoing = false;
    this.setSrcu(0);
    this.phase = PHASE_ENTER;
  }

  /** Address of the process behind `gfn`. */
  hvaOf(gfn: number): number {
    const slot = this.vm.slots.sets[0]!.find(gfn);
    return slot === null ? -1 : slotHva(slot, gfn);
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
    if (kind === 'emulated-read' || kind === 'emulated-write') {
      this.exit(PHASE_EMULATE);
      return;
    }
    // A walk of the guest's tables may set A and D: it counts as a write.
    const isWrite = kind === 'write' || kind === 'walk';
    const isFetch = kind === 'fetch';
    const word = this.tlb[g]!;
    const want = TLB_VALID | (isWrite ? TLB_WRITE : 0) | (isFetch ? TLB_EXEC : 0);
    if (this.current.isPrivate === true && !this.reachesPrivate(g)) {
      this.errorLo = PFERR_PRESENT | PFERR_USER | (isWrite ? PFERR_WRITE : 0) | (isFetch ? PFERR_FETCH : 0);
      this.errorHi = PFERR_GUEST_FINAL_HI | PFERR_PRIVATE_ACCESS_HI;
      this.note = '#NPF';
      this.exit(PHASE_CODE);
      return;
    }
    if ((word & want) === want) {
      this.note = 'through the TLB';
    } else {
      const { walker } = this;
      walker.rootPfn = vcpu.mmu.mmu.root.pfn;
      if (!walker.walk(gfn, isWrite, isFetch)) {
        this.errorLo = walker.error | PFERR_USER | (isWrite ? PFERR_WRITE : 0) | (isFetch ? PFERR_FETCH : 0);
        this.errorHi = this.walkErrorHi;
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
    // In SMM it is a page of other slots, with a log of their own.
    if (kind === 'write' && !vcpu.smm) this.state.guestWrote(g);
    this.opDone();
  }

  /** Translations of gfn number `g` lead to private memory: what the processor of a protected VM checks. */
  private reachesPrivate(g: number): boolean {
    const gfn = this.gfns[g]!;
    const slot = this.vm.slots.sets[0]!.find(gfn);
    if (slot === null || slot.gmem === null || slot.gmem.file === null) return false;
    const { walker } = this;
    walker.rootPfn = this.vcpu.mmu.mmu.root.pfn;
    const pfn = this.tlb[g] !== 0 ? tlbFrame(this.tlb[g]!) : walker.walk(gfn, false, false) ? walker.pfn : -1;
    return pfn >= 0 && pfn === slot.gmem.file.peekPage(gfn - slot.baseGfn + slot.gmem.pgoff);
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

  verdict(ret: number): void {
    this.note = retPfName(ret);
    const { kind } = this.current;
    if (this.redoing) this.redone();
    else if (kind === 'page-ready') this.opDone();
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
    const { kind, gfn } = this.current;
    if (kind === 'walk') {
      // The emulator cannot fetch the instruction through that table either: it injects a #PF, whose delivery needs the table.
      this.note = '#PF injected';
      this.phase = PHASE_ENTER;
      return;
    }
    this.state.emulated(gfn);
    if (kind === 'emulated-write' && this.hvaOf(gfn) >= 0) {
      this.state.guestWrote(this.gfns.indexOf(gfn));
      markPageDirty(this.vcpu, gfn);
    }
    this.opDone();
  }

  save(into: Int32Array, at: number): void {
    saveVcpu(this, into, at);
  }

  load(from: Int32Array, at: number): void {
    loadVcpu(this, from, at);
  }

  resources(): void {
    vcpuResources(this);
  }

  restResources(): void {
    restVcpuResources(this);
  }

  changed(a: Int32Array, b: Int32Array, at: number, own: boolean): number {
    return vcpuChanged(this, a, b, at, own);
  }

  stageName(): string {
    return vcpuStageName(this);
  }

  describe(): string {
    return describeVcpu(this);
  }

  /** The TLB is flushed. */
  flushTlb(): void {
    this.tlb.fill(0);
  }
}
