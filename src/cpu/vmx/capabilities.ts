/**
 * Which settings of the VM-execution, entry and exit controls a processor allows, as the IA32_VMX_* capability MSRs report them
 * (@sdm appendix A), from its profile.
 */
import * as C from '../../arch/vmx-controls.ts';
import { absentFeatures } from '../isa/features.ts';
import type { HardwareProfile, VmxProfile } from '../profile.ts';

/** Settings of one word of controls: bits that must be 1, and bits that may be. */
export interface Allowed {
  readonly must: number;
  readonly may: number;
}

export interface VmxCapabilities {
  readonly pin: Allowed;
  readonly primary: Allowed;
  readonly secondary: Allowed;
  readonly entry: Allowed;
  readonly exit: Allowed;
}

/** Bits that are always 1 (@sdm A.3 to A.5), of the "true" MSRs. */
const PIN_DEFAULT1 = 0x16;
const PRIMARY_DEFAULT1 = 0x04006172;
const EXIT_DEFAULT1 = 0x00036dfb;
const ENTRY_DEFAULT1 = 0x000011fb;

function secondary(vmx: VmxProfile, invpcid: boolean): number {
  let may =
    C.SECONDARY_EXEC_DESC |
    C.SECONDARY_EXEC_ENABLE_RDTSCP |
    C.SECONDARY_EXEC_WBINVD_EXITING |
    C.SECONDARY_EXEC_PAUSE_LOOP_EXITING;
  if (vmx.ept) may |= C.SECONDARY_EXEC_ENABLE_EPT | C.SECONDARY_EXEC_ENABLE_VMFUNC;
  if (vmx.vpid) may |= C.SECONDARY_EXEC_ENABLE_VPID;
  if (vmx.unrestrictedGuest) may |= C.SECONDARY_EXEC_UNRESTRICTED_GUEST;
  if (vmx.virtualApicAccesses) may |= C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
  if (vmx.apicv) may |= C.SECONDARY_EXEC_APIC_REGISTER_VIRT;
  if (invpcid) may |= C.SECONDARY_EXEC_ENABLE_INVPCID;
  if (vmx.pml) may |= C.SECONDARY_EXEC_ENABLE_PML;
  return may;
}

function hasInvpcid(profile: HardwareProfile): boolean {
  return !absentFeatures(profile.cpuid).has('INVPCID');
}

/** The capabilities of a processor with VMX. */
export function vmxCapabilities(profile: HardwareProfile): VmxCapabilities {
  const { vmx } = profile;
  const pin = C.PIN_BASED_EXT_INTR_MASK | C.PIN_BASED_NMI_EXITING | C.PIN_BASED_VIRTUAL_NMIS;
  const primary =
    C.CPU_BASED_INTR_WINDOW_EXITING |
    C.CPU_BASED_USE_TSC_OFFSETTING |
    C.CPU_BASED_HLT_EXITING |
    C.CPU_BASED_INVLPG_EXITING |
    C.CPU_BASED_MWAIT_EXITING |
    C.CPU_BASED_RDPMC_EXITING |
    C.CPU_BASED_RDTSC_EXITING |
    C.CPU_BASED_CR3_LOAD_EXITING |
    C.CPU_BASED_CR3_STORE_EXITING |
    C.CPU_BASED_CR8_LOAD_EXITING |
    C.CPU_BASED_CR8_STORE_EXITING |
    C.CPU_BASED_TPR_SHADOW |
    C.CPU_BASED_NMI_WINDOW_EXITING |
    C.CPU_BASED_MOV_DR_EXITING |
    C.CPU_BASED_UNCOND_IO_EXITING |
    C.CPU_BASED_USE_IO_BITMAPS |
    C.CPU_BASED_MONITOR_TRAP_FLAG |
    C.CPU_BASED_USE_MSR_BITMAPS |
    C.CPU_BASED_MONITOR_EXITING |
    C.CPU_BASED_PAUSE_EXITING |
    C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
  const entry =
    C.VM_ENTRY_LOAD_DEBUG_CONTROLS | C.VM_ENTRY_IA32E_MODE | C.VM_ENTRY_LOAD_IA32_PAT | C.VM_ENTRY_LOAD_IA32_EFER;
  const exit =
    C.VM_EXIT_SAVE_DEBUG_CONTROLS |
    C.VM_EXIT_HOST_ADDR_SPACE_SIZE |
    C.VM_EXIT_ACK_INTR_ON_EXIT |
    C.VM_EXIT_SAVE_IA32_PAT |
    C.VM_EXIT_LOAD_IA32_PAT |
    C.VM_EXIT_SAVE_IA32_EFER |
    C.VM_EXIT_LOAD_IA32_EFER;
  return {
    pin: { must: PIN_DEFAULT1, may: pin | PIN_DEFAULT1 },
    primary: { must: PRIMARY_DEFAULT1, may: primary | PRIMARY_DEFAULT1 },
    secondary: { must: 0, may: secondary(vmx, hasInvpcid(profile)) },
    entry: { must: ENTRY_DEFAULT1, may: entry | ENTRY_DEFAULT1 },
    exit: { must: EXIT_DEFAULT1, may: exit | EXIT_DEFAULT1 },
  };
}
