/** What KVM does about each VM exit (@kvm vmx.c kvm_vmx_exit_handlers, vmx_handle_exit). */
import { DR6_ACTIVE_LOW, DR6_BD, DR7_GD } from '../../arch/debug-registers.ts';
import { PFERR_RSVD } from '../../arch/error-code.ts';
import { AC_VECTOR, BP_VECTOR, DB_VECTOR, GP_VECTOR, MC_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { hex64 } from '../../arch/flags.ts';
import { numberOf } from '../../arch/halves.ts';
import { CR0_PE } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import { VM_SUCCEED } from '../../arch/vmx-controls.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import { EIO } from '../../host/errno.ts';
import { TASK_SWITCH_CALL, TASK_SWITCH_GATE, TASK_SWITCH_IRET, TASK_SWITCH_JMP } from '../emulate/task-switch.ts';
import { ioBusWrite, KVM_FAST_MMIO_BUS } from '../io-bus/io-bus.ts';
import {
  KVM_EXIT_DEBUG,
  KVM_EXIT_FAIL_ENTRY,
  KVM_EXIT_INTERNAL_ERROR,
  KVM_EXIT_SET_TPR,
  KVM_EXIT_SHUTDOWN,
  KVM_EXIT_UNKNOWN,
  KVM_INTERNAL_ERROR_DELIVERY_EV,
  KVM_INTERNAL_ERROR_SIMUL_EX,
  KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
} from '../kvm-run.ts';
import { handlePageFault } from '../mmu/handle-page-fault.ts';
import { mmuInvlpg } from '../mmu/invlpg.ts';
import { mmuPageFault } from '../mmu/page-fault.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { getCr8, setCr0, setCr3, setCr4, setCr8 } from '../x86/control-registers.ts';
import { emulateCpuid } from '../x86/cpuid.ts';
import { getDrHi, getDrLo, KVM_DEBUGREG_WONT_EXIT, setDr } from '../x86/debug-registers.ts';
import { EMULTYPE_VMWARE_GP } from '../x86/emul-type.ts';
import { emulateInstruction } from '../x86/emulate-instruction.ts';
import { queueExceptionE, queueExceptionP } from '../x86/exceptions.ts';
import { KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP } from '../x86/guest-debug-bits.ts';
import { handleUd } from '../x86/handle-ud.ts';
import { emulateHypercall } from '../x86/hypercall.ts';
import { emulateHalt, emulateMonitorMwait, emulateRdpmc, emulateXsetbv } from '../x86/instructions.ts';
import { APIC_EOI, lapicSetEoi } from '../x86/lapic.ts';
import { emulateRdmsr, emulateWrmsr } from '../x86/msr-instructions.ts';
import { fastPio } from '../x86/pio.ts';
import { getLinearRip, is64BitMode, registerWrite } from '../x86/registers.ts';
import { vcpuOnSpin } from '../x86/scheduling.ts';
import { completeInsnGp, skipEmulatedInstruction } from '../x86/skip.ts';
import { emulateTaskSwitch } from '../x86/task-switch.ts';
import { handleEptViolationExit } from './ept-violation.ts';
import { vmxSetNmiMask, vmxSkip } from './events.ts';
import { handleInvalidGuestState } from './invalid-guest-state.ts';
import { handleInvpcidExit } from './invpcid-exit.ts';
import { nestedVmxRun } from './nested/enter.ts';
import {
  handleVmclear,
  handleVmptrld,
  handleVmptrst,
  handleVmread,
  handleVmwrite,
  handleVmxoff,
  handleVmxon,
} from './nested/instructions.ts';
import { handleInvept, handleInvvpid, handleVmfunc } from './nested/invalidate.ts';
import { nestedVmxReflectVmexit } from './nested/reflect.ts';
import { markVmcs12PagesDirty } from './nested/vmcs12-pages.ts';
import { vmxFlushPmlBuffer } from './pml.ts';
import { vmxGetCpl } from './segments.ts';
import { changeExecControls, vmcsRead, vmcsReadHi, vmcsWrite64 } from './vmcs-access.ts';

/** Access type of an APIC-access exit: a data write of an instruction. */
const APIC_ACCESS_WRITE = 1;

function qualification(vcpu: VcpuState): number {
  return vmcsRead(vcpu.vmx, F.VMCS_EXIT_QUALIFICATION);
}

function internalError(vcpu: VcpuState, suberror: number, data: readonly number[]): number {
  const run = vcpu.run;
  run.exitReason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = suberror;
  run.internal.ndata = data.length;
  data.forEach((word, i) => {
    run.internal.setData(i, word | 0, Math.floor(word / 0x1_0000_0000));
  });
  return 0;
}

function debugExit(vcpu: VcpuState, vector: number): number {
  const run = vcpu.run;
  run.exitReason = KVM_EXIT_DEBUG;
  const pc = getLinearRip(vcpu);
  run.debug.setPc(pc[0]!, pc[1]!);
  run.debug.exception = vector;
  return 0;
}

/** @kvm vmx.c handle_exception_nmi, #DB */
function handleDb(vcpu: VcpuState, info: number): number {
  const dr6 = qualification(vcpu);
  if ((vcpu.x86.guestDebug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) === 0) {
    // INT1 exits on itself, and its #DB is a trap.
    if ((info & C.INTR_INFO_INTR_TYPE_MASK) === C.INTR_TYPE_PRIV_SW_EXCEPTION) vmxSkip(vcpu);
    queueExceptionP(vcpu, DB_VECTOR, dr6, 0);
    return 1;
  }
  vcpu.run.debug.setDr6(dr6 | DR6_ACTIVE_LOW);
  vcpu.run.debug.setDr7(vmcsRead(vcpu.vmx, F.VMCS_GUEST_DR7));
  vcpu.vmx.eventExitInstLen = vmcsRead(vcpu.vmx, F.VMCS_VM_EXIT_INSTRUCTION_LEN);
  return debugExit(vcpu, DB_VECTOR);
}

/** @kvm vmx.c handle_exception_nmi */
function handleExceptionNmi(vcpu: VcpuState): number {
  const vmx = vcpu.vmx;
  const info = vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_INFO);
  const vector = info & C.INTR_INFO_VECTOR_MASK;
  if ((info & C.INTR_INFO_INTR_TYPE_MASK) === C.INTR_TYPE_NMI_INTR || vector === MC_VECTOR) return 1;
  if (vector === UD_VECTOR) return handleUd(vcpu);
  const hasError = (info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0;
  const error = hasError ? vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_ERROR_CODE) : 0;
  if (vector === GP_VECTOR) {
    if (error === 0) return emulateInstruction(vcpu, 0, 0, EMULTYPE_VMWARE_GP);
    queueExceptionE(vcpu, GP_VECTOR, error);
    return 1;
  }
  if (vmx.idtVectoringInfo < 0 && !(vector === PF_VECTOR && (error & PFERR_RSVD) === 0)) {
    const data = [vmx.idtVectoringInfo >>> 0, info >>> 0, error, 0];
    return internalError(vcpu, KVM_INTERNAL_ERROR_SIMUL_EX, data);
  }
  if (vector === PF_VECTOR) {
    return handlePageFault(vcpu, error, 0, qualification(vcpu), vmcsReadHi(vmx, F.VMCS_EXIT_QUALIFICATION));
  }
  if (vector === DB_VECTOR) return handleDb(vcpu, info);
  if (vector === AC_VECTOR) {
    queueExceptionE(vcpu, AC_VECTOR, error);
    return 1;
  }
  vmx.eventExitInstLen = vmcsRead(vmx, F.VMCS_VM_EXIT_INSTRUCTION_LEN);
  return debugExit(vcpu, BP_VECTOR);
}

