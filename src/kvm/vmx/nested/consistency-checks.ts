/**
 * What a nested VM entry checks of L1's VMCS before it believes it, in the kernel's order: controls, host state, and of guest state what
 * KVM does not leave to the processor (@kvm nested.c nested_vmx_check_controls, nested_vmx_check_host_state, nested_vmx_check_guest_state).
 */
import { injectsErrorCode, NMI_VECTOR } from '../../../arch/exceptions.ts';
import { numberOf } from '../../../arch/halves.ts';
import * as M from '../../../arch/msr.ts';
import { CR0_PE, CR0_PG, CR4_LA57, CR4_PAE, CR4_PCIDE, EFER_LMA, EFER_LME } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { readGuest } from '../../guest-memory.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { isLegalCr3, isValidCr4 } from '../../x86/control-registers.ts';
import { patValid, validEfer } from '../../x86/msr.ts';
import type { Vmcs12 } from './vmcs12.ts';
import { VMCS12_REVISION, VMCS12_SIZE } from './vmcs12-layout.ts';

const DR7_FIXED_HI = 0;
/** LBR and BTF count as valid. */
const DEBUGCTL_VALID = 3;
/** RPL and TI of a selector. */
const SELECTOR_RPL_TI = 7;
const PI_DESC_SIZE = 64;
const MSR_ENTRY_SIZE = 16;

/** Control bits: those of `low` must be set, those missing in `high` clear. @kvm nested.h fixed_bits_valid */
export function fixedBitsValid(value: number, low: number, high: number): boolean {
  return ((value & high) | low | 0) === (value | 0);
}

/** The address is below what the guest's CPUID allows. @kvm cpuid.h kvm_vcpu_is_legal_gpa */
export function isLegalGpa(vcpu: VcpuState, hi: number): boolean {
  return (hi & (vcpu.x86.reservedGpaBitsHi | 0xfff00000)) === 0;
}

/** @kvm cpuid.h kvm_vcpu_is_legal_aligned_gpa, nested.c page_address_valid */
export function isLegalAligned(vcpu: VcpuState, lo: number, hi: number, align: number): boolean {
  return (lo & (align - 1)) === 0 && isLegalGpa(vcpu, hi);
}

/** @kvm nested.h page_address_valid */
export function pageAddressValid(vcpu: VcpuState, lo: number, hi: number): boolean {
  return isLegalAligned(vcpu, lo, hi, 4096);
}

/** Not canonical, by the high half of the address. @kvm x86.h is_noncanonical_address */
export function isNoncanonical(vcpu: VcpuState, hi: number): boolean {
  return (vcpu.cr4 & CR4_LA57) !== 0 ? (hi << 7) >> 7 !== hi : (hi << 16) >> 16 !== hi;
}

/** @kvm nested.h nested_host_cr0_valid */
export function hostCr0Valid(vcpu: VcpuState, lo: number, hi: number): boolean {
  const { msrs } = vcpu.vmx.nested;
  return (
    fixedBitsValid(lo, msrs.lo(M.MSR_IA32_VMX_CR0_FIXED0), msrs.lo(M.MSR_IA32_VMX_CR0_FIXED1)) &&
    fixedBitsValid(hi, msrs.hi(M.MSR_IA32_VMX_CR0_FIXED0), msrs.hi(M.MSR_IA32_VMX_CR0_FIXED1))
  );
}

/** @kvm nested.h nested_guest_cr0_valid */
export function guestCr0Valid(vcpu: VcpuState, vmcs12: Vmcs12, lo: number, hi: number): boolean {
  const { msrs } = vcpu.vmx.nested;
  const unrestricted = C.SECONDARY_EXEC_UNRESTRICTED_GUEST;
  const free = msrs.has2(unrestricted) && vmcs12.has2(unrestricted) ? CR0_PE | CR0_PG : 0;
  return (
    fixedBitsValid(lo, msrs.lo(M.MSR_IA32_VMX_CR0_FIXED0) & ~free, msrs.lo(M.MSR_IA32_VMX_CR0_FIXED1)) &&
    fixedBitsValid(hi, msrs.hi(M.MSR_IA32_VMX_CR0_FIXED0), msrs.hi(M.MSR_IA32_VMX_CR0_FIXED1))
  );
}

