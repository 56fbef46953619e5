/**
 * The capability MSRs that L1 sees (IA32_VMX_*): what KVM emulates of VMX, and what userspace may take away from it to make an older
 * machine (@kvm nested.c nested_vmx_setup_ctls_msrs, vmx_set_vmx_msr, vmx_get_vmx_msr).
 */
import * as M from '../../../arch/msr.ts';
import { CR0_NE, CR0_PE, CR0_PG, CR4_VMXE } from '../../../arch/registers.ts';
import * as C from '../../../arch/vmx-controls.ts';
import type { Processor } from '../../../cpu/processor.ts';
import type { HardwareProfile } from '../../../cpu/profile.ts';
import { type KvmParams, tdpEnabled } from '../../params.ts';
import type { VmState } from '../../vm-state.ts';
import { VMCS12_REVISION, VMCS12_SIZE, vmcsEnumMsr } from './vmcs12-layout.ts';

type Capabilities = Processor['vmx']['capabilities'];

const FIRST = M.MSR_IA32_VMX_BASIC;
const LAST = M.MSR_IA32_VMX_VMFUNC;

/** The preemption timer counts once in 2^5 ticks of the TSC. @kvm nested.c VMX_MISC_EMULATED_PREEMPTION_TIMER_RATE */
export const PREEMPTION_TIMER_RATE = 5;

/** True for MSRs of this file. */
export function isVmxMsr(msr: number): boolean {
  return msr >= FIRST && msr <= LAST;
}

/** One set of them, halves; the "true" MSRs hold the controls that the others are derived from. */
export class NestedVmxMsrs {
  readonly words = new Int32Array(2 * (LAST - FIRST + 1));

  lo(msr: number): number {
    return this.words[2 * (msr - FIRST)]!;
  }

  hi(msr: number): number {
    return this.words[2 * (msr - FIRST) + 1]!;
  }

  set(msr: number, lo: number, hi: number): void {
    this.words[2 * (msr - FIRST)] = lo;
    this.words[2 * (msr - FIRST) + 1] = hi;
  }

  copy(from: NestedVmxMsrs): void {
    this.words.set(from.words);
  }

  /** L1 may set these secondary controls. */
  has2(bit: number): boolean {
    return (this.hi(M.MSR_IA32_VMX_PROCBASED_CTLS2) & bit) !== 0;
  }

  get eptCaps(): number {
    return this.lo(M.MSR_IA32_VMX_EPT_VPID_CAP);
  }

  get vpidCaps(): number {
    return this.hi(M.MSR_IA32_VMX_EPT_VPID_CAP);
  }

  get misc(): number {
    return this.lo(M.MSR_IA32_VMX_MISC);
  }
}

const PRIMARY =
  C.CPU_BASED_INTR_WINDOW_EXITING |
  C.CPU_BASED_NMI_WINDOW_EXITING |
  C.CPU_BASED_USE_TSC_OFFSETTING |
  C.CPU_BASED_HLT_EXITING |
  C.CPU_BASED_INVLPG_EXITING |
  C.CPU_BASED_MWAIT_EXITING |
  C.CPU_BASED_CR3_LOAD_EXITING |
  C.CPU_BASED_CR3_STORE_EXITING |
  C.CPU_BASED_CR8_LOAD_EXITING |
  C.CPU_BASED_CR8_STORE_EXITING |
  C.CPU_BASED_MOV_DR_EXITING |
  C.CPU_BASED_UNCOND_IO_EXITING |
  C.CPU_BASED_USE_IO_BITMAPS |
  C.CPU_BASED_MONITOR_TRAP_FLAG |
  C.CPU_BASED_MONITOR_EXITING |
  C.CPU_BASED_RDPMC_EXITING |
  C.CPU_BASED_RDTSC_EXITING |
  C.CPU_BASED_PAUSE_EXITING |
  C.CPU_BASED_TPR_SHADOW |
  C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
const SECONDARY =
  C.SECONDARY_EXEC_DESC |
  C.SECONDARY_EXEC_ENABLE_RDTSCP |
  C.SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE |
  C.SECONDARY_EXEC_WBINVD_EXITING |
  C.SECONDARY_EXEC_APIC_REGISTER_VIRT |
  C.SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY |
  C.SECONDARY_EXEC_RDRAND_EXITING |
  C.SECONDARY_EXEC_ENABLE_INVPCID |
  C.SECONDARY_EXEC_ENABLE_VMFUNC |
  C.SECONDARY_EXEC_RDSEED_EXITING |
  C.SECONDARY_EXEC_ENABLE_XSAVES |
  C.SECONDARY_EXEC_TSC_SCALING |
  C.SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE;

