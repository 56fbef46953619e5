/**
 * KVM_CHECK_EXTENSION (@kvm kvm_main.c kvm_vm_ioctl_check_extension_generic, x86.c kvm_vm_ioctl_check_extension): the answers of a kernel
 * built without Hyper-V, Xen and SGX support, which are not modelled; a capability that is not listed is 0.
 */
import type { HardwareProfile } from '../cpu/profile.ts';
import { supportedMemAttributes } from './attributes.ts';
import { DIRTY_GFN_BYTES, KVM_DIRTY_RING_MAX_ENTRIES } from './dirty/dirty-ring.ts';
import { KVM_USER_MEM_SLOTS } from './memslots/memslot.ts';
import { type KvmParams, tdpEnabled } from './params.ts';
import type { VendorOps } from './vendor-ops.ts';
import type { VmState } from './vm-state.ts';
import { KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM } from './vm-type.ts';

export const KVM_MAX_VCPUS = 1024;
export const KVM_MAX_VCPU_IDS = 4 * KVM_MAX_VCPUS;
/** Page of a vCPU's mmap area where the coalesced ring is. */
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 2;
/** @kvm kvm_host.h KVM_X86_VALID_QUIRKS: bits 0 to 10. */
export const KVM_X86_VALID_QUIRKS = 0x7ff;
const KVM_X86_QUIRK_IGNORE_GUEST_PAT = 1 << 9;
/** @kvm x86.c KVM_EXIT_HYPERCALL_VALID_MASK: KVM_HC_MAP_GPA_RANGE. */
export const KVM_EXIT_HYPERCALL_VALID_MASK = 1 << 12;
/** @kvm kvm_host.h KVM_GUESTDBG_VALID_MASK */
export const KVM_GUESTDBG_VALID_MASK = 0x1f0003;

/** What the host decides before there is a VM. */
export interface KvmHost {
  readonly profile: HardwareProfile;
  readonly params: KvmParams;
  /** Absent: no vendor's own VM types. */
  readonly vendor?: VendorOps;
}

/** Capabilities whose answer is 1 on every such host: numbers of uapi/linux/kvm.h, by name for the reader. */
const yes: ReadonlyMap<number, string> = new Map([
  [0, 'IRQCHIP'],
  [1, 'HLT'],
  [2, 'MMU_SHADOW_CACHE_CONTROL'],
  [3, 'USER_MEMORY'],
  [4, 'SET_TSS_ADDR'],
  [6, 'VAPIC'],
  [7, 'EXT_CPUID'],
  [8, 'CLOCKSOURCE'],
  [11, 'PIT'],
  [12, 'NOP_IO_DELAY'],
  [14, 'MP_STATE'],
  [16, 'SYNC_MMU'],
  [21, 'DESTROY_MEMORY_REGION_WORKS'],
  [22, 'USER_NMI'],
  [23, 'SET_GUEST_DEBUG'],
  [24, 'REINJECT_CONTROL'],
  [26, 'IRQ_INJECT_STATUS'],
  [30, 'JOIN_MEMORY_REGIONS_WORKS'],
  [32, 'IRQFD'],
  [33, 'PIT2'],
  [34, 'SET_BOOT_CPU_ID'],
  [35, 'PIT_STATE2'],
  [36, 'IOEVENTFD'],
  [37, 'SET_IDENTITY_MAP_ADDR'],
  [40, 'INTERNAL_ERROR_DATA'],
  [41, 'VCPU_EVENTS'],
  [47, 'PCI_SEGMENT'],
  [50, 'DEBUGREGS'],
  [51, 'X86_ROBUST_SINGLESTEP'],
  [54, 'ENABLE_CAP'],
  [55, 'XSAVE'],
  [56, 'XCRS'],
  [59, 'ASYNC_PF'],
  [61, 'GET_TSC_KHZ'],
  [72, 'TSC_DEADLINE_TIMER'],
  [76, 'KVMCLOCK_CTRL'],
  [77, 'SIGNAL_MSI'],
  [81, 'READONLY_MEM'],
  [82, 'IRQFD_RESAMPLE'],
  [89, 'DEVICE_CTRL'],
  [95, 'EXT_EMUL_CPUID'],
  [97, 'IOAPIC_POLARITY_IGNORED'],
  [98, 'ENABLE_CAP_VM'],
  [100, 'IOEVENTFD_NO_LENGTH'],
  [105, 'CHECK_EXTENSION_VM'],
  [116, 'DISABLE_QUIRKS'],
  [117, 'X86_SMM'],
  [121, 'SPLIT_IRQCHIP'],
  [122, 'IOEVENTFD_ANY_LENGTH'],
  [127, 'VCPU_ATTRIBUTES'],
  [136, 'IMMEDIATE_EXIT'],
  [153, 'GET_MSR_FEATURES'],
  [159, 'MSR_PLATFORM_INFO'],
  [162, 'COALESCED_PIO'],
  [164, 'EXCEPTION_PAYLOAD'],
  [173, 'PMU_EVENT_FILTER'],
  [182, 'HALT_POLL'],
  [183, 'ASYNC_PF_INT'],
  [184, 'LAST_CPU'],
  [187, 'STEAL_TIME'],
  [188, 'X86_USER_SPACE_MSR'],
  [189, 'X86_MSR_FILTER'],
  [190, 'ENFORCE_PV_FEATURE_CPUID'],
  [197, 'VM_COPY_ENC_CONTEXT_FROM'],
  [200, 'SREGS2'],
  [203, 'BINARY_STATS_FD'],
  [204, 'EXIT_ON_EMULATION_FAILURE'],
  [206, 'VM_MOVE_ENC_CONTEXT_FROM'],
  [209, 'SYS_ATTRIBUTES'],
  [215, 'SYSTEM_EVENT_DATA'],
  [218, 'X86_TRIPLE_FAULT_EVENT'],
  [220, 'VM_DISABLE_NX_HUGE_PAGES'],
  [226, 'PMU_EVENT_MASKED_EVENTS'],
  [231, 'USER_MEMORY2'],
  [232, 'MEMORY_FAULT_INFO'],
  [237, 'X86_APIC_BUS_CYCLES_NS'],
  [238, 'X86_GUEST_MODE'],
]);

