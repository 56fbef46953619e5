/** CR3 between L1 and L2, and what becomes of the TLB (@kvm nested.c nested_vmx_load_cr3, nested_vmx_transition_tlb_flush). */
import { VMCS_VIRTUAL_PROCESSOR_ID } from '../../../arch/vmcs.ts';
import { ENTRY_FAIL_DEFAULT, ENTRY_FAIL_PDPTE } from '../../../arch/vmx-controls.ts';
import { loadPdptrs } from '../../mmu/pdptrs.ts';
import { initMmu } from '../../mmu/roles.ts';
import { mmuNewPgd } from '../../mmu/roots.ts';
import { makeRequest, REQ_TLB_FLUSH_CURRENT, REQ_TLB_FLUSH_GUEST, type VcpuState } from '../../vcpu-state.ts';
import { isLegalCr3 } from '../../x86/control-registers.ts';
import { isPaePaging } from '../../x86/registers.ts';

/** @kvm nested.c nested_vmx_load_cr3: 0, or the exit qualification plus one. */
export function nestedLoadCr3(vcpu: VcpuState, lo: number, hi: number, ept: boolean, reloadPdptrs: boolean): number {
  if (!isLegalCr3(vcpu, hi)) return 1 + ENTRY_FAIL_DEFAULT;
  if (reloadPdptrs && !ept && isPaePaging(vcpu) && !loadPdptrs(vcpu, lo, hi)) return 1 + ENTRY_FAIL_PDPTE;
  vcpu.cr3Lo = lo;
  vcpu.cr3Hi = hi;
  initMmu(vcpu);
  if (!ept) mmuNewPgd(vcpu, lo, hi);
  return 0;
}

/** L2's translations and L1's are told apart. @kvm nested.c nested_has_guest_tlb_tag */
function hasGuestTlbTag(vcpu: VcpuState): boolean {
  const { nested } = vcpu.vmx;
  return vcpu.vm.vendor.tdpEnabled || (nested.vmcs12.vpid && nested.vpid02 !== 0);
}

/** @kvm nested.c nested_vmx_transition_tlb_flush */
export function transitionTlbFlush(vcpu: VcpuState, isEntry: boolean): void {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  const vpid = v.lo(VMCS_VIRTUAL_PROCESSOR_ID);
  if (!v.vpid) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  else if (isEntry && vpid !== nested.lastVpid) {
    nested.lastVpid = vpid;
    makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  } else if (!hasGuestTlbTag(vcpu)) makeRequest(vcpu, REQ_TLB_FLUSH_CURRENT);
}

/** The vCPU's own MMU translates again. @kvm nested.c nested_ept_uninit_mmu_context */
export function nestedEptUninitMmuContext(vcpu: VcpuState): void {
  vcpu.mmu.mmu = vcpu.mmu.rootMmu;
  vcpu.mmu.walkMmu = vcpu.mmu.rootMmu;
}
