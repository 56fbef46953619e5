/** KVM_ENABLE_CAP: the capabilities that are x86's own (@kvm x86.c kvm_vm_ioctl_enable_cap, kvm_vcpu_ioctl_enable_cap). */

import { EINVAL, ENXIO } from '../../host/errno.ts';
import { KVM_EXIT_HYPERCALL_VALID_MASK, KVM_MAX_VCPU_IDS, KVM_X86_VALID_QUIRKS } from '../capabilities.ts';
import {
  KVM_CAP_DISABLE_QUIRKS,
  KVM_CAP_DISABLE_QUIRKS2,
  KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
  KVM_CAP_EXCEPTION_PAYLOAD,
  KVM_CAP_EXIT_HYPERCALL,
  KVM_CAP_EXIT_ON_EMULATION_FAILURE,
  KVM_CAP_MAX_VCPU_ID,
  KVM_CAP_MSR_PLATFORM_INFO,
  KVM_CAP_SPLIT_IRQCHIP,
  KVM_CAP_VM_DISABLE_NX_HUGE_PAGES,
  KVM_CAP_X2APIC_API,
  KVM_CAP_X86_APIC_BUS_CYCLES_NS,
  KVM_CAP_X86_BUS_LOCK_EXIT,
  KVM_CAP_X86_DISABLE_EXITS,
  KVM_CAP_X86_TRIPLE_FAULT_EVENT,
  KVM_CAP_X86_USER_SPACE_MSR,
} from '../capability-numbers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { KVM_MSR_EXIT_REASON_VALID_MASK } from './msr-user-space.ts';

/** MWAIT, HLT, PAUSE, CSTATE. */
const DISABLE_EXITS_VALID = 0xfn;

/** Sets the largest vCPU id once. */
function setMaxVcpuId(vm: VmState, id: bigint): number {
  if (id > BigInt(KVM_MAX_VCPU_IDS)) return -EINVAL;
  if (vm.x86.maxVcpuIds === Number(id)) return 0;
  if (vm.x86.maxVcpuIds !== 0) return -EINVAL;
  vm.x86.maxVcpuIds = Number(id);
  return 0;
}

/**
 * 0, -EINVAL (unknown, flags, argument, too late) or -ENXIO.
 * @kvm x86.c kvm_vm_ioctl_enable_cap
 * @partial KVM_CAP_SPLIT_IRQCHIP is refused
 */
export function x86VmEnableCap(vm: VmState, cap: number, flags: number, args: readonly bigint[]): number {
  if (flags !== 0) return -EINVAL;
  const x86 = vm.x86;
  const arg = args[0] ?? 0n;
  switch (cap) {
    case KVM_CAP_DISABLE_QUIRKS2:
      if ((arg & ~BigInt(KVM_X86_VALID_QUIRKS)) !== 0n) return -EINVAL;
      x86.disabledQuirks |= Number(arg);
      return 0;
    case KVM_CAP_DISABLE_QUIRKS:
      x86.disabledQuirks |= Number(arg & BigInt(KVM_X86_VALID_QUIRKS));
      return 0;
    case KVM_CAP_SPLIT_IRQCHIP:
      return -EINVAL; // an I/O APIC in userspace is not modelled
    case KVM_CAP_X2APIC_API:
      if ((arg & ~3n) !== 0n) return -EINVAL;
      x86.x2apicFormat ||= (arg & 1n) !== 0n;
      x86.x2apicBroadcastQuirkDisabled ||= (arg & 2n) !== 0n;
      return 0;
    case KVM_CAP_X86_DISABLE_EXITS:
      if ((arg & ~DISABLE_EXITS_VALID) !== 0n) return -EINVAL;
      x86.disabledExits |= Number(arg);
      return 0;
    case KVM_CAP_MSR_PLATFORM_INFO:
      x86.guestCanReadMsrPlatformInfo = arg !== 0n;
      return 0;
    case KVM_CAP_EXCEPTION_PAYLOAD:
      x86.exceptionPayloadEnabled = arg !== 0n;
      return 0;
    case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
      x86.tripleFaultEvent = arg !== 0n;
      return 0;
    case KVM_CAP_X86_BUS_LOCK_EXIT:
      // Off (1) is accepted; exits (2) need hardware that this is not, and are accepted without effect.
      return (arg & ~3n) !== 0n || arg === 3n ? -EINVAL : 0;
    case KVM_CAP_EXIT_HYPERCALL:
      if ((arg & ~BigInt(KVM_EXIT_HYPERCALL_VALID_MASK)) !== 0n) return -EINVAL;
      x86.hypercallExitEnabled = Number(arg);
      return 0;
    case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
      if ((arg & ~1n) !== 0n) return -EINVAL;
      x86.exitOnEmulationError = arg !== 0n;
      return 0;
    case KVM_CAP_X86_USER_SPACE_MSR:
      if ((arg & ~BigInt(KVM_MSR_EXIT_REASON_VALID_MASK)) !== 0n) return -EINVAL;
      x86.userSpaceMsrMask = Number(arg);
      return 0;
    case KVM_CAP_MAX_VCPU_ID:
      return setMaxVcpuId(vm, arg);
    case KVM_CAP_VM_DISABLE_NX_HUGE_PAGES:
      if (arg !== 0n || vm.vcpus.length > 0) return -EINVAL;
      vm.mmu.nxHugePages = false;
      return 0;
    case KVM_CAP_X86_APIC_BUS_CYCLES_NS:
      if (!x86.irqchipKernel) return -ENXIO;
      return -EINVAL; // a tick of the timer is a retired instruction
    default:
      return -EINVAL;
  }
}

/** 0 or -EINVAL. @kvm x86.c kvm_vcpu_ioctl_enable_cap @partial only KVM_CAP_ENFORCE_PV_FEATURE_CPUID */
export function vcpuEnableCap(vcpu: VcpuState, cap: number, flags: number, args: readonly bigint[]): number {
  if (flags !== 0) return -EINVAL;
  if (cap !== KVM_CAP_ENFORCE_PV_FEATURE_CPUID) return -EINVAL;
  vcpu.x86.pvEnforceCpuid = (args[0] ?? 0n) !== 0n;
  return 0;
}
