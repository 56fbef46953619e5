/** The VMCS after RESET and INIT: the controls KVM runs a guest with (@kvm vmx.c init_vmcs, vmx_vcpu_reset). */
import { AC_VECTOR, BP_VECTOR, DB_VECTOR, GP_VECTOR, MC_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import { makeRequest, REQ_APIC_PAGE_RELOAD, type VcpuState } from '../vcpu-state.ts';
import { setCr8 } from '../x86/control-registers.ts';
import { X86_FEATURE_INVPCID, X86_FEATURE_RDPID, X86_FEATURE_RDTSCP } from '../x86/cpuid-features.ts';
import { KVM_DEBUGREG_WONT_EXIT } from '../x86/debug-registers.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_SW_BP } from '../x86/guest-debug-bits.ts';
import { apicControls } from './apic-access-page.ts';
import { setGuestOwnedBits } from './control-registers.ts';
import { updateCrFixed1 } from './nested/nested-msrs.ts';
import { PML_ENTITY_NUM } from './pml.ts';
import { initSegments } from './segments.ts';
import { vmcsRead, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

const DISABLE_EXITS_MWAIT = 1;
const DISABLE_EXITS_HLT = 2;
const DISABLE_EXITS_PAUSE = 4;
/** kvm_intel.ple_gap and ple_window. */
const PLE_GAP = 128;
const PLE_WINDOW = 4096;

/** Local APIC in KVM, and hardware that can virtualize accesses to it. @kvm vmx.c cpu_need_virtualize_apic_accesses */
export function needVirtualizeApicAccesses(vcpu: VcpuState): boolean {
  return vcpu.vm.vendor.tdpEnabled && vcpu.vm.profile.vmx.virtualApicAccesses && vcpu.x86.lapic !== null;
}

/** Bits that a processor wants set in every control word: those of IA32_VMX_TRUE_*_CTLS. @kvm vmx.c adjust_vmx_controls */
function setControls(vcpu: VcpuState, field: number, must: number, value: number): void {
  vmcsWrite(vcpu.vmx, field, value | must);
}

/** @kvm vmx.c vmx_exec_control */
function execControl(vcpu: VcpuState): number {
  const disabled = vcpu.vm.x86.disabledExits;
  let control =
    C.CPU_BASED_USE_TSC_OFFSETTING |
    C.CPU_BASED_HLT_EXITING |
    C.CPU_BASED_MWAIT_EXITING |
    C.CPU_BASED_MONITOR_EXITING |
    C.CPU_BASED_RDPMC_EXITING |
    C.CPU_BASED_UNCOND_IO_EXITING |
    C.CPU_BASED_MOV_DR_EXITING |
    C.CPU_BASED_USE_MSR_BITMAPS |
    C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
  if ((vcpu.x86.switchDbRegs & KVM_DEBUGREG_WONT_EXIT) !== 0) control &= ~C.CPU_BASED_MOV_DR_EXITING;
  if (vcpu.vmx.virtualApicPfn >= 0) control |= C.CPU_BASED_TPR_SHADOW;
  else control |= C.CPU_BASED_CR8_LOAD_EXITING | C.CPU_BASED_CR8_STORE_EXITING;
  if (!vcpu.vm.vendor.tdpEnabled) {
    control |= C.CPU_BASED_CR3_LOAD_EXITING | C.CPU_BASED_CR3_STORE_EXITING | C.CPU_BASED_INVLPG_EXITING;
  }
  if ((disabled & DISABLE_EXITS_MWAIT) !== 0) control &= ~(C.CPU_BASED_MWAIT_EXITING | C.CPU_BASED_MONITOR_EXITING);
  if ((disabled & DISABLE_EXITS_HLT) !== 0) control &= ~C.CPU_BASED_HLT_EXITING;
  return control;
}

/** @kvm vmx.c vmx_secondary_exec_control */
export function secondaryExecControl(vcpu: VcpuState): number {
  const { vm, vmx } = vcpu;
  const { capabilities } = vm.processor.vmx;
  let control = C.SECONDARY_EXEC_WBINVD_EXITING;
  if (vm.vendor.tdpEnabled) control |= C.SECONDARY_EXEC_ENABLE_EPT | C.SECONDARY_EXEC_UNRESTRICTED_GUEST;
  if (vmx.vpid !== 0) control |= C.SECONDARY_EXEC_ENABLE_VPID;
  control |= apicControls(vcpu);
  if (vmx.pmlPfn >= 0 && vm.slots.nrDirtyLogging > 0) control |= C.SECONDARY_EXEC_ENABLE_PML;
  if ((vm.x86.disabledExits & DISABLE_EXITS_PAUSE) === 0) control |= C.SECONDARY_EXEC_PAUSE_LOOP_EXITING;
  const readsAux = guestCpuidHas(vcpu, X86_FEATURE_RDTSCP) || guestCpuidHas(vcpu, X86_FEATURE_RDPID);
  if (readsAux) control |= C.SECONDARY_EXEC_ENABLE_RDTSCP;
  if (guestCpuidHas(vcpu, X86_FEATURE_INVPCID)) control |= C.SECONDARY_EXEC_ENABLE_INVPCID & capabilities.secondary.may;
  return control;
}

/** @kvm vmx.c init_vmcs */
function initControls(vcpu: VcpuState): void {
  const { vm, vmx } = vcpu;
  const { capabilities } = vm.processor.vmx;
  vmcsWrite64(vmx, F.VMCS_MSR_BITMAP, (vmx.vmcs01.msrBitmapPfn * 4096) | 0, 0);
  vmcsWrite64(vmx, F.VMCS_VMCS_LINK_POINTER, -1, -1);
  const pin = C.PIN_BASED_EXT_INTR_MASK | C.PIN_BASED_NMI_EXITING | C.PIN_BASED_VIRTUAL_NMIS;
  setControls(vcpu, F.VMCS_PIN_BASED_VM_EXEC_CONTROL, capabilities.pin.must, pin);
  setControls(vcpu, F.VMCS_CPU_BASED_VM_EXEC_CONTROL, capabilities.primary.must, execControl(vcpu));
  vmcsWrite(vmx, F.VMCS_SECONDARY_VM_EXEC_CONTROL, secondaryExecControl(vcpu));
  vmcsWrite(vmx, F.VMCS_PAGE_FAULT_ERROR_CODE_MASK, 0);
  vmcsWrite(vmx, F.VMCS_PAGE_FAULT_ERROR_CODE_MATCH, 0);
  vmcsWrite(vmx, F.VMCS_PLE_GAP, PLE_GAP);
  vmcsWrite(vmx, F.VMCS_PLE_WINDOW, PLE_WINDOW);
  vmcsWrite(vmx, F.VMCS_CR3_TARGET_COUNT, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_IA32_PAT, vcpu.x86.patLo, vcpu.x86.patHi);
  const exit = C.VM_EXIT_SAVE_DEBUG_CONTROLS | C.VM_EXIT_HOST_ADDR_SPACE_SIZE | C.VM_EXIT_ACK_INTR_ON_EXIT;
  setControls(vcpu, F.VMCS_VM_EXIT_CONTROLS, capabilities.exit.must, exit | C.VM_EXIT_LOAD_IA32_PAT);
  const entry = C.VM_ENTRY_LOAD_DEBUG_CONTROLS | C.VM_ENTRY_LOAD_IA32_PAT | C.VM_ENTRY_LOAD_IA32_EFER;
  setControls(vcpu, F.VMCS_VM_ENTRY_CONTROLS, capabilities.entry.must, entry);
  setGuestOwnedBits(vcpu);
  vmcsWrite(vmx, F.VMCS_VIRTUAL_PROCESSOR_ID, vmx.vpid);
  if (vmx.pmlPfn >= 0) {
    vmcsWrite64(vmx, F.VMCS_PML_ADDRESS, (vmx.pmlPfn * 4096) | 0, 0);
    vmcsWrite(vmx, F.VMCS_GUEST_PML_INDEX, PML_ENTITY_NUM - 1);
  }
  vmcsWrite(vmx, F.VMCS_GUEST_SYSENTER_CS, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_SYSENTER_ESP, 0, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_SYSENTER_EIP, 0, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_IA32_DEBUGCTL, 0, 0);
  if (vmx.virtualApicPfn >= 0) vmcsWrite64(vmx, F.VMCS_VIRTUAL_APIC_PAGE_ADDR, (vmx.virtualApicPfn * 4096) | 0, 0);
  vmcsWrite(vmx, F.VMCS_TPR_THRESHOLD, 0);
}

/** @kvm vmx.c vmx_vcpu_reset */
export function vmxVcpuReset(vcpu: VcpuState, initEvent: boolean): void {
  const vmx = vcpu.vmx;
  if (!initEvent) initControls(vcpu);
  vmx.spec = 0;
  setCr8(vcpu, 0);
  initSegments(vmx);
  vmcsWrite(vmx, F.VMCS_GUEST_ACTIVITY_STATE, C.GUEST_ACTIVITY_ACTIVE);
  vmcsWrite(vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS, 0, 0);
  vmcsWrite(vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD, 0);
  makeRequest(vcpu, REQ_APIC_PAGE_RELOAD);
  vcpu.vm.processor.vmx.invvpid(vmx.vpid);
}

/** @kvm vmx.c vmx_vcpu_after_set_cpuid. SECONDARY_EXEC_DESC is CR4.UMIP's, and stays. */
export function vmxAfterSetCpuid(vcpu: VcpuState): void {
  const vmx = vcpu.vmx;
  updateCrFixed1(vmx.nested.msrs, vcpu.x86.cr4GuestRsvdBits);
  const kept = vmcsRead(vmx, F.VMCS_SECONDARY_VM_EXEC_CONTROL) & C.SECONDARY_EXEC_DESC;
  vmcsWrite(vmx, F.VMCS_SECONDARY_VM_EXEC_CONTROL, secondaryExecControl(vcpu) | kept);
  setGuestOwnedBits(vcpu);
}

/** @kvm vmx.c vmx_update_exception_bitmap */
export function vmxUpdateExceptionBitmap(vcpu: VcpuState): void {
  let bitmap = (1 << UD_VECTOR) | (1 << MC_VECTOR) | (1 << DB_VECTOR) | (1 << AC_VECTOR);
  if (vcpu.vm.params.enableVmwareBackdoor) bitmap |= 1 << GP_VECTOR;
  const wanted = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  if ((vcpu.x86.guestDebug & wanted) === wanted) bitmap |= 1 << BP_VECTOR;
  if (!vcpu.vm.vendor.tdpEnabled) bitmap |= 1 << PF_VECTOR;
  if (vcpu.guestMode) bitmap |= vcpu.vmx.nested.vmcs12.lo(F.VMCS_EXCEPTION_BITMAP);
  else {
    vmcsWrite(vcpu.vmx, F.VMCS_PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcsWrite(vcpu.vmx, F.VMCS_PAGE_FAULT_ERROR_CODE_MATCH, 0);
  }
  vmcsWrite(vcpu.vmx, F.VMCS_EXCEPTION_BITMAP, bitmap);
}