/** Capabilities with one number for an answer. */
const numbers: ReadonlyMap<number, { name: string; value: number }> = new Map([
  [9, { name: 'NR_VCPUS', value: 1 }],
  [10, { name: 'NR_MEMSLOTS', value: KVM_USER_MEM_SLOTS }],
  [15, { name: 'COALESCED_MMIO', value: KVM_COALESCED_MMIO_PAGE_OFFSET }],
  [25, { name: 'IRQ_ROUTING', value: 4096 }],
  [31, { name: 'MCE', value: 32 }],
  [39, { name: 'ADJUST_CLOCK', value: 0xe }],
  [66, { name: 'MAX_VCPUS', value: KVM_MAX_VCPUS }],
  [74, { name: 'SYNC_REGS', value: 7 }],
  [128, { name: 'MAX_VCPU_ID', value: KVM_MAX_VCPU_IDS }],
  [129, { name: 'X2APIC_API', value: 3 }],
  [143, { name: 'X86_DISABLE_EXITS', value: 0xf }],
  [157, { name: 'NESTED_STATE', value: 128 + 4096 }],
  [168, { name: 'MANUAL_DIRTY_LOG_PROTECT2', value: 3 }],
  [192, { name: 'DIRTY_LOG_RING', value: KVM_DIRTY_RING_MAX_ENTRIES * DIRTY_GFN_BYTES }],
  [195, { name: 'SET_GUEST_DEBUG2', value: KVM_GUESTDBG_VALID_MASK }],
  [201, { name: 'EXIT_HYPERCALL', value: KVM_EXIT_HYPERCALL_VALID_MASK }],
  [208, { name: 'XSAVE2', value: 4096 }],
  [223, { name: 'DIRTY_LOG_RING_ACQ_REL', value: KVM_DIRTY_RING_MAX_ENTRIES * DIRTY_GFN_BYTES }],
]);

/** Bits of the VM types that KVM_CREATE_VM takes: protected ones need the TDP MMU. @kvm x86.h kvm_caps.supported_vm_types */
export function supportedVmTypes(host: KvmHost): number {
  const tdpMmu = tdpEnabled(host.profile, host.params) && host.params.tdpMmu;
  const confidential = tdpMmu ? (host.vendor?.confidential?.vmTypes ?? 0) : 0;
  return (1 << KVM_X86_DEFAULT_VM) | (tdpMmu ? 1 << KVM_X86_SW_PROTECTED_VM : 0) | confidential;
}

/**
 * @param vm null asks about the system @returns the extension's value, 0 when there is none @kvm x86.c kvm_vm_ioctl_check_extension
 * @partial only what is modelled is offered
 */
export function checkExtension(host: KvmHost, vm: VmState | null, cap: number): number {
  if (yes.has(cap)) return 1;
  const fixed = numbers.get(cap);
  if (fixed !== undefined) return fixed.value;
  const tdp = tdpEnabled(host.profile, host.params);
  switch (cap) {
    case 118: // MULTI_ADDRESS_SPACE
      return vm === null ? 2 : vm.slots.count;
    case 185: // SMALLER_MAXPHYADDR: shadow paging can hide physical bits, nested paging can not
      return tdp ? 0 : 1;
    case 213: // DISABLE_QUIRKS2
      return tdp ? KVM_X86_VALID_QUIRKS : KVM_X86_VALID_QUIRKS & ~KVM_X86_QUIRK_IGNORE_GUEST_PAT;
    case 233: // MEMORY_ATTRIBUTES
      return supportedMemAttributes(vm);
    case 234: // GUEST_MEMFD
      return vm === null || vm.hasPrivateMem ? 1 : 0;
    case 235: // VM_TYPES
      return supportedVmTypes(host);
    case 236: // PRE_FAULT_MEMORY
      return tdp && (vm === null || vm.revision.rules.hasPreFault) ? 1 : 0;
    default:
      return 0;
  }
}
