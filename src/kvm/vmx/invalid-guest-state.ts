/**
 * A guest that is not unrestricted has states that VM entry refuses: real mode, and segments left over from it. KVM emulates instructions
 * until the state is one that the processor takes (kvm_intel.emulate_invalid_guest_state).
 *
 * @kvm vmx.c handle_invalid_guest_state @partial real mode is emulated throughout; KVM runs what it can of it in virtual-8086 mode
 */
import { CR0_PE, CS, DS, ES, FS, GS, LDTR, RFLAGS_VM, SS, TR } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import { CPU_BASED_INTR_WINDOW_EXITING } from '../../arch/vmx-controls.ts';
import { EXIT_REASON_INVALID_STATE, VMX_EXIT_REASONS_FAILED_VMENTRY } from '../../arch/vmx-exit-reasons.ts';
import { emptySegment } from '../emulate/ctxt.ts';
import { emulateIntReal } from '../emulate/emulate.ts';
import { X86EMUL_CONTINUE } from '../emulate/ops.ts';
import { makeRequest, REQ_EVENT, REQ_TRIPLE_FAULT, type VcpuState } from '../vcpu-state.ts';
import { initEmulateCtxt } from '../x86/decode-instruction.ts';
import { emulateInstruction } from '../x86/emulate-instruction.ts';
import { prepareEmulationFailureExit } from '../x86/emulation-failure.ts';
import { emulateHaltNoskip } from '../x86/instructions.ts';
import { ripWrite, setRflagsNoEvent } from '../x86/registers.ts';
import { vmxGetRflags, vmxInterruptBlocked } from './events.ts';
import { vmxGetSegment } from './segments.ts';
import { changeExecControls, vmcsRead } from './vmcs-access.ts';

/** Instructions in a row. */
const INSTRUCTIONS = 130;
/** Ticks that one takes: about what an emulated instruction does. */
const INSTRUCTION_TIME = 500;

const TYPE_ACCESSED = 1;
const TYPE_WRITABLE = 2;
const TYPE_CODE = 8;
const RPL = 3;
const TI = 4;

const seg = emptySegment();

/** True when the hardware can run every guest that KVM runs with these parameters. @kvm vmx.h is_unrestricted_guest */
export function unrestrictedGuest(vcpu: VcpuState): boolean {
  return vcpu.vm.vendor.tdpEnabled;
}

/** Real mode, which is emulated as it is. */
function inRealMode(vcpu: VcpuState): boolean {
  return (vcpu.cr0 & CR0_PE) === 0;
}

/** @kvm vmx.c code_segment_valid */
function codeSegmentValid(vcpu: VcpuState): boolean {
  vmxGetSegment(vcpu, CS, seg);
  const rpl = seg.selector & RPL;
  const code = TYPE_CODE | TYPE_ACCESSED;
  if (seg.p === 0 || seg.s === 0 || (seg.type & code) !== code) return false;
  // The bit of data that can be written is that of conforming code, one up.
  return (seg.type & TYPE_WRITABLE) !== 0 ? seg.dpl <= rpl : seg.dpl === rpl;
}

/** @kvm vmx.c stack_segment_valid */
function stackSegmentValid(vcpu: VcpuState): boolean {
  vmxGetSegment(vcpu, SS, seg);
  if (seg.p === 0) return true;
  return (seg.type === 3 || seg.type === 7) && seg.s !== 0 && seg.dpl === (seg.selector & RPL);
}

/** @kvm vmx.c data_segment_valid */
function dataSegmentValid(vcpu: VcpuState, sreg: number): boolean {
  vmxGetSegment(vcpu, sreg, seg);
  if (seg.p === 0) return true;
  if (seg.s === 0) return false;
  const conforming = (seg.type & (TYPE_CODE | TYPE_WRITABLE)) === (TYPE_CODE | TYPE_WRITABLE);
  return conforming || seg.dpl >= (seg.selector & RPL);
}

/** @kvm vmx.c tr_valid */
function trValid(vcpu: VcpuState): boolean {
  vmxGetSegment(vcpu, TR, seg);
  return seg.p !== 0 && (seg.selector & TI) === 0 && (seg.type === 3 || seg.type === 11);
}

/** @kvm vmx.c ldtr_valid */
function ldtrValid(vcpu: VcpuState): boolean {
  vmxGetSegment(vcpu, LDTR, seg);
  return seg.p === 0 || ((seg.selector & TI) === 0 && seg.type === 2);
}

