/** KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE of VMX (@kvm nested.c vmx_get_nested_state, vmx_set_nested_state). */
import * as F from '../../../arch/vmcs.ts';
import { EINVAL } from '../../../host/errno.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../../vcpu-state.ts';
import { X86_FEATURE_VMX } from '../../x86/cpuid-features.ts';
import { guestCpuidHas } from '../../x86/guest-cpuid.ts';
import {
  KVM_STATE_NESTED_EVMCS,
  KVM_STATE_NESTED_FORMAT_VMX,
  KVM_STATE_NESTED_GUEST_MODE,
  KVM_STATE_NESTED_MTF_PENDING,
  KVM_STATE_NESTED_RUN_PENDING,
  NESTED_STATE_HEADER,
} from '../../x86/nested-ops.ts';
import {
  NESTED_STATE_FLAGS,
  NESTED_STATE_FORMAT,
  NESTED_STATE_HDR,
  NESTED_STATE_SIZE,
} from '../../x86/nested-state.ts';
import { checkControls, checkGuestState, checkHostState, pageAddressValid } from './consistency-checks.ts';
import { NVMX_VMENTRY_SUCCESS, nestedVmxEnterNonRootMode } from './enter.ts';
import { enterVmxOperation, freeNested, setCurrentVmptr } from './instructions.ts';
import { INVALID_VMPTR } from './nested-vmx.ts';
import { copyVmcs02ToVmcs12Rare, syncVmcs12, syncVmcs12Rare } from './sync-vmcs12.ts';
import { VMCS12_REVISION, VMCS12_SIZE } from './vmcs12-layout.ts';
import { NO_EXIT_REASON, nestedVmxVmexit } from './vmexit.ts';

/** Where the vendor's part of the header has its fields. @kvm uapi/asm/kvm.h struct kvm_vmx_nested_state_hdr */
const VMXON_PA = NESTED_STATE_HDR;
const VMCS12_PA = NESTED_STATE_HDR + 8;
const SMM_FLAGS = NESTED_STATE_HDR + 16;
const VMX_FLAGS = NESTED_STATE_HDR + 20;
const TIMER_DEADLINE = NESTED_STATE_HDR + 24;
const SMM_GUEST_MODE = 1;
const SMM_VMXON = 2;
const TIMER_DEADLINE_VALID = 1;

function setGpa(view: DataView, at: number, gpa: number): void {
  const none = gpa === INVALID_VMPTR;
  view.setInt32(at, none ? -1 : gpa | 0, true);
  view.setInt32(at + 4, none ? -1 : Math.floor(gpa / 0x1_0000_0000), true);
}

function isInvalid(view: DataView, at: number): boolean {
  return view.getInt32(at, true) === -1 && view.getInt32(at + 4, true) === -1;
}

function gpaOf(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}

/** Flags and size of the state, into `view`: the size. */
function fillHeader(vcpu: VcpuState, view: DataView): number {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  let flags = 0;
  let size = NESTED_STATE_HEADER;
  setGpa(view, VMXON_PA, INVALID_VMPTR);
  setGpa(view, VMCS12_PA, INVALID_VMPTR);
  if (guestCpuidHas(vcpu, X86_FEATURE_VMX) && (nested.vmxon || nested.smm.vmxon)) {
    setGpa(view, VMXON_PA, nested.vmxonPtr);
    setGpa(view, VMCS12_PA, nested.currentVmptr);
    if (nested.currentVmptr !== INVALID_VMPTR) {
      size += VMCS12_SIZE;
      if (vcpu.guestMode && v.shadowVmcs && !v.isInvalid(F.VMCS_VMCS_LINK_POINTER)) size += VMCS12_SIZE;
    }
    view.setUint16(SMM_FLAGS, (nested.smm.vmxon ? SMM_VMXON : 0) | (nested.smm.guestMode ? SMM_GUEST_MODE : 0), true);
    if (vcpu.guestMode) {
      flags |= KVM_STATE_NESTED_GUEST_MODE;
      if (nested.runPending) flags |= KVM_STATE_NESTED_RUN_PENDING;
      if (nested.mtfPending) flags |= KVM_STATE_NESTED_MTF_PENDING;
      if (v.preemptionTimer && nested.hasPreemptionTimerDeadline) {
        view.setUint32(VMX_FLAGS, TIMER_DEADLINE_VALID, true);
        setGpa(view, TIMER_DEADLINE, nested.preemptionTimerDeadline);
      }
    }
  }
  view.setUint16(NESTED_STATE_FLAGS, flags, true);
  view.setUint16(NESTED_STATE_FORMAT, KVM_STATE_NESTED_FORMAT_VMX, true);
  view.setUint32(NESTED_STATE_SIZE, size, true);
  return size;
}

/** @kvm nested.c vmx_get_nested_state */
export function vmxGetNestedState(vcpu: VcpuState | null, out: Uint8Array): number {
  if (vcpu === null) return NESTED_STATE_HEADER + 2 * VMCS12_SIZE;
  const header = new Uint8Array(NESTED_STATE_HEADER);
  const size = fillHeader(vcpu, new DataView(header.buffer));
  if (out.length < size) return size;
  out.set(header);
  const { nested } = vcpu.vmx;
  if (nested.currentVmptr === INVALID_VMPTR) return size;
  if (vcpu.guestMode) {
    syncVmcs12(vcpu);
    syncVmcs12Rare(vcpu);
  } else copyVmcs02ToVmcs12Rare(vcpu);
  nested.vmcs12.store(out.subarray(NESTED_STATE_HEADER, NESTED_STATE_HEADER + VMCS12_SIZE));
  if (size > NESTED_STATE_HEADER + VMCS12_SIZE)
    nested.shadowVmcs12.store(out.subarray(NESTED_STATE_HEADER + VMCS12_SIZE));
  return size;
}