/** @kvm vmx.c handle_triple_fault */
function handleTripleFault(vcpu: VcpuState): number {
  vcpu.run.exitReason = KVM_EXIT_SHUTDOWN;
  vcpu.x86.mmioNeeded = false;
  return 0;
}

/** @kvm vmx.c handle_io */
function handleIo(vcpu: VcpuState): number {
  const how = qualification(vcpu);
  vcpu.stats.io_exits++;
  if ((how & C.VMX_IO_STRING) !== 0) return emulateInstruction(vcpu, 0, 0, 0);
  return fastPio(vcpu, (how & 7) + 1, how >>> 16, (how & C.VMX_IO_IN) !== 0);
}

/** @kvm vmx.c handle_cr, CR8 */
function handleSetCr8(vcpu: VcpuState, value: number): number {
  const previous = getCr8(vcpu);
  const cr8 = value & 0xff;
  const r = completeInsnGp(vcpu, setCr8(vcpu, cr8));
  if (vcpu.x86.lapic !== null || previous <= cr8) return r;
  vcpu.run.exitReason = KVM_EXIT_SET_TPR;
  return 0;
}

/** Bits that L1 owns stay as they are, but L2 reads what it wrote. @kvm vmx.c handle_set_cr0 */
function handleSetCr0(vcpu: VcpuState, lo: number, hi: number): number {
  if (!vcpu.guestMode) return setCr0(vcpu, lo, hi);
  const v = vcpu.vmx.nested.vmcs12;
  const mask = v.lo(F.VMCS_CR0_GUEST_HOST_MASK);
  if (setCr0(vcpu, (lo & ~mask) | (v.lo(F.VMCS_GUEST_CR0) & mask), hi) !== 0) return 1;
  vmcsWrite64(vcpu.vmx, F.VMCS_CR0_READ_SHADOW, lo, hi);
  return 0;
}

