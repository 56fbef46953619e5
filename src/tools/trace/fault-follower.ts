/**
 * From the events of a thread to its vCPU's page faults: what each was, and what KVM did about it until the guest ran on. Events that do not
 * name their vCPU belong to that of the thread which they were in.
 */
import { schemaOf } from './events.ts';
import type { TraceRecord } from './trace-record.ts';

/** What KVM did about a fault, as bits. */
export const DID_MAP = 1 << 0;
export const DID_MAKE_MMIO = 1 << 1;
export const DID_FIND_MMIO = 1 << 2;
export const DID_FIND_STALE = 1 << 3;
export const DID_FIX_FAST = 1 << 4;
export const DID_EMULATE = 1 << 5;
export const DID_FAIL_EMULATION = 1 << 6;
export const DID_INJECT = 1 << 7;
export const DID_EXIT = 1 << 8;
export const DID_LEAVE_MMIO = 1 << 9;
export const DID_FAULT_EXIT = 1 << 10;
export const DID_FIND_SPURIOUS = 1 << 11;
export const DID_WAIT = 1 << 12;
export const DID_SPLIT = 1 << 13;

/** A fault that is under way, or has just ended. One object a vCPU. */
export class FollowedFault {
  vcpu = -1;
  open = false;
  line = 0;
  time = -1;
  ripLo = 0;
  ripHi = 0;
  codeLo = 0;
  codeHi = 0;
  gfn = -1;
  address = 0;
  /** The exit was an EPT violation: the code is an exit qualification. */
  ept = false;
  did = 0;
  /** Level of the entry that was made, 1 to 5; 0 for none. */
  level = 0;
  /** Line at which the vCPU's thread was first seen. */
  threadSince = 0;
}

interface Thread {
  vcpu: number;
  /** Reason of the last exit: an EPT violation, or an EPT misconfiguration. */
  ept: boolean;
  ripLo: number;
  ripHi: number;
  readonly fault: FollowedFault;
}

const entry = schemaOf('kvm_entry');
const exit = schemaOf('kvm_exit');
const pageFault = schemaOf('kvm_page_fault');
const setSpte = schemaOf('kvm_mmu_set_spte');
const markMmio = schemaOf('mark_mmio_spte');
const handleMmio = schemaOf('handle_mmio_page_fault');
const checkMmio = schemaOf('check_mmio_spte');
const fastFault = schemaOf('fast_page_fault');
const emulate = schemaOf('kvm_emulate_insn');
const inject = schemaOf('kvm_inj_exception');
const userspace = schemaOf('kvm_userspace_exit');
const mmio = schemaOf('kvm_mmio');
const split = schemaOf('kvm_mmu_split_huge_page');
const notPresent = schemaOf('kvm_async_pf_not_present');
const tryAsync = schemaOf('kvm_try_async_get_page');

const F = {
  exitVcpu: exit.field('vcpu'),
  exitRip: exit.field('rip'),
  exitReason: exit.field('reason'),
  pfVcpu: pageFault.field('vcpu'),
  pfRip: pageFault.field('rip'),
  pfAddress: pageFault.field('address'),
  pfCode: pageFault.field('error_code'),
  entryVcpu: entry.field('vcpu'),
  level: setSpte.field('level'),
  valid: checkMmio.field('valid'),
  fixed: fastFault.field('fixed'),
  spurious: fastFault.field('spurious'),
  failed: emulate.field('failed'),
  code: userspace.field('code'),
};

const KVM_EXIT_MMIO = 6;
const KVM_EXIT_MEMORY_FAULT = 39;
const LETTER_E = 0x45;
/** Threads that are remembered; more than that have come and gone. */
const MOST_THREADS = 4096;
/** Only old spellings leave the vCPU out. */
const SPELLINGS_WITH_VCPU = { exit: 3, fault: 1 };

/** Gets each fault when the guest runs on. `at`: time of that, -1 if only the next exit shows it. */
export type FaultSink = (fault: FollowedFault, line: number, at: number) => void;

export class FaultFollower {
  private readonly threads = new Map<number, Thread>();
  private readonly sink: FaultSink;
  /** Thread of the last event: most events are of the same as the one before. */
  private pid = -2;
  private thread: Thread | null = null;

  constructor(sink: FaultSink) {
    this.sink = sink;
  }

  /** The vCPU whose thread the last event was in, -1 if that is not known. */
  get vcpu(): number {
    return this.thread === null ? -1 : this.thread.vcpu;
  }