function setupSecondary(
  msrs: NestedVmxMsrs,
  hardware: Capabilities,
  profile: HardwareProfile,
  params: KvmParams,
): void {
  const { vmx } = profile;
  let high = hardware.secondary.may & SECONDARY;
  high |= C.SECONDARY_EXEC_SHADOW_VMCS;
  let ept = 0;
  let vpid = 0;
  if (tdpEnabled(profile, params)) {
    high |= C.SECONDARY_EXEC_ENABLE_EPT;
    ept = C.VMX_EPT_PAGE_WALK_4_BIT | C.VMX_EPTP_WB_BIT | C.VMX_EPT_INVEPT_BIT;
    if (vmx.eptFiveLevel) ept |= C.VMX_EPT_PAGE_WALK_5_BIT;
    if (vmx.eptExecuteOnly) ept |= C.VMX_EPT_EXECUTE_ONLY_BIT;
    ept |= C.VMX_EPT_EXTENT_GLOBAL_BIT | C.VMX_EPT_EXTENT_CONTEXT_BIT | C.VMX_EPT_2MB_PAGE_BIT | C.VMX_EPT_1GB_PAGE_BIT;
    if (vmx.eptAdBits) {
      high |= C.SECONDARY_EXEC_ENABLE_PML;
      ept |= C.VMX_EPT_AD_BIT;
    }
    if ((high & C.SECONDARY_EXEC_ENABLE_VMFUNC) !== 0) msrs.set(M.MSR_IA32_VMX_VMFUNC, C.VMX_VMFUNC_EPTP_SWITCHING, 0);
    if (vmx.unrestrictedGuest) high |= C.SECONDARY_EXEC_UNRESTRICTED_GUEST;
  }
  if (vmx.vpid) {
    high |= C.SECONDARY_EXEC_ENABLE_VPID;
    vpid = C.VMX_VPID_INVVPID_BIT | C.VMX_VPID_EXTENT_SUPPORTED_MASK;
  }
  if (vmx.virtualApicAccesses) high |= C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
  msrs.set(M.MSR_IA32_VMX_PROCBASED_CTLS2, 0, high);
  msrs.set(M.MSR_IA32_VMX_EPT_VPID_CAP, ept, vpid);
}

/** What KVM offers on this hardware. @kvm nested.c nested_vmx_setup_ctls_msrs */
export function setupNestedMsrs(hardware: Capabilities, profile: HardwareProfile, params: KvmParams): NestedVmxMsrs {
  const msrs = new NestedVmxMsrs();
  const pin =
    C.PIN_BASED_EXT_INTR_MASK |
    C.PIN_BASED_NMI_EXITING |
    C.PIN_BASED_VIRTUAL_NMIS |
    (params.enableApicv && profile.vmx.apicv ? C.PIN_BASED_POSTED_INTR : 0);
  msrs.set(
    M.MSR_IA32_VMX_TRUE_PINBASED_CTLS,
    C.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR,
    (hardware.pin.may & pin) | C.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR | C.PIN_BASED_VMX_PREEMPTION_TIMER,
  );
  msrs.set(
    M.MSR_IA32_VMX_TRUE_EXIT_CTLS,
    C.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR & ~C.VM_EXIT_SAVE_DEBUG_CONTROLS,
    (hardware.exit.may & (C.VM_EXIT_HOST_ADDR_SPACE_SIZE | C.VM_EXIT_LOAD_IA32_PAT | C.VM_EXIT_SAVE_IA32_PAT)) |
      C.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR |
      C.VM_EXIT_LOAD_IA32_EFER |
      C.VM_EXIT_SAVE_IA32_EFER |
      C.VM_EXIT_SAVE_VMX_PREEMPTION_TIMER |
      C.VM_EXIT_ACK_INTR_ON_EXIT |
      C.VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL,
  );
  msrs.set(
    M.MSR_IA32_VMX_TRUE_ENTRY_CTLS,
    C.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR & ~C.VM_ENTRY_LOAD_DEBUG_CONTROLS,
    (hardware.entry.may & (C.VM_ENTRY_IA32E_MODE | C.VM_ENTRY_LOAD_IA32_PAT)) |
      C.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR |
      C.VM_ENTRY_LOAD_IA32_EFER |
      C.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL,
  );
  msrs.set(
    M.MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
    C.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR & ~(C.CPU_BASED_CR3_LOAD_EXITING | C.CPU_BASED_CR3_STORE_EXITING),
    (hardware.primary.may & PRIMARY) | C.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR | C.CPU_BASED_USE_MSR_BITMAPS,
  );
  setupSecondary(msrs, hardware, profile, params);
  const misc =
    C.VMX_MISC_SAVE_EFER_LMA |
    C.VMX_MISC_VMWRITE_SHADOW_RO_FIELDS |
    PREEMPTION_TIMER_RATE |
    C.VMX_MISC_ACTIVITY_HLT |
    C.VMX_MISC_ACTIVITY_WAIT_SIPI;
  msrs.set(M.MSR_IA32_VMX_MISC, misc, 0);
  const basicHi = VMCS12_SIZE | C.VMX_BASIC_MEM_TYPE_WB_HI | C.VMX_BASIC_TRUE_CTLS_HI | C.VMX_BASIC_INOUT_HI;
  msrs.set(M.MSR_IA32_VMX_BASIC, VMCS12_REVISION, basicHi);
  msrs.set(M.MSR_IA32_VMX_CR0_FIXED0, CR0_PE | CR0_PG | CR0_NE, 0);
  msrs.set(M.MSR_IA32_VMX_CR4_FIXED0, CR4_VMXE, 0);
  // The guest's CPUID decides the bits of CR4: see updateCrFixed1.
  msrs.set(M.MSR_IA32_VMX_CR0_FIXED1, -1, 0);
  msrs.set(M.MSR_IA32_VMX_CR4_FIXED1, -1, 0);
  msrs.set(M.MSR_IA32_VMX_VMCS_ENUM, vmcsEnumMsr(), 0);
  return msrs;
}

