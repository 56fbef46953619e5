/** What is delivered at the next entry, in order of priority (@kvm x86.c kvm_check_and_inject_events). */
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { CS, RFLAGS_RF } from '../../arch/registers.ts';
import { EBUSY } from '../../host/errno.ts';
import { emptySegment } from '../emulate/ctxt.ts';
import {
  checkRequest,
  MP_STATE_INIT_RECEIVED,
  MP_STATE_RUNNABLE,
  makeRequest,
  REQ_EVENT,
  REQ_NMI,
  REQ_SMI,
  REQ_UPDATE_PROTECTED_GUEST_STATE,
  type VcpuState,
} from '../vcpu-state.ts';
import { vcpuReset } from './create.ts';
import {
  deliverDebugPayload,
  EXCPT_FAULT,
  eventNeedsReinjection,
  exceptionType,
  injectException,
  isExceptionPending,
  queueInterrupt,
} from './exceptions.ts';
import { KVM_GUESTDBG_BLOCKIRQ } from './guest-debug-bits.ts';
import { cpuGetInterrupt, cpuHasInjectableIntr, cpuHasInterrupt } from './irq.ts';
import { checkNestedEvents } from './nested-ops.ts';
import { getRflags, ripWrite, setRflagsNoEvent } from './registers.ts';
import { enterSmm } from './smm.ts';

/** At most two NMIs wait, one while NMIs are masked. @kvm x86.c process_nmi */
export function processNmi(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  const limit = vcpu.vm.vendor.getNmiMask(vcpu) || x86.nmiInjected ? 1 : 2;
  x86.nmiPending = Math.min(x86.nmiPending + x86.nmiQueued, limit);
  x86.nmiQueued = 0;
  if (x86.nmiPending > 0) makeRequest(vcpu, REQ_EVENT);
}

/**
 * Programs the event the guest gets at its entry. Answers true when something is left that only an immediate exit gets another chance
 * for.
 * @kvm x86.c kvm_check_and_inject_events
 */
export function checkAndInjectEvents(vcpu: VcpuState): boolean {
  const x86 = vcpu.x86;
  const vendor = vcpu.vm.vendor;
  const ex = x86.exception;
  // An exit to L1 comes before anything that is for L2.
  const nested = vcpu.guestMode ? checkNestedEvents(vcpu) : 0;
  if (ex.injected) injectException(vcpu);
  else if (isExceptionPending(vcpu)) {
    // A pending exception comes first, below.
  } else if (x86.nmiInjected) vendor.injectNmi(vcpu);
  else if (x86.interruptInjected) vendor.injectIrq(vcpu, true);
  vcpu.vm.log.warnOnOnce(
    ex.injected && ex.pending,
    'kvm_check_and_inject_events',
    'an exception pending over an injected one',
  );
  // Whatever else there is waits until the entry under way, or the event injected again, has completed.
  if (nested < 0) return true;
  vcpu.vm.log.warnOnOnce(
    x86.exceptionVmexit.injected || x86.exceptionVmexit.pending,
    'kvm_check_and_inject_events',
    'an exit to L1 was left undone',
  );
  let canInject = !eventNeedsReinjection(vcpu);
  if (ex.pending) {
    // Faults push RF set, so that the instruction is not stopped by its breakpoint again.
    if (exceptionType(ex.vector) === EXCPT_FAULT) setRflagsNoEvent(vcpu, getRflags(vcpu) | RFLAGS_RF);
    if (ex.vector === DB_VECTOR) deliverDebugPayload(vcpu);
    injectException(vcpu);
    ex.pending = false;
    ex.injected = true;
    canInject = false;
  }
  if ((x86.guestDebug & KVM_GUESTDBG_BLOCKIRQ) !== 0) return false;
  if (x86.smiPending) {
    const r = canInject ? vendor.smiAllowed(vcpu, true) : -EBUSY;
    if (r < 0) return true;
    if (r > 0) {
      x86.smiPending = false;
      enterSmm(vcpu);
      canInject = false;
    } else vendor.enableSmiWindow(vcpu);
  }
  if (x86.nmiPending > 0) {
    const r = canInject ? vendor.nmiAllowed(vcpu, true) : -EBUSY;
    if (r < 0) return true;
    if (r > 0) {
      x86.nmiPending--;
      x86.nmiInjected = true;
      vendor.injectNmi(vcpu);
      canInject = false;
    }
    if (x86.nmiPending > 0) vendor.enableNmiWindow(vcpu);
  }
  if (cpuHasInjectableIntr(vcpu)) {
    const r = canInject ? vendor.interruptAllowed(vcpu, true) : -EBUSY;
    if (r < 0) return true;
    if (r > 0) {
      const vector = cpuGetInterrupt(vcpu);
      if (vector !== -1) {
        queueInterrupt(vcpu, vector, false);
        vendor.injectIrq(vcpu, false);
      }
    }
    if (cpuHasInjectableIntr(vcpu)) vendor.enableIrqWindow(vcpu);
  }
  return vcpu.guestMode && vendor.nested.hasEvents(vcpu, true);
}

