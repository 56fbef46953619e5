/** Asking vCPUs to flush their TLBs (@kvm kvm_main.c kvm_flush_remote_tlbs). */
import { makeRequest, REQ_TLB_FLUSH } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { pagesPerLevel } from './tdp-iter.ts';

/** Makes `request` on every vCPU of the VM (@kvm kvm_main.c kvm_make_all_cpus_request). */
export function makeAllCpusRequest(vm: VmState, request: number): void {
  const vcpus = vm.vcpus;
  for (let i = 0; i < vcpus.length; i++) makeRequest(vcpus[i]!, request);
}

/**
 * Every vCPU flushes before it next enters the guest. Nothing is counted when no vCPU runs elsewhere, as on a machine with one
 * processor, where there is nobody to interrupt.
 * @kvm kvm_main.c kvm_flush_remote_tlbs
 */
export function flushRemoteTlbs(vm: VmState): void {
  vm.stats.remote_tlb_flush_requests++;
  makeAllCpusRequest(vm, REQ_TLB_FLUSH);
}

/** Flush of `npages` from `gfn` (@kvm kvm_main.c kvm_flush_remote_tlbs_range): the processor has no flush by range, so all of it. */
export function flushRemoteTlbsRange(vm: VmState, _gfn: number, _npages: number): void {
  flushRemoteTlbs(vm);
}

/** Flush of what an entry of `level` at `gfn` maps (@kvm mmu_internal.h kvm_flush_remote_tlbs_gfn). */
export function flushRemoteTlbsGfn(vm: VmState, gfn: number, level: number): void {
  flushRemoteTlbsRange(vm, gfn, pagesPerLevel(level));
}
