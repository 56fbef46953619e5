/** Bringing the MMU up and down with a VM and its vCPUs (@kvm mmu.c kvm_mmu_init_vm, kvm_mmu_create, kvm_mmu_destroy). */
import { ENOMEM } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { freeMirrorRoot } from './free-roots.ts';
import { nestedGpaToGpa } from './guest-walk.ts';
import { INVALID_ROOT, type Mmu } from './mmu-context.ts';
import { mmuUnload } from './roots.ts';
import { defaultSpteMasks, eptSpteMasks } from './spte.ts';
import { TdpIter } from './tdp-iter.ts';
import { uninitTdpMmu } from './tdp-mmu/roots.ts';

/** Bits that the L1TF mitigation takes. @kvm spte.h SHADOW_NONPRESENT_OR_RSVD_MASK_LEN */
const L1TF_BITS = 5;

/**
 * High half of the highest physical address bits, which the mitigation sets in entries that are not present: memory does not reach
 * there. None where an address could not be moved out of them. @kvm spte.c kvm_mmu_reset_all_pte_masks
 */
function l1tfHi(cacheBits: number): number {
  return cacheBits >= 52 - L1TF_BITS ? 0 : ((1 << L1TF_BITS) - 1) << (cacheBits - L1TF_BITS - 32);
}

/** @kvm mmu.c kvm_mmu_init_vm */
export function initVm(vm: VmState): void {
  const mmu = vm.mmu;
  mmu.tdpMmuEnabled = vm.vendor.tdpEnabled && vm.params.tdpMmu;
  mmu.masks =
    vm.vendor.name === 'vmx' && vm.vendor.tdpEnabled
      ? eptSpteMasks({
          hasAdBits: vm.profile.vmx.eptAdBits,
          hasExecOnly: vm.profile.vmx.eptExecuteOnly,
          l1tfHi: vm.profile.l1tf ? l1tfHi(vm.profile.maxPhyAddr) : 0,
        })
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
  mmu.mirrorRoot = INVALID_ROOT;
  for (const root of mmu.prevRoots) {
    root.pfn = INVALID_ROOT;
    root.pgd = -1;
  }
}

/**
 * The PDPTEs of a guest that is not in long mode are in a page of their own, where its tables are shadowed. 0 or -ENOMEM.
 * @kvm mmu.c kvm_mmu_create
 */
export function mmuCreate(vcpu: VcpuState): number {
  resetMmu(vcpu.mmu.rootMmu);
  resetMmu(vcpu.mmu.guestMmu);
  vcpu.mmu.translateNestedGpa = nestedGpaToGpa;
  vcpu.mmu.mmu = vcpu.mmu.rootMmu;
  vcpu.mmu.walkMmu = vcpu.mmu.rootMmu;
  if (vcpu.vm.vendor.tdpEnabled) return 0;
  for (const mmu of [vcpu.mmu.guestMmu, vcpu.mmu.rootMmu]) {
    mmu.paeRoot = vcpu.vm.host.pages.allocPage();
    if (mmu.paeRoot < 0) return -ENOMEM;
  }
  return 0;
}

/** Tables that no shadow page stands for. @kvm mmu.c free_mmu_pages */
function freeMmuPages(vcpu: VcpuState, mmu: Mmu): void {
  for (const pfn of [mmu.paeRoot, mmu.pml4Root, mmu.pml5Root]) if (pfn >= 0) vcpu.vm.host.pages.freePage(pfn);
  mmu.paeRoot = -1;
  mmu.pml4Root = -1;
  mmu.pml5Root = -1;
}

/** @kvm mmu.c kvm_mmu_destroy */
export function mmuDestroy(vcpu: VcpuState): void {
  mmuUnload(vcpu);
  freeMirrorRoot(vcpu.vm, vcpu.mmu.rootMmu);
  freeMmuPages(vcpu, vcpu.mmu.rootMmu);
  freeMmuPages(vcpu, vcpu.mmu.guestMmu);
}
