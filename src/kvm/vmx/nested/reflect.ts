/** Whose exit it is, KVM's or L1's (@kvm nested.c nested_vmx_reflect_vmexit, nested_vmx_l0_wants_exit, nested_vmx_l1_wants_exit). */
import { AC_VECTOR, BP_VECTOR, DB_VECTOR, PF_VECTOR, VE_VECTOR } from '../../../arch/exceptions.ts';
import { CR0_TS, RCX } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { VM_SUCCEED } from '../../../arch/vmx-controls.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP } from '../../x86/guest-debug-bits.ts';
import { traceKvmExit } from '../../x86/trace-exit.ts';
import { guestInjectAc } from '../events.ts';
import { vmcsRead, vmcsReadHi } from '../vmcs-access.ts';
import { instructionInfo, instructionReg2, registerHi, registerLo } from './memory-operand.ts';
import type { Vmcs12 } from './vmcs12.ts';
import { bitmapBit } from './vmcs12-pages.ts';
import { nestedVmxVmexit } from './vmexit.ts';

const TYPE_AND_VECTOR = C.INTR_INFO_VALID_MASK | C.INTR_INFO_INTR_TYPE_MASK | C.INTR_INFO_VECTOR_MASK;

function isException(info: number, vector: number): boolean {
  return (info & TYPE_AND_VECTOR) === (C.INTR_INFO_VALID_MASK | C.INTR_TYPE_HARD_EXCEPTION | vector);
}

function isNmi(info: number): boolean {
  return (
    (info & (C.INTR_INFO_VALID_MASK | C.INTR_INFO_INTR_TYPE_MASK)) === (C.INTR_INFO_VALID_MASK | C.INTR_TYPE_NMI_INTR)
  );
}

function isBreakpoint(info: number): boolean {
  return (info & TYPE_AND_VECTOR) === (C.INTR_INFO_VALID_MASK | C.INTR_TYPE_SOFT_EXCEPTION | BP_VECTOR);
}

function l0WantsException(vcpu: VcpuState, info: number): boolean {
  const debug = vcpu.x86.guestDebug;
  if (isNmi(info)) return true;
  if (isException(info, PF_VECTOR)) return !vcpu.vm.vendor.tdpEnabled;
  if (isException(info, DB_VECTOR)) return (debug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) !== 0;
  if (isBreakpoint(info)) return (debug & KVM_GUESTDBG_USE_SW_BP) !== 0;
  if (isException(info, AC_VECTOR)) return !guestInjectAc(vcpu);
  return isException(info, VE_VECTOR);
}

/** KVM's own exit, whatever L1 thinks. @kvm nested.c nested_vmx_l0_wants_exit */
function l0WantsExit(vcpu: VcpuState, reason: number): boolean {
  switch (reason & 0xffff) {
    case R.EXIT_REASON_EXCEPTION_NMI:
      return l0WantsException(vcpu, vmcsRead(vcpu.vmx, F.VMCS_VM_EXIT_INTR_INFO));
    case R.EXIT_REASON_EXTERNAL_INTERRUPT:
    case R.EXIT_REASON_MCE_DURING_VMENTRY:
    case R.EXIT_REASON_EPT_VIOLATION:
    case R.EXIT_REASON_EPT_MISCONFIG:
    case R.EXIT_REASON_PREEMPTION_TIMER:
    case R.EXIT_REASON_PML_FULL:
    case R.EXIT_REASON_VMFUNC:
    case R.EXIT_REASON_BUS_LOCK:
      return true;
    default:
      return false;
  }
}

/** @kvm nested.c nested_vmx_check_io_bitmaps */
export function checkIoBitmaps(vcpu: VcpuState, v: Vmcs12, port: number, size: number): boolean {
  for (let n = port; n < port + size; n++) {
    if (n >= 0x10000) return true;
    const field = n < 0x8000 ? F.VMCS_IO_BITMAP_A : F.VMCS_IO_BITMAP_B;
    if (bitmapBit(vcpu, v, field, n & 0x7fff)) return true;
  }
  return false;
}

/** L1 wants this access to a port. */
export function l1WantsIo(vcpu: VcpuState, v: Vmcs12, port: number, size: number): boolean {
  if (!v.has(C.CPU_BASED_USE_IO_BITMAPS)) return v.has(C.CPU_BASED_UNCOND_IO_EXITING);
  return checkIoBitmaps(vcpu, v, port, size);
}

