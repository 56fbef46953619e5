/**
 * A vCPU whose guest's tables KVM shadows, with the processor it runs on. The guest accesses memory by linear addresses, through its TLB or
 * by a walk of the shadow tables; each #PF goes through the revision's own stages, one a step as long as mmu_lock is not held, and in one
 * step from there on.
 */
import { PFERR_FETCH, PFERR_RSVD, PFERR_USER, PFERR_WRITE } from '../../../arch/error-code.ts';
import type { NestedWalker } from '../../../cpu/mmu/nested-walker.ts';
import {
  RES_ALL,
  RES_DIRTY_LOG,
  RES_HOST,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../../kvm/actors/actor.ts';
import { writeGuest } from '../../../kvm/guest-memory.ts';
import { LOCK_MMU_WRITE } from '../../../kvm/locks.ts';
import { beginPageFault, endPageFault } from '../../../kvm/mmu/do-page-fault.ts';
import { gpaToGfn } from '../../../kvm/mmu/gpa.ts';
import { gvaToGpa } from '../../../kvm/mmu/guest-walk.ts';
import { mmuInvlpg } from '../../../kvm/mmu/invlpg.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { isObsoleteSp, rootToSp } from '../../../kvm/mmu/obsolete.ts';
import { reservedBitFault } from '../../../kvm/mmu/page-fault.ts';
import type { FaultRecorder } from '../../../kvm/mmu/recorder.ts';
import {
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_INVALID,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
  RET_PF_WRITE_PROTECTED,
  retPfName,
} from '../../../kvm/mmu/ret-pf.ts';
import type { FaultStage } from '../../../kvm/mmu/revisions/revision.ts';
import { mmuReload } from '../../../kvm/mmu/roots.ts';
import { makeMmuPagesAvailable, topupShadowPages } from '../../../kvm/mmu/shadow/recycle.ts';
import { mmuTrackWrite } from '../../../kvm/mmu/shadow/track-write.ts';
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
import type { GuestOp, GuestSpec } from '../shadow-scene.ts';
import { STAGE_RESOURCES } from './stage-resources.ts';
import type { ShadowState } from './state.ts';
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
  PHASE_NAMES,
  PHASE_STAGE,
  PHASE_TRACK,
} from './vcpu-phase.ts';
import { changedShadowVcpu, loadShadowVcpu, SHADOW_VCPU_WORDS, saveShadowVcpu } from './vcpu-words.ts';

