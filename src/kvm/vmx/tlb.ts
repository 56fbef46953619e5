/** VPIDs and TLB flushes (@kvm vmx.c vmx_flush_tlb_all, allocate_vpid). */
import type { Processor } from '../../cpu/processor.ts';
import { mmuSyncPrevRoots, mmuSyncRoots } from '../mmu/shadow/roots.ts';
import { checkRequest, REQ_TLB_FLUSH_CURRENT, REQ_TLB_FLUSH_GUEST, type VcpuState } from '../vcpu-state.ts';

/** @kvm vmx.h VMX_NR_VPIDS */
const NR_VPIDS = 1 << 16;
/** VPIDs in use on each processor; 0 is the host's. */
const inUse = new WeakMap<Processor, Set<number>>();

/** A VPID nobody has, or 0 when there is none. @kvm vmx.c allocate_vpid */
export function allocateVpid(processor: Processor): number {
  const used = inUse.get(processor) ?? new Set<number>();
  inUse.set(processor, used);
  for (let vpid = 1; vpid < NR_VPIDS; vpid++) {
    if (used.has(vpid)) continue;
    used.add(vpid);
    return vpid;
  }
  return 0;
}

/** @kvm vmx.c free_vpid */
export function freeVpid(processor: Processor, vpid: number): void {
  inUse.get(processor)?.delete(vpid);
}

/** VPID of what runs now. @kvm vmx.c vmx_get_current_vpid */
function currentVpid(vcpu: VcpuState): number {
  const { nested, vpid } = vcpu.vmx;
  return vcpu.guestMode && nested.vmcs12.vpid && nested.vpid02 !== 0 ? nested.vpid02 : vpid;
}

/** Everything, guest-physical translations among it. @kvm vmx.c vmx_flush_tlb_all, vmx_flush_tlb_current */
export function vmxFlushTlbCurrent(vcpu: VcpuState): void {
  if (vcpu.vm.vendor.tdpEnabled) vcpu.vm.processor.vmx.invept();
  else vcpu.vm.processor.vmx.invvpid(currentVpid(vcpu));
}

/** @kvm vmx.c vmx_flush_tlb_guest */
export function vmxFlushTlbGuest(vcpu: VcpuState): void {
  vcpu.vm.processor.vmx.invvpid(currentVpid(vcpu));
}

/** @kvm vmx.c vmx_flush_tlb_gva */
export function vmxFlushTlbGva(vcpu: VcpuState, lo: number, hi: number): void {
  vcpu.vm.processor.vmx.invvpidAddress(currentVpid(vcpu), lo, hi);
}

/** Flushes that were asked for concern what runs now, and have to be done before something else does. @kvm x86.c kvm_service_local_tlb_flush_requests */
export function serviceLocalTlbFlushRequests(vcpu: VcpuState): void {
  if (checkRequest(vcpu, REQ_TLB_FLUSH_CURRENT)) {
    vcpu.stats.tlb_flush++;
    vmxFlushTlbCurrent(vcpu);
  }
  if (!checkRequest(vcpu, REQ_TLB_FLUSH_GUEST)) return;
  vcpu.stats.tlb_flush++;
  if (!vcpu.vm.vendor.tdpEnabled) {
    mmuSyncRoots(vcpu);
    mmuSyncPrevRoots(vcpu);
  }
  vmxFlushTlbGuest(vcpu);
}
