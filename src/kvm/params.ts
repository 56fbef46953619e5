/** KVM's module parameters, as data given when the system is opened. Names and defaults are the kernel's. */
import type { HardwareProfile } from '../cpu/profile.ts';

export interface KvmParams {
  /** kvm.mmio_caching */
  readonly mmioCaching: boolean;
  /** kvm.tdp_mmu */
  readonly tdpMmu: boolean;
  /** kvm.nx_huge_pages: effective value, off on processors without the erratum. */
  readonly nxHugePages: boolean;
  /** kvm.nx_huge_pages_recovery_ratio: 1/ratio of what nx_huge_pages split is recovered each period; 0: never. */
  readonly nxHugePagesRecoveryRatio: number;
  /** kvm.nx_huge_pages_recovery_period_ms: 0 for one that halves the number in an hour. */
  readonly nxHugePagesRecoveryPeriodMs: number;
  /** kvm.eager_page_split */
  readonly eagerPageSplit: boolean;
  /** kvm.ignore_msrs */
  readonly ignoreMsrs: boolean;
  /** kvm.enable_vmware_backdoor */
  readonly enableVmwareBackdoor: boolean;
  /** kvm.force_emulation_prefix */
  readonly forceEmulationPrefix: number;
  /** kvm_amd.npt */
  readonly npt: boolean;
  /** kvm_intel.ept */
  readonly ept: boolean;
  /** kvm_intel.pml */
  readonly pml: boolean;
  /** kvm_intel.enable_apicv */
  readonly enableApicv: boolean;
  /** The host kernel handles machine checks: it runs, and its guests with it, with CR4.MCE set (CONFIG_X86_MCE, mce=off). */
  readonly hostMce: boolean;
}

export const defaultParams: KvmParams = {
  mmioCaching: true,
  tdpMmu: true,
  nxHugePages: false,
  nxHugePagesRecoveryRatio: 60,
  nxHugePagesRecoveryPeriodMs: 0,
  eagerPageSplit: true,
  ignoreMsrs: false,
  enableVmwareBackdoor: false,
  forceEmulationPrefix: 0,
  npt: true,
  ept: true,
  pml: true,
  enableApicv: true,
  hostMce: true,
};

/** Two-dimensional paging is there and wanted: NPT on AMD, EPT on Intel. @kvm mmu.h tdp_enabled */
export function tdpEnabled(profile: HardwareProfile, params: KvmParams): boolean {
  return profile.vendor === 'amd' ? params.npt : params.ept && profile.vmx.ept;
}
