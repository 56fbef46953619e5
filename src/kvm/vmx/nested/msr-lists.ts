/** Lists of MSRs that an entry loads and an exit stores and loads, 16 bytes an entry (@kvm nested.c nested_vmx_load_msr, nested_vmx_store_msr). */
import { hiOf, loOf } from '../../../arch/halves.ts';
import * as M from '../../../arch/msr.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { readGuest, writeGuest } from '../../guest-memory.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { APICBASE_X2APIC } from '../../x86/lapic.ts';
import { KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE, msrAllowed } from '../../x86/msr-filter.ts';
import { getMsr, setMsr } from '../../x86/msr-instructions.ts';

const ENTRY = 16;
const bytes = new Uint8Array(ENTRY);
const view = new DataView(bytes.buffer);
const value = bytes.subarray(8);

function checkCommon(vcpu: VcpuState, index: number): boolean {
  if ((vcpu.apicBase & APICBASE_X2APIC) !== 0 && index >>> 8 === 8) return false;
  return index !== M.MSR_IA32_UCODE_WRITE && index !== M.MSR_IA32_UCODE_REV && view.getInt32(4, true) === 0;
}

/** @kvm nested.c nested_vmx_load_msr_check */
function loadCheck(vcpu: VcpuState, index: number): boolean {
  if (index === M.MSR_FS_BASE || index === M.MSR_GS_BASE || index === M.MSR_IA32_SMM_MONITOR_CTL) return false;
  return checkCommon(vcpu, index);
}

/** Longest list. @kvm nested.c nested_vmx_max_atomic_switch_msrs */
function maxEntries(vcpu: VcpuState): number {
  return (((vcpu.vmx.nested.msrs.misc >>> 25) & 7) + 1) * C.VMX_MISC_MSR_LIST_MULTIPLIER;
}

function setOne(vcpu: VcpuState, index: number): boolean {
  if (!msrAllowed(vcpu.vm, index, KVM_MSR_FILTER_WRITE)) return false;
  return setMsr(vcpu, index, view.getInt32(8, true), view.getInt32(12, true), false) === 0;
}

/** Loads the list: 0, or the number of the entry that failed, from 1. @kvm nested.c nested_vmx_load_msr */
export function loadMsrs(vcpu: VcpuState, addressField: number, countField: number): number {
  const v = vcpu.vmx.nested.vmcs12;
  const count = v.lo(countField) >>> 0;
  const gpa = v.address(addressField);
  const max = maxEntries(vcpu);
  for (let i = 0; i < count; i++) {
    if (i >= max || readGuest(vcpu, gpa + i * ENTRY, bytes, 0, ENTRY) < 0) return i + 1;
    const index = view.getUint32(0, true);
    if (!loadCheck(vcpu, index) || !setOne(vcpu, index)) return i + 1;
  }
  return 0;
}

/** L1's time-stamp counter as it was when L2 was left, into `vcpu.x86.msrValue`. @kvm nested.c nested_vmx_get_vmexit_msr_value */
function exitTsc(vcpu: VcpuState): void {
  const { x86 } = vcpu;
  const { exitedAt } = vcpu.vmx.nested;
  const low = (loOf(exitedAt) + x86.tscOffsetLo) | 0;
  x86.msrValue[0] = low;
  x86.msrValue[1] = hiOf(exitedAt) + x86.tscOffsetHi + (low >>> 0 < x86.tscOffsetLo >>> 0 ? 1 : 0);
}

/** Stores the list of a VM exit; false where one cannot be. @kvm nested.c nested_vmx_store_msr */
export function storeMsrs(vcpu: VcpuState): boolean {
  const v = vcpu.vmx.nested.vmcs12;
  const count = v.lo(F.VMCS_VM_EXIT_MSR_STORE_COUNT) >>> 0;
  const gpa = v.address(F.VMCS_VM_EXIT_MSR_STORE_ADDR);
  const max = maxEntries(vcpu);
  for (let i = 0; i < count; i++) {
    if (i >= max || readGuest(vcpu, gpa + i * ENTRY, bytes, 0, 8) < 0) return false;
    const index = view.getUint32(0, true);
    if (index === M.MSR_IA32_SMBASE || !checkCommon(vcpu, index)) return false;
    if (index === M.MSR_IA32_TSC) exitTsc(vcpu);
    else if (!msrAllowed(vcpu.vm, index, KVM_MSR_FILTER_READ) || getMsr(vcpu, index, false) !== 0) return false;
    view.setInt32(8, vcpu.x86.msrValue[0]!, true);
    view.setInt32(12, vcpu.x86.msrValue[1]!, true);
    if (writeGuest(vcpu, gpa + i * ENTRY + 8, value, 0, 8) < 0) return false;
  }
  return true;
}

/**
 * An entry that the processor refused may have loaded MSRs: those that the list of the exit has too get its values.
 * @kvm nested.c nested_vmx_restore_host_state
 */
export function restoreLoadedMsrs(vcpu: VcpuState): boolean {
  const v = vcpu.vmx.nested.vmcs12;
  const entries = v.lo(F.VMCS_VM_ENTRY_MSR_LOAD_COUNT) >>> 0;
  const exits = v.lo(F.VMCS_VM_EXIT_MSR_LOAD_COUNT) >>> 0;
  const loaded = v.address(F.VMCS_VM_ENTRY_MSR_LOAD_ADDR);
  const host = v.address(F.VMCS_VM_EXIT_MSR_LOAD_ADDR);
  for (let i = 0; i < entries; i++) {
    if (readGuest(vcpu, loaded + i * ENTRY, bytes, 0, ENTRY) < 0) return false;
    const index = view.getUint32(0, true);
    const lo = view.getInt32(8, true);
    const hi = view.getInt32(12, true);
    for (let j = 0; j < exits; j++) {
      if (readGuest(vcpu, host + j * ENTRY, bytes, 0, ENTRY) < 0) return false;
      if (view.getUint32(0, true) !== index) continue;
      if (view.getInt32(8, true) === lo && view.getInt32(12, true) === hi) break;
      if (!loadCheck(vcpu, index) || !setOne(vcpu, index)) return false;
    }
  }
  return true;
}