/** @kvm nested.h nested_cr4_valid */
export function nestedCr4Valid(vcpu: VcpuState, lo: number, hi: number): boolean {
  const { msrs } = vcpu.vmx.nested;
  return (
    fixedBitsValid(lo, msrs.lo(M.MSR_IA32_VMX_CR4_FIXED0), msrs.lo(M.MSR_IA32_VMX_CR4_FIXED1)) &&
    fixedBitsValid(hi, msrs.hi(M.MSR_IA32_VMX_CR4_FIXED0), msrs.hi(M.MSR_IA32_VMX_CR4_FIXED1)) &&
    isValidCr4(vcpu, lo, hi)
  );
}

/** @kvm nested.c nested_vmx_check_eptp */
export function eptpValid(vcpu: VcpuState, lo: number, hi: number): boolean {
  const caps = vcpu.vmx.nested.msrs.eptCaps;
  const type = lo & C.VMX_EPTP_MT_MASK;
  if (type === C.VMX_EPTP_MT_UC ? (caps & C.VMX_EPTP_UC_BIT) === 0 : type !== C.VMX_EPTP_MT_WB) return false;
  const walk = lo & C.VMX_EPTP_PWL_MASK;
  const wanted =
    walk === C.VMX_EPTP_PWL_5 ? C.VMX_EPT_PAGE_WALK_5_BIT : walk === C.VMX_EPTP_PWL_4 ? C.VMX_EPT_PAGE_WALK_4_BIT : 0;
  if ((caps & wanted) === 0) return false;
  if (!isLegalGpa(vcpu, hi) || ((lo >>> 7) & 0x1f) !== 0) return false;
  return (lo & C.VMX_EPTP_AD_ENABLE_BIT) === 0 || (caps & C.VMX_EPT_AD_BIT) !== 0;
}

function page(vcpu: VcpuState, v: Vmcs12, field: number): boolean {
  return pageAddressValid(vcpu, v.lo(field), v.hi(field));
}

function controlValid(vcpu: VcpuState, value: number, msr: number): boolean {
  const { msrs } = vcpu.vmx.nested;
  return fixedBitsValid(value, msrs.lo(msr), msrs.hi(msr));
}

/** @kvm nested.c nested_vmx_check_apicv_controls */
function apicvValid(vcpu: VcpuState, v: Vmcs12): boolean {
  const x2apic = v.has2(C.SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE);
  if (!x2apic && !v.has2(C.SECONDARY_EXEC_APIC_REGISTER_VIRT) && !v.vid && !v.postedIntr) return true;
  if (x2apic && v.has2(C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES)) return false;
  if (v.vid && !v.hasPin(C.PIN_BASED_EXT_INTR_MASK)) return false;
  if (v.postedIntr) {
    if (!v.vid || !v.hasExit(C.VM_EXIT_ACK_INTR_ON_EXIT)) return false;
    if ((v.lo(F.VMCS_POSTED_INTR_NV) & 0xff00) !== 0) return false;
    const address = F.VMCS_POSTED_INTR_DESC_ADDR;
    if (!isLegalAligned(vcpu, v.lo(address), v.hi(address), PI_DESC_SIZE)) return false;
  }
  return v.has(C.CPU_BASED_TPR_SHADOW);
}

