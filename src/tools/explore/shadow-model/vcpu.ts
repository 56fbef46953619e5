/**
 * A vCPU whose guest's tables KVM shadows, with the processor it runs on. The guest accesses memory by linear addresses, through its TLB or
 * by a walk of the shadow tables; each #PF goes through the revision's own stages, one a step as long as mmu_lock is not held, and in one
 * step from there on.
 */
import { PFERR_FETCH, PFERR_USER, PFERR_WRITE } from '../../../arch/error-code.ts';
import type { NestedWalker } from '../../../cpu/mmu/nested-walker.ts';
import { LOCK_MMU_WRITE } from '../../../kvm/locks.ts';
import { mmuInvlpg } from '../../../kvm/mmu/invlpg.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { isObsoleteSp, rootToSp } from '../../../kvm/mmu/obsolete.ts';
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
import {
  REQ_MMU_FREE_OBSOLETE_ROOTS,
  REQ_MMU_SYNC,
  REQ_TLB_FLUSH,
  REQ_TLB_FLUSH_CURRENT,
  REQ_TLB_FLUSH_GUEST,
  type VcpuState,
} from '../../../kvm/vcpu-state.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { setCr3 } from '../../../kvm/x86/control-registers.ts';
import { serviceRequests } from '../../../kvm/x86/run.ts';
import type { ModelActor } from '../kvm-model/state.ts';
import { TLB_EXEC, TLB_PFN_SHIFT, TLB_VALID, TLB_WRITE, tlbFrame } from '../kvm-model/tlb-word.ts';
import { type GuestOp, type GuestSpec, isWrite } from '../shadow-scene.ts';
import type { ShadowState } from './state.ts';
import { beginFault, emulateAccess, faultErrorCode, faultStage, trackEmulatedWrite } from './vcpu-fault.ts';
import {
  PHASE_BEGIN,
  PHASE_CODE,
  PHASE_CR3,
  PHASE_DONE,
  PHASE_EMULATE,
  PHASE_ENTER,
  PHASE_GUEST,
  PHASE_IDLE,
  PHASE_INVLPG,
  PHASE_STAGE,
  PHASE_TRACK,
} from './vcpu-phase.ts';
import { shadowVcpuResources, shadowVcpuRest } from './vcpu-resources.ts';
import { describeShadowVcpu, shadowVcpuStageName } from './vcpu-text.ts';
import { changedShadowVcpu, loadShadowVcpu, SHADOW_VCPU_WORDS, saveShadowVcpu } from './vcpu-words.ts';

const FLUSH_REQUESTS = REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT | REQ_TLB_FLUSH_GUEST;

export class ShadowVcpu implements ModelActor {
  readonly name: string;
  readonly cpu: string;
  readonly words: number;
  held = 0;
  srcu = 0;
  phase = PHASE_ENTER;
  op = 0;
  /** By number of the linear page: TLB_* and the frame. */
  readonly tlb: Int32Array;
  /** What a translation of the page may still be: gfns (by number, as bits) to read, to write, and both for those that stay for ever. */
  readonly allowed: Int32Array;
  errorLo = 0;
  /** Of the gpa that the emulator wrote. */
  emulatedGpa = -1;
  /** The present write was tried natively once more already. */
  retried = false;
  /** CR3 was loaded: with the next entry nothing of before may be used. */
  switched = false;
  note = '';
  recorder: FaultRecorder | null = null;
  ops: readonly GuestOp[];
  readonly stages: readonly FaultStage[];
  readonly lockAt: number;
  readonly vcpu: VcpuState;
  readonly vm: VmState;
  readonly state: ShadowState;
  private readonly walker: NestedWalker;

  constructor(state: ShadowState, vcpu: VcpuState, walker: NestedWalker, spec: GuestSpec) {
    this.state = state;
    this.vm = state.vm;
    this.vcpu = vcpu;
    this.walker = walker;
    this.ops = spec.ops;
    this.name = `vcpu${vcpu.id}`;
    this.cpu = `CPU${vcpu.id}`;
    this.tlb = new Int32Array(state.linearPages.length);
    this.allowed = new Int32Array(state.linearPages.length);
    this.words = SHADOW_VCPU_WORDS + 2 * state.linearPages.length;
    this.stages = this.vm.revision.stages;
    this.lockAt = this.stages.findIndex((s) => s.underMmuLock);
  }

  get finished(): boolean {
    return this.phase === PHASE_DONE;
  }

  get idle(): boolean {
    return this.phase === PHASE_IDLE;
  }

  get current(): GuestOp {
    return this.ops[this.op]!;
  }

  /** The linear page of the present access. */
  get page(): number {
    const op = this.current;
    return op.kind === 'load-cr3' ? 0 : op.page;
  }

  /** Frame of the guest's top table. */
  get cr3(): number {
    return this.vcpu.cr3Lo >>> 12;
  }

