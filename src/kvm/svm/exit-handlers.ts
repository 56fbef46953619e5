/** What KVM does about each #VMEXIT (@kvm svm.c svm_exit_handlers, svm_handle_exit). */
import { DR6_ACTIVE_LOW } from '../../arch/debug-registers.ts';
import { AC_VECTOR, BP_VECTOR, DB_VECTOR, GP_VECTOR, MC_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { RIP } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import {
  KVM_EXIT_DEBUG,
  KVM_EXIT_FAIL_ENTRY,
  KVM_EXIT_INTERNAL_ERROR,
  KVM_EXIT_SET_TPR,
  KVM_EXIT_SHUTDOWN,
  KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
} from '../kvm-run.ts';
import { handlePageFault } from '../mmu/handle-page-fault.ts';
import { mmuInvlpg } from '../mmu/invlpg.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { getCr8 } from '../x86/control-registers.ts';
import { emulateCpuid } from '../x86/cpuid.ts';
import { X86_FEATURE_INVPCID } from '../x86/cpuid-features.ts';
import { vcpuReset } from '../x86/create.ts';
import { KVM_DEBUGREG_WONT_EXIT } from '../x86/debug-registers.ts';
import { emulateInstruction, emulateInstructionFromBuffer } from '../x86/emulate-instruction.ts';
import { queueException, queueExceptionE, queueExceptionP } from '../x86/exceptions.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP } from '../x86/guest-debug-bits.ts';
import { handleUd } from '../x86/handle-ud.ts';
import { emulateHypercall } from '../x86/hypercall.ts';
import { emulateHalt, emulateMonitorMwait, emulateRdpmc, emulateXsetbv } from '../x86/instructions.ts';
import { handleInvpcid } from '../x86/invpcid.ts';
import { emulateRdmsr, emulateWrmsr } from '../x86/msr-instructions.ts';
import { fastPio } from '../x86/pio.ts';
import { vcpuOnSpin } from '../x86/scheduling.ts';
import { skipEmulatedInstruction } from '../x86/skip.ts';
import { smmChanged } from '../x86/smm.ts';
import { taskSwitch } from '../x86/task-switch.ts';
import { traceKvmExit } from '../x86/trace-exit.ts';
import { disableNmiSinglestep } from './events.ts';
import { clrDrIntercepts } from './init-vmcb.ts';
import { NESTED_EXIT_CONTINUE, NESTED_EXIT_DONE, nestedExitHandled, nestedExitSpecial } from './nested-exits.ts';
import { gpInterception, svmInstruction } from './nested-instructions.ts';
import { handleNpf } from './npf.ts';
import { sevHandleVmgexit } from './sev/vmgexit.ts';
import { svmClearVintr } from './vintr.ts';
import { clrIntercept, isIntercept, vmcbRead } from './vmcb-access.ts';

/** The bytes of RSM: its exit does not depend on how it got there. */
const RSM = new Uint8Array([0x0f, 0xaa]);

/** @kvm svm.c npf_interception. HOT */
function npfInterception(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  return handleNpf(
    vcpu,
    vmcbRead(svm, V.VMCB_EXIT_INFO_2),
    vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4),
    vmcbRead(svm, V.VMCB_EXIT_INFO_1),
    vmcbRead(svm, V.VMCB_EXIT_INFO_1 + 4),
  );
}

/** @kvm svm.c pf_interception */
function pfInterception(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  return handlePageFault(
    vcpu,
    vmcbRead(svm, V.VMCB_EXIT_INFO_1),
    vmcbRead(svm, V.VMCB_EXIT_INFO_1 + 4),
    vmcbRead(svm, V.VMCB_EXIT_INFO_2),
    vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4),
  );
}

/** pc of a debug exit: CS base plus RIP. */
function setDebugPc(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  const baseLo = vmcbRead(svm, V.VMCB_CS + 8);
  const ripLo = vmcbRead(svm, V.VMCB_RIP);
  const lo = (baseLo + ripLo) | 0;
  const carry = lo >>> 0 < baseLo >>> 0 ? 1 : 0;
  vcpu.run.debug.setPc(lo, (vmcbRead(svm, V.VMCB_CS + 12) + vmcbRead(svm, V.VMCB_RIP + 4) + carry) | 0);
}

