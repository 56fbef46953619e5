/** A vCPU's state that is x86's own (@kvm kvm_host.h struct kvm_vcpu_arch), without what the MMU and the vendor keep. */
import type { CpuidEntry } from '../../cpu/profile.ts';
import type { EmulateCtxt } from '../emulate/ctxt.ts';
import { X86Exception } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { Lapic } from './lapic.ts';

/** An exception on its way into the guest (@kvm struct kvm_queued_exception). */
export class QueuedException {
  pending = false;
  injected = false;
  hasErrorCode = false;
  vector = 0;
  errorCode = 0;
  payloadLo = 0;
  payloadHi = 0;
  hasPayload = false;
}

/** A part of an MMIO access that userspace or a device answers on its own: at most 8 bytes go out at a time. */
export class MmioFragment {
  gpa = 0;
  /** Where its bytes are: for a read the emulator's read buffer, for a write a copy of its value. */
  data: Uint8Array = new Uint8Array(0);
  off = 0;
  len = 0;
}

/** Fragments an access can break into (@kvm KVM_MAX_MMIO_FRAGMENTS). */
export const KVM_MAX_MMIO_FRAGMENTS = 2;

/** What the next KVM_RUN does first to finish the exit userspace has handled: 1 go on, 0 exit again, negative -errno. */
export type CompleteUserspaceIo = (vcpu: VcpuState) => number;

export class VcpuX86 {
  /** The vCPU's own emulation context, made with the vCPU. */
  emulateCtxt: EmulateCtxt | null = null;
  emulateRegsNeedSyncToVcpu = false;
  emulateRegsNeedSyncFromVcpu = false;

  readonly exception = new QueuedException();
  readonly exceptionVmexit = new QueuedException();
  /** Vector of an exception from userspace's KVM_SET_VCPU_EVENTS is a nested one. */
  exceptionFromUserspace = false;
  interruptInjected = false;
  interruptSoft = false;
  interruptNr = 0;
  nmiQueued = 0;
  nmiPending = 0;
  nmiInjected = false;
  nmiMasked = false;
  smiPending = false;

  /** Entries of KVM_SET_CPUID2. */
  cpuid: readonly CpuidEntry[] = [];
  /** CR4 bits the guest may not set: the host's and its CPUID's. */
  cr4GuestRsvdBits = -1;
  /** High half of the bits of CR3 at and above MAXPHYADDR. */
  reservedGpaBitsHi = ~0xf;

  completeUserspaceIo: CompleteUserspaceIo | null = null;

  // Port I/O in flight.
  pioCount = 0;
  pioIn = false;
  pioPort = 0;
  pioSize = 0;
  readonly pioData = new Uint8Array(4096);
  /** String output past what the first exit could carry. */
  pioLinearRipLo = 0;
  pioLinearRipHi = 0;
  pioCr2 = 0;
  sevPioCount = 0;

  // MMIO in flight.
  mmioNeeded = false;
  mmioReadCompleted = false;
  mmioIsWrite = false;
  mmioCurFragment = 0;
  mmioNrFragments = 0;
  readonly mmioFragments: MmioFragment[] = Array.from({ length: KVM_MAX_MMIO_FRAGMENTS }, () => new MmioFragment());
  /** gpa of the last #NPF or 0: an emulated access reuses it when the fault was on the final access. */
  gpaAvailable = false;
  gpaVal = 0;

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
  switchDbRegs = 0;

  // MSRs that KVM itself keeps, halves.
  patLo = 0x00070406;
  patHi = 0x00070406;
  readonly mtrrs = new Map<number, bigint>();
  miscEnable = 1;
  smbase = 0x30000;
  tscOffsetLo = 0;
  tscOffsetHi = 0;
  tscAuxLo = 0;
  tscAuxHi = 0;
  tscAdjust = 0n;
  tscDeadline = 0n;
  msrMiscFeatures = 0n;
  mcgStatus = 0n;
  mcgCtl = 0n;
  mcgCap = 0n;
  readonly mceBanks = new BigUint64Array(4 * 32);
  systemTimeMsr = 0n;
  stealTimeMsr = 0n;
  apfEnMsr = 0n;
  apfIntMsr = 0n;
  apfAck = 0;
  pvEoiMsr = 0n;
  pollControlMsr = 1n;
  /** PV clock area is active: address of the structure. */
  pvTimeActive = false;
  pvTimeGpa = 0;
  pvclockVersion = 0;
  pvEnforceCpuid = false;
  archCapabilities = 0n;
  specCtrl = 0n;
  xss = 0n;

  lapic: Lapic | null = null;
  /** Sent a SIPI: vector. */
  sipiVector = 0;
  pendingInit = false;
  pendingSipi = false;
  /** KVM asked userspace for an interrupt window. */
  reqImmediateExit = false;

  /** Scratch for faults met by hand-made accesses: translate, hypercall patching. */
  readonly fault = new X86Exception();
  /** Stopped in userspace because of KVM_SET_MP_STATE or a halt without in-kernel APIC. */
  mpStateBeforeHalt = 0;
  preemptedInKernel = false;
  /** First KVM_RUN has happened: some setters then refuse. */
  lastVmentryCpu = -1;
}
