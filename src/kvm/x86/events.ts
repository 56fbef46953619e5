/** KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS (@kvm x86.c kvm_vcpu_ioctl_x86_get_vcpu_events). */
import { NMI_VECTOR } from '../../arch/exceptions.ts';
import { hi64, join64, lo64 } from '../../arch/halves.ts';
import { EINVAL } from '../../host/errno.ts';
import {
  MP_STATE_INIT_RECEIVED,
  makeRequest,
  REQ_EVENT,
  REQ_NMI,
  REQ_TRIPLE_FAULT,
  type VcpuState,
} from '../vcpu-state.ts';
import { exceptionIsSoft } from './exceptions.ts';
import { processNmi } from './inject-events.ts';
import { smmChanged, takeSmiRequest } from './smm.ts';
import { exceptionPayloadQuirk } from './sregs.ts';

export const KVM_VCPUEVENT_VALID_NMI_PENDING = 1 << 0;
export const KVM_VCPUEVENT_VALID_SIPI_VECTOR = 1 << 1;
export const KVM_VCPUEVENT_VALID_SHADOW = 1 << 2;
export const KVM_VCPUEVENT_VALID_SMM = 1 << 3;
export const KVM_VCPUEVENT_VALID_PAYLOAD = 1 << 4;
export const KVM_VCPUEVENT_VALID_TRIPLE_FAULT = 1 << 5;

/** struct kvm_vcpu_events */
export interface VcpuEvents {
  exception: { injected: boolean; nr: number; hasErrorCode: boolean; pending: boolean; errorCode: number };
  interrupt: { injected: boolean; nr: number; soft: boolean; shadow: number };
  nmi: { injected: boolean; pending: number; masked: boolean };
  sipiVector: number;
  /** KVM_VCPUEVENT_VALID_*: which parts count. */
  flags: number;
  smi: { smm: boolean; pending: boolean; smmInsideNmi: boolean; latchedInit: boolean };
  tripleFault: { pending: boolean };
  exceptionHasPayload: boolean;
  exceptionPayload: bigint;
}

/** @kvm x86.c kvm_vcpu_ioctl_x86_get_vcpu_events */
export function getVcpuEvents(vcpu: VcpuState): VcpuEvents {
  const x86 = vcpu.x86;
  const vmX86 = vcpu.vm.x86;
  const vendor = vcpu.vm.vendor;
  processNmi(vcpu);
  takeSmiRequest(vcpu);
  exceptionPayloadQuirk(vcpu);
  const ex = x86.exception;
  const soft = exceptionIsSoft(ex.vector);
  let flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
  if (vmX86.exceptionPayloadEnabled) flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
  if (vmX86.tripleFaultEvent) flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
  return {
    exception: {
      // Without payloads userspace does not know pending from injected.
      injected: !soft && (ex.injected || (!vmX86.exceptionPayloadEnabled && ex.pending)),
      pending: !soft && ex.pending,
      nr: ex.vector,
      hasErrorCode: ex.hasErrorCode,
      errorCode: ex.errorCode >>> 0,
    },
    interrupt: {
      injected: x86.interruptInjected && !x86.interruptSoft,
      nr: x86.interruptNr,
      soft: false,
      shadow: vendor.getInterruptShadow(vcpu),
    },
    nmi: { injected: x86.nmiInjected, pending: x86.nmiPending, masked: vendor.getNmiMask(vcpu) },
    sipiVector: 0,
    flags,
    smi: {
      smm: vcpu.smm,
      pending: x86.smiPending,
      smmInsideNmi: x86.smmInsideNmi,
      latchedInit: x86.lapic?.pendingInit ?? false,
    },
    tripleFault: { pending: vmX86.tripleFaultEvent && (vcpu.requests & REQ_TRIPLE_FAULT) !== 0 },
    exceptionHasPayload: ex.hasPayload,
    exceptionPayload: join64(ex.payloadLo, ex.payloadHi),
  };
}

const KNOWN_FLAGS = 0x3f;

/** 0, or -EINVAL. @kvm x86.c kvm_vcpu_ioctl_x86_set_vcpu_events */
export function setVcpuEvents(vcpu: VcpuState, events: VcpuEvents): number {
  const x86 = vcpu.x86;
  const vmX86 = vcpu.vm.x86;
  const vendor = vcpu.vm.vendor;
  const { flags } = events;
  if ((flags & ~KNOWN_FLAGS) !== 0) return -EINVAL;
  let { injected, pending } = events.exception;
  let hasPayload = events.exceptionHasPayload;
  if ((flags & KVM_VCPUEVENT_VALID_PAYLOAD) !== 0) {
    if (!vmX86.exceptionPayloadEnabled) return -EINVAL;
    if (pending) injected = false;
    else hasPayload = false;
  } else {
    pending = false;
    hasPayload = false;
  }
  if ((injected || pending) && (events.exception.nr > 31 || events.exception.nr === NMI_VECTOR)) return -EINVAL;
  if ((flags & KVM_VCPUEVENT_VALID_SMM) !== 0 && (events.smi.smm || events.smi.pending)) {
    if (vcpu.mpState === MP_STATE_INIT_RECEIVED) return -EINVAL;
  }
  if ((flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) !== 0 && !vmX86.tripleFaultEvent) return -EINVAL;
  processNmi(vcpu);
  x86.exceptionFromUserspace = pending;
  x86.exceptionVmexit.pending = false;
  const ex = x86.exception;
  ex.injected = injected;
  ex.pending = pending;
  ex.vector = events.exception.nr;
  ex.hasErrorCode = events.exception.hasErrorCode;
  ex.errorCode = events.exception.errorCode;
  ex.hasPayload = hasPayload;
  ex.payloadLo = lo64(events.exceptionPayload);
  ex.payloadHi = hi64(events.exceptionPayload);
  x86.interruptInjected = events.interrupt.injected;
  x86.interruptNr = events.interrupt.nr;
  x86.interruptSoft = events.interrupt.soft;
  if ((flags & KVM_VCPUEVENT_VALID_SHADOW) !== 0) vendor.setInterruptShadow(vcpu, events.interrupt.shadow);
  x86.nmiInjected = events.nmi.injected;
  if ((flags & KVM_VCPUEVENT_VALID_NMI_PENDING) !== 0) {
    x86.nmiPending = 0;
    x86.nmiQueued = events.nmi.pending;
    if (events.nmi.pending > 0) makeRequest(vcpu, REQ_NMI);
  }
  vendor.setNmiMask(vcpu, events.nmi.masked);
  if ((flags & KVM_VCPUEVENT_VALID_SMM) !== 0) {
    if (vcpu.smm !== events.smi.smm) smmChanged(vcpu, events.smi.smm);
    x86.smiPending = events.smi.pending;
    if (events.smi.smm) x86.smmInsideNmi = events.smi.smmInsideNmi;
  }
  if (x86.lapic !== null) {
    if ((flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR) !== 0) x86.lapic.sipiVector = events.sipiVector;
    if ((flags & KVM_VCPUEVENT_VALID_SMM) !== 0) x86.lapic.pendingInit = events.smi.latchedInit;
  }
  if ((flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) !== 0) {
    if (events.tripleFault.pending) makeRequest(vcpu, REQ_TRIPLE_FAULT);
    else vcpu.requests &= ~REQ_TRIPLE_FAULT;
  }
  makeRequest(vcpu, REQ_EVENT);
  return 0;
}
