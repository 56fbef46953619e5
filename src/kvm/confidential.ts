/**
 * What a vendor whose hardware keeps guests' memory from the host adds to its operations: SEV-SNP and TDX. One object a vendor, asked about
 * VMs of every type.
 */
import { hex } from '../arch/halves.ts';
import type { VcpuState } from './vcpu-state.ts';
import type { VendorOps } from './vendor-ops.ts';
import type { VmState } from './vm-state.ts';

/** The argument of KVM_MEMORY_ENCRYPT_OP: struct kvm_sev_cmd, struct kvm_tdx_cmd. */
export interface MemoryEncryptCommand {
  readonly id: number;
  readonly flags?: number;
  /** The structure that the command's `data` points to, as the vendor's file of commands describes it; what it returns is written there. */
  readonly data?: unknown;
  /** Written by the call: what the firmware, or the TDX module (halves), said; 0 when it was not asked. */
  error?: number;
  errorHi?: number;
}

/** Results are 0 or a negative errno. */
export interface ConfidentialOps {
  /** Bits of the VM types beyond the default and the software-protected one (@kvm x86.h kvm_caps.supported_vm_types). */
  readonly vmTypes: number;
  /** The vendor operations of a VM of this type, where they are not the vendor's usual ones. */
  opsFor?(type: number): VendorOps | null;
  /** Before the vCPUs go. @kvm kvm-x86-ops.h vm_pre_destroy */
  vmPreDestroy?(vm: VmState): void;
  /** After everything else went: vCPUs, page tables. */
  vmFree?(vm: VmState): void;
  /** @kvm kvm-x86-ops.h vm_init */
  vmInit(vm: VmState): number;
  /** @kvm kvm-x86-ops.h vm_destroy */
  vmDestroy(vm: VmState): void;
  /** @kvm kvm-x86-ops.h mem_enc_ioctl */
  memoryEncryptOp(vm: VmState, command: MemoryEncryptCommand): number;
  /** The same on a vCPU, which SEV does not have. */
  vcpuMemoryEncryptOp?(vcpu: VcpuState, command: MemoryEncryptCommand): number;
  /** A guest_memfd page is about to back `gfn` for the first time. @kvm kvm-x86-ops.h gmem_prepare */
  gmemPrepare(vm: VmState, pfn: number, gfn: number, maxOrder: number): number;
  /** Frames [start, end) go back to the host. @kvm kvm-x86-ops.h gmem_invalidate */
  gmemInvalidate(vm: VmState, start: number, end: number): void;
  /** Largest level at which the private frame may be mapped, 0 for no limit. @kvm kvm-x86-ops.h private_max_mapping_level */
  privateMaxMappingLevel(vm: VmState, pfn: number): number;
}

/** A command for an error message. */
export function encryptArgument({ id, error = 0, errorHi = 0 }: MemoryEncryptCommand): string {
  const status = (errorHi >>> 0) * 0x1_0000_0000 + (error >>> 0);
  return status === 0 ? `command ${id}` : `command ${id}, firmware status ${hex(status)}`;
}
