/** MSRs that userspace keeps from the guest (@kvm x86.c kvm_vm_ioctl_set_msr_filter, kvm_msr_allowed). */
import { EINVAL } from '../../host/errno.ts';
import type { VmState } from '../vm-state.ts';

/** An access failed because the filter denies it. */
export const KVM_MSR_RET_FILTERED = 3;
export const KVM_MSR_FILTER_READ = 1 << 0;
export const KVM_MSR_FILTER_WRITE = 1 << 1;
const KVM_MSR_FILTER_DEFAULT_DENY = 1 << 0;
const KVM_MSR_FILTER_MAX_RANGES = 16;
const KVM_MSR_FILTER_MAX_BITMAP_SIZE = 0x600;

/** `nmsrs` MSRs from `base` on: a set bit of the bitmap allows what `flags` name, a clear one denies it. */
export interface MsrFilterRange {
  /** KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE */
  readonly flags: number;
  readonly base: number;
  readonly nmsrs: number;
  readonly bitmap: Uint8Array;
}

export interface MsrFilter {
  readonly defaultAllow: boolean;
  readonly ranges: readonly MsrFilterRange[];
}

function isValid(range: MsrFilterRange): boolean {
  const { flags, nmsrs, bitmap } = range;
  const size = Math.ceil(nmsrs / 64) * 8;
  if (flags === 0 || (flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)) !== 0) return false;
  return size <= KVM_MSR_FILTER_MAX_BITMAP_SIZE && bitmap.length * 8 >= nmsrs;
}

/** Replaces the filter: 0, or -EINVAL. @kvm x86.c kvm_vm_ioctl_set_msr_filter */
export function setMsrFilter(vm: VmState, flags: number, ranges: readonly MsrFilterRange[]): number {
  if ((flags & ~KVM_MSR_FILTER_DEFAULT_DENY) !== 0 || ranges.length > KVM_MSR_FILTER_MAX_RANGES) return -EINVAL;
  const used = ranges.filter((range) => range.nmsrs !== 0);
  const defaultAllow = (flags & KVM_MSR_FILTER_DEFAULT_DENY) === 0;
  if (used.length === 0 && !defaultAllow) return -EINVAL;
  if (!used.every(isValid)) return -EINVAL;
  vm.x86.msrFilter = { defaultAllow, ranges: used.map((range) => ({ ...range, bitmap: range.bitmap.slice() })) };
  for (const vcpu of vm.vcpus) vm.vendor.msrFilterChanged(vcpu);
  return 0;
}

/** The first range that names the MSR and the access decides. @kvm x86.c kvm_msr_allowed */
export function msrAllowed(vm: VmState, msr: number, access: number): boolean {
  const filter = vm.x86.msrFilter;
  const index = msr >>> 0;
  if (filter === null || (index >= 0x800 && index <= 0x8ff)) return true;
  for (const { flags, base, nmsrs, bitmap } of filter.ranges) {
    const n = index - base;
    if (n >= 0 && n < nmsrs && (flags & access) !== 0) return ((bitmap[n >> 3]! >> (n & 7)) & 1) !== 0;
  }
  return filter.defaultAllow;
}