/** @kvm vmx.c handle_set_cr4 */
function handleSetCr4(vcpu: VcpuState, lo: number, hi: number): number {
  if (!vcpu.guestMode) return setCr4(vcpu, lo, hi);
  const v = vcpu.vmx.nested.vmcs12;
  const mask = v.lo(F.VMCS_CR4_GUEST_HOST_MASK);
  if (setCr4(vcpu, (lo & ~mask) | (v.lo(F.VMCS_GUEST_CR4) & mask), hi) !== 0) return 1;
  vmcsWrite64(vcpu.vmx, F.VMCS_CR4_READ_SHADOW, lo, hi);
  return 0;
}

function handleSetCr(vcpu: VcpuState, cr: number, lo: number, hi: number): number {
  switch (cr) {
    case 0:
      return completeInsnGp(vcpu, handleSetCr0(vcpu, lo, hi));
    case 3:
      return completeInsnGp(vcpu, setCr3(vcpu, lo, hi));
    case 4:
      return completeInsnGp(vcpu, handleSetCr4(vcpu, lo, hi));
    case 8:
      return handleSetCr8(vcpu, lo);
    default:
      return -1;
  }
}

function handleGetCr(vcpu: VcpuState, cr: number, reg: number): number {
  if (cr === 3) registerWrite(vcpu, reg, vcpu.cr3Lo, vcpu.cr3Hi);
  else if (cr === 8) registerWrite(vcpu, reg, getCr8(vcpu), 0);
  else return -1;
  return skipEmulatedInstruction(vcpu);
}

/** @kvm vmx.c handle_cr */
function handleCr(vcpu: VcpuState): number {
  const how = qualification(vcpu);
  const cr = how & 15;
  const reg = (how >>> 8) & 15;
  let r = -1;
  switch (how & C.CR_ACCESS_LMSW) {
    case C.CR_ACCESS_TO_CR: {
      const wide = is64BitMode(vcpu);
      r = handleSetCr(vcpu, cr, vcpu.regs[2 * reg]!, wide ? vcpu.regs[2 * reg + 1]! : 0);
      break;
    }
    case C.CR_ACCESS_CLTS:
      return -EIO;
    case C.CR_ACCESS_FROM_CR:
      r = handleGetCr(vcpu, cr, reg);
      break;
    default:
      setCr0(vcpu, lmswValue(vcpu.cr0, (how >>> 16) & 15), 0);
      return skipEmulatedInstruction(vcpu);
  }
  if (r >= 0) return r;
  vcpu.run.exitReason = KVM_EXIT_UNKNOWN;
  return 0;
}

/** CR0 after LMSW: PE can be set and not cleared. @kvm regs.c kvm_lmsw */
function lmswValue(cr0: number, value: number): number {
  return (cr0 & ~0xe) | value | (cr0 & CR0_PE);
}

