/** Small settings of a VM (@kvm x86.c kvm_vm_ioctl_set_tss_addr and neighbours). */
import { EINVAL } from '../host/errno.ts';
import { LOCK_SLOTS, LOCK_VM } from './locks.ts';
import { changeMmuPages } from './mmu/shadow/recycle.ts';
import type { VmState } from './vm-state.ts';

/** @kvm kvm_host.h KVM_MIN_ALLOC_MMU_PAGES */
const KVM_MIN_ALLOC_MMU_PAGES = 64;
/** Three pages below 4 GiB: room for the TSS of VMX's real mode. */
const LAST_TSS_ADDR = 0xffff_d000;

/** Only VMX needs the place; SVM takes it and does nothing. @returns 0 or -EINVAL @kvm x86.c kvm_vm_ioctl_set_tss_addr */
export function setTssAddr(vm: VmState, addr: number): number {
  if (addr > LAST_TSS_ADDR) return -EINVAL;
  vm.x86.tssAddr = addr;
  return 0;
}

/** Likewise. @returns 0, or -EINVAL once there is a vCPU @kvm x86.c kvm_vm_ioctl_set_identity_map_addr */
export function setIdentityMapAddr(vm: VmState, addr: number): number {
  vm.locks.acquire(LOCK_VM);
  const r = vm.vcpus.length > 0 ? -EINVAL : 0;
  if (r === 0) vm.x86.identityMapAddr = addr;
  vm.locks.release(LOCK_VM);
  return r;
}

/** @returns 0, or -EINVAL below the minimum @kvm x86.c kvm_vm_ioctl_set_nr_mmu_pages */
export function setNrMmuPages(vm: VmState, pages: number): number {
  if (!(pages >= KVM_MIN_ALLOC_MMU_PAGES)) return -EINVAL;
  vm.locks.acquire(LOCK_SLOTS);
  changeMmuPages(vm, pages);
  vm.mmu.nRequestedMmuPages = pages;
  vm.locks.release(LOCK_SLOTS);
  return 0;
}
