/** The steps of a fault under shadow paging: the stages of the revision, and the emulation that may follow. */
import { PFERR_RSVD, PFERR_USER, PFERR_WRITE } from '../../../arch/error-code.ts';
import { writeGuest } from '../../../kvm/guest-memory.ts';
import { LOCK_MMU_WRITE } from '../../../kvm/locks.ts';
import { beginPageFault, endPageFault } from '../../../kvm/mmu/do-page-fault.ts';
import { gpaToGfn } from '../../../kvm/mmu/gpa.ts';
import { gvaToGpa } from '../../../kvm/mmu/guest-walk.ts';
import { reservedBitFault } from '../../../kvm/mmu/page-fault.ts';
import { RET_PF_CONTINUE, RET_PF_INVALID } from '../../../kvm/mmu/ret-pf.ts';
import { makeMmuPagesAvailable, topupShadowPages } from '../../../kvm/mmu/shadow/recycle.ts';
import { mmuTrackWrite } from '../../../kvm/mmu/shadow/track-write.ts';
import { mmuUnprotectGfnAndRetry } from '../../../kvm/mmu/shadow/unprotect.ts';
import { REQ_EVENT } from '../../../kvm/vcpu-state.ts';
import { isWrite } from '../shadow-scene.ts';
import type { ShadowVcpu } from './vcpu.ts';
import { PHASE_BEGIN, PHASE_ENTER, PHASE_STAGE, PHASE_TRACK } from './vcpu-phase.ts';

const ENTRY_BYTES = 8;
const buffer = new Uint8Array(ENTRY_BYTES);
const view = new DataView(buffer.buffer);

/** @kvm mmu.c kvm_mmu_page_fault, up to kvm_mmu_do_page_fault */
export function faultErrorCode(v: ShadowVcpu): void {
  let ret = RET_PF_INVALID;
  const { addrLo, addrHi } = v;
  if ((v.errorLo & PFERR_RSVD) !== 0) ret = reservedBitFault(v.vcpu, addrLo, addrHi, v.errorLo, 0, false);
  if (ret === RET_PF_INVALID) v.phase = PHASE_BEGIN;
  else v.verdict(ret);
}

export function beginFault(v: ShadowVcpu): void {
  beginPageFault(v.vcpu, v.addrLo, v.addrHi, v.errorLo, 0, false);
  v.recorder?.begin(v.vcpu.mmu.fault);
  v.phase = PHASE_STAGE;
}

export function faultStage(v: ShadowVcpu, n: number): void {
  if (n >= v.lockAt) {
    underLock(v, n);
    return;
  }
  const ret = runStage(v, n);
  if (ret !== RET_PF_CONTINUE) decided(v, ret);
  else v.phase = PHASE_STAGE + n + 1;
}

function runStage(v: ShadowVcpu, n: number): number {
  const { vcpu } = v;
  const stage = v.stages[n]!;
  const ret = stage.run(vcpu, vcpu.mmu.fault);
  v.recorder?.stage(stage.name, ret, stage.explain(vcpu, vcpu.mmu.fault, ret));
  return ret;
}

/** From mmu_lock on, in one step: who must flush for it waits within (@kvm paging_tmpl.h FNAME(page_fault)). */
function underLock(v: ShadowVcpu, first: number): void {
  const { vm, stages, state } = v;
  vm.locks.acquire(LOCK_MMU_WRITE);
  if (state.without('gpte-recheck')) state.guest.reread(v.vcpu.mmu.faultWalker);
  let ret = topupShadowPages(vm);
  if (ret === 0 && vm.revision.rules.roomBeforeStale) ret = makeMmuPagesAvailable(vm);
  for (let n = first; n < stages.length && ret === RET_PF_CONTINUE; n++) ret = runStage(v, n);
  vm.locks.release(LOCK_MMU_WRITE);
  if (ret === RET_PF_CONTINUE) throw new Error(`no stage of ${vm.revision.name} decided the fault`);
  decided(v, ret);
}

function decided(v: ShadowVcpu, stagesSay: number): void {
  const { vcpu } = v;
  const ret = endPageFault(vcpu, stagesSay);
  v.recorder?.end(vcpu.mmu.fault, ret);
  vcpu.mmu.fault.writeFaultToShadowPgtable = false;
  if (vcpu.x86.exception.pending) {
    vcpu.x86.exception.pending = false;
    vcpu.requests &= ~REQ_EVENT;
    v.note = '#PF for the guest';
    v.opDone();
    return;
  }
  v.verdict(ret);
}

/**
 * A write that is no write of an entry would be tried natively once more, without the shadows of what is in the page; not the second time in a
 * row. True when it is (@kvm x86.c retry_instruction).
 */
function retriesNatively(v: ShadowVcpu): boolean {
  if (v.current.kind !== 'write' || (v.retried && !v.state.without('retry-guard'))) return false;
  if (!mmuUnprotectGfnAndRetry(v.vcpu, v.addrLo, v.addrHi)) return false;
  v.retried = true;
  v.phase = PHASE_ENTER;
  v.note = 'shadows dropped: try again';
  return true;
}

/** The emulator translates by itself, and writes memory through the slot; reads, and MMIO, change nothing here. */
export function emulateAccess(v: ShadowVcpu): void {
  const { vcpu, state } = v;
  const op = v.current;
  if (retriesNatively(v)) return;
  const gpa = gvaToGpa(vcpu, v.addrLo, v.addrHi, PFERR_USER | (isWrite(op) ? PFERR_WRITE : 0), 0, null);
  if (gpa < 0 || op.kind === 'read' || op.kind === 'fetch' || state.slotOf(vcpu, gpaToGfn(gpa)) === null) {
    v.opDone();
    return;
  }
  v.emulatedGpa = gpa + (op.kind === 'store' ? op.index * ENTRY_BYTES : 4096 - ENTRY_BYTES);
  if (state.without('track-after-write')) mmuTrackWrite(vcpu, v.emulatedGpa, ENTRY_BYTES);
  else emulatedWrite(v);
  v.phase = PHASE_TRACK;
}

function emulatedWrite(v: ShadowVcpu): void {
  const { vcpu, state } = v;
  const op = v.current;
  if (op.kind !== 'store') return;
  view.setUint32(0, op.value % 0x1_0000_0000, true);
  view.setUint32(4, Math.floor(op.value / 0x1_0000_0000), true);
  state.changesGuest(() => {
    writeGuest(vcpu, v.emulatedGpa, buffer, 0, ENTRY_BYTES);
  });
}

/** @kvm mmu.c kvm_mmu_track_write */
export function trackEmulatedWrite(v: ShadowVcpu): void {
  const { state, vcpu } = v;
  if (state.without('track-after-write')) emulatedWrite(v);
  else if (!state.without('track-write')) mmuTrackWrite(vcpu, v.emulatedGpa, ENTRY_BYTES);
  v.emulatedGpa = -1;
  v.opDone();
}
