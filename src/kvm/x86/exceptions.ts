/** Exceptions on their way to the guest (@kvm x86.c kvm_multiple_exception and around). */
import { DR6_ACTIVE_LOW, DR6_FIXED_1, DR6_RTM, DR7_GD } from '../../arch/debug-registers.ts';
import { PFERR_PRESENT, PFERR_RSVD } from '../../arch/error-code.ts';
import {
  BP_VECTOR,
  DB_VECTOR,
  DF_VECTOR,
  exceptionClass,
  GP_VECTOR,
  NMI_VECTOR,
  OF_VECTOR,
  PF_VECTOR,
} from '../../arch/exceptions.ts';
import type { X86Exception } from '../emulate/ops.ts';
import { MMU_ROOT_CURRENT } from '../mmu/free-roots.ts';
import { mmuInvalidateAddr } from '../mmu/invlpg.ts';
import { makeRequest, REQ_EVENT, REQ_TRIPLE_FAULT, type VcpuState } from '../vcpu-state.ts';
import { updateDr7 } from './debug-registers.ts';
import { isProtmode } from './registers.ts';
import type { QueuedException } from './vcpu-x86.ts';

/** What kind of exception a vector is (@kvm x86.c EXCPT_*). */
export const EXCPT_FAULT = 0;
export const EXCPT_TRAP = 1;
export const EXCPT_ABORT = 2;
export const EXCPT_INTERRUPT = 3;
export const EXCPT_DB = 4;

/** @kvm x86.c exception_type */
export function exceptionType(vector: number): number {
  if (vector > 31 || vector === NMI_VECTOR) return EXCPT_INTERRUPT;
  if (vector === DB_VECTOR) return EXCPT_DB;
  if (vector === BP_VECTOR || vector === OF_VECTOR) return EXCPT_TRAP;
  if (vector === DF_VECTOR || vector === 18) return EXCPT_ABORT;
  return EXCPT_FAULT;
}

/** Raised by an instruction meant to: INT3, INTO. @kvm x86.h kvm_exception_is_soft */
export function exceptionIsSoft(vector: number): boolean {
  return vector === BP_VECTOR || vector === OF_VECTOR;
}

/** DR trap bits: B0 to B3, BD, BS, BT. */
const DR_TRAP_BITS = 0x400f;

/** DR6 or CR2 take what the exception carries. @kvm x86.c kvm_deliver_exception_payload */
export function deliverExceptionPayload(vcpu: VcpuState, ex: QueuedException): void {
  if (!ex.hasPayload) return;
  if (ex.vector === DB_VECTOR) {
    let dr6 = (vcpu.x86.dr6 & ~DR_TRAP_BITS) | DR6_RTM;
    dr6 &= ~(ex.payloadLo & DR6_ACTIVE_LOW);
    dr6 |= ex.payloadLo & ~DR6_ACTIVE_LOW;
    dr6 &= ~(1 << 12);
    vcpu.x86.dr6 = dr6 | DR6_FIXED_1;
  } else if (ex.vector === PF_VECTOR) {
    vcpu.cr2Lo = ex.payloadLo;
    vcpu.cr2Hi = ex.payloadHi;
  }
  ex.hasPayload = false;
  ex.payloadLo = 0;
  ex.payloadHi = 0;
}

/** The exception becomes an exit to L1. @kvm x86.c kvm_queue_exception_vmexit */
export function queueExceptionVmexit(
  vcpu: VcpuState,
  vector: number,
  hasError: boolean,
  errorCode: number,
  hasPayload: boolean,
  payloadLo: number,
  payloadHi: number,
): void {
  makeRequest(vcpu, REQ_EVENT);
  const ex = vcpu.x86.exceptionVmexit;
  ex.vector = vector;
  ex.injected = false;
  ex.pending = true;
  ex.hasErrorCode = hasError;
  ex.errorCode = errorCode;
  ex.hasPayload = hasPayload;
  ex.payloadLo = payloadLo;
  ex.payloadHi = payloadHi;
}

/** An exception waits, for the guest or as an exit to L1. @kvm x86.h kvm_is_exception_pending */
export function isExceptionPending(vcpu: VcpuState): boolean {
  return vcpu.x86.exception.pending || vcpu.x86.exceptionVmexit.pending || (vcpu.requests & REQ_TRIPLE_FAULT) !== 0;
}

/** @kvm x86.c kvm_multiple_exception */
function multipleException(
  vcpu: VcpuState,
  vector: number,
  hasError: boolean,
  errorCode: number,
  hasPayload: boolean,
  payloadLo: number,
  payloadHi: number,
  reinject: boolean,
): void {
  makeRequest(vcpu, REQ_EVENT);
  // What was injected once was asked about then, or L1 itself injected it.
  if (!reinject && vcpu.guestMode && vcpu.vm.vendor.nested.isExceptionVmexit(vcpu, vector, errorCode)) {
    queueExceptionVmexit(vcpu, vector, hasError, errorCode, hasPayload, payloadLo, payloadHi);
    return;
  }
  const ex = vcpu.x86.exception;
  if (ex.pending || ex.injected) {
    if (ex.vector === DF_VECTOR) {
      makeRequest(vcpu, REQ_TRIPLE_FAULT);
      return;
    }
    const first = exceptionClass(ex.vector);
    const second = exceptionClass(vector);
    if ((first === 'contributory' && second === 'contributory') || (first === 'page-fault' && second !== 'benign')) {
      ex.injected = false;
      ex.pending = false;
      queueExceptionE(vcpu, DF_VECTOR, 0);
      return;
    }
    // Else the new one replaces the old, which running the instruction again brings back.
  }
  ex.injected = reinject;
  ex.pending = !reinject;
  ex.hasErrorCode = hasError;
  ex.vector = vector;
  ex.errorCode = errorCode;
  ex.hasPayload = hasPayload && !reinject;
  ex.payloadLo = payloadLo;
  ex.payloadHi = payloadHi;
}