/** @kvm nested.c nested_check_vm_execution_controls */
function executionControlsValid(vcpu: VcpuState, v: Vmcs12): boolean {
  const { msrs } = vcpu.vmx.nested;
  if (!controlValid(vcpu, v.lo(F.VMCS_PIN_BASED_VM_EXEC_CONTROL), M.MSR_IA32_VMX_TRUE_PINBASED_CTLS)) return false;
  if (!controlValid(vcpu, v.lo(F.VMCS_CPU_BASED_VM_EXEC_CONTROL), M.MSR_IA32_VMX_TRUE_PROCBASED_CTLS)) return false;
  const secondary = v.lo(F.VMCS_SECONDARY_VM_EXEC_CONTROL);
  const useSecondary = v.has(C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS);
  if (useSecondary && !controlValid(vcpu, secondary, M.MSR_IA32_VMX_PROCBASED_CTLS2)) return false;
  if (v.lo(F.VMCS_CR3_TARGET_COUNT) >>> 0 > ((msrs.misc >>> 16) & 0x1ff)) return false;
  if (v.has(C.CPU_BASED_USE_IO_BITMAPS)) {
    if (!page(vcpu, v, F.VMCS_IO_BITMAP_A) || !page(vcpu, v, F.VMCS_IO_BITMAP_B)) return false;
  }
  if (v.has(C.CPU_BASED_USE_MSR_BITMAPS) && !page(vcpu, v, F.VMCS_MSR_BITMAP)) return false;
  if (v.has(C.CPU_BASED_TPR_SHADOW) && !page(vcpu, v, F.VMCS_VIRTUAL_APIC_PAGE_ADDR)) return false;
  if (v.has2(C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) && !page(vcpu, v, F.VMCS_APIC_ACCESS_ADDR)) return false;
  if (!apicvValid(vcpu, v)) return false;
  const virtualNmis = v.hasPin(C.PIN_BASED_VIRTUAL_NMIS);
  if (virtualNmis && !v.hasPin(C.PIN_BASED_NMI_EXITING)) return false;
  if (!virtualNmis && v.has(C.CPU_BASED_NMI_WINDOW_EXITING)) return false;
  if (v.has2(C.SECONDARY_EXEC_ENABLE_PML) && (!v.ept || !page(vcpu, v, F.VMCS_PML_ADDRESS))) return false;
  if (v.has2(C.SECONDARY_EXEC_UNRESTRICTED_GUEST) && !v.ept) return false;
  if (v.has2(C.SECONDARY_EXEC_MODE_BASED_EPT_EXEC) && !v.ept) return false;
  if (v.shadowVmcs && (!page(vcpu, v, F.VMCS_VMREAD_BITMAP) || !page(vcpu, v, F.VMCS_VMWRITE_BITMAP))) return false;
  if (v.vpid && (v.lo(F.VMCS_VIRTUAL_PROCESSOR_ID) & 0xffff) === 0) return false;
  if (!v.preemptionTimer && v.hasExit(C.VM_EXIT_SAVE_VMX_PREEMPTION_TIMER)) return false;
  if (v.ept && !eptpValid(vcpu, v.lo(F.VMCS_EPT_POINTER), v.hi(F.VMCS_EPT_POINTER))) return false;
  if (!v.has2(C.SECONDARY_EXEC_ENABLE_VMFUNC)) return true;
  if ((v.lo(F.VMCS_VM_FUNCTION_CONTROL) & ~msrs.lo(M.MSR_IA32_VMX_VMFUNC)) !== 0) return false;
  if (v.hi(F.VMCS_VM_FUNCTION_CONTROL) !== 0) return false;
  return !v.eptpSwitching || (v.ept && page(vcpu, v, F.VMCS_EPTP_LIST_ADDRESS));
}

/** A list of MSRs lies in memory that can exist. @kvm nested.c nested_vmx_check_msr_switch */
function msrListValid(vcpu: VcpuState, v: Vmcs12, count: number, address: number): boolean {
  const n = v.lo(count) >>> 0;
  if (n === 0) return true;
  const lo = v.lo(address);
  const hi = v.hi(address);
  if (!isLegalAligned(vcpu, lo, hi, MSR_ENTRY_SIZE)) return false;
  const last = numberOf(lo, hi) + n * MSR_ENTRY_SIZE - 1;
  return isLegalGpa(vcpu, Math.floor(last / 0x1_0000_0000) | 0);
}

