/** A VM's state that is x86's own (@kvm kvm_host.h struct kvm_arch): capabilities that were enabled, interrupt chips, clock. */
import type { Pit } from './i8254.ts';
import type { IoApic } from './ioapic.ts';
import type { IrqNotifier, IrqRoutingEntry } from './irq-routing.ts';
import type { MsrFilter } from './msr-filter.ts';
import type { Pic } from './pic.ts';
import { TimerQueue } from './virtual-time.ts';

/** Bits of `disabledQuirks` (@kvm kvm_host.h uapi kvm.h KVM_X86_QUIRK_*). */
export const KVM_X86_QUIRK_LINT0_REENABLED = 1 << 0;
export const KVM_X86_QUIRK_CD_NW_CLEARED = 1 << 1;
export const KVM_X86_QUIRK_LAPIC_MMIO_HOLE = 1 << 2;
export const KVM_X86_QUIRK_OUT_7E_INC_RIP = 1 << 3;
export const KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT = 1 << 4;
export const KVM_X86_QUIRK_FIX_HYPERCALL_INSN = 1 << 5;
export const KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS = 1 << 6;
export const KVM_X86_QUIRK_SLOT_ZAP_ALL = 1 << 7;

export class VmX86 {
  /** KVM_X86_QUIRK_* that userspace switched off. */
  disabledQuirks = 0;
  exitOnEmulationError = false;
  /** Bit n: hypercall n goes to userspace. */
  hypercallExitEnabled = 0;
  /** KVM_CAP_EXCEPTION_PAYLOAD is enabled. */
  exceptionPayloadEnabled = false;
  tripleFaultEvent = false;
  /** KVM_X86_DISABLE_EXITS_*: MWAIT 1, HLT 2, PAUSE 4, CSTATE 8. */
  disabledExits = 0;
  /** APIC virtualization is in use: nothing inhibits it (@kvm x86.c kvm_apicv_activated). */
  apicvActivated = false;
  /** KVM_CREATE_IRQCHIP was done. */
  irqchipKernel = false;
  irqchipSplit = false;
  ioapic: IoApic | null = null;
  pic: Pic | null = null;
  pit: Pit | null = null;
  /** Where each wire ends. */
  irqRouting: readonly IrqRoutingEntry[] = [];
  readonly irqNotifiers: IrqNotifier[] = [];
  tssAddr = 0;
  identityMapAddr = 0;
  /** KVM_CAP_X2APIC_API: ids in KVM_GET_LAPIC have 32 bits; a device's 0xff is no broadcast in x2APIC mode. */
  x2apicFormat = false;
  x2apicBroadcastQuirkDisabled = false;
  /** KVM_CAP_MAX_VCPU_ID, 0 when it was not set. */
  maxVcpuIds = 0;
  /** KVM_CAP_X86_USER_SPACE_MSR: KVM_MSR_EXIT_REASON_* that go to userspace. */
  userSpaceMsrMask = 0;
  /** KVM_X86_SET_MSR_FILTER */
  msrFilter: MsrFilter | null = null;
  guestCanReadMsrPlatformInfo = true;
  /** Master clock: host nanoseconds that are zero of the guest's kvmclock. */
  kvmclockOffset = 0;
  /** The host's time of day when virtual time began, in seconds since 1970. */
  realTime = 0;
  /** Address that MSR_KVM_WALL_CLOCK was last given, halves. */
  wallClockLo = 0;
  wallClockHi = 0;
  /** Virtual time that passed without an instruction, in ticks: in halts and exits. */
  idleTime = 0;
  /** Virtual time that an exit takes, in ticks. */
  exitTime = 0;
  /** What waits for a moment of virtual time. */
  readonly timers = new TimerQueue();
}

/** @kvm x86.h kvm_check_has_quirk */
export function hasQuirk(vmX86: VmX86, quirk: number): boolean {
  return (vmX86.disabledQuirks & quirk) === 0;
}