/** @kvm vmx.c handle_dr */
function handleDr(vcpu: VcpuState): number {
  const how = qualification(vcpu);
  const dr = how & 7;
  // DR4 and DR5 with CR4.DE were #UD, and CPL 3 was #GP, before the exit.
  if (vmxGetCpl(vcpu) > 0) return completeInsnGp(vcpu, 1);
  const dr7 = vmcsRead(vcpu.vmx, F.VMCS_GUEST_DR7);
  if ((dr7 & DR7_GD) !== 0) {
    if ((vcpu.x86.guestDebug & KVM_GUESTDBG_USE_HW_BP) === 0) {
      queueExceptionP(vcpu, DB_VECTOR, DR6_BD, 0);
      return 1;
    }
    vcpu.run.debug.setDr6(DR6_BD | DR6_ACTIVE_LOW);
    vcpu.run.debug.setDr7(dr7);
    return debugExit(vcpu, DB_VECTOR);
  }
  if (vcpu.x86.guestDebug === 0) {
    changeExecControls(vcpu.vmx, C.CPU_BASED_MOV_DR_EXITING, false);
    vcpu.x86.switchDbRegs |= KVM_DEBUGREG_WONT_EXIT;
    return 1;
  }
  const reg = (how >>> 8) & 15;
  if ((how & (1 << 4)) !== 0) {
    registerWrite(vcpu, reg, getDrLo(vcpu, dr), getDrHi(vcpu, dr));
    return completeInsnGp(vcpu, 0);
  }
  const hi = is64BitMode(vcpu) ? vcpu.regs[2 * reg + 1]! : 0;
  return completeInsnGp(vcpu, setDr(vcpu, dr, vcpu.regs[2 * reg]!, hi));
}

/** @kvm vmx.c handle_interrupt_window, handle_nmi_window */
function handleWindow(vcpu: VcpuState, control: number): number {
  changeExecControls(vcpu.vmx, control, false);
  if (control === C.CPU_BASED_NMI_WINDOW_EXITING) vcpu.stats.nmi_window_exits++;
  else vcpu.stats.irq_window_exits++;
  makeRequest(vcpu, REQ_EVENT);
  return 1;
}

/** @kvm vmx.c handle_pause */
function handlePause(vcpu: VcpuState): number {
  vcpuOnSpin(vcpu);
  return skipEmulatedInstruction(vcpu);
}

/** @kvm vmx.c handle_invlpg */
function handleInvlpg(vcpu: VcpuState): number {
  mmuInvlpg(vcpu, qualification(vcpu), vmcsReadHi(vcpu.vmx, F.VMCS_EXIT_QUALIFICATION));
  return skipEmulatedInstruction(vcpu);
}

/** A write to EOI needs no decoding: its value does not count. @kvm vmx.c handle_apic_access */
function handleApicAccess(vcpu: VcpuState): number {
  const how = qualification(vcpu);
  const isWrite = how >>> 12 === APIC_ACCESS_WRITE;
  if (!isWrite || (how & 0xfff) !== APIC_EOI || vcpu.x86.lapic === null) return emulateInstruction(vcpu, 0, 0, 0);
  lapicSetEoi(vcpu.x86.lapic);
  return skipEmulatedInstruction(vcpu);
}

const TASK_SWITCH_REASONS = [TASK_SWITCH_CALL, TASK_SWITCH_IRET, TASK_SWITCH_JMP, TASK_SWITCH_GATE];