/** The guest's CPUID says which bits of CR4 there are. @kvm vmx.c nested_vmx_cr_fixed1_bits_update */
export function updateCrFixed1(msrs: NestedVmxMsrs, cr4GuestRsvdBits: number): void {
  msrs.set(M.MSR_IA32_VMX_CR0_FIXED1, -1, 0);
  msrs.set(M.MSR_IA32_VMX_CR4_FIXED1, ~cr4GuestRsvdBits, 0);
}

/** Bits that IA32_VMX_PINBASED_CTLS and its like have beyond the "true" ones. */
const derived: ReadonlyMap<number, readonly [number, number]> = new Map([
  [M.MSR_IA32_VMX_PINBASED_CTLS, [M.MSR_IA32_VMX_TRUE_PINBASED_CTLS, C.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR]],
  [M.MSR_IA32_VMX_PROCBASED_CTLS, [M.MSR_IA32_VMX_TRUE_PROCBASED_CTLS, C.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR]],
  [M.MSR_IA32_VMX_EXIT_CTLS, [M.MSR_IA32_VMX_TRUE_EXIT_CTLS, C.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR]],
  [M.MSR_IA32_VMX_ENTRY_CTLS, [M.MSR_IA32_VMX_TRUE_ENTRY_CTLS, C.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR]],
]);

/** Reads one, halves into `out`. @kvm nested.c vmx_get_vmx_msr */
export function getVmxMsr(msrs: NestedVmxMsrs, msr: number, out: Int32Array): void {
  const from = derived.get(msr);
  out[0] = from === undefined ? msrs.lo(msr) : msrs.lo(from[0]) | from[1];
  out[1] = msrs.hi(from === undefined ? msr : from[0]);
}

/** All bits of `subset` under the mask are in `superset`. */
function isSubset(superset: number, subset: number, mask: number): boolean {
  return (subset & mask & ~superset) === 0;
}

/** Bits 31 and 13:9 of IA32_VMX_MISC are reserved; these are features that may be taken away. */
const MISC_BITS =
  C.VMX_MISC_SAVE_EFER_LMA |
  C.VMX_MISC_ACTIVITY_HLT |
  C.VMX_MISC_ACTIVITY_SHUTDOWN |
  C.VMX_MISC_ACTIVITY_WAIT_SIPI |
  C.VMX_MISC_INTEL_PT |
  C.VMX_MISC_RDMSR_IN_SMM |
  C.VMX_MISC_VMWRITE_SHADOW_RO_FIELDS |
  C.VMX_MISC_VMXOFF_BLOCK_SMI |
  C.VMX_MISC_ZERO_LEN_INS |
  (1 << 31) |
  0x3e00;
