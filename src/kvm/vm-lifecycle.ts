/** How VMs and vCPUs come and go (@kvm kvm_main.c kvm_create_vm, kvm_vm_ioctl_create_vcpu, kvm_destroy_vm). */
import { EEXIST, EINVAL } from '../host/errno.ts';
import { KVM_MAX_VCPU_IDS, KVM_MAX_VCPUS } from './capabilities.ts';
import { DirtyRing } from './dirty/dirty-ring.ts';
import { gmemUnbind } from './guest-memfd/guest-memfd.ts';
import { ioBusesDestroy } from './io-bus/io-bus.ts';
import { LOCK_SLOTS, LOCK_VM } from './locks.ts';
import {
  APIC_ACCESS_PAGE_PRIVATE_MEMSLOT,
  IDENTITY_PAGETABLE_PRIVATE_MEMSLOT,
  TSS_PRIVATE_MEMSLOT,
} from './memslots/memslot.ts';
import { x86SetMemoryRegion } from './memslots/set-memory-region.ts';
import { uninitVm } from './mmu/create.ts';
import { VcpuState } from './vcpu-state.ts';
import type { VmState } from './vm-state.ts';
import { initVm, vcpuCreate, vcpuDestroy } from './x86/create.ts';

/** Brings a new VM up: its MMU, and its ear on the process's address space; 0 or a negative errno. @kvm kvm_main.c kvm_create_vm */
export function startVm(vm: VmState): number {
  const r = initVm(vm);
  if (r === 0) vm.mm.registerNotifier(vm.notifier);
  return r;
}

/**
 * @returns the vCPU, or -EINVAL (id, or too many), -EEXIST (id taken), -ENOMEM
 * @kvm kvm_main.c kvm_vm_ioctl_create_vcpu
 */
export function createVcpu(vm: VmState, id: number): VcpuState | number {
  if (!(id >= 0 && id < KVM_MAX_VCPU_IDS) || vm.vcpus.length >= KVM_MAX_VCPUS) return -EINVAL;
  if (vm.x86.maxVcpuIds !== 0 && id >= vm.x86.maxVcpuIds) return -EINVAL;
  const vcpu = new VcpuState(vm, id);
  const r = vcpuCreate(vcpu);
  if (r !== 0) return r;
  if (vm.vcpus.some((other) => other.id === id)) {
    vcpuDestroy(vcpu);
    return -EEXIST;
  }
  if (vm.dirtyRingSize !== 0) vcpu.dirtyRing = new DirtyRing(id, vm.dirtyRingSize, vm.vendor.cpuDirtyLogSize);
  vm.locks.acquire(LOCK_VM);
  vm.vcpus.push(vcpu);
  vm.locks.release(LOCK_VM);
  return vcpu;
}

/** Slots over memory that KVM mapped into the process itself. */
const ownSlots = [APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, IDENTITY_PAGETABLE_PRIVATE_MEMSLOT, TSS_PRIVATE_MEMSLOT];

const destroyed = new WeakSet<VmState>();

/** Takes everything down; a second call does nothing. @kvm kvm_main.c kvm_destroy_vm */
export function destroyVm(vm: VmState): void {
  if (destroyed.has(vm)) return;
  destroyed.add(vm);
  ioBusesDestroy(vm);
  vm.mm.unregisterNotifier(vm.notifier);
  vm.notifier.release();
  vm.vendor.confidential?.vmPreDestroy?.(vm);
  vm.locks.acquire(LOCK_SLOTS);
  for (const id of ownSlots) x86SetMemoryRegion(vm, id, 0, 0);
  vm.locks.release(LOCK_SLOTS);
  for (const vcpu of vm.vcpus.splice(0)) vcpuDestroy(vcpu);
  vm.vendor.confidential?.vmDestroy(vm);
  uninitVm(vm);
  vm.vendor.confidential?.vmFree?.(vm);
  for (const set of vm.slots.sets) {
    for (const slot of set.slots.slice()) {
      gmemUnbind(slot);
      set.replace(slot, null);
    }
  }
}