/** @kvm vmx.c handle_task_switch */
function handleTaskSwitch(vcpu: VcpuState): number {
  const vmx = vcpu.vmx;
  const info = vmx.idtVectoringInfo;
  const vectoring = info < 0;
  const type = info & C.INTR_INFO_INTR_TYPE_MASK;
  const how = qualification(vcpu);
  const reason = TASK_SWITCH_REASONS[how >>> 30]!;
  let errorCode: number | null = null;
  if (reason === TASK_SWITCH_GATE && vectoring) {
    if (type === C.INTR_TYPE_NMI_INTR) {
      vcpu.x86.nmiInjected = false;
      vmxSetNmiMask(vcpu, true);
    } else if (type === C.INTR_TYPE_EXT_INTR || type === C.INTR_TYPE_SOFT_INTR) {
      vcpu.x86.interruptInjected = false;
    } else if (type === C.INTR_TYPE_HARD_EXCEPTION || type === C.INTR_TYPE_SOFT_EXCEPTION) {
      if ((info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0) {
        errorCode = vmcsRead(vmx, F.VMCS_IDT_VECTORING_ERROR_CODE);
      }
      vcpu.x86.exception.pending = false;
      vcpu.x86.exception.injected = false;
    }
  }
  const hardware =
    type === C.INTR_TYPE_HARD_EXCEPTION || type === C.INTR_TYPE_EXT_INTR || type === C.INTR_TYPE_NMI_INTR;
  if (!vectoring || !hardware) vmxSkip(vcpu);
  const index = type === C.INTR_TYPE_SOFT_INTR && vectoring ? info & C.INTR_INFO_VECTOR_MASK : -1;
  return emulateTaskSwitch(vcpu, how & 0xffff, index, reason, errorCode);
}

/** @kvm vmx.c handle_ept_misconfig. HOT */
function handleEptMisconfig(vcpu: VcpuState): number {
  const lo = vmcsRead(vcpu.vmx, F.VMCS_GUEST_PHYSICAL_ADDRESS);
  const hi = vmcsReadHi(vcpu.vmx, F.VMCS_GUEST_PHYSICAL_ADDRESS);
  if (!vcpu.guestMode && ioBusWrite(vcpu, KVM_FAST_MMIO_BUS, numberOf(lo, hi), 0, EMPTY, 0) === 0) {
    const { trace } = vcpu.vm;
    if (trace.enabled) trace.emit('kvm_fast_mmio', { gpa: hex64(lo, hi) });
    return skipEmulatedInstruction(vcpu);
  }
  return mmuPageFault(vcpu, lo, hi, PFERR_RSVD, 0);
}

const EMPTY = new Uint8Array(0);

/** An exit other than these while an event was delivered would only happen again. */
const DELIVERY_CAN_GO_ON = new Set([
  R.EXIT_REASON_EXCEPTION_NMI,
  R.EXIT_REASON_EPT_VIOLATION,
  R.EXIT_REASON_PML_FULL,
  R.EXIT_REASON_APIC_ACCESS,
  R.EXIT_REASON_TASK_SWITCH,
]);

/** @kvm vmx.c __vmx_handle_exit: 1 resume, 0 to userspace, negative -errno. HOT */
export function vmxHandleExit(vcpu: VcpuState): number {
  const vmx = vcpu.vmx;
  const reason = vmx.exitReason;
  if (vmx.pmlPfn >= 0 && !vcpu.guestMode) vmxFlushPmlBuffer(vcpu);
  // What ends a time slice is nothing that the guest did.
  if (reason !== R.EXIT_REASON_EXTERNAL_INTERRUPT) vcpu.vm.x86.idleTime += vcpu.vm.x86.exitTime;
  if (vcpu.guestMode) {
    markVmcs12PagesDirty(vcpu);
    if (nestedVmxReflectVmexit(vcpu)) return 1;
  }
  if (vmx.emulationRequired) return handleInvalidGuestState(vcpu);
  if (reason < 0 || vmx.fail !== VM_SUCCEED) {
    const run = vcpu.run;
    run.exitReason = KVM_EXIT_FAIL_ENTRY;
    const why = reason < 0 ? reason : vmcsRead(vmx, F.VMCS_VM_INSTRUCTION_ERROR);
    run.failEntry.setHardwareEntryFailureReason(why, 0);
    run.failEntry.cpu = 0;
    return 0;
  }
  if (vmx.idtVectoringInfo < 0 && !DELIVERY_CAN_GO_ON.has(reason)) return deliveryError(vcpu);
  if (reason === R.EXIT_REASON_EPT_VIOLATION) return handleEptViolationExit(vcpu);
  if (reason === R.EXIT_REASON_EPT_MISCONFIG) return handleEptMisconfig(vcpu);
  return invokeExitHandler(vcpu, reason);
}

function deliveryError(vcpu: VcpuState): number {
  const vmx = vcpu.vmx;
  const data = [
    vmx.idtVectoringInfo >>> 0,
    vmx.exitReason,
    numberOf(qualification(vcpu), vmcsReadHi(vmx, F.VMCS_EXIT_QUALIFICATION)),
  ];
  if (vmx.exitReason === R.EXIT_REASON_EPT_MISCONFIG) {
    const address = F.VMCS_GUEST_PHYSICAL_ADDRESS;
    data.push(numberOf(vmcsRead(vmx, address), vmcsReadHi(vmx, address)));
  }
  data.push(0);
  return internalError(vcpu, KVM_INTERNAL_ERROR_DELIVERY_EV, data);
}

function invokeExitHandler(vcpu: VcpuState, reason: number): number {
  switch (reason) {
    case R.EXIT_REASON_EXTERNAL_INTERRUPT:
      vcpu.stats.irq_exits++;
      return 1;
    case R.EXIT_REASON_EXCEPTION_NMI:
      return handleExceptionNmi(vcpu);
    case R.EXIT_REASON_TRIPLE_FAULT:
      return handleTripleFault(vcpu);
    case R.EXIT_REASON_NMI_WINDOW:
      return handleWindow(vcpu, C.CPU_BASED_NMI_WINDOW_EXITING);
    case R.EXIT_REASON_INTERRUPT_WINDOW:
      return handleWindow(vcpu, C.CPU_BASED_INTR_WINDOW_EXITING);
    case R.EXIT_REASON_IO_INSTRUCTION:
      return handleIo(vcpu);
    case R.EXIT_REASON_CR_ACCESS:
      return handleCr(vcpu);
    case R.EXIT_REASON_DR_ACCESS:
      return handleDr(vcpu);
    case R.EXIT_REASON_CPUID:
      return emulateCpuid(vcpu);
    case R.EXIT_REASON_MSR_READ:
      return emulateRdmsr(vcpu);
    case R.EXIT_REASON_MSR_WRITE:
      return emulateWrmsr(vcpu);
    case R.EXIT_REASON_HLT:
      return emulateHalt(vcpu);
    case R.EXIT_REASON_INVD:
    case R.EXIT_REASON_WBINVD:
      return skipEmulatedInstruction(vcpu);
    case R.EXIT_REASON_PAUSE_INSTRUCTION:
      return handlePause(vcpu);
    case R.EXIT_REASON_INVLPG:
      return handleInvlpg(vcpu);
    case R.EXIT_REASON_INVPCID:
      return handleInvpcidExit(vcpu);
    case R.EXIT_REASON_RDPMC:
      return emulateRdpmc(vcpu);
    case R.EXIT_REASON_VMCALL:
      return emulateHypercall(vcpu);
    case R.EXIT_REASON_VMCLEAR:
      return handleVmclear(vcpu);
    case R.EXIT_REASON_VMLAUNCH:
      return nestedVmxRun(vcpu, true);
    case R.EXIT_REASON_VMPTRLD:
      return handleVmptrld(vcpu);
    case R.EXIT_REASON_VMPTRST:
      return handleVmptrst(vcpu);
    case R.EXIT_REASON_VMREAD:
      return handleVmread(vcpu);
    case R.EXIT_REASON_VMRESUME:
      return nestedVmxRun(vcpu, false);
    case R.EXIT_REASON_VMWRITE:
      return handleVmwrite(vcpu);
    case R.EXIT_REASON_VMOFF:
      return handleVmxoff(vcpu);
    case R.EXIT_REASON_VMON:
      return handleVmxon(vcpu);
    case R.EXIT_REASON_INVEPT:
      return handleInvept(vcpu);
    case R.EXIT_REASON_INVVPID:
      return handleInvvpid(vcpu);
    case R.EXIT_REASON_VMFUNC:
      return handleVmfunc(vcpu);
    case R.EXIT_REASON_MONITOR_TRAP_FLAG:
    case R.EXIT_REASON_TPR_BELOW_THRESHOLD:
    case R.EXIT_REASON_PML_FULL:
      return 1;
    case R.EXIT_REASON_APIC_ACCESS:
      return handleApicAccess(vcpu);
    case R.EXIT_REASON_GDTR_IDTR:
    case R.EXIT_REASON_LDTR_TR:
      return emulateInstruction(vcpu, 0, 0, 0);
    case R.EXIT_REASON_XSETBV:
      return emulateXsetbv(vcpu);
    case R.EXIT_REASON_TASK_SWITCH:
      return handleTaskSwitch(vcpu);
    case R.EXIT_REASON_MWAIT_INSTRUCTION:
    case R.EXIT_REASON_MONITOR_INSTRUCTION:
      return emulateMonitorMwait(vcpu);
    default:
      vcpu.vm.log.prWarnRatelimited('vmx_handle_exit', `vmx: unexpected exit reason 0x${reason.toString(16)}`);
      return internalError(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, [reason, 0]);
  }
}