/** @kvm vmx.c cs_ss_rpl_check */
function csSsRplCheck(vcpu: VcpuState): boolean {
  vmxGetSegment(vcpu, CS, seg);
  const cs = seg.selector & RPL;
  vmxGetSegment(vcpu, SS, seg);
  return cs === (seg.selector & RPL);
}

/** The processor would take the guest's segments. @kvm vmx.c __vmx_guest_state_valid */
function guestStateValid(vcpu: VcpuState): boolean {
  // Virtual-8086 mode of the guest's own: entry wants its segments as the mode defines them.
  if ((vmxGetRflags(vcpu) & RFLAGS_VM) !== 0) return true;
  return (
    csSsRplCheck(vcpu) &&
    codeSegmentValid(vcpu) &&
    stackSegmentValid(vcpu) &&
    [DS, ES, FS, GS].every((sreg) => dataSegmentValid(vcpu, sreg)) &&
    trValid(vcpu) &&
    ldtrValid(vcpu)
  );
}

/** After whatever may have changed it. @kvm vmx.c vmx_emulation_required */
export function updateEmulationRequired(vcpu: VcpuState): void {
  if (unrestrictedGuest(vcpu)) return;
  vcpu.vmx.emulationRequired = inRealMode(vcpu) || !guestStateValid(vcpu);
}

/** Stands for the entry that the processor would refuse. @kvm vmx.c vmx_vcpu_run */
export function refuseEntry(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  vmx.fail = 0;
  vmx.exitReason = EXIT_REASON_INVALID_STATE | VMX_EXIT_REASONS_FAILED_VMENTRY;
  vmx.idtVectoringInfo = 0;
  if (!inRealMode(vcpu)) return;
  // Events of real mode have been delivered.
  vcpu.x86.exception.injected = false;
  vcpu.x86.interruptInjected = false;
  vcpu.x86.nmiInjected = false;
}

/** @kvm vmx.c vmx_emulation_required_with_pending_exception */
function exceptionPending(vcpu: VcpuState): boolean {
  const { exception } = vcpu.x86;
  return vcpu.vmx.emulationRequired && !inRealMode(vcpu) && (exception.pending || exception.injected);
}

/** @kvm vmx.c handle_invalid_guest_state: 1 to go on, 0 to userspace. */
export function handleInvalidGuestState(vcpu: VcpuState): number {
  const { vmx, x86, vm } = vcpu;
  const wantsWindow = (vmcsRead(vmx, F.VMCS_CPU_BASED_VM_EXEC_CONTROL) & CPU_BASED_INTR_WINDOW_EXITING) !== 0;
  for (let n = 0; vmx.emulationRequired && n < INSTRUCTIONS; n++) {
    if (wantsWindow && !vmxInterruptBlocked(vcpu)) {
      changeExecControls(vmx, CPU_BASED_INTR_WINDOW_EXITING, false);
      vcpu.stats.irq_window_exits++;
      makeRequest(vcpu, REQ_EVENT);
      return 1;
    }
    if ((vcpu.requests & REQ_EVENT) !== 0) return 1;
    vm.x86.idleTime += INSTRUCTION_TIME;
    if (emulateInstruction(vcpu, 0, 0, 0) === 0) return 0;
    if (exceptionPending(vcpu)) {
      prepareEmulationFailureExit(vcpu, null, 0);
      return 0;
    }
    if (x86.haltRequest) {
      x86.haltRequest = false;
      return emulateHaltNoskip(vcpu);
    }
    if (vcpu.signalPending) return 1;
  }
  return 1;
}

/**
 * An event for a guest in real mode, which the processor cannot be given: done at once, and over. False in protected mode.
 * @kvm x86.c kvm_inject_realmode_interrupt
 */
export function injectRealmodeInterrupt(vcpu: VcpuState, vector: number): boolean {
  if (unrestrictedGuest(vcpu) || !inRealMode(vcpu)) return false;
  initEmulateCtxt(vcpu);
  const ctxt = vcpu.x86.emulateCtxt!;
  ctxt.opBytes = 2;
  ctxt.adBytes = 2;
  ctxt.nextEipLo = ctxt.eipLo;
  ctxt.nextEipHi = 0;
  if (emulateIntReal(ctxt, vector) !== X86EMUL_CONTINUE) {
    makeRequest(vcpu, REQ_TRIPLE_FAULT);
    return true;
  }
  ripWrite(vcpu, ctxt.nextEipLo, 0);
  setRflagsNoEvent(vcpu, ctxt.eflags);
  return true;
}