/** @kvm nested.c nested_vmx_exit_handled_msr */
function l1WantsMsr(vcpu: VcpuState, v: Vmcs12, write: boolean): boolean {
  if (!v.has(C.CPU_BASED_USE_MSR_BITMAPS)) return true;
  const msr = vcpu.regs[2 * RCX]! >>> 0;
  const high = msr >= 0xc0000000;
  const index = high ? msr - 0xc0000000 : msr;
  if (index >= 0x2000) return true;
  return bitmapBit(vcpu, v, F.VMCS_MSR_BITMAP, 8 * ((write ? 2048 : 0) + (high ? 1024 : 0)) + index);
}

/** A write of `value` to CR0 or CR4 changes a bit that L1 owns. */
function changesOwned(v: Vmcs12, mask: number, shadow: number, lo: number, hi: number): boolean {
  return (v.lo(mask) & (lo ^ v.lo(shadow))) !== 0 || (v.hi(mask) & (hi ^ v.hi(shadow))) !== 0;
}

/** @kvm nested.c nested_vmx_exit_handled_cr */
function l1WantsCr(vcpu: VcpuState, v: Vmcs12): boolean {
  const how = vmcsRead(vcpu.vmx, F.VMCS_EXIT_QUALIFICATION);
  const cr = how & 15;
  const shadow0 = v.lo(F.VMCS_CR0_READ_SHADOW);
  const mask0 = v.lo(F.VMCS_CR0_GUEST_HOST_MASK);
  switch (how & C.CR_ACCESS_LMSW) {
    case C.CR_ACCESS_TO_CR: {
      const reg = (how >>> 8) & 15;
      const lo = registerLo(vcpu, reg);
      const hi = registerHi(vcpu, reg);
      if (cr === 0) return changesOwned(v, F.VMCS_CR0_GUEST_HOST_MASK, F.VMCS_CR0_READ_SHADOW, lo, hi);
      if (cr === 4) return changesOwned(v, F.VMCS_CR4_GUEST_HOST_MASK, F.VMCS_CR4_READ_SHADOW, lo, hi);
      return v.has(cr === 3 ? C.CPU_BASED_CR3_LOAD_EXITING : C.CPU_BASED_CR8_LOAD_EXITING);
    }
    case C.CR_ACCESS_CLTS:
      return (mask0 & shadow0 & CR0_TS) !== 0;
    case C.CR_ACCESS_FROM_CR:
      return v.has(cr === 3 ? C.CPU_BASED_CR3_STORE_EXITING : C.CPU_BASED_CR8_STORE_EXITING);
    default: {
      const value = (how >>> 16) & 15;
      if ((mask0 & 0xe & (value ^ shadow0)) !== 0) return true;
      return (mask0 & 1) !== 0 && (shadow0 & 1) === 0 && (value & 1) !== 0;
    }
  }
}

/** @kvm nested.c nested_vmx_exit_handled_vmcs_access */
function l1WantsVmcsAccess(vcpu: VcpuState, v: Vmcs12, bitmap: number): boolean {
  if (!v.shadowVmcs) return true;
  const reg = instructionReg2(instructionInfo(vcpu));
  const field = registerLo(vcpu, reg);
  if (registerHi(vcpu, reg) !== 0 || field >>> 15 !== 0) return true;
  return bitmapBit(vcpu, v, bitmap, field);
}

/** Primary controls by the exit that they ask for. */
const BY_PRIMARY: ReadonlyMap<number, number> = new Map([
  [R.EXIT_REASON_INTERRUPT_WINDOW, C.CPU_BASED_INTR_WINDOW_EXITING],
  [R.EXIT_REASON_NMI_WINDOW, C.CPU_BASED_NMI_WINDOW_EXITING],
  [R.EXIT_REASON_HLT, C.CPU_BASED_HLT_EXITING],
  [R.EXIT_REASON_INVLPG, C.CPU_BASED_INVLPG_EXITING],
  [R.EXIT_REASON_RDPMC, C.CPU_BASED_RDPMC_EXITING],
  [R.EXIT_REASON_RDTSC, C.CPU_BASED_RDTSC_EXITING],
  [R.EXIT_REASON_RDTSCP, C.CPU_BASED_RDTSC_EXITING],
  [R.EXIT_REASON_DR_ACCESS, C.CPU_BASED_MOV_DR_EXITING],
  [R.EXIT_REASON_MWAIT_INSTRUCTION, C.CPU_BASED_MWAIT_EXITING],
  [R.EXIT_REASON_MONITOR_INSTRUCTION, C.CPU_BASED_MONITOR_EXITING],
  [R.EXIT_REASON_TPR_BELOW_THRESHOLD, C.CPU_BASED_TPR_SHADOW],
]);
/** The same of secondary controls. */
const BY_SECONDARY: ReadonlyMap<number, number> = new Map([
  [R.EXIT_REASON_RDRAND, C.SECONDARY_EXEC_RDRAND_EXITING],
  [R.EXIT_REASON_RDSEED, C.SECONDARY_EXEC_RDSEED_EXITING],
  [R.EXIT_REASON_GDTR_IDTR, C.SECONDARY_EXEC_DESC],
  [R.EXIT_REASON_LDTR_TR, C.SECONDARY_EXEC_DESC],
  [R.EXIT_REASON_WBINVD, C.SECONDARY_EXEC_WBINVD_EXITING],
  [R.EXIT_REASON_XSAVES, C.SECONDARY_EXEC_ENABLE_XSAVES],
  [R.EXIT_REASON_XRSTORS, C.SECONDARY_EXEC_ENABLE_XSAVES],
  [R.EXIT_REASON_UMWAIT, C.SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE],
  [R.EXIT_REASON_TPAUSE, C.SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE],
]);