/** @kvm nested.c nested_check_vm_exit_controls */
function exitControlsValid(vcpu: VcpuState, v: Vmcs12): boolean {
  return (
    controlValid(vcpu, v.lo(F.VMCS_VM_EXIT_CONTROLS), M.MSR_IA32_VMX_TRUE_EXIT_CTLS) &&
    msrListValid(vcpu, v, F.VMCS_VM_EXIT_MSR_LOAD_COUNT, F.VMCS_VM_EXIT_MSR_LOAD_ADDR) &&
    msrListValid(vcpu, v, F.VMCS_VM_EXIT_MSR_STORE_COUNT, F.VMCS_VM_EXIT_MSR_STORE_ADDR)
  );
}

/** The event to inject into L2. */
function injectionValid(vcpu: VcpuState, v: Vmcs12): boolean {
  const info = v.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD);
  if (info >= 0) return true;
  const { msrs } = vcpu.vmx.nested;
  const vector = info & C.INTR_INFO_VECTOR_MASK;
  const type = info & C.INTR_INFO_INTR_TYPE_MASK;
  if (type === C.INTR_TYPE_RESERVED) return false;
  const mtf = (msrs.hi(M.MSR_IA32_VMX_TRUE_PROCBASED_CTLS) & C.CPU_BASED_MONITOR_TRAP_FLAG) !== 0;
  if (type === C.INTR_TYPE_OTHER_EVENT && (!mtf || vector !== 0)) return false;
  if (type === C.INTR_TYPE_NMI_INTR && vector !== NMI_VECTOR) return false;
  if (type === C.INTR_TYPE_HARD_EXCEPTION && vector > 31) return false;
  const unrestricted = v.has2(C.SECONDARY_EXEC_UNRESTRICTED_GUEST);
  const protectedMode = !unrestricted || (v.lo(F.VMCS_GUEST_CR0) & CR0_PE) !== 0;
  const wantsError = type === C.INTR_TYPE_HARD_EXCEPTION && protectedMode && injectsErrorCode(vector);
  if (((info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0) !== wantsError) return false;
  if (wantsError && v.lo(F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE) >>> 16 !== 0) return false;
  if ((info & C.INTR_INFO_RESVD_BITS_MASK) !== 0) return false;
  const software =
    type === C.INTR_TYPE_SOFT_EXCEPTION || type === C.INTR_TYPE_SOFT_INTR || type === C.INTR_TYPE_PRIV_SW_EXCEPTION;
  if (!software) return true;
  const length = v.lo(F.VMCS_VM_ENTRY_INSTRUCTION_LEN) >>> 0;
  return length <= 15 && (length !== 0 || (msrs.misc & C.VMX_MISC_ZERO_LEN_INS) !== 0);
}

/** @kvm nested.c nested_vmx_check_controls */
export function checkControls(vcpu: VcpuState, v: Vmcs12): boolean {
  return (
    executionControlsValid(vcpu, v) &&
    exitControlsValid(vcpu, v) &&
    controlValid(vcpu, v.lo(F.VMCS_VM_ENTRY_CONTROLS), M.MSR_IA32_VMX_TRUE_ENTRY_CTLS) &&
    injectionValid(vcpu, v) &&
    msrListValid(vcpu, v, F.VMCS_VM_ENTRY_MSR_LOAD_COUNT, F.VMCS_VM_ENTRY_MSR_LOAD_ADDR)
  );
}

/** @kvm nested.c nested_vmx_check_address_space_size */
export function checkAddressSpaceSize(vcpu: VcpuState, v: Vmcs12): boolean {
  return v.hasExit(C.VM_EXIT_HOST_ADDR_SPACE_SIZE) === ((vcpu.efer & EFER_LMA) !== 0);
}