/** @kvm x86.c kvm_queue_exception */
export function queueException(vcpu: VcpuState, vector: number): void {
  multipleException(vcpu, vector, false, 0, false, 0, 0, false);
}

/** @kvm x86.c kvm_queue_exception_e */
export function queueExceptionE(vcpu: VcpuState, vector: number, errorCode: number): void {
  multipleException(vcpu, vector, true, errorCode, false, 0, 0, false);
}

/** @kvm x86.c kvm_queue_exception_p */
export function queueExceptionP(vcpu: VcpuState, vector: number, lo: number, hi: number): void {
  multipleException(vcpu, vector, false, 0, true, lo, hi, false);
}

/** @kvm x86.c kvm_requeue_exception, kvm_requeue_exception_e */
export function requeueException(vcpu: VcpuState, vector: number, hasError: boolean, errorCode: number): void {
  multipleException(vcpu, vector, hasError, errorCode, false, 0, 0, true);
}

/** @kvm kvm_host.h kvm_inject_gp */
export function injectGp(vcpu: VcpuState, errorCode: number): void {
  queueExceptionE(vcpu, GP_VECTOR, errorCode);
}

/** A #PF for the guest: `address` becomes CR2. @kvm x86.c kvm_inject_page_fault */
export function injectPageFault(vcpu: VcpuState, fault: X86Exception): void {
  vcpu.stats.pf_guest++;
  // L1 gets the asynchronous ones of L2, whatever it intercepts.
  if (vcpu.guestMode && fault.asyncPageFault) {
    queueExceptionVmexit(vcpu, PF_VECTOR, true, fault.errorCode, true, fault.addressLo, fault.addressHi);
    return;
  }
  multipleException(vcpu, PF_VECTOR, true, fault.errorCode, true, fault.addressLo, fault.addressHi, false);
}

/**
 * The translation that faulted is dropped first, so that the guest's fix is seen. A fault of L1's nested tables is L1's to hear of.
 * @kvm x86.c __kvm_inject_emulated_page_fault
 */
export function injectEmulatedPageFault(vcpu: VcpuState, fault: X86Exception): void {
  const mmu = fault.nestedPageFault ? vcpu.mmu.mmu : vcpu.mmu.walkMmu;
  if ((fault.errorCode & PFERR_PRESENT) !== 0 && (fault.errorCode & PFERR_RSVD) === 0) {
    mmuInvalidateAddr(vcpu, mmu, fault.addressLo, fault.addressHi, MMU_ROOT_CURRENT);
  }
  if (mmu.nestedTables !== null) mmu.nestedTables.injectPageFault(vcpu, fault);
  else injectPageFault(vcpu, fault);
}

/** @kvm x86.h kvm_event_needs_reinjection */
export function eventNeedsReinjection(vcpu: VcpuState): boolean {
  const x86 = vcpu.x86;
  return x86.exception.injected || x86.interruptInjected || x86.nmiInjected;
}

/** @kvm x86.h kvm_clear_exception_queue */
export function clearExceptionQueue(vcpu: VcpuState): void {
  vcpu.x86.exception.pending = false;
  vcpu.x86.exception.injected = false;
  vcpu.x86.exceptionVmexit.pending = false;
}

/** @kvm x86.h kvm_queue_interrupt */
export function queueInterrupt(vcpu: VcpuState, vector: number, soft: boolean): void {
  vcpu.x86.interruptInjected = true;
  vcpu.x86.interruptSoft = soft;
  vcpu.x86.interruptNr = vector;
}

/** @kvm x86.h kvm_clear_interrupt_queue */
export function clearInterruptQueue(vcpu: VcpuState): void {
  vcpu.x86.interruptInjected = false;
}

const traceNames: Record<number, string> = {
  0: '#DE',
  1: '#DB',
  3: '#BP',
  4: '#OF',
  5: '#BR',
  6: '#UD',
  7: '#NM',
  8: '#DF',
  10: '#TS',
  11: '#NP',
  12: '#SS',
  13: '#GP',
  14: '#PF',
  16: '#MF',
  17: '#AC',
  18: '#MC',
};

/** @kvm x86.c kvm_inject_exception: real mode has no error codes. */
export function injectException(vcpu: VcpuState): void {
  const ex = vcpu.x86.exception;
  ex.hasErrorCode = ex.hasErrorCode && isProtmode(vcpu);
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const name = traceNames[ex.vector] ?? `0x${ex.vector.toString(16)}`;
    const error = ex.hasErrorCode ? ` (0x${(ex.errorCode >>> 0).toString(16)})` : '';
    trace.emit('kvm_inj_exception', { text: `${name}${error}${ex.injected ? ' [reinjected]' : ''}` });
  }
  vcpu.vm.vendor.injectException(vcpu);
}

/** A #DB clears DR7.GD as it is delivered. */
export function deliverDebugPayload(vcpu: VcpuState): void {
  deliverExceptionPayload(vcpu, vcpu.x86.exception);
  if ((vcpu.x86.dr7 & DR7_GD) !== 0) {
    vcpu.x86.dr7 &= ~DR7_GD;
    updateDr7(vcpu);
  }
}
