/** One instruction through the emulator, and what becomes of it (@kvm x86.c x86_emulate_instruction). */
import { DR6_ACTIVE_LOW, DR7_BP_EN_MASK } from '../../arch/debug-registers.ts';
import { BP_VECTOR, DB_VECTOR, GP_VECTOR, OF_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { numberOf } from '../../arch/halves.ts';
import { RFLAGS_IF, RFLAGS_RF } from '../../arch/registers.ts';
import {
  EMULATION_FAILED,
  EMULATION_INTERCEPTED,
  EMULATION_OK,
  EMULATION_RESTART,
  type EmulateCtxt,
  X86EMUL_MODE_PROT64,
} from '../emulate/ctxt.ts';
import { emulatorInvalidateRegisterCache, x86EmulateInsn } from '../emulate/emulate.ts';
import { X86EMUL_CONTINUE, X86EMUL_PROPAGATE_FAULT, X86EMUL_RETRY_INSTR } from '../emulate/ops.ts';
import { KVM_EXIT_DEBUG } from '../kvm-run.ts';
import { ROLE_DIRECT } from '../mmu/role.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { checkHwBp } from './debug-registers.ts';
import { decodeEmulatedInstruction } from './decode-instruction.ts';
import * as T from './emul-type.ts';
import { handleEmulationFailure } from './emulation-failure.ts';
import {
  clearExceptionQueue,
  EXCPT_TRAP,
  exceptionType,
  injectEmulatedPageFault,
  queueException,
  queueExceptionE,
  queueExceptionP,
} from './exceptions.ts';
import { KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP } from './guest-debug-bits.ts';
import { nextMmioPiece } from './mmio.ts';
import { retryDecoded, retryFailed } from './native-retry.ts';
import { getLinearRip, getRflags, ripWrite, setRflags, setRflagsNoEvent } from './registers.ts';
import { doSinglestep } from './skip.ts';

/** @kvm x86.c toggle_interruptibility: STI after STI does not prolong the shadow. */
function toggleInterruptibility(vcpu: VcpuState, mask: number): void {
  const vendor = vcpu.vm.vendor;
  const shadow = vendor.getInterruptShadow(vcpu);
  const wanted = (shadow & mask) !== 0 ? 0 : mask;
  if (shadow === 0 && wanted === 0) return;
  vendor.setInterruptShadow(vcpu, wanted);
  if (wanted === 0) makeRequest(vcpu, REQ_EVENT);
}

/** @kvm x86.c inject_emulated_exception */
function injectEmulatedException(vcpu: VcpuState): void {
  const ex = vcpu.x86.emulateCtxt!.exception;
  if (ex.vector === PF_VECTOR) injectEmulatedPageFault(vcpu, ex);
  else if (ex.errorCodeValid) queueExceptionE(vcpu, ex.vector, ex.errorCode);
  else queueException(vcpu, ex.vector);
}

/**
 * A code breakpoint at RIP comes before the instruction: -1 none, else what emulation answers.
 * @kvm x86.c kvm_vcpu_check_code_breakpoint
 */
function checkCodeBreakpoint(vcpu: VcpuState, emulType: number): number {
  const done = T.EMULTYPE_NO_DECODE | T.EMULTYPE_SKIP | T.EMULTYPE_TRAP_UD | T.EMULTYPE_VMWARE_GP | T.EMULTYPE_PF;
  if ((emulType & done) !== 0) return -1;
  const x86 = vcpu.x86;
  if ((x86.guestDebug & KVM_GUESTDBG_USE_HW_BP) !== 0 && (x86.guestDebugDr7 & DR7_BP_EN_MASK) !== 0) {
    const rip = getLinearRip(vcpu);
    const dr6 = checkHwBp(rip[0]!, rip[1]!, 0, x86.guestDebugDr7, x86.effDb);
    if (dr6 !== 0) {
      const run = vcpu.run;
      run.debug.setDr6(dr6 | DR6_ACTIVE_LOW);
      run.debug.setPc(rip[0]!, rip[1]!);
      run.debug.exception = DB_VECTOR;
      run.exitReason = KVM_EXIT_DEBUG;
      return 0;
    }
  }
  if ((x86.dr7 & DR7_BP_EN_MASK) !== 0 && (getRflags(vcpu) & RFLAGS_RF) === 0) {
    const rip = getLinearRip(vcpu);
    const dr6 = checkHwBp(rip[0]!, rip[1]!, 0, x86.dr7, x86.db);
    if (dr6 !== 0) {
      queueExceptionP(vcpu, DB_VECTOR, dr6, 0);
      return 1;
    }
  }
  return -1;
}

/** IN, OUT, INS, OUTS and RDPMC: what the VMware backdoor consists of. @kvm x86.c is_vmware_backdoor_opcode */
function isVmwareBackdoorOpcode(ctxt: EmulateCtxt): boolean {
  if (ctxt.opcodeLen === 2) return ctxt.b === 0x33;
  const b = ctxt.b;
  return ctxt.opcodeLen === 1 && ((b >= 0xe4 && b <= 0xe7) || (b >= 0xec && b <= 0xef) || (b >= 0x6c && b <= 0x6f));
}

/** @kvm x86.c is_soft_int_instruction */
function isSoftIntInstruction(ctxt: EmulateCtxt, emulType: number): boolean {
  const vector = T.emultypeGetSoftIntVector(emulType);
  switch (ctxt.b) {
    case 0xcc:
      return vector === BP_VECTOR;
    case 0xcd:
      return vector === (ctxt.src.i32[0]! & 0xff);
    case 0xce:
      return vector === OF_VECTOR;
    default:
      return false;
  }
}

function decodeFailed(vcpu: VcpuState, cr2Lo: number, cr2Hi: number, emulType: number): number {
  const ctxt = vcpu.x86.emulateCtxt!;
  if ((emulType & (T.EMULTYPE_TRAP_UD | T.EMULTYPE_TRAP_UD_FORCED)) !== 0) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  if (retryFailed(vcpu, cr2Lo, cr2Hi, emulType)) return 1;
  if (ctxt.haveException && (emulType & T.EMULTYPE_SKIP) === 0) {
    injectEmulatedException(vcpu);
    return 1;
  }
  return handleEmulationFailure(vcpu, emulType);
}

/** Only RIP moves; with EMULTYPE_COMPLETE_USER_EXIT the instruction's effects are there already and are committed. */
function skip(vcpu: VcpuState, emulType: number): number {
  const ctxt = vcpu.x86.emulateCtxt!;
  if ((emulType & T.EMULTYPE_SKIP_SOFT_INT) !== 0 && !isSoftIntInstruction(ctxt, emulType)) return 0;
  ctxt.eipLo = ctxt.nextEipLo;
  ctxt.eipHi = ctxt.mode === X86EMUL_MODE_PROT64 ? ctxt.nextEipHi : 0;
  if ((emulType & T.EMULTYPE_COMPLETE_USER_EXIT) !== 0) return writeback(vcpu, 1);
  ripWrite(vcpu, ctxt.eipLo, ctxt.eipHi);
  if ((ctxt.eflags & RFLAGS_RF) !== 0) setRflags(vcpu, ctxt.eflags & ~RFLAGS_RF);
  return 1;
}

/** Commits what the context holds to the vCPU. */
function writeback(vcpu: VcpuState, r: number): number {
  const ctxt = vcpu.x86.emulateCtxt!;
  let ret = r;
  const rflags = vcpu.vm.vendor.getRflags(vcpu);
  toggleInterruptibility(vcpu, ctxt.interruptibility);
  vcpu.x86.emulateRegsNeedSyncToVcpu = false;
  if (!ctxt.haveException || exceptionType(ctxt.exception.vector) === EXCPT_TRAP) {
    ripWrite(vcpu, ctxt.eipLo, ctxt.eipHi);
    if (ret !== 0 && (ctxt.tf || (vcpu.x86.guestDebug & KVM_GUESTDBG_SINGLESTEP) !== 0)) ret = doSinglestep(vcpu);
    setRflagsNoEvent(vcpu, ctxt.eflags);
  }
  if ((ctxt.eflags & ~rflags & RFLAGS_IF) !== 0) makeRequest(vcpu, REQ_EVENT);
  return ret;
}

/** @kvm x86.c complete_emulated_pio */
function completeEmulatedPio(vcpu: VcpuState): number {
  return emulateInstruction(vcpu, 0, 0, T.EMULTYPE_NO_DECODE);
}

/** Userspace has handled a piece of the access: the next one, or the instruction goes on. @kvm x86.c complete_emulated_mmio */
function completeEmulatedMmio(vcpu: VcpuState): number {
  const x86 = vcpu.x86;
  if (nextMmioPiece(vcpu)) {
    x86.completeUserspaceIo = completeEmulatedMmio;
    return 0;
  }
  if (x86.mmioIsWrite) return 1;
  x86.mmioReadCompleted = true;
  return emulateInstruction(vcpu, 0, 0, T.EMULTYPE_NO_DECODE);
}

/** Runs the decoded instruction, again for each round of a string instruction, and settles where it went. */
function emulateDecoded(vcpu: VcpuState, cr2Lo: number, cr2Hi: number, emulType: number): number {
  const x86 = vcpu.x86;
  const ctxt = x86.emulateCtxt!;
  for (;;) {
    if ((emulType & T.EMULTYPE_PF) !== 0) {
      ctxt.exception.addressLo = cr2Lo;
      ctxt.exception.addressHi = cr2Hi;
      if ((vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0) {
        ctxt.gpaAvailable = true;
        ctxt.gpaVal = numberOf(cr2Lo, cr2Hi);
      }
    } else {
      ctxt.exception.addressLo = 0;
      ctxt.exception.addressHi = 0;
    }
    const r = x86EmulateInsn(ctxt, vcpu.guestMode && (emulType & T.EMULTYPE_NO_DECODE) === 0);
    if (r === EMULATION_INTERCEPTED) return 1;
    if (r === EMULATION_FAILED) {
      if (retryFailed(vcpu, cr2Lo, cr2Hi, emulType)) return 1;
      return handleEmulationFailure(vcpu, emulType);
    }
    let ret = 1;
    let commit = true;
    if (ctxt.haveException) {
      x86.mmioNeeded = false;
      injectEmulatedException(vcpu);
    } else if (x86.pioCount !== 0) {
      if (!x86.pioIn) {
        x86.pioCount = 0;
      } else {
        commit = false;
        x86.completeUserspaceIo = completeEmulatedPio;
      }
      ret = 0;
    } else if (x86.mmioNeeded) {
      vcpu.stats.mmio_exits++;
      if (!x86.mmioIsWrite) commit = false;
      ret = 0;
      x86.completeUserspaceIo = completeEmulatedMmio;
    } else if (x86.completeUserspaceIo !== null) {
      commit = false;
      ret = 0;
    } else if (r === EMULATION_RESTART) {
      continue;
    }
    if (commit) return writeback(vcpu, ret);
    x86.emulateRegsNeedSyncToVcpu = true;
    return ret;
  }
}

/**
 * Emulates the instruction at RIP; (cr2Lo, cr2Hi) is the faulting gpa (direct MMU) or gva with EMULTYPE_PF. 1 to resume the guest, 0 to
 * go to userspace. @kvm x86.c x86_emulate_instruction
 */
export function emulateInstruction(vcpu: VcpuState, cr2Lo: number, cr2Hi: number, emulType: number): number {
  return emulate(vcpu, cr2Lo, cr2Hi, emulType, null);
}

/**
 * Emulates the instruction in `bytes` instead of the one at RIP; answers as `emulateInstruction`. @kvm x86.c
 * kvm_emulate_instruction_from_buffer
 */
export function emulateInstructionFromBuffer(vcpu: VcpuState, bytes: Uint8Array): number {
  return emulate(vcpu, 0, 0, 0, bytes);
}

function emulate(vcpu: VcpuState, cr2Lo: number, cr2Hi: number, emulType: number, bytes: Uint8Array | null): number {
  let type = emulType;
  if ((type & T.EMULTYPE_ALLOW_RETRY_PF) !== 0) {
    const bad = vcpu.guestMode || (type & T.EMULTYPE_PF) === 0;
    if (vcpu.vm.log.warnOnOnce(bad, 'x86_emulate_instruction', 'retry of what cannot be retried')) {
      type &= ~T.EMULTYPE_ALLOW_RETRY_PF;
    }
  }
  const check = vcpu.vm.vendor.checkEmulateInstruction(vcpu, type);
  if (check !== X86EMUL_CONTINUE) {
    if (check === X86EMUL_RETRY_INSTR || check === X86EMUL_PROPAGATE_FAULT) return 1;
    return handleEmulationFailure(vcpu, type);
  }
  const ctxt = vcpu.x86.emulateCtxt!;
  if ((type & T.EMULTYPE_NO_DECODE) === 0) {
    clearExceptionQueue(vcpu);
    const hit = checkCodeBreakpoint(vcpu, type);
    if (hit >= 0) return hit;
    if (decodeEmulatedInstruction(vcpu, type, bytes) !== EMULATION_OK) return decodeFailed(vcpu, cr2Lo, cr2Hi, type);
  }
  if ((type & T.EMULTYPE_VMWARE_GP) !== 0 && !isVmwareBackdoorOpcode(ctxt)) {
    queueExceptionE(vcpu, GP_VECTOR, 0);
    return 1;
  }
  if ((type & T.EMULTYPE_SKIP) !== 0) return skip(vcpu, type);
  if (retryDecoded(vcpu, cr2Lo, cr2Hi, type, ctxt)) return 1;
  if (vcpu.x86.emulateRegsNeedSyncFromVcpu) {
    vcpu.x86.emulateRegsNeedSyncFromVcpu = false;
    emulatorInvalidateRegisterCache(ctxt);
  }
  return emulateDecoded(vcpu, cr2Lo, cr2Hi, type);
}
