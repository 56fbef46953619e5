/** TD entries, and what becomes of the exits (@kvm tdx.c tdx_vcpu_run, tdx_handle_exit, tdx_handle_ept_violation). */
import {
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_PROT_MASK,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../../arch/ept-qualification.ts';
import {
  PFERR_FETCH,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_USER,
  PFERR_WRITE,
} from '../../../arch/error-code.ts';
import { hex64 } from '../../../arch/flags.ts';
import { R8, R9, RCX, RDX } from '../../../arch/registers.ts';
import * as T from '../../../arch/tdx.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import { EINVAL, EIO } from '../../../host/errno.ts';
import {
  KVM_EXIT_INTERNAL_ERROR,
  KVM_EXIT_SHUTDOWN,
  KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
} from '../../kvm-run.ts';
import { mmuPageFault } from '../../mmu/page-fault.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { ExitInfo } from '../../vendor-ops.ts';
import { emulateHaltNoskip } from '../../x86/instructions.ts';
import { traceKvmExit } from '../../x86/trace-exit.ts';
import * as V from './tdvmcall.ts';
import { TD_STATE_RUNNABLE, VCPU_TD_STATE_INITIALIZED } from './vm-tdx.ts';

/** 1, or -EINVAL while the TD or the vCPU is not finished. @kvm tdx.c tdx_vcpu_pre_run */
export function tdxVcpuPreRun(vcpu: VcpuState): number {
  const ready = vcpu.tdx!.state === VCPU_TD_STATE_INITIALIZED && vcpu.vm.tdx!.state === TD_STATE_RUNNABLE;
  return ready ? 1 : -EINVAL;
}

/** @kvm tdx.c tdx_to_vmx_exit_reason */
function toVmxExitReason(vcpu: VcpuState, status: number): number {
  const code = T.tdxCode(status);
  if (code !== T.TDX_SUCCESS && code !== T.TDX_NON_RECOVERABLE_VCPU && code !== T.TDX_NON_RECOVERABLE_TD) return -1;
  const reason = T.tdxDetail(status);
  if (reason === R.EXIT_REASON_TDCALL) return V.tdcallToExitReason(vcpu);
  return reason === R.EXIT_REASON_EPT_MISCONFIG ? -1 : reason;
}

/** @kvm tdx.c tdx_vcpu_run */
export function tdxVcpuRun(vcpu: VcpuState, forceImmediateExit: boolean): void {
  const { vm } = vcpu;
  const vp = vcpu.tdx!;
  vm.log.warnOnOnce(forceImmediateExit, 'tdx_vcpu_run', 'an immediate exit of a TD');
  if (vm.trace.enabled) vm.trace.emit('kvm_entry', { vcpu: vcpu.id, rip: '0x0' });
  vm.processor.setBudget(vcpu.x86.quantum);
  vp.enterRet = vm.processor.tdx.vpEnter(vp.tdvpr * 4096, vp.enterArgs);
  vp.exitReason = toVmxExitReason(vcpu, vp.enterRet);
  if (vm.trace.enabled) traceKvmExit(vcpu);
}

const exitInfo: ExitInfo = {
  reason: 0,
  info1Lo: 0,
  info1Hi: 0,
  info2Lo: 0,
  info2Hi: 0,
  intrInfo: 0,
  errorCode: 0,
};

/** @kvm tdx.c tdx_get_exit_info */
export function tdxGetExitInfo(vcpu: VcpuState): ExitInfo {
  const { exitReason, enterArgs } = vcpu.tdx!;
  const known = exitReason !== -1;
  exitInfo.reason = exitReason;
  exitInfo.info1Lo = known ? enterArgs[2 * RCX]! : 0;
  exitInfo.info1Hi = known ? enterArgs[2 * RCX + 1]! : 0;
  exitInfo.info2Lo = known ? enterArgs[2 * RDX]! : 0;
  exitInfo.info2Hi = known ? enterArgs[2 * RDX + 1]! : 0;
  exitInfo.intrInfo = known ? enterArgs[2 * R9]! : 0;
  return exitInfo;
}

/** @kvm tdx.c tdx_handle_ept_violation */
function handleEptViolation(vcpu: VcpuState): number {
  const { vm } = vcpu;
  const args = vcpu.tdx!.enterArgs;
  const lo = args[2 * R8]!;
  const hi = args[2 * R8 + 1]!;
  const isPrivate = V.exitGpa(vcpu) < vm.mmu.gfnDirectBits * 4096;
  let qualification = args[2 * RCX]!;
  if (isPrivate) {
    if (unexpectedPending(vcpu)) {
      vm.log.prWarnRatelimited(
        'tdx_handle_ept_violation',
        `Guest access before accepting ${hex64(lo, hi)} on vCPU ${vcpu.id}`,
      );
      vm.log.vmBugged = true;
      return -EIO;
    }
    // Private pages are mapped with all rights, so that whatever it was, it is taken for a write.
    qualification = EPT_VIOLATION_WRITE;
  } else if (
    vm.log.kvmBugOn(
      (qualification & EPT_VIOLATION_FETCH) !== 0,
      'tdx_handle_ept_violation',
      'a fetch from shared memory',
    )
  ) {
    return -EIO;
  }
  if (vm.trace.enabled) {
    vm.trace.emit('kvm_page_fault', {
      vcpu: vcpu.id,
      rip: '0x0',
      address: hex64(lo, hi),
      error_code: hex64(qualification, 0),
    });
  }
  const error =
    (qualification & EPT_VIOLATION_READ ? PFERR_USER : 0) |
    (qualification & EPT_VIOLATION_WRITE ? PFERR_WRITE : 0) |
    (qualification & EPT_VIOLATION_FETCH ? PFERR_FETCH : 0) |
    (qualification & EPT_VIOLATION_PROT_MASK ? PFERR_PRESENT : 0);
  return mmuPageFault(vcpu, lo, hi, error, isPrivate ? PFERR_PRIVATE_ACCESS_HI : 0);
}

/** The guest touched a page that it has not accepted, and wanted no #VE for that. @kvm tdx.c tdx_is_sept_violation_unexpected_pending */
function unexpectedPending(vcpu: VcpuState): boolean {
  const args = vcpu.tdx!.enterArgs;
  return (args[2 * RDX]! & 0xf) === T.EXT_EXIT_QUAL_PENDING && (args[2 * RCX]! & EPT_VIOLATION_PROT_MASK) === 0;
}

/** @kvm tdx.c tdx_handle_exit: 1 resume, 0 to userspace, negative -errno */
export function tdxHandleExit(vcpu: VcpuState): number {
  const vp = vcpu.tdx!;
  const { vm } = vcpu;
  const reason = vp.exitReason;
  if (reason !== R.EXIT_REASON_EXTERNAL_INTERRUPT) vm.x86.idleTime += vm.x86.exitTime;
  const misconfig = T.tdxDetail(vp.enterRet) === R.EXIT_REASON_EPT_MISCONFIG;
  if (reason === -1 && vm.log.kvmBugOn(misconfig, 'tdx_handle_exit', 'a misconfigured shared EPT')) return -EIO;
  if (T.tdxCode(vp.enterRet) !== T.TDX_SUCCESS && reason !== R.EXIT_REASON_TRIPLE_FAULT) return unhandledExit(vcpu);
  switch (reason) {
    case R.EXIT_REASON_TRIPLE_FAULT:
      vcpu.run.exitReason = KVM_EXIT_SHUTDOWN;
      vcpu.x86.mmioNeeded = false;
      return 0;
    case R.EXIT_REASON_EXTERNAL_INTERRUPT:
      vcpu.stats.irq_exits++;
      return 1;
    case R.EXIT_REASON_EPT_VIOLATION:
      return handleEptViolation(vcpu);
    case R.EXIT_REASON_TDCALL:
      return V.handleTdvmcall(vcpu);
    case R.EXIT_REASON_VMCALL:
      return V.tdxEmulateVmcall(vcpu);
    case R.EXIT_REASON_CPUID:
      return V.tdxEmulateCpuid(vcpu);
    case R.EXIT_REASON_HLT:
      vp.enterArgs.fill(0, 20, 22);
      return emulateHaltNoskip(vcpu);
    case R.EXIT_REASON_IO_INSTRUCTION:
      return V.tdxEmulateIo(vcpu);
    case R.EXIT_REASON_MSR_READ:
      return V.tdxEmulateRdmsr(vcpu);
    case R.EXIT_REASON_MSR_WRITE:
      return V.tdxEmulateWrmsr(vcpu);
    case R.EXIT_REASON_EPT_MISCONFIG:
      return V.tdxEmulateMmio(vcpu);
    default:
      return unhandledExit(vcpu);
  }
}

function unhandledExit(vcpu: VcpuState): number {
  const { run } = vcpu;
  const { enterRet } = vcpu.tdx!;
  vcpu.vm.log.prWarnRatelimited('tdx_handle_exit', `TD vp_enter_ret ${T.tdxStatusText(enterRet)}`);
  run.exitReason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
  run.internal.ndata = 2;
  run.internal.setData(0, T.tdxDetail(enterRet), T.tdxCode(enterRet) | 0);
  run.internal.setData(1, 0, 0);
  return 0;
}
