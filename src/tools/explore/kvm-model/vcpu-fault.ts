/** The steps of a vCPU's fault: the stages of the revision, and where a stage takes several steps, those. */
import { PFERR_PRIVATE_ACCESS_HI, PFERR_RSVD } from '../../../arch/error-code.ts';
import { hiOf, loOf } from '../../../arch/halves.ts';
import { memIsPrivate } from '../../../kvm/attributes.ts';
import { LOCK_MMU_READ } from '../../../kvm/locks.ts';
import { beginPageFault, endPageFault } from '../../../kvm/mmu/do-page-fault.ts';
import {
  fastPageFaultDirty,
  fastPageFaultExchange,
  fastPageFaultWants,
  pageFaultCanBeFast,
} from '../../../kvm/mmu/fast-page-fault.ts';
import { reservedBitFault, withPrivateAccess } from '../../../kvm/mmu/page-fault.ts';
import { RET_PF_CONTINUE, RET_PF_FIXED, RET_PF_INVALID } from '../../../kvm/mmu/ret-pf.ts';
import { mapBegin, mapInstall, mapWalk } from '../../../kvm/mmu/tdp-mmu/map.ts';
import { walkToLastSpte } from '../../../kvm/mmu/tdp-mmu/walk.ts';
import type { SteppedMap } from '../scene.ts';
import type { SceneVcpu } from './vcpu.ts';
import {
  PHASE_BEGIN,
  PHASE_FAST_DIRTY,
  PHASE_FAST_EXCHANGE,
  PHASE_INSTALL,
  PHASE_STAGE,
  PHASE_WALK,
} from './vcpu-phase.ts';

/** @kvm mmu.c kvm_mmu_page_fault, up to kvm_mmu_do_page_fault */
export function faultErrorCode(v: SceneVcpu): void {
  const { vcpu, vm } = v;
  const gpa = v.current.gfn * 4096;
  const lo = loOf(gpa);
  const hi = hiOf(gpa);
  const { kind } = v.current;
  if (kind === 'pre-fault') {
    // The attribute, whatever the VM's type (@kvm mmu.c kvm_arch_vcpu_pre_fault_memory).
    if (memIsPrivate(vm, v.current.gfn)) v.errorHi |= PFERR_PRIVATE_ACCESS_HI;
    v.phase = PHASE_BEGIN;
    return;
  }
  if (kind === 'page-ready') {
    v.phase = PHASE_BEGIN;
    return;
  }
  v.errorHi = withPrivateAccess(vcpu, lo, hi, v.errorLo, v.errorHi);
  let ret = RET_PF_INVALID;
  if ((v.errorLo & PFERR_RSVD) !== 0) ret = reservedBitFault(vcpu, lo, hi, v.errorLo, v.errorHi, true);
  if (ret === RET_PF_INVALID) v.phase = PHASE_BEGIN;
  else v.verdict(ret);
}

export function beginFault(v: SceneVcpu): void {
  const { kind, gfn } = v.current;
  const gpa = gfn * 4096;
  const prefetch = kind === 'pre-fault' || kind === 'page-ready';
  beginPageFault(v.vcpu, loOf(gpa), hiOf(gpa), v.errorLo, v.errorHi, prefetch);
  v.recorder?.begin(v.vcpu.mmu.fault);
  v.phase = PHASE_STAGE;
}

export function faultStage(v: SceneVcpu, n: number): void {
  const { vcpu, vm } = v;
  const stage = v.stages[n]!;
  if (stage.underMmuLock && (vm.locks.held & LOCK_MMU_READ) === 0) vm.locks.acquire(LOCK_MMU_READ);
  if (n === v.mapAt && stage.name === 'map') {
    mapBegin(vcpu, vcpu.mmu.fault);
    afterWalk(v, mapWalk(vcpu, vcpu.mmu.fault));
    return;
  }
  if (stage.name === 'fast-path' && pageFaultCanBeFast(vm, vcpu.mmu.fault)) {
    const found = fastPageFaultWants(vcpu, vcpu.mmu.fault, walkToLastSpte(vcpu, vcpu.mmu.fault.gfn));
    if (found === RET_PF_CONTINUE) v.phase = PHASE_FAST_EXCHANGE;
    else {
      recordStage(v, n, found === RET_PF_INVALID ? RET_PF_CONTINUE : found);
      if (found === RET_PF_INVALID) v.phase = PHASE_STAGE + n + 1;
      else decided(v, found);
    }
    return;
  }
  const seq = vm.mmuInvalidateSeq;
  const ret = stage.run(vcpu, vcpu.mmu.fault);
  if (vm.mmuInvalidateSeq !== seq) v.state.deliverRequests(v);
  v.recorder?.stage(stage.name, ret, stage.explain(vcpu, vcpu.mmu.fault, ret));
  if (ret !== RET_PF_CONTINUE) decided(v, ret);
  else if (n === v.mapAt) throw new Error(`no stage of ${vm.revision.name} decided the fault`);
  else v.phase = PHASE_STAGE + n + 1;
}

/** When the entry has changed, the fast path looks again. */
export function fastExchange(v: SceneVcpu): void {
  const done = fastPageFaultExchange(v.vcpu, v.vcpu.mmu.fault, v.iter);
  v.phase = done ? PHASE_FAST_DIRTY : PHASE_STAGE + v.fastAt;
}

export function fastDirty(v: SceneVcpu): void {
  fastPageFaultDirty(v.vcpu, v.vcpu.mmu.fault, v.iter);
  recordStage(v, v.fastAt, RET_PF_FIXED);
  decided(v, RET_PF_FIXED);
}

export function walkForMap(v: SceneVcpu): void {
  afterWalk(v, mapWalk(v.vcpu, v.vcpu.mmu.fault));
}

function afterWalk(v: SceneVcpu, ret: number): void {
  if (ret === RET_PF_CONTINUE) v.phase = PHASE_INSTALL;
  else mapped(v, ret);
}

export function installEntry(v: SceneVcpu): void {
  const { install = mapInstall } = v.stages[v.mapAt] as Partial<SteppedMap>;
  const ret = install(v.vcpu, v.vcpu.mmu.fault);
  if (ret === RET_PF_CONTINUE) v.phase = PHASE_WALK;
  else mapped(v, ret);
}

function mapped(v: SceneVcpu, ret: number): void {
  recordStage(v, v.mapAt, ret);
  decided(v, ret);
}

/** Says what a stage that takes several steps has come to. */
function recordStage(v: SceneVcpu, n: number, ret: number): void {
  const stage = v.stages[n]!;
  v.recorder?.stage(stage.name, ret, stage.explain(v.vcpu, v.vcpu.mmu.fault, ret));
}

/** The stages have an answer: mmu_lock is dropped. */
function decided(v: SceneVcpu, stagesSay: number): void {
  const { vcpu, vm } = v;
  if ((vm.locks.held & LOCK_MMU_READ) !== 0) vm.locks.release(LOCK_MMU_READ);
  const ret = endPageFault(vcpu, stagesSay);
  v.recorder?.end(vcpu.mmu.fault, ret);
  v.verdict(ret);
}