  /** Translations in the TLB can be used without another flush before. */
  get tlbLive(): boolean {
    const { vcpu } = this;
    if (vcpu.inGuest) return true;
    if ((vcpu.requests & FLUSH_REQUESTS) !== 0 || this.switched) return false;
    return vcpu.mmu.mmu.root.pfn !== INVALID_ROOT && !this.mustFreeRoots;
  }

  private get mustFreeRoots(): boolean {
    const { vcpu, vm } = this;
    if ((vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) === 0) return false;
    const { root, prevRoots } = vcpu.mmu.mmu;
    if (obsolete(vm, root.pfn)) return true;
    for (const prev of prevRoots) if (obsolete(vm, prev.pfn)) return true;
    return false;
  }

  /** Does `ops` with nobody else around, then begins with those of the scene. */
  warmUp(ops: readonly GuestOp[]): void {
    const own = this.ops;
    this.ops = ops;
    for (let steps = 0; !this.idle && !this.finished; steps++) {
      if (steps > 1000) throw new Error(`${this.name}: what comes before the scene does not end`);
      this.step(0);
    }
    this.ops = own;
    this.op = 0;
    const inGuest = this.phase === PHASE_IDLE;
    if (own.length > 0) this.phase = inGuest ? PHASE_GUEST : PHASE_ENTER;
  }

  // ---- for the explorer ----

  ready(): boolean {
    if (this.phase === PHASE_DONE) return false;
    if (this.phase !== PHASE_IDLE) return true;
    return this.vcpu.requests !== 0 || this.state.othersRest(this);
  }

  takes(): number {
    const { phase, vcpu, vm } = this;
    if (phase >= PHASE_STAGE) {
      const n = phase - PHASE_STAGE;
      if (n >= this.lockAt) return LOCK_MMU_WRITE;
      return this.stages[n]!.name === 'guest-walk' && this.guestGetsPresentFault() ? LOCK_MMU_WRITE : 0;
    }
    if (phase === PHASE_ENTER) {
      const { pfn } = vcpu.mmu.mmu.root;
      const syncs = (vcpu.requests & (REQ_MMU_SYNC | REQ_TLB_FLUSH_GUEST)) !== 0 && this.state.unsyncRoot(pfn);
      return pfn === INVALID_ROOT || syncs || this.mustFreeRoots ? LOCK_MMU_WRITE : 0;
    }
    if (phase === PHASE_TRACK) return vm.mmu.indirectShadowPages !== 0 ? LOCK_MMU_WRITE : 0;
    if (phase === PHASE_EMULATE) {
      const mayUnprotect = this.current.kind === 'write' && vm.mmu.indirectShadowPages !== 0;
      return mayUnprotect || this.state.without('track-after-write') ? LOCK_MMU_WRITE : 0;
    }
    return phase === PHASE_INVLPG || phase === PHASE_CR3 ? LOCK_MMU_WRITE : 0;
  }

  /** The guest's tables have the page and do not allow the access: before it gets its #PF, the address is synced. */
  private guestGetsPresentFault(): boolean {
    const t = this.state.guest.translate(this.cr3, this.page);
    if (!t.present) return false;
    return t.gfn < 0 || (isWrite(this.current) && !t.writable) || (this.current.kind === 'fetch' && !t.executable);
  }

  choices(): number {
    return this.phase === PHASE_GUEST && this.vcpu.requests !== 0 ? 2 : 1;
  }

  step(choice: number): void {
    const { phase } = this;
    this.note = '';
    if (phase >= PHASE_STAGE) faultStage(this, phase - PHASE_STAGE);
    else if (phase === PHASE_GUEST) this.inGuest(choice);
    else if (phase === PHASE_ENTER) this.enter();
    else if (phase === PHASE_CODE) faultErrorCode(this);
    else if (phase === PHASE_BEGIN) beginFault(this);
    else if (phase === PHASE_EMULATE) emulateAccess(this);
    else if (phase === PHASE_TRACK) trackEmulatedWrite(this);
    else if (phase === PHASE_INVLPG) this.invlpg();
    else if (phase === PHASE_CR3) this.loadCr3();
    else this.leave();
  }

  /** Somebody's request takes the vCPU out of the guest. */
  interrupt(): void {
    this.vcpu.inGuest = false;
    if (this.phase !== PHASE_GUEST) {
      this.phase = PHASE_DONE;
      return;
    }
    this.srcu = 1;
    this.phase = PHASE_ENTER;
  }

  flushTlb(): void {
    this.tlb.fill(0);
  }

  flushTlbPage(page: number): void {
    const p = this.state.linearPages.indexOf(page);
    if (p >= 0) this.tlb[p] = 0;
  }

  // ---- steps ----