/** Out of L2, and out of VMX operation. @kvm nested.c vmx_leave_nested */
export function vmxLeaveNested(vcpu: VcpuState): void {
  if (vcpu.guestMode) {
    vcpu.vmx.nested.runPending = false;
    nestedVmxVmexit(vcpu, NO_EXIT_REASON, 0, 0, 0);
  }
  freeNested(vcpu);
}

/** The header by itself, and with the vCPU's mode. */
function headerValid(vcpu: VcpuState, view: DataView, flags: number): boolean {
  const smm = view.getUint16(SMM_FLAGS, true);
  const hasVmx = guestCpuidHas(vcpu, X86_FEATURE_VMX);
  if (view.getUint16(NESTED_STATE_FORMAT, true) !== KVM_STATE_NESTED_FORMAT_VMX) return false;
  if (isInvalid(view, VMXON_PA)) {
    if (smm !== 0 || !isInvalid(view, VMCS12_PA) || (flags & ~KVM_STATE_NESTED_EVMCS) !== 0) return false;
  } else if (!hasVmx || !pageAddressValid(vcpu, view.getInt32(VMXON_PA, true), view.getInt32(VMXON_PA + 4, true))) {
    return false;
  }
  if ((smm & SMM_GUEST_MODE) !== 0 && (flags & KVM_STATE_NESTED_GUEST_MODE) !== 0) return false;
  if ((smm & ~(SMM_GUEST_MODE | SMM_VMXON)) !== 0) return false;
  if ((view.getUint32(VMX_FLAGS, true) & ~TIMER_DEADLINE_VALID) !== 0) return false;
  const inGuest = flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING);
  if ((vcpu.smm ? inGuest : smm) !== 0) return false;
  if ((smm & SMM_GUEST_MODE) !== 0 && (smm & SMM_VMXON) === 0) return false;
  // There are no enlightened VMCSs.
  return (flags & KVM_STATE_NESTED_EVMCS) === 0;
}

/** Into L2 as the state says. */
function restoreGuestMode(vcpu: VcpuState, view: DataView, state: Uint8Array, flags: number, size: number): boolean {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  nested.runPending = (flags & KVM_STATE_NESTED_RUN_PENDING) !== 0;
  nested.mtfPending = (flags & KVM_STATE_NESTED_MTF_PENDING) !== 0;
  if (v.shadowVmcs && !v.isInvalid(F.VMCS_VMCS_LINK_POINTER)) {
    const at = NESTED_STATE_HEADER + VMCS12_SIZE;
    if (size < at + VMCS12_SIZE || state.length < at + VMCS12_SIZE) return false;
    nested.shadowVmcs12.load(state.subarray(at, at + VMCS12_SIZE));
    if (nested.shadowVmcs12.revision !== VMCS12_REVISION || !nested.shadowVmcs12.isShadow) return false;
  }
  nested.hasPreemptionTimerDeadline = (view.getUint32(VMX_FLAGS, true) & TIMER_DEADLINE_VALID) !== 0;
  if (nested.hasPreemptionTimerDeadline) nested.preemptionTimerDeadline = gpaOf(view, TIMER_DEADLINE);
  if (!checkControls(vcpu, v) || !checkHostState(vcpu, v) || !checkGuestState(vcpu, v).ok) return false;
  nested.dirtyVmcs12 = true;
  if (nestedVmxEnterNonRootMode(vcpu, false) !== NVMX_VMENTRY_SUCCESS) return false;
  if (nested.mtfPending) makeRequest(vcpu, REQ_EVENT);
  return true;
}

/** 0, -EINVAL or -ENOMEM. @kvm nested.c vmx_set_nested_state */
export function vmxSetNestedState(vcpu: VcpuState, state: Uint8Array): number {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  const flags = view.getUint16(NESTED_STATE_FLAGS, true);
  const size = view.getUint32(NESTED_STATE_SIZE, true);
  if (!headerValid(vcpu, view, flags)) return -EINVAL;
  const { nested } = vcpu.vmx;
  vmxLeaveNested(vcpu);
  if (isInvalid(view, VMXON_PA)) return 0;
  nested.vmxonPtr = gpaOf(view, VMXON_PA);
  const r = enterVmxOperation(vcpu);
  if (r !== 0) return r;
  const dataEnd = NESTED_STATE_HEADER + VMCS12_SIZE;
  if (size < dataEnd) {
    return (flags & KVM_STATE_NESTED_GUEST_MODE) !== 0 || !isInvalid(view, VMCS12_PA) ? -EINVAL : 0;
  }
  if (isInvalid(view, VMCS12_PA) || state.length < dataEnd) return -EINVAL;
  const gpa = gpaOf(view, VMCS12_PA);
  const valid = pageAddressValid(vcpu, view.getInt32(VMCS12_PA, true), view.getInt32(VMCS12_PA + 4, true));
  if (gpa === nested.vmxonPtr || !valid) return -EINVAL;
  setCurrentVmptr(vcpu, gpa);
  const smm = view.getUint16(SMM_FLAGS, true);
  if ((smm & SMM_VMXON) !== 0) {
    nested.smm.vmxon = true;
    nested.vmxon = false;
    nested.smm.guestMode = (smm & SMM_GUEST_MODE) !== 0;
  }
  nested.vmcs12.load(state.subarray(NESTED_STATE_HEADER, dataEnd));
  if (nested.vmcs12.revision !== VMCS12_REVISION) return -EINVAL;
  if ((flags & KVM_STATE_NESTED_GUEST_MODE) === 0) return 0;
  if (restoreGuestMode(vcpu, view, state, flags, size)) return 0;
  nested.runPending = false;
  return -EINVAL;
}
