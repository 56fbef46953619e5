/** KVM_MEMORY_ENCRYPT_OP of a TD: the commands and what their data is (@kvm uapi/asm/kvm.h struct kvm_tdx_cmd). */
import type { CpuidEntry } from '../../../cpu/profile.ts';

export const KVM_TDX_CAPABILITIES = 0;
export const KVM_TDX_INIT_VM = 1;
export const KVM_TDX_INIT_VCPU = 2;
export const KVM_TDX_INIT_MEM_REGION = 3;
export const KVM_TDX_FINALIZE_VM = 4;
export const KVM_TDX_GET_CPUID = 5;

/** Flag of KVM_TDX_INIT_MEM_REGION: the contents are measured, too. */
export const KVM_TDX_MEASURE_MEMORY_REGION = 1 << 0;

/** Written by KVM_TDX_CAPABILITIES. @kvm uapi/asm/kvm.h struct kvm_tdx_capabilities */
export interface TdxCapabilities {
  supportedAttrs: number;
  supportedXfam: number;
  /** Leaves that can be configured, and which bits. */
  cpuid: CpuidEntry[];
}

/** Data of KVM_TDX_INIT_VM. @kvm uapi/asm/kvm.h struct kvm_tdx_init_vm */
export interface TdxInitVm {
  /** TD_ATTR_* */
  readonly attributes: number;
  readonly xfam: number;
  /** 48 bytes each, zeros if absent. */
  readonly mrconfigid?: Uint8Array;
  readonly mrowner?: Uint8Array;
  readonly mrownerconfig?: Uint8Array;
  readonly cpuid: readonly CpuidEntry[];
}

/** Data of KVM_TDX_INIT_VCPU: what RCX and R8 are at the reset vector. */
export interface TdxInitVcpu {
  readonly rcx: number;
}

/** Data of KVM_TDX_INIT_MEM_REGION, which moves on as pages are added. @kvm uapi/asm/kvm.h struct kvm_tdx_init_mem_region */
export interface TdxInitMemRegion {
  /** Host virtual address of the contents. */
  sourceAddr: number;
  gpa: number;
  nrPages: number;
}

/** Written by KVM_TDX_GET_CPUID. */
export interface TdxCpuid {
  cpuid: CpuidEntry[];
}
