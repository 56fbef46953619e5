/** Which mappings of a range are meant. @kvm kvm_host.h enum kvm_gfn_range_filter */
export const KVM_FILTER_SHARED = 1 << 0;
export const KVM_FILTER_PRIVATE = 1 << 1;
