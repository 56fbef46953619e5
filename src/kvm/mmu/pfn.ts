/** Page frame numbers that mean "no page" (@kvm kvm_host.h KVM_PFN_*). A real pfn is never negative. */

export const KVM_PFN_ERR_FAULT = -1;
export const KVM_PFN_ERR_HWPOISON = -2;
export const KVM_PFN_ERR_RO_FAULT = -3;
export const KVM_PFN_NOSLOT = -4;
export const KVM_PFN_ERR_SIGPENDING = -5;
export const KVM_PFN_ERR_NEEDS_IO = -6;

/** @kvm kvm_host.h is_error_pfn: there is a slot and yet no page could be had. */
export function isErrorPfn(pfn: number): boolean {
  return pfn < 0 && pfn !== KVM_PFN_NOSLOT;
}

/** @kvm kvm_host.h is_noslot_pfn */
export function isNoslotPfn(pfn: number): boolean {
  return pfn === KVM_PFN_NOSLOT;
}

/** @kvm kvm_host.h is_error_noslot_pfn */
export function isErrorNoslotPfn(pfn: number): boolean {
  return pfn < 0;
}