/** @kvm svm.c db_interception */
function dbInterception(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  const byUser = (vcpu.x86.guestDebug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) !== 0;
  if (!byUser && !svm.nmiSinglestep) {
    queueExceptionP(vcpu, DB_VECTOR, vmcbRead(svm, V.VMCB_DR6) ^ DR6_ACTIVE_LOW, 0);
    return 1;
  }
  if (svm.nmiSinglestep) {
    disableNmiSinglestep(vcpu);
    makeRequest(vcpu, REQ_EVENT);
  }
  if (!byUser) return 1;
  const run = vcpu.run;
  run.exitReason = KVM_EXIT_DEBUG;
  run.debug.setDr6(vmcbRead(svm, V.VMCB_DR6));
  run.debug.setDr7(vmcbRead(svm, V.VMCB_DR7));
  setDebugPc(vcpu);
  run.debug.exception = DB_VECTOR;
  return 0;
}

/** @kvm svm.c bp_interception */
function bpInterception(vcpu: VcpuState): number {
  vcpu.run.exitReason = KVM_EXIT_DEBUG;
  setDebugPc(vcpu);
  vcpu.run.debug.exception = BP_VECTOR;
  return 0;
}

/**
 * @kvm svm.c shutdown_interception: the VMCB is undefined after SHUTDOWN, so the vCPU gets an INIT before userspace hears of it.
 */
function shutdownInterception(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  svm.words.fill(0, svm.vmcb, svm.vmcb + 1024);
  if (vcpu.smm) smmChanged(vcpu, false);
  vcpuReset(vcpu, true);
  vcpu.run.exitReason = KVM_EXIT_SHUTDOWN;
  return 0;
}

/** @kvm svm.c io_interception */
function ioInterception(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  const info = vmcbRead(svm, V.VMCB_EXIT_INFO_1);
  vcpu.stats.io_exits++;
  if ((info & V.SVM_IOIO_STR) !== 0) return emulateInstruction(vcpu, 0, 0, 0);
  svm.nextRipLo = vmcbRead(svm, V.VMCB_EXIT_INFO_2);
  svm.nextRipHi = vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4);
  const size = (info >> V.SVM_IOIO_SIZE_SHIFT) & 7;
  return fastPio(vcpu, size, (info >>> V.SVM_IOIO_PORT_SHIFT) & 0xffff, (info & V.SVM_IOIO_IN) !== 0);
}

/** VMMCALL of L2 that L1 does not intercept is #UD. @kvm svm.c vmmcall_interception */
function vmmcallInterception(vcpu: VcpuState): number {
  if (!vcpu.guestMode) return emulateHypercall(vcpu);
  queueException(vcpu, UD_VECTOR);
  return 1;
}

/** @kvm svm.c task_switch_interception */
function taskSwitchInterception(vcpu: VcpuState): number {
  return taskSwitch(vcpu);
}

/** @kvm svm.c pause_interception */
function pauseInterception(vcpu: VcpuState): number {
  vcpuOnSpin(vcpu);
  return skipEmulatedInstruction(vcpu);
}

/** @kvm svm.c iret_interception: NMIs are unmasked once the IRET has completed. */
function iretInterception(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  vcpu.stats.nmi_window_exits++;
  svm.awaitingIretCompletion = true;
  clrIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_IRET);
  svm.nmiIretRipLo = vcpu.regs[2 * RIP]!;
  svm.nmiIretRipHi = vcpu.regs[2 * RIP + 1]!;
  makeRequest(vcpu, REQ_EVENT);
  return 1;
}

/** @kvm svm.c invlpg_interception */
function invlpgInterception(vcpu: VcpuState): number {
  if (!vcpu.vm.profile.decodeAssists) return emulateInstruction(vcpu, 0, 0, 0);
  mmuInvlpg(vcpu, vmcbRead(vcpu.svm, V.VMCB_EXIT_INFO_1), vmcbRead(vcpu.svm, V.VMCB_EXIT_INFO_1 + 4));
  return skipEmulatedInstruction(vcpu);
}

/** @kvm svm.c invpcid_interception */
function invpcidInterception(vcpu: VcpuState): number {
  if (!guestCpuidHas(vcpu, X86_FEATURE_INVPCID)) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  const { svm } = vcpu;
  return handleInvpcid(
    vcpu,
    vmcbRead(svm, V.VMCB_EXIT_INFO_2),
    vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4),
    vmcbRead(svm, V.VMCB_EXIT_INFO_1),
    vmcbRead(svm, V.VMCB_EXIT_INFO_1 + 4),
  );
}