  /** RIP of the last exit of that vCPU, halves. */
  get ripLo(): number {
    return this.thread?.ripLo ?? 0;
  }
  get ripHi(): number {
    return this.thread?.ripHi ?? 0;
  }

  /** The fault that the last event's vCPU is in. */
  get fault(): FollowedFault | null {
    return this.thread?.fault.open === true ? this.thread.fault : null;
  }

  /* HOT */
  event(record: TraceRecord, line: number): void {
    const thread = this.threadOf(record.pid, line);
    const { fault } = thread;
    switch (record.event) {
      case exit:
        if (record.spelling < SPELLINGS_WITH_VCPU.exit) thread.vcpu = record.lo[F.exitVcpu]!;
        if (fault.open) this.close(fault, line, -1);
        thread.ripLo = record.lo[F.exitRip]!;
        thread.ripHi = record.hi[F.exitRip]!;
        thread.ept = record.bytes[record.from[F.exitReason]!] === LETTER_E;
        return;
      case entry:
        thread.vcpu = record.lo[F.entryVcpu]!;
        if (fault.open) this.close(fault, line, record.time);
        return;
      case pageFault:
        this.open(thread, record, line);
        return;
      case setSpte:
        fault.did |= DID_MAP;
        fault.level = record.lo[F.level]!;
        return;
      case markMmio:
        fault.did |= DID_MAKE_MMIO;
        return;
      case handleMmio:
        fault.did |= DID_FIND_MMIO;
        return;
      case checkMmio:
        if (record.lo[F.valid] === 0) fault.did |= DID_FIND_STALE;
        return;
      case fastFault:
        if (record.lo[F.fixed] !== 0) fault.did |= DID_FIX_FAST;
        if (record.lo[F.spurious] !== 0) fault.did |= DID_FIND_SPURIOUS;
        return;
      case emulate:
        fault.did |=
          record.to[F.failed]! > record.from[F.failed]! && record.spelling === 0 ? DID_FAIL_EMULATION : DID_EMULATE;
        return;
      case inject:
        fault.did |= DID_INJECT;
        return;
      case mmio:
        fault.did |= DID_EMULATE;
        return;
      case split:
        fault.did |= DID_SPLIT;
        return;
      case tryAsync:
      case notPresent:
        fault.did |= DID_WAIT;
        return;
      case userspace: {
        const code = record.lo[F.code]!;
        fault.did |=
          code === KVM_EXIT_MMIO ? DID_LEAVE_MMIO : code === KVM_EXIT_MEMORY_FAULT ? DID_FAULT_EXIT : DID_EXIT;
        return;
      }
      default:
    }
  }

  /** The trace is over. */
  end(line: number): void {
    for (const { fault } of this.threads.values()) if (fault.open) this.close(fault, line, -1);
  }

  private threadOf(pid: number, line: number): Thread {
    if (pid === this.pid && this.thread !== null) return this.thread;
    let thread = this.threads.get(pid);
    if (thread === undefined) {
      if (this.threads.size >= MOST_THREADS) this.threads.delete(this.threads.keys().next().value!);
      thread = { vcpu: -1, ept: false, ripLo: 0, ripHi: 0, fault: new FollowedFault() };
      thread.fault.threadSince = line;
      this.threads.set(pid, thread);
    }
    this.pid = pid;
    this.thread = thread;
    return thread;
  }

  private open(thread: Thread, record: TraceRecord, line: number): void {
    const { fault } = thread;
    if (fault.open) this.close(fault, line, -1);
    const named = record.spelling < SPELLINGS_WITH_VCPU.fault;
    if (named) thread.vcpu = record.lo[F.pfVcpu]!;
    fault.vcpu = thread.vcpu;
    fault.open = true;
    fault.line = line;
    fault.time = record.time;
    fault.ripLo = named ? record.lo[F.pfRip]! : thread.ripLo;
    fault.ripHi = named ? record.hi[F.pfRip]! : thread.ripHi;
    fault.codeLo = record.lo[F.pfCode]!;
    fault.codeHi = record.hi[F.pfCode]!;
    fault.address = record.num(F.pfAddress);
    fault.gfn = Math.floor(fault.address / 4096);
    fault.ept = thread.ept;
    fault.did = 0;
    fault.level = 0;
  }

  private close(fault: FollowedFault, line: number, at: number): void {
    fault.open = false;
    this.sink(fault, line, at);
    fault.did = 0;
  }
}
