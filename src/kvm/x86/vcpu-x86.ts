/** A vCPU's state that is x86's own (@kvm kvm_host.h struct kvm_vcpu_arch), without what the MMU and the vendor keep. */
import type { CpuidEntry } from '../../cpu/profile.ts';
import { FPU_CW_AT, STATE_END } from '../../cpu/state.ts';
import type { EmulateCtxt } from '../emulate/ctxt.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { AsyncPf } from './async-pf-state.ts';
import { featureWords } from './cpuid-features.ts';
import type { Lapic } from './lapic.ts';
import { MachineCheck } from './machine-check-state.ts';

/** An exception on its way into the guest (@kvm kvm_host.h struct kvm_queued_exception). */
export class QueuedException {
  pending = false;
  injected = false;
  hasErrorCode = false;
  vector = 0;
  errorCode = 0;
  hasPayload = false;
  /** What DR6 (#DB) or CR2 (#PF) gets at delivery, halves. */
  payloadLo = 0;
  payloadHi = 0;
}

/** A part of an MMIO access that goes to userspace on its own, at most 8 bytes at a time (@kvm kvm_host.h struct kvm_mmio_fragment). */
export class MmioFragment {
  gpa = 0;
  len = 0;
  /** Where its bytes are: for a read the emulator's read buffer, for a write of up to 8 bytes `val`. */
  data: Uint8Array;
  off = 0;
  readonly val = new Uint8Array(8);

  constructor() {
    this.data = this.val;
  }
}

/** Fragments an access can break into: one a page (@kvm kvm_host.h KVM_MAX_MMIO_FRAGMENTS). */
export const KVM_MAX_MMIO_FRAGMENTS = 2;

/** What the next KVM_RUN does first, to finish the exit userspace has handled: 1 go on, 0 exit again, negative -errno. */
export type CompleteUserspaceIo = (vcpu: VcpuState) => number;

export class VcpuX86 {
  /** The vCPU's own emulation context, made with the vCPU. */
  emulateCtxt: EmulateCtxt | null = null;
  /** The context holds registers the vCPU has not got yet: an instruction is out in userspace. */
  emulateRegsNeedSyncToVcpu = false;
  /** Userspace changed registers meanwhile. */
  emulateRegsNeedSyncFromVcpu = false;

  readonly exception = new QueuedException();
  readonly exceptionVmexit = new QueuedException();
  /** The pending exception came with KVM_SET_VCPU_EVENTS. */
  exceptionFromUserspace = false;
  interruptInjected = false;
  interruptSoft = false;
  interruptNr = 0;
  nmiQueued = 0;
  nmiPending = 0;
  nmiInjected = false;
  smiPending = false;
  /** SMBASE, and whether NMIs were masked already when the SMI came. */
  smbase = 0x30000;
  smmInsideNmi = false;
  haltRequest = false;

  /** Entries of KVM_SET_CPUID2, and the feature words out of them (cpuid-features.ts). */
  cpuid: readonly CpuidEntry[] = [];
  readonly features = new Int32Array(featureWords.length);
  isAmdCompatible = false;
  /** CR4 bits the guest may not set: the host's and its CPUID's. */
  cr4GuestRsvdBits = -1;
  /** High half of the bits at and above the guest's MAXPHYADDR. */
  reservedGpaBitsHi = ~0xf;
  guestSupportedXcr0 = 0;
  /** KVM_RUN has entered the guest at least once. */
  hasRun = false;

  completeUserspaceIo: CompleteUserspaceIo | null = null;

  // Port I/O in flight; its data are in kvm_run's page.
  pioCount = 0;
  pioIn = false;
  pioPort = 0;
  pioSize = 0;
  /** Linear address of the IN or OUT, to notice that userspace moved RIP. */
  pioLinearRipLo = 0;
  pioLinearRipHi = 0;

  // MMIO in flight.
  mmioNeeded = false;
  mmioReadCompleted = false;
  mmioIsWrite = false;
  mmioCurFragment = 0;
  mmioNrFragments = 0;
  readonly mmioFragments: MmioFragment[] = Array.from({ length: KVM_MAX_MMIO_FRAGMENTS }, () => new MmioFragment());

  /** RIP and fault address of the last instruction retried natively after an unprotect. */
  lastRetryEipLo = 0;
  lastRetryEipHi = 0;
  lastRetryAddrLo = 0;
  lastRetryAddrHi = 0;

  /** Control word of KVM_SET_GUEST_DEBUG. */
  guestDebug = 0;
  singlestepRipLo = 0;
  singlestepRipHi = 0;
  /** DR0..DR3 of the guest, then those in force (KVM_GUESTDBG_USE_HW_BP), halves. */
  readonly db = new Int32Array(8);
  readonly effDb = new Int32Array(8);
  dr6 = 0xffff0ff0 | 0;
  dr7 = 0x400;
  guestDebugDr7 = 0;
  /** KVM_DEBUGREG_*: why DR0 to DR3 must be in the processor. */
  switchDbRegs = 0;

  /** Result of the last MSR read, halves. */
  readonly msrValue = new Int32Array(2);
  /** MSRs that are only remembered, halves. */
  readonly msrStore = new Map<number, { lo: number; hi: number }>();
  patLo = 0x00070406;
  patHi = 0x00070406;
  tscAuxLo = 0;
  tscAuxHi = 0;
  /** The processor must get XCR0 at the next entry. */
  xcr0Dirty = false;
  /** Guest TSC less virtual time, halves: L1's. */
  tscOffsetLo = 0;
  tscOffsetHi = 0;
  /** What L2's TSC is ahead of L1's, halves; 0 outside guest mode. */
  l2TscOffsetLo = 0;
  l2TscOffsetHi = 0;
  /** Time without instructions that the processor's offset has in it already. */
  tscIdleTime = 0;
  /** MSR_IA32_TSC_ADJUST. */
  tscAdjustLo = 0;
  tscAdjustHi = 0;
  /** MSR_KVM_SYSTEM_TIME; area in use when bit 0 is set. */
  systemTimeLo = 0;
  systemTimeHi = 0;
  /** MSR_KVM_ASYNC_PF_EN (halves) and _INT. */
  apfEnLo = 0;
  apfEnHi = 0;
  apfIntLo = 0;
  readonly asyncPf = new AsyncPf();
  readonly mce = new MachineCheck();
  apfHalted = false;
  /** Another vCPU has ended this one's halt, or the next (KVM_HC_KICK_CPU). */
  pvUnhalted = false;
  pvEnforceCpuid = false;

  lapic: Lapic | null = null;

  /** FPU and vector registers while another vCPU has the processor. */
  readonly fpu = new Uint8Array(STATE_END - FPU_CW_AT);
  /** Instructions the next entry may retire before the processor comes back. */
  quantum = 0;
}