/** L1 asked for it. @kvm nested.c nested_vmx_l1_wants_exit */
function l1WantsExit(vcpu: VcpuState, reason: number): boolean {
  const v = vcpu.vmx.nested.vmcs12;
  const basic = reason & 0xffff;
  const primary = BY_PRIMARY.get(basic);
  if (primary !== undefined) return v.has(primary);
  const secondary = BY_SECONDARY.get(basic);
  if (secondary !== undefined) return v.has2(secondary);
  switch (basic) {
    case R.EXIT_REASON_EXCEPTION_NMI: {
      const info = vmcsRead(vcpu.vmx, F.VMCS_VM_EXIT_INTR_INFO);
      if (isNmi(info) || isException(info, PF_VECTOR)) return true;
      return (v.lo(F.VMCS_EXCEPTION_BITMAP) & (1 << (info & 31))) !== 0;
    }
    case R.EXIT_REASON_EXTERNAL_INTERRUPT:
      return v.hasPin(C.PIN_BASED_EXT_INTR_MASK);
    case R.EXIT_REASON_VMREAD:
      return l1WantsVmcsAccess(vcpu, v, F.VMCS_VMREAD_BITMAP);
    case R.EXIT_REASON_VMWRITE:
      return l1WantsVmcsAccess(vcpu, v, F.VMCS_VMWRITE_BITMAP);
    case R.EXIT_REASON_CR_ACCESS:
      return l1WantsCr(vcpu, v);
    case R.EXIT_REASON_IO_INSTRUCTION: {
      const how = vmcsRead(vcpu.vmx, F.VMCS_EXIT_QUALIFICATION);
      return l1WantsIo(vcpu, v, how >>> 16, (how & 7) + 1);
    }
    case R.EXIT_REASON_MSR_READ:
      return l1WantsMsr(vcpu, v, false);
    case R.EXIT_REASON_MSR_WRITE:
      return l1WantsMsr(vcpu, v, true);
    case R.EXIT_REASON_MONITOR_TRAP_FLAG:
      return (
        v.has(C.CPU_BASED_MONITOR_TRAP_FLAG) ||
        v.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD) === (C.INTR_INFO_VALID_MASK | C.INTR_TYPE_OTHER_EVENT)
      );
    case R.EXIT_REASON_PAUSE_INSTRUCTION:
      return v.has(C.CPU_BASED_PAUSE_EXITING) || v.has2(C.SECONDARY_EXEC_PAUSE_LOOP_EXITING);
    case R.EXIT_REASON_INVPCID:
      return v.has2(C.SECONDARY_EXEC_ENABLE_INVPCID) && v.has(C.CPU_BASED_INVLPG_EXITING);
    case R.EXIT_REASON_ENCLS:
    case R.EXIT_REASON_NOTIFY:
      return false;
    default:
      return true;
  }
}

/** The exit goes to L1: true when it did. @kvm nested.c nested_vmx_reflect_vmexit */
export function nestedVmxReflectVmexit(vcpu: VcpuState): boolean {
  const { vmx } = vcpu;
  const reason = vmx.exitReason;
  if (vmx.fail !== VM_SUCCEED) {
    nestedVmxVmexit(vcpu, reason, 0, 0, 0);
    return true;
  }
  if (vcpu.vm.trace.enabled) traceKvmExit(vcpu, 'kvm_nested_vmexit');
  if (l0WantsExit(vcpu, reason) || !l1WantsExit(vcpu, reason)) return false;
  const info = vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_INFO);
  const withError = C.INTR_INFO_VALID_MASK | C.INTR_INFO_DELIVER_CODE_MASK;
  if ((info & withError) === withError) {
    vmx.nested.vmcs12.set(F.VMCS_VM_EXIT_INTR_ERROR_CODE, vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_ERROR_CODE));
  }
  const qualification = F.VMCS_EXIT_QUALIFICATION;
  nestedVmxVmexit(vcpu, reason, info, vmcsRead(vmx, qualification), vmcsReadHi(vmx, qualification));
  return true;
}