/** @kvm svm.c cr8_write_interception */
function cr8WriteInterception(vcpu: VcpuState): number {
  const previous = getCr8(vcpu);
  const r = emulateInstruction(vcpu, 0, 0, 0);
  if (vcpu.x86.lapic !== null || previous <= getCr8(vcpu)) return r;
  vcpu.run.exitReason = KVM_EXIT_SET_TPR;
  return 0;
}

/** @kvm svm.c dr_interception: the first access stops the exits; the next exit reads back what the guest did. */
function drInterception(vcpu: VcpuState): number {
  if (vcpu.x86.guestDebug === 0) {
    clrDrIntercepts(vcpu);
    vcpu.x86.switchDbRegs |= KVM_DEBUGREG_WONT_EXIT;
    return 1;
  }
  return emulateInstruction(vcpu, 0, 0, 0);
}

/** @kvm svm.c interrupt_window_interception */
function interruptWindowInterception(vcpu: VcpuState): number {
  makeRequest(vcpu, REQ_EVENT);
  svmClearVintr(vcpu);
  vcpu.stats.irq_window_exits++;
  return 1;
}

/** @kvm svm.c svm_handle_invalid_exit */
function handleInvalidExit(vcpu: VcpuState, code: number): number {
  vcpu.vm.log.prWarnRatelimited(
    'svm_handle_invalid_exit',
    `svm: unexpected exit reason 0x${(code >>> 0).toString(16)}`,
  );
  const run = vcpu.run;
  run.exitReason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
  run.internal.ndata = 2;
  run.internal.setData(0, code, 0);
  run.internal.setData(1, 0, 0);
  return 0;
}

/** The exit is L1's, and L1 has it. @kvm svm.c svm_handle_exit */
function reflects(vcpu: VcpuState): boolean {
  const { trace } = vcpu.vm;
  if (trace.enabled) traceKvmExit(vcpu, 'kvm_nested_vmexit');
  if (nestedExitSpecial(vcpu) !== NESTED_EXIT_CONTINUE) return false;
  return nestedExitHandled(vcpu) === NESTED_EXIT_DONE;
}

/** @kvm svm.c svm_handle_exit: 1 resume, 0 to userspace, negative -errno. HOT */
export function svmHandleExit(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  if (svm.sev !== null) return handleEncrypted(vcpu);
  if (!isIntercept(svm, V.VMCB_INTERCEPT_CR, V.INTERCEPT_CR0_WRITE)) vcpu.cr0 = vmcbRead(svm, V.VMCB_CR0);
  if (vcpu.vm.vendor.tdpEnabled) {
    vcpu.cr3Lo = vmcbRead(svm, V.VMCB_CR3);
    vcpu.cr3Hi = vmcbRead(svm, V.VMCB_CR3 + 4);
  }
  const code = vmcbRead(svm, V.VMCB_EXIT_CODE);
  // What ends a time slice is nothing that the guest did.
  if (code !== V.SVM_EXIT_INTR) vcpu.vm.x86.idleTime += vcpu.vm.x86.exitTime;
  if (vcpu.guestMode && reflects(vcpu)) return 1;
  if (code === V.SVM_EXIT_NPF) return npfInterception(vcpu);
  return code === V.SVM_EXIT_ERR ? failEntry(vcpu, code) : invokeExitHandler(vcpu, code);
}

function failEntry(vcpu: VcpuState, code: number): number {
  vcpu.run.exitReason = KVM_EXIT_FAIL_ENTRY;
  vcpu.run.failEntry.setHardwareEntryFailureReason(code, 0);
  vcpu.run.failEntry.cpu = 0;
  return 0;
}

/** Of a guest with encrypted state the VMCB tells nothing but the exit. */
function handleEncrypted(vcpu: VcpuState): number {
  const code = vmcbRead(vcpu.svm, V.VMCB_EXIT_CODE);
  if (code !== V.SVM_EXIT_INTR) vcpu.vm.x86.idleTime += vcpu.vm.x86.exitTime;
  if (code === V.SVM_EXIT_NPF) return npfInterception(vcpu);
  if (code === V.SVM_EXIT_VMGEXIT) return sevHandleVmgexit(vcpu, invokeExitHandler);
  return code === V.SVM_EXIT_ERR ? failEntry(vcpu, code) : invokeExitHandler(vcpu, code);
}