/** INIT and SIPI wait while the vCPU is in SMM or global interrupts are off. @kvm lapic.h kvm_apic_init_sipi_allowed */
export function initSipiAllowed(vcpu: VcpuState): boolean {
  return !vcpu.smm && !vcpu.vm.vendor.initSignalBlocked(vcpu);
}

const codeSegment = emptySegment();

/** INIT resets the vCPU; a SIPI starts one that got INIT, at the page it names. @kvm lapic.c kvm_apic_accept_events */
export function acceptApicEvents(vcpu: VcpuState): void {
  const apic = vcpu.x86.lapic;
  if (apic === null || (!apic.pendingInit && !apic.pendingSipi)) return;
  if (vcpu.guestMode && checkNestedEvents(vcpu) < 0) return;
  if (!initSipiAllowed(vcpu)) {
    // INIT is latched, a SIPI is lost.
    apic.pendingSipi = false;
    return;
  }
  if (apic.pendingInit) {
    apic.pendingInit = false;
    vcpuReset(vcpu, true);
    vcpu.mpState = vcpu.id === 0 ? MP_STATE_RUNNABLE : MP_STATE_INIT_RECEIVED;
  }
  if (apic.pendingSipi) {
    apic.pendingSipi = false;
    if (vcpu.mpState === MP_STATE_INIT_RECEIVED) {
      const vendor = vcpu.vm.vendor;
      vendor.getSegment(vcpu, CS, codeSegment);
      codeSegment.selector = apic.sipiVector << 8;
      codeSegment.baseLo = apic.sipiVector << 12;
      codeSegment.baseHi = 0;
      vendor.setSegment(vcpu, CS, codeSegment);
      ripWrite(vcpu, 0, 0);
      vcpu.mpState = MP_STATE_RUNNABLE;
    }
  }
}

/** Something that ends a halt. @kvm x86.c kvm_vcpu_has_events */
export function vcpuHasEvents(vcpu: VcpuState): boolean {
  const x86 = vcpu.x86;
  const apic = x86.lapic;
  if (x86.asyncPf.done.length > 0) return true;
  if (apic !== null && (apic.pendingInit || apic.pendingSipi) && initSipiAllowed(vcpu)) return true;
  if (isExceptionPending(vcpu) || x86.pvUnhalted) return true;
  if ((vcpu.requests & REQ_UPDATE_PROTECTED_GUEST_STATE) !== 0) return true;
  if ((vcpu.requests & REQ_NMI) !== 0) return true;
  if (x86.nmiPending > 0 && vcpu.vm.vendor.nmiAllowed(vcpu, false) !== 0) return true;
  if ((vcpu.requests & REQ_SMI) !== 0 || (x86.smiPending && vcpu.vm.vendor.smiAllowed(vcpu, false) !== 0)) return true;
  // As in the kernel, -EBUSY counts as allowed here.
  if (vcpu.vm.vendor.interruptAllowed(vcpu, false) !== 0 && cpuHasInterrupt(vcpu)) return true;
  return vcpu.guestMode && vcpu.vm.vendor.nested.hasEvents(vcpu, false);
}

/** Userspace can have its interrupt delivered right away. @kvm x86.c kvm_vcpu_ready_for_interrupt_injection */
export function readyForInterruptInjection(vcpu: VcpuState): boolean {
  return (
    vcpu.vm.vendor.interruptAllowed(vcpu, false) !== 0 && !eventNeedsReinjection(vcpu) && !isExceptionPending(vcpu)
  );
}

/** NMIs that were sent are counted in. */
export function takeNmiRequest(vcpu: VcpuState): void {
  if (checkRequest(vcpu, REQ_NMI)) processNmi(vcpu);
}