const HOST_SELECTORS = [
  F.VMCS_HOST_CS_SELECTOR,
  F.VMCS_HOST_SS_SELECTOR,
  F.VMCS_HOST_DS_SELECTOR,
  F.VMCS_HOST_ES_SELECTOR,
  F.VMCS_HOST_FS_SELECTOR,
  F.VMCS_HOST_GS_SELECTOR,
  F.VMCS_HOST_TR_SELECTOR,
];
const HOST_ADDRESSES = [
  F.VMCS_HOST_FS_BASE,
  F.VMCS_HOST_GS_BASE,
  F.VMCS_HOST_GDTR_BASE,
  F.VMCS_HOST_IDTR_BASE,
  F.VMCS_HOST_TR_BASE,
  F.VMCS_HOST_RIP,
];

function noncanonicalField(vcpu: VcpuState, v: Vmcs12, field: number): boolean {
  return isNoncanonical(vcpu, v.hi(field));
}

/** The general-purpose bits of IA32_PERF_GLOBAL_CTRL that a guest without counters may set: none. */
function validPerfGlobalCtrl(v: Vmcs12, field: number): boolean {
  return v.lo(field) === 0 && v.hi(field) === 0;
}

/** @kvm nested.c nested_vmx_check_host_state */
export function checkHostState(vcpu: VcpuState, v: Vmcs12): boolean {
  const ia32e = v.hasExit(C.VM_EXIT_HOST_ADDR_SPACE_SIZE);
  if (!hostCr0Valid(vcpu, v.lo(F.VMCS_HOST_CR0), v.hi(F.VMCS_HOST_CR0))) return false;
  if (!nestedCr4Valid(vcpu, v.lo(F.VMCS_HOST_CR4), v.hi(F.VMCS_HOST_CR4))) return false;
  if (!isLegalCr3(vcpu, v.hi(F.VMCS_HOST_CR3))) return false;
  if (noncanonicalField(vcpu, v, F.VMCS_HOST_IA32_SYSENTER_ESP)) return false;
  if (noncanonicalField(vcpu, v, F.VMCS_HOST_IA32_SYSENTER_EIP)) return false;
  if (v.hasExit(C.VM_EXIT_LOAD_IA32_PAT) && !patValid(v.lo(F.VMCS_HOST_IA32_PAT), v.hi(F.VMCS_HOST_IA32_PAT)))
    return false;
  if (v.hasExit(C.VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL) && !validPerfGlobalCtrl(v, F.VMCS_HOST_IA32_PERF_GLOBAL_CTRL)) {
    return false;
  }
  const cr4 = v.lo(F.VMCS_HOST_CR4);
  if (ia32e) {
    if ((cr4 & CR4_PAE) === 0) return false;
  } else if (v.hasEntry(C.VM_ENTRY_IA32E_MODE) || (cr4 & CR4_PCIDE) !== 0 || v.hi(F.VMCS_HOST_RIP) !== 0) return false;
  if (HOST_SELECTORS.some((field) => (v.lo(field) & SELECTOR_RPL_TI) !== 0)) return false;
  if (v.lo(F.VMCS_HOST_CS_SELECTOR) === 0 || v.lo(F.VMCS_HOST_TR_SELECTOR) === 0) return false;
  if (v.lo(F.VMCS_HOST_SS_SELECTOR) === 0 && !ia32e) return false;
  if (HOST_ADDRESSES.some((field) => noncanonicalField(vcpu, v, field))) return false;
  if (!v.hasExit(C.VM_EXIT_LOAD_IA32_EFER)) return true;
  const efer = v.lo(F.VMCS_HOST_IA32_EFER);
  return (
    validEfer(vcpu, efer, v.hi(F.VMCS_HOST_IA32_EFER)) &&
    ia32e === ((efer & EFER_LMA) !== 0) &&
    ia32e === ((efer & EFER_LME) !== 0)
  );
}

const header = new Uint8Array(4);
const headerView = new DataView(header.buffer);