/** @kvm svm.c svm_invoke_exit_handler */
function invokeExitHandler(vcpu: VcpuState, code: number): number {
  switch (code) {
    case V.SVM_EXIT_INTR:
      vcpu.stats.irq_exits++;
      return 1;
    case V.SVM_EXIT_NMI:
    case V.SVM_EXIT_SMI:
      return 1;
    case V.SVM_EXIT_VINTR:
      return interruptWindowInterception(vcpu);
    case V.SVM_EXIT_HLT:
      return emulateHalt(vcpu);
    case V.SVM_EXIT_IOIO:
      return ioInterception(vcpu);
    case V.SVM_EXIT_MSR:
      return vmcbRead(vcpu.svm, V.VMCB_EXIT_INFO_1) !== 0 ? emulateWrmsr(vcpu) : emulateRdmsr(vcpu);
    case V.SVM_EXIT_CPUID:
      return emulateCpuid(vcpu);
    case V.SVM_EXIT_READ_CR0:
    case V.SVM_EXIT_READ_CR0 + 3:
    case V.SVM_EXIT_READ_CR0 + 4:
    case V.SVM_EXIT_READ_CR0 + 8:
    case V.SVM_EXIT_CR0_SEL_WRITE:
    case V.SVM_EXIT_WRITE_CR0:
    case V.SVM_EXIT_WRITE_CR0 + 3:
    case V.SVM_EXIT_WRITE_CR0 + 4:
      return emulateInstruction(vcpu, 0, 0, 0);
    case V.SVM_EXIT_WRITE_CR0 + 8:
      return cr8WriteInterception(vcpu);
    case V.SVM_EXIT_EXCP_BASE + DB_VECTOR:
      return dbInterception(vcpu);
    case V.SVM_EXIT_EXCP_BASE + BP_VECTOR:
      return bpInterception(vcpu);
    case V.SVM_EXIT_EXCP_BASE + UD_VECTOR:
      return handleUd(vcpu);
    case V.SVM_EXIT_EXCP_BASE + PF_VECTOR:
      return pfInterception(vcpu);
    case V.SVM_EXIT_EXCP_BASE + MC_VECTOR:
      return 1;
    case V.SVM_EXIT_EXCP_BASE + AC_VECTOR:
      queueExceptionE(vcpu, AC_VECTOR, 0);
      return 1;
    case V.SVM_EXIT_EXCP_BASE + GP_VECTOR:
      return gpInterception(vcpu);
    case V.SVM_EXIT_RDPMC:
      return emulateRdpmc(vcpu);
    case V.SVM_EXIT_IRET:
      return iretInterception(vcpu);
    case V.SVM_EXIT_INVD:
    case V.SVM_EXIT_WBINVD:
      return skipEmulatedInstruction(vcpu);
    case V.SVM_EXIT_PAUSE:
      return pauseInterception(vcpu);
    case V.SVM_EXIT_INVLPG:
      return invlpgInterception(vcpu);
    case V.SVM_EXIT_TASK_SWITCH:
      return taskSwitchInterception(vcpu);
    case V.SVM_EXIT_SHUTDOWN:
      return shutdownInterception(vcpu);
    case V.SVM_EXIT_VMMCALL:
      return vmmcallInterception(vcpu);
    case V.SVM_EXIT_VMRUN:
    case V.SVM_EXIT_VMLOAD:
    case V.SVM_EXIT_VMSAVE:
    case V.SVM_EXIT_STGI:
    case V.SVM_EXIT_CLGI:
    case V.SVM_EXIT_INVLPGA:
    case V.SVM_EXIT_SKINIT:
      return svmInstruction(vcpu, code);
    case V.SVM_EXIT_RDTSCP:
    case V.SVM_EXIT_RDPRU:
      queueException(vcpu, UD_VECTOR);
      return 1;
    case V.SVM_EXIT_MONITOR:
    case V.SVM_EXIT_MWAIT:
      return emulateMonitorMwait(vcpu);
    case V.SVM_EXIT_XSETBV:
      return emulateXsetbv(vcpu);
    case V.SVM_EXIT_INVPCID:
      return invpcidInterception(vcpu);
    case V.SVM_EXIT_RSM:
      return emulateInstructionFromBuffer(vcpu, RSM);
    default:
      if (code >= V.SVM_EXIT_READ_DR0 && code < V.SVM_EXIT_WRITE_DR0 + 8) return drInterception(vcpu);
      return handleInvalidExit(vcpu, code);
  }
}