  /** Back to the guest: requests are served, a root is loaded (@kvm x86.c vcpu_enter_guest). */
  private enter(): void {
    const { vcpu, state } = this;
    this.setSrcu(1);
    if (state.without('cr3-sync')) vcpu.requests &= ~REQ_MMU_SYNC;
    if (vcpu.requests !== 0) serviceRequests(vcpu);
    if (mmuReload(vcpu) !== 0) throw new Error('no memory for a root');
    // A root that was just made may have asked for more, as KVM_RUN looks for before the guest is entered.
    if (vcpu.requests !== 0) return;
    if (this.switched) {
      this.switched = false;
      for (let p = 0; p < this.allowed.length; p++) state.onlyPresent(this, p);
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
    if (choice === 1) {
      this.note = 'interrupted';
      this.exit(PHASE_ENTER);
      return;
    }
    const op = this.current;
    if (op.kind === 'invlpg') this.exit(PHASE_INVLPG);
    else if (op.kind === 'load-cr3') this.exit(PHASE_CR3);
    else this.access(op);
  }

  private access(op: GuestOp & { readonly page: number }): void {
    const { walker, vcpu, state } = this;
    const p = state.linearPages.indexOf(op.page);
    const write = isWrite(op);
    const fetch = op.kind === 'fetch';
    const want = TLB_VALID | (write ? TLB_WRITE : 0) | (fetch ? TLB_EXEC : 0);
    if ((this.tlb[p]! & want) === want) {
      this.note = 'through the TLB';
    } else {
      walker.rootPfn = vcpu.mmu.mmu.root.pfn;
      if (!walker.walk(op.page, write, fetch)) {
        this.tlb[p] = 0;
        this.errorLo = walker.error | PFERR_USER | (write ? PFERR_WRITE : 0) | (fetch ? PFERR_FETCH : 0);
        this.note = '#PF';
        this.exit(PHASE_CODE);
        return;
      }
      this.tlb[p] =
        TLB_VALID |
        (walker.writable ? TLB_WRITE : 0) |
        (walker.executable ? TLB_EXEC : 0) |
        (walker.pfn << TLB_PFN_SHIFT);
      this.note = 'by a walk';
    }
    const pfn = tlbFrame(this.tlb[p]!);
    state.used(this, p, pfn, write);
    if (op.kind === 'store') state.storeInFrame(pfn, op.index, op.value);
    this.opDone();
  }

  private exit(phase: number): void {
    this.vcpu.inGuest = false;
    this.setSrcu(1);
    this.phase = phase;
  }

  opDone(): void {
    this.op++;
    this.retried = false;
    if (!this.vcpu.inGuest) this.setSrcu(0);
    if (this.op < this.ops.length) this.phase = this.vcpu.inGuest ? PHASE_GUEST : PHASE_ENTER;
    else this.phase = this.vcpu.inGuest ? PHASE_IDLE : PHASE_DONE;
  }

  private leave(): void {
    this.vcpu.inGuest = false;
    this.phase = PHASE_DONE;
  }

  get addrLo(): number {
    return (this.page * 4096) | 0;
  }

  get addrHi(): number {
    return Math.floor(this.page / 0x100000);
  }

  verdict(ret: number): void {
    this.note = retPfName(ret);
    if (ret === RET_PF_EMULATE || ret === RET_PF_WRITE_PROTECTED) this.phase = PHASE_EMULATE;
    else if (ret === RET_PF_RETRY || ret === RET_PF_FIXED || ret === RET_PF_SPURIOUS) this.phase = PHASE_ENTER;
    else this.opDone();
  }

  private invlpg(): void {
    const { state, vcpu } = this;
    if (state.without('invlpg-sync')) this.flushTlbPage(this.page);
    else mmuInvlpg(vcpu, this.addrLo, this.addrHi);
    state.onlyPresent(this, state.linearPages.indexOf(this.page));
    this.opDone();
  }

  private loadCr3(): void {
    const op = this.current;
    if (op.kind !== 'load-cr3') return;
    const before = this.cr3;
    setCr3(this.vcpu, op.gfn * 4096, 0);
    if (before !== this.cr3) for (let p = 0; p < this.allowed.length; p++) this.state.alsoPresent(this, p);
    this.switched = true;
    this.opDone();
  }

  // ---- words ----

  save(into: Int32Array, at: number): void {
    saveShadowVcpu(this, into, at);
  }

  load(from: Int32Array, at: number): void {
    loadShadowVcpu(this, from, at);
  }

  resources(): void {
    shadowVcpuResources(this);
  }

  restResources(): void {
    shadowVcpuRest(this);
  }

  changed(a: Int32Array, b: Int32Array, at: number, own: boolean): number {
    return changedShadowVcpu(this, a, b, at, own);
  }

  stageName(): string {
    return shadowVcpuStageName(this);
  }

  describe(): string {
    return describeShadowVcpu(this);
  }
}

function obsolete(vm: VmState, pfn: number): boolean {
  if (pfn === INVALID_ROOT) return false;
  const sp = rootToSp(vm, pfn);
  return sp === null || isObsoleteSp(vm, sp);
}