const FLUSH_REQUESTS = REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT | REQ_TLB_FLUSH_GUEST;
const ENTRY_BYTES = 8;

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
  private readonly buffer = new Uint8Array(ENTRY_BYTES);

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
    if (phase === PHASE_EMULATE) return this.state.without('track-after-write') ? LOCK_MMU_WRITE : 0;
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
    if (phase >= PHASE_STAGE) this.stage(phase - PHASE_STAGE);
    else if (phase === PHASE_GUEST) this.inGuest(choice);
    else if (phase === PHASE_ENTER) this.enter();
    else if (phase === PHASE_CODE) this.errorCode();
    else if (phase === PHASE_BEGIN) this.begin();
    else if (phase === PHASE_EMULATE) this.emulate();
    else if (phase === PHASE_TRACK) this.track();
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

  private opDone(): void {
    this.op++;
    if (!this.vcpu.inGuest) this.setSrcu(0);
    if (this.op < this.ops.length) this.phase = this.vcpu.inGuest ? PHASE_GUEST : PHASE_ENTER;
    else this.phase = this.vcpu.inGuest ? PHASE_IDLE : PHASE_DONE;
  }

  private leave(): void {
    this.vcpu.inGuest = false;
    this.phase = PHASE_DONE;
  }

  /** @kvm mmu.c kvm_mmu_page_fault, up to kvm_mmu_do_page_fault */
  private errorCode(): void {
    let ret = RET_PF_INVALID;
    const { addrLo, addrHi } = this;
    if ((this.errorLo & PFERR_RSVD) !== 0) ret = reservedBitFault(this.vcpu, addrLo, addrHi, this.errorLo, 0, false);
    if (ret === RET_PF_INVALID) this.phase = PHASE_BEGIN;
    else this.verdict(ret);
  }

  get addrLo(): number {
    return (this.page * 4096) | 0;
  }

  get addrHi(): number {
    return Math.floor(this.page / 0x100000);
  }

  private begin(): void {
    beginPageFault(this.vcpu, this.addrLo, this.addrHi, this.errorLo, 0, false);
    this.recorder?.begin(this.vcpu.mmu.fault);
    this.phase = PHASE_STAGE;
  }

  private stage(n: number): void {
    if (n >= this.lockAt) {
      this.underLock(n);
      return;
    }
    const ret = this.runStage(n);
    if (ret !== RET_PF_CONTINUE) this.decided(ret);
    else this.phase = PHASE_STAGE + n + 1;
  }

  private runStage(n: number): number {
    const { vcpu } = this;
    const stage = this.stages[n]!;
    const ret = stage.run(vcpu, vcpu.mmu.fault);
    this.recorder?.stage(stage.name, ret, stage.explain(vcpu, vcpu.mmu.fault, ret));
    return ret;
  }

  /** From mmu_lock on, in one step: who must flush for it waits within (@kvm paging_tmpl.h FNAME(page_fault)). */
  private underLock(first: number): void {
    const { vm, stages, state } = this;
    vm.locks.acquire(LOCK_MMU_WRITE);
    if (state.without('gpte-recheck')) state.guest.reread(this.vcpu.mmu.faultWalker);
    let ret = topupShadowPages(vm);
    if (ret === 0 && vm.revision.rules.roomBeforeStale) ret = makeMmuPagesAvailable(vm);
    for (let n = first; n < stages.length && ret === RET_PF_CONTINUE; n++) ret = this.runStage(n);
    vm.locks.release(LOCK_MMU_WRITE);
    if (ret === RET_PF_CONTINUE) throw new Error(`no stage of ${vm.revision.name} decided the fault`);
    this.decided(ret);
  }

  private decided(stagesSay: number): void {
    const { vcpu } = this;
    const ret = endPageFault(vcpu, stagesSay);
    this.recorder?.end(vcpu.mmu.fault, ret);
    vcpu.mmu.fault.writeFaultToShadowPgtable = false;
    if (vcpu.x86.exception.pending) {
      vcpu.x86.exception.pending = false;
      vcpu.requests &= ~REQ_EVENT_BIT;
      this.note = '#PF for the guest';
      this.opDone();
      return;
    }
    this.verdict(ret);
  }

  private verdict(ret: number): void {
    this.note = retPfName(ret);
    if (ret === RET_PF_EMULATE || ret === RET_PF_WRITE_PROTECTED) this.phase = PHASE_EMULATE;
    else if (ret === RET_PF_RETRY || ret === RET_PF_FIXED || ret === RET_PF_SPURIOUS) this.phase = PHASE_ENTER;
    else this.opDone();
  }

  /** The emulator translates by itself, and writes memory through the slot; reads, and MMIO, change nothing here. */
  private emulate(): void {
    const { vcpu, state } = this;
    const op = this.current;
    const gpa = gvaToGpa(vcpu, this.addrLo, this.addrHi, PFERR_USER | (isWrite(op) ? PFERR_WRITE : 0), 0, null);
    if (gpa < 0 || op.kind === 'read' || op.kind === 'fetch' || state.slotOf(vcpu, gpaToGfn(gpa)) === null) {
      this.opDone();
      return;
    }
    this.emulatedGpa = gpa + (op.kind === 'store' ? op.index * ENTRY_BYTES : 4096 - ENTRY_BYTES);
    if (state.without('track-after-write')) mmuTrackWrite(vcpu, this.emulatedGpa, ENTRY_BYTES);
    else this.emulatedWrite();
    this.phase = PHASE_TRACK;
  }

  private emulatedWrite(): void {
    const { vcpu, state, buffer } = this;
    const op = this.current;
    if (op.kind !== 'store') return;
    new DataView(buffer.buffer).setUint32(0, op.value % 0x1_0000_0000, true);
    new DataView(buffer.buffer).setUint32(4, Math.floor(op.value / 0x1_0000_0000), true);
    state.changesGuest(() => {
      writeGuest(vcpu, this.emulatedGpa, buffer, 0, ENTRY_BYTES);
    });
  }

  /** @kvm mmu.c kvm_mmu_track_write */
  private track(): void {
    const { state, vcpu } = this;
    if (state.without('track-after-write')) this.emulatedWrite();
    else if (!state.without('track-write')) mmuTrackWrite(vcpu, this.emulatedGpa, ENTRY_BYTES);
    this.emulatedGpa = -1;
    this.opDone();
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
    const { phase, state } = this;
    let reads = RES_ALL;
    let writes = RES_ALL;
    if (phase >= PHASE_STAGE && phase - PHASE_STAGE < this.lockAt) {
      const known = STAGE_RESOURCES[this.stages[phase - PHASE_STAGE]!.name];
      reads = known === undefined ? RES_ALL : known[0];
      writes = known === undefined ? RES_ALL : known[1];
      if (this.stages[phase - PHASE_STAGE]!.name === 'guest-walk' && this.takes() !== 0) writes = LOCKED_WRITES;
    } else if (phase === PHASE_BEGIN) {
      reads = 0;
      writes = 0;
    } else if (phase === PHASE_CODE) {
      reads = RES_TABLES | RES_SLOTS;
      writes = 0;
    } else if (phase === PHASE_GUEST) {
      reads = RES_TABLES | RES_REQUESTS | RES_HOST;
      writes = RES_TABLES | RES_HOST | RES_REQUESTS | RES_DIRTY_LOG;
    } else {
      writes = LOCKED_WRITES;
    }
    if (phase !== PHASE_BEGIN) writes |= RES_SRCU;
    state.reads = reads;
    state.writes = writes | (writes === 0 ? 0 : state.guestBits);
  }

  restResources(): void {
    const { state } = this;
    state.reads = this.finished ? 0 : RES_ALL;
    state.writes = this.finished ? 0 : RES_ALL & ~(RES_SLOTS | RES_SEQUENCE);
    if (!this.finished) state.writes |= state.guestBits;
  }

  changed(a: Int32Array, b: Int32Array, at: number, own: boolean): number {
    return changedShadowVcpu(this, a, b, at, own);
  }

  stageName(): string {
    const { phase } = this;
    if (phase >= PHASE_STAGE) {
      const n = phase - PHASE_STAGE;
      return n >= this.lockAt ? 'under mmu_lock: stale check and fetch' : this.stages[n]!.name;
    }
    if (phase === PHASE_GUEST) return `guest: ${opText(this.current)}`;
    return PHASE_NAMES[phase]!;
  }

  describe(): string {
    const { vcpu, phase, state } = this;
    const where = vcpu.inGuest ? 'in the guest' : phase === PHASE_DONE ? 'done' : `at ${this.stageName()}`;
    const tlb = state.linearPages
      .map((page, p) => [page, this.tlb[p]!] as const)
      .filter(([, word]) => word !== 0)
      .map(
        ([page, word]) =>
          `0x${page.toString(16)} -> 0x${tlbFrame(word).toString(16)}${(word & TLB_WRITE) !== 0 ? ' W' : ''}`,
      );
    const asked = vcpu.requests === 0 ? '' : `, requests 0x${vcpu.requests.toString(16)}`;
    const { fault } = vcpu.mmu;
    const pf = phase < PHASE_STAGE || fault.pfn < 0 ? '' : `, fault with frame 0x${fault.pfn.toString(16)}`;
    return `${this.name} ${where}${pf}${asked}, CR3 gfn 0x${this.cr3.toString(16)}, TLB: ${tlb.length === 0 ? 'empty' : tlb.join(', ')}`;
  }
}

const REQ_EVENT_BIT = 1 << 7;
const LOCKED_WRITES = RES_TABLES | RES_ROOTS | RES_REQUESTS | RES_HOST | RES_DIRTY_LOG | RES_SRCU;

function obsolete(vm: VmState, pfn: number): boolean {
  if (pfn === INVALID_ROOT) return false;
  const sp = rootToSp(vm, pfn);
  return sp === null || isObsoleteSp(vm, sp);
}

export function isWrite(op: GuestOp): boolean {
  return op.kind === 'write' || op.kind === 'store';
}

function opText(op: GuestOp): string {
  if (op.kind === 'load-cr3') return `load CR3 with gfn 0x${op.gfn.toString(16)}`;
  const at = `page 0x${op.page.toString(16)}`;
  return op.kind === 'store' ? `write entry ${op.index} in ${at}: 0x${op.value.toString(16)}` : `${op.kind} ${at}`;
}
