/** One fault through the stages of the VM's revision (@kvm mmu_internal.h kvm_mmu_do_page_fault). */
import { PG_LEVEL_2M } from '../../arch/paging.ts';
import { EFAULT } from '../../host/errno.ts';
import { memIsPrivate } from '../attributes.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../locks.ts';
import { vcpuGfnToMemslot } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { unaliasedGfn } from './direct-bits.ts';
import type { PageFault } from './fault.ts';
import { prepareMmuMemoryFaultExit } from './memory-fault.ts';
import type { FaultRecorder } from './recorder.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE, RET_PF_WRITE_PROTECTED } from './ret-pf.ts';
import type { FaultStage } from './revisions/revision.ts';
import { ROLE_DIRECT } from './role.ts';
import { makeMmuPagesAvailable, topupShadowPages } from './shadow/recycle.ts';
import { guestWalk } from './stages/guest-walk.ts';

/** 0, -ENOMEM or -ENOSPC. */
function roomForShadowPages(vm: VmState): number {
  const r = topupShadowPages(vm);
  return r === 0 && vm.revision.rules.roomBeforeStale ? makeMmuPagesAvailable(vm) : r;
}

/** Before it was a verdict of its own, write protection was one more reason to emulate. */
function verdictOf(vm: VmState, ret: number): number {
  return ret === RET_PF_WRITE_PROTECTED && !vm.revision.rules.writeProtectedVerdict ? RET_PF_EMULATE : ret;
}

/** One stage, and what the recorder is told of it. HOT */
function runStage(vcpu: VcpuState, fault: PageFault, stage: FaultStage, recorder: FaultRecorder | null): number {
  const ret = stage.run(vcpu, fault);
  if (recorder !== null) {
    const verdict = verdictOf(vcpu.vm, ret);
    recorder.stage(stage.name, verdict, stage.explain(vcpu, fault, verdict));
  }
  return ret;
}

/** Runs the stages until one decides. HOT */
function runStages(vcpu: VcpuState, fault: PageFault): number {
  const vm = vcpu.vm;
  const { stages } = vm.revision;
  const recorder = vm.mmu.recorder;
  let ret = RET_PF_CONTINUE;
  // In the TDP MMU there is nothing to walk, and without a recorder nothing to say of it.
  let i = fault.inTdpMmu && recorder === null && stages[0] === guestWalk ? 1 : 0;
  for (; i < stages.length && !stages[i]!.underMmuLock; i++) {
    ret = runStage(vcpu, fault, stages[i]!, recorder);
    if (ret !== RET_PF_CONTINUE) return ret;
  }
  const lock = fault.inTdpMmu ? LOCK_MMU_READ : LOCK_MMU_WRITE;
  vm.locks.acquire(lock);
  // The shadow MMU keeps to its limit of pages: first there must be room for those that the fault may need.
  if (lock === LOCK_MMU_WRITE) ret = roomForShadowPages(vm);
  for (; i < stages.length && ret === RET_PF_CONTINUE; i++) ret = runStage(vcpu, fault, stages[i]!, recorder);
  vm.locks.release(lock);
  if (ret === RET_PF_CONTINUE) throw new Error(`no stage of ${vm.revision.name} decided the fault`);
  return ret;
}

/** Makes the vCPU's fault object for a fault at (addrLo, addrHi), up to the slot it falls on. HOT @kvm mmu_internal.h kvm_mmu_do_page_fault */
export function beginPageFault(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
  prefetch: boolean,
): void {
  const vm = vcpu.vm;
  const fault = vcpu.mmu.fault;
  const { rules } = vm.revision;
  fault.reset(addrLo, addrHi, errorLo, rules.fullErrorCode ? errorHi : 0, prefetch, rules.faultStartsWithErrors);
  if (!rules.privateInErrorCode) fault.isPrivate = memIsPrivate(vm, fault.gfn);
  const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
  if (vm.mmu.gfnDirectBits !== 0) fault.gfn = unaliasedGfn(vm, fault.gfn);
  fault.isTdp = direct && vm.vendor.tdpEnabled;
  fault.inTdpMmu = direct && vm.mmu.tdpMmuEnabled;
  fault.nxHugePageWorkaroundEnabled = vm.mmu.nxHugePages;
  if (direct) fault.slot = vcpuGfnToMemslot(vcpu, fault.gfn);
  // A guest without paging runs on PAE tables, which have nothing larger.
  if (direct && !fault.isTdp) fault.maxLevel = PG_LEVEL_2M;
}

/** What becomes of the stages' verdict: emulation never touches private memory. @kvm mmu_internal.h kvm_mmu_do_page_fault */
export function endPageFault(vcpu: VcpuState, ret: number): number {
  const vm = vcpu.vm;
  const { fault } = vcpu.mmu;
  const { rules } = vm.revision;
  if (ret !== RET_PF_EMULATE || !fault.isPrivate || !rules.privateEmulationExits) return ret;
  if (rules.privateEmulationWarns) {
    vm.log.prWarnRatelimited('kvm_mmu_do_page_fault', 'kvm: unexpected emulation request on private memory');
  }
  prepareMmuMemoryFaultExit(vcpu, fault);
  return -EFAULT;
}

/**
 * Handles a fault at (addrLo, addrHi), a gpa in a direct MMU. The vCPU's fault object keeps what was found (goalLevel among it).
 * @returns RET_PF_* or a negative errno
 * HOT
 * @kvm mmu_internal.h kvm_mmu_do_page_fault
 */
export function mmuDoPageFault(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
  prefetch: boolean,
): number {
  beginPageFault(vcpu, addrLo, addrHi, errorLo, errorHi, prefetch);
  const fault = vcpu.mmu.fault;
  const recorder = vcpu.vm.mmu.recorder;
  if (recorder !== null && !vcpu.mmu.faultBegun) recorder.begin(fault);
  vcpu.mmu.faultBegun = false;
  const ret = endPageFault(vcpu, verdictOf(vcpu.vm, runStages(vcpu, fault)));
  if (recorder !== null) recorder.end(fault, ret);
  return ret;
}