/** @kvm nested.c nested_vmx_check_vmcs_link_ptr */
function linkPointerValid(vcpu: VcpuState, v: Vmcs12): boolean {
  if (v.isInvalid(F.VMCS_VMCS_LINK_POINTER)) return true;
  if (!page(vcpu, v, F.VMCS_VMCS_LINK_POINTER)) return false;
  if (readGuest(vcpu, v.address(F.VMCS_VMCS_LINK_POINTER), header, 0, 4) < 0) return false;
  const word = headerView.getInt32(0, true);
  return (word & 0x7fffffff) === VMCS12_REVISION && word < 0 === v.shadowVmcs;
}

/**
 * 0 for a guest state that KVM finds nothing wrong with, else 1 and the exit qualification in `failure`.
 * @kvm nested.c nested_vmx_check_guest_state
 */
export function checkGuestState(vcpu: VcpuState, v: Vmcs12): { readonly ok: boolean; readonly qualification: number } {
  const bad = { ok: false, qualification: C.ENTRY_FAIL_DEFAULT };
  const ia32e = v.hasEntry(C.VM_ENTRY_IA32E_MODE);
  const cr0 = v.lo(F.VMCS_GUEST_CR0);
  const cr4 = v.lo(F.VMCS_GUEST_CR4);
  if (!guestCr0Valid(vcpu, v, cr0, v.hi(F.VMCS_GUEST_CR0))) return bad;
  if (!nestedCr4Valid(vcpu, cr4, v.hi(F.VMCS_GUEST_CR4))) return bad;
  if (v.hasEntry(C.VM_ENTRY_LOAD_DEBUG_CONTROLS)) {
    if (v.hi(F.VMCS_GUEST_DR7) !== DR7_FIXED_HI) return bad;
    const field = F.VMCS_GUEST_IA32_DEBUGCTL;
    if (v.hi(field) !== 0 || (v.lo(field) & ~DEBUGCTL_VALID) !== 0) return bad;
  }
  if (v.hasEntry(C.VM_ENTRY_LOAD_IA32_PAT) && !patValid(v.lo(F.VMCS_GUEST_IA32_PAT), v.hi(F.VMCS_GUEST_IA32_PAT)))
    return bad;
  if (!linkPointerValid(vcpu, v)) return { ok: false, qualification: C.ENTRY_FAIL_VMCS_LINK_PTR };
  if (
    v.hasEntry(C.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL) &&
    !validPerfGlobalCtrl(v, F.VMCS_GUEST_IA32_PERF_GLOBAL_CTRL)
  ) {
    return bad;
  }
  if ((cr0 & CR0_PG) !== 0 && (cr0 & CR0_PE) === 0) return bad;
  if (ia32e && ((cr4 & CR4_PAE) === 0 || (cr0 & CR0_PG) === 0)) return bad;
  if (vcpu.vmx.nested.runPending && v.hasEntry(C.VM_ENTRY_LOAD_IA32_EFER)) {
    const efer = v.lo(F.VMCS_GUEST_IA32_EFER);
    if (!validEfer(vcpu, efer, v.hi(F.VMCS_GUEST_IA32_EFER))) return bad;
    if (ia32e !== ((efer & EFER_LMA) !== 0)) return bad;
    if ((cr0 & CR0_PG) !== 0 && ia32e !== ((efer & EFER_LME) !== 0)) return bad;
  }
  const activity = v.lo(F.VMCS_GUEST_ACTIVITY_STATE);
  const known =
    activity === C.GUEST_ACTIVITY_ACTIVE ||
    activity === C.GUEST_ACTIVITY_HLT ||
    activity === C.GUEST_ACTIVITY_WAIT_SIPI;
  return known ? { ok: true, qualification: 0 } : bad;
}

/** Reads a whole VMCS of L1's; false when nothing is there. */
export function readVmcs12(vcpu: VcpuState, gpa: number, bytes: Uint8Array): boolean {
  return readGuest(vcpu, gpa, bytes, 0, VMCS12_SIZE) >= 0;
}
