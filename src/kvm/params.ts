/** KVM's module parameters, as data given when the system is opened. Names and defaults are the kernel's. */
export interface KvmParams {
  /** kvm.mmio_caching */
  readonly mmioCaching: boolean;
  /** kvm.tdp_mmu */
  readonly tdpMmu: boolean;
  /** kvm.nx_huge_pages: effective value, off on processors without the erratum. */
  readonly nxHugePages: boolean;
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
}

export const defaultParams: KvmParams = {
  mmioCaching: true,
  tdpMmu: true,
  nxHugePages: false,
  eagerPageSplit: true,
  ignoreMsrs: false,
  enableVmwareBackdoor: false,
  forceEmulationPrefix: 0,
  npt: true,
};
