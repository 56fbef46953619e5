/** Bringing the MMU up and down with a VM and its vCPUs (@kvm mmu.c kvm_mmu_init_vm, kvm_mmu_create, kvm_mmu_destroy). */
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { INVALID_ROOT, type Mmu } from './mmu-context.ts';
import { mmuUnload } from './roots.ts';
import { defaultSpteMasks, eptSpteMasks } from './spte.ts';
import { TdpIter } from './tdp-iter.ts';
import { uninitTdpMmu } from './tdp-mmu/roots.ts';

/** Why this VM's paging cannot be had, or null: shadow page tables are not there yet. */
function unsupportedPaging(vm: VmState): string | null {
  if (!vm.vendor.tdpEnabled) return 'shadow paging without nested page tables is not supported yet';
  if (!vm.params.tdpMmu) return 'the legacy MMU (kvm.tdp_mmu=0) is not supported yet';
  return null;
}

/** @throws Error when `unsupportedPaging` says so. @kvm mmu.c kvm_mmu_init_vm */
export function initVm(vm: VmState): void {
  const reason = unsupportedPaging(vm);
  if (reason !== null) throw new Error(reason);
  const mmu = vm.mmu;
  mmu.masks =
    vm.vendor.name === 'vmx'
      ? eptSpteMasks({ hasAdBits: true, hasExecOnly: true, l1tfHi: 0 })
      : defaultSpteMasks(vm.profile.maxPhyAddr);
  mmu.enableMmioCaching = vm.params.mmioCaching && (mmu.masks.mmioValueLo | mmu.masks.mmioValueHi) !== 0;
  mmu.faultIter = new TdpIter(vm.memory);
  mmu.iter = new TdpIter(vm.memory);
  mmu.pageOfPfn = new Int32Array(vm.memory.frames);
}

/** Every vCPU is gone by now. @kvm mmu.c kvm_mmu_uninit_vm */
export function uninitVm(vm: VmState): void {
  uninitTdpMmu(vm);
}

function resetMmu(mmu: Mmu): void {
  mmu.root.pfn = INVALID_ROOT;
  mmu.root.pgd = 0;
  for (const root of mmu.prevRoots) {
    root.pfn = INVALID_ROOT;
    root.pgd = -1;
  }
}

/** @kvm mmu.c kvm_mmu_create */
export function mmuCreate(vcpu: VcpuState): void {
  resetMmu(vcpu.mmu.rootMmu);
  resetMmu(vcpu.mmu.guestMmu);
  vcpu.mmu.mmu = vcpu.mmu.rootMmu;
  vcpu.mmu.walkMmu = vcpu.mmu.rootMmu;
}

/** @kvm mmu.c kvm_mmu_destroy */
export function mmuDestroy(vcpu: VcpuState): void {
  mmuUnload(vcpu);
}
