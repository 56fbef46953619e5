/** KVM_PRE_FAULT_MEMORY (@kvm kvm_main.c kvm_vcpu_pre_fault_memory): maps a range for a vCPU before it is touched. */
import { EINTR, EINVAL } from '../host/errno.ts';
import { preFaultMemory } from './mmu/pre-fault.ts';
import type { VcpuState } from './vcpu-state.ts';

export interface PreFaultRange {
  /** What is left of the range: changed as pages are mapped. Bytes. */
  gpa: bigint;
  size: bigint;
}

/**
 * @returns 0 when at least one page was mapped; else -EINVAL (flags, unaligned, empty or wrapping range), -EINTR, or the first
 *   page's error: -ENOENT (no slot), -EFAULT, -EHWPOISON, -EIO, -EOPNOTSUPP (no TDP)
 * @kvm kvm_main.c kvm_vcpu_pre_fault_memory
 */
export function vcpuPreFaultMemory(vcpu: VcpuState, range: PreFaultRange, flags: bigint): number {
  if (flags !== 0n) return -EINVAL;
  if (((range.gpa | range.size) & 0xfffn) !== 0n) return -EINVAL;
  if (range.size === 0n || range.gpa + range.size >= 1n << 64n) return -EINVAL;
  const fullSize = range.size;
  let r = 0;
  vcpu.vm.locks.srcuReadLock();
  do {
    if (vcpu.signalPending) {
      r = -EINTR;
      break;
    }
    r = preFaultMemory(vcpu, Number(range.gpa), Number(range.size));
    if (r <= 0) break;
    range.gpa += BigInt(r);
    range.size -= BigInt(r);
  } while (range.size !== 0n);
  vcpu.vm.locks.srcuReadUnlock();
  return range.size === fullSize ? r : 0;
}
