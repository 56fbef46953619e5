/** The VMCS that L1 lets L2 access, which KVM keeps a copy of while L2 runs (@kvm nested.c nested_cache_shadow_vmcs12). */
import { VMCS_VMCS_LINK_POINTER } from '../../../arch/vmcs.ts';
import { readGuest, writeGuest } from '../../guest-memory.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { VMCS12_SIZE } from './vmcs12-layout.ts';

const region = new Uint8Array(VMCS12_SIZE);

function hasShadow(vcpu: VcpuState): boolean {
  const v = vcpu.vmx.nested.vmcs12;
  return v.shadowVmcs && !v.isInvalid(VMCS_VMCS_LINK_POINTER);
}

/** L2 is entered. @kvm nested.c nested_cache_shadow_vmcs12 */
export function cacheShadowVmcs12(vcpu: VcpuState): void {
  if (!hasShadow(vcpu)) return;
  const { nested } = vcpu.vmx;
  if (readGuest(vcpu, nested.vmcs12.address(VMCS_VMCS_LINK_POINTER), region, 0, VMCS12_SIZE) < 0) return;
  nested.shadowVmcs12.load(region);
}

/** L2 is left. @kvm nested.c nested_flush_cached_shadow_vmcs12 */
export function flushShadowVmcs12(vcpu: VcpuState): void {
  if (!hasShadow(vcpu)) return;
  const { nested } = vcpu.vmx;
  const gpa = nested.vmcs12.address(VMCS_VMCS_LINK_POINTER);
  if (readGuest(vcpu, gpa, region, 0, VMCS12_SIZE) < 0) return;
  nested.shadowVmcs12.store(region);
  writeGuest(vcpu, gpa, region, 0, VMCS12_SIZE);
}