const BASIC_BITS_HI =
  C.VMX_BASIC_DUAL_MONITOR_TREATMENT_HI | C.VMX_BASIC_INOUT_HI | C.VMX_BASIC_TRUE_CTLS_HI | 0xff000000 | 0xe000;
const BASIC_SIZE_HI = 0x1fff;

/** @kvm nested.c vmx_restore_vmx_basic */
function validBasic(kvm: NestedVmxMsrs, lo: number, hi: number): boolean {
  const own = kvm.hi(M.MSR_IA32_VMX_BASIC);
  if (lo < 0 || !isSubset(own, hi, BASIC_BITS_HI)) return false;
  if ((hi & C.VMX_BASIC_32BIT_PHYS_ADDR_ONLY_HI) !== 0) return false;
  return lo === kvm.lo(M.MSR_IA32_VMX_BASIC) && (own & BASIC_SIZE_HI) <= (hi & BASIC_SIZE_HI);
}

/** @kvm nested.c vmx_restore_vmx_misc */
function validMisc(kvm: NestedVmxMsrs, msrs: NestedVmxMsrs, lo: number, hi: number): boolean {
  const own = kvm.misc;
  if (!isSubset(own, lo, MISC_BITS)) return false;
  const timer = (msrs.hi(M.MSR_IA32_VMX_TRUE_PINBASED_CTLS) & C.PIN_BASED_VMX_PREEMPTION_TIMER) !== 0;
  if (timer && ((lo ^ own) & C.VMX_MISC_PREEMPTION_TIMER_RATE_MASK) !== 0) return false;
  const cr3Count = (value: number): number => (value >>> 16) & 0x1ff;
  const maxMsr = (value: number): number => (value >>> 25) & 7;
  return cr3Count(lo) <= cr3Count(own) && maxMsr(lo) <= maxMsr(own) && hi === kvm.hi(M.MSR_IA32_VMX_MISC);
}

/**
 * Userspace writes one: it can take features away and force controls on that KVM leaves free, no more.
 * @param kvm what KVM offers @param msrs the vCPU's
 * @returns false for what KVM does not accept
 * @kvm nested.c vmx_set_vmx_msr
 */
export function setVmxMsr(kvm: NestedVmxMsrs, msrs: NestedVmxMsrs, msr: number, lo: number, hi: number): boolean {
  let valid = false;
  switch (msr) {
    case M.MSR_IA32_VMX_BASIC:
      valid = validBasic(kvm, lo, hi);
      break;
    case M.MSR_IA32_VMX_TRUE_PINBASED_CTLS:
    case M.MSR_IA32_VMX_TRUE_PROCBASED_CTLS:
    case M.MSR_IA32_VMX_TRUE_EXIT_CTLS:
    case M.MSR_IA32_VMX_TRUE_ENTRY_CTLS:
    case M.MSR_IA32_VMX_PROCBASED_CTLS2:
      valid = isSubset(lo, kvm.lo(msr), -1) && isSubset(kvm.hi(msr), hi, -1);
      break;
    case M.MSR_IA32_VMX_MISC:
      valid = validMisc(kvm, msrs, lo, hi);
      break;
    case M.MSR_IA32_VMX_CR0_FIXED0:
    case M.MSR_IA32_VMX_CR4_FIXED0:
      valid = isSubset(lo, kvm.lo(msr), -1) && isSubset(hi, kvm.hi(msr), -1);
      break;
    case M.MSR_IA32_VMX_EPT_VPID_CAP:
    case M.MSR_IA32_VMX_VMFUNC:
      valid = isSubset(kvm.lo(msr), lo, -1) && isSubset(kvm.hi(msr), hi, -1);
      break;
    case M.MSR_IA32_VMX_VMCS_ENUM:
      valid = true;
      break;
    default:
      break;
  }
  if (valid) msrs.set(msr, lo, hi);
  return valid;
}

const offered = new WeakMap<VmState, NestedVmxMsrs>();

/** What KVM offers to the guests of a VM; one set, which nobody changes. */
export function nestedMsrs(vm: VmState): NestedVmxMsrs {
  let msrs = offered.get(vm);
  if (msrs === undefined) {
    msrs = setupNestedMsrs(vm.processor.vmx.capabilities, vm.profile, vm.params);
    offered.set(vm, msrs);
  }
  return msrs;
}
