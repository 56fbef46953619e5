/**
 * What the TDX module knows of a TD and of its vCPUs: TDR, TDCS and TDVPS (@tdx ABI, "Control Structures"). On silicon it lies in the
 * pages that the host gave, encrypted; here those pages are owned and hold nothing but what hardware reads (the secure EPT's root, the
 * VMCS, the MSR bitmap).
 */
import { Sha384 } from '../sha384.ts';

// Life cycle: what the host did about the TD's key.
export const TD_HKID_ASSIGNED = 0;
export const TD_KEYS_CONFIGURED = 1;
export const TD_BLOCKED = 2;
export const TD_TEARDOWN = 3;

// Operation state of the TDCS.
export const OP_UNINITIALIZED = 0;
export const OP_INITIALIZED = 1;
export const OP_RUNNABLE = 2;

// A vCPU's state.
export const VCPU_UNINITIALIZED = 0;
export const VCPU_READY = 1;
export const VCPU_DISABLED = 2;

/** Registers of one virtualized CPUID leaf. `subleaf` -1: the leaf has none. */
export interface TdCpuid {
  readonly leaf: number;
  readonly subleaf: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** A TD: its TDR and TDCS. */
export class Td {
  /** Frame of the TDR. */
  readonly tdr: number;
  readonly hkid: number;
  lifecycle = TD_HKID_ASSIGNED;
  opState = OP_UNINITIALIZED;
  /** A non-recoverable error: nothing of it runs any more. */
  fatal = false;
  /** Frames of the TDCS. */
  tdcx: number[] = [];
  /** Frame of the secure EPT's root, one of the TDCS's. */
  septRoot = -1;
  /** Pages that the TD owns, beside its TDR. */
  children = 0;
  attributesLo = 0;
  attributesHi = 0;
  xfamLo = 0;
  xfamHi = 0;
  gpaw = 0;
  maxVcpus = 0;
  /** In the order in which they were initialized. */
  vcpus: number[] = [];
  cpuid: readonly TdCpuid[] = [];
  /** TLB tracking: the TD's epoch, and how many vCPUs run in it now, by the epoch's parity. */
  epoch = 1;
  running: [number, number] = [0, 0];
  measurement = new Sha384();
  mrtd: Uint8Array | null = null;
  mrConfigId: Uint8Array = new Uint8Array(48);
  mrOwner: Uint8Array = new Uint8Array(48);
  mrOwnerConfig: Uint8Array = new Uint8Array(48);
  /** Run-time measurement registers. */
  rtmr: Uint8Array[] = [0, 1, 2, 3].map(() => new Uint8Array(48));

  constructor(tdr: number, hkid: number) {
    this.tdr = tdr;
    this.hkid = hkid;
  }

  clone(): Td {
    const copy = new Td(this.tdr, this.hkid);
    Object.assign(copy, this);
    copy.tdcx = [...this.tdcx];
    copy.vcpus = [...this.vcpus];
    copy.running = [...this.running];
    copy.measurement = this.measurement.clone();
    copy.rtmr = this.rtmr.map((r) => r.slice());
    return copy;
  }
}

/** A vCPU of a TD: its TDVPS. */
export class TdVcpu {
  /** Frame of the TDVPR. */
  readonly tdvpr: number;
  /** Frame of the TD's TDR. */
  readonly tdr: number;
  state = VCPU_UNINITIALIZED;
  tdvpx: number[] = [];
  index = -1;
  apicId = 0;
  /** The processor may hold state and translations of it: between an entry and TDH.VP.FLUSH. */
  associated = false;
  /** The TD's epoch at the last entry. */
  epoch = 0;
  launched = false;
  /** The last exit was TDG.VP.VMCALL: the next entry answers it. */
  inVmcall = false;
  sharedRoot = -1;
  /** General registers, halves. */
  readonly gpr = new Int32Array(32);
  /** The rest of what the processor holds of a guest: switch.ts. */
  readonly context: Int32Array;
  readonly ve = new VeInfo();

  constructor(tdvpr: number, tdr: number, contextWords: number) {
    this.tdvpr = tdvpr;
    this.tdr = tdr;
    this.context = new Int32Array(contextWords);
  }

  clone(): TdVcpu {
    const copy = new TdVcpu(this.tdvpr, this.tdr, this.context.length);
    const { gpr, context, ve, ...rest } = this;
    Object.assign(copy, rest);
    copy.tdvpx = [...this.tdvpx];
    copy.gpr.set(gpr);
    copy.context.set(context);
    Object.assign(copy.ve, ve);
    return copy;
  }
}

/** The virtualization-exception information area. */
export class VeInfo {
  valid = false;
  reason = 0;
  qualificationLo = 0;
  qualificationHi = 0;
  glaLo = 0;
  glaHi = 0;
  gpaLo = 0;
  gpaHi = 0;
  length = 0;
  information = 0;
}
