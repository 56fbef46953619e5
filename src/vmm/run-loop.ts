/**
 * Runs the guest until something ends the run. Every exit of KVM_RUN has its answer here.
 */
import { unreachable } from '../arch/unreachable.ts';
import type { Processor } from '../cpu/processor.ts';
import { EAGAIN, EINTR, errnoName } from '../host/errno.ts';
import { KvmError } from '../kvm/api/kvm-error.ts';
import type { Vcpu } from '../kvm/api/vcpu.ts';
import { readExit, type VcpuExit } from '../kvm/api/vcpu-exit.ts';
import { KVM_ENOSYS, KVM_HC_MAP_GPA_RANGE } from '../kvm/kvm-para.ts';
import {
  KVM_EXIT_IO,
  KVM_EXIT_IO_OUT,
  KVM_EXIT_MEMORY_FAULT,
  KVM_EXIT_MMIO,
  KVM_INTERNAL_ERROR_EMULATION,
  type KvmRun,
} from '../kvm/kvm-run.ts';
import type { Board } from './board.ts';
import { debugExit, type EndState, endState } from './end-state.ts';
import { type MemoryFaultMode, MemoryFaultPolicy } from './memory-fault-policy.ts';
import { LastExits, type PostMortem, postMortemHere, postMortemOfShutdown } from './post-mortem.ts';

export interface RunLoopOptions {
  readonly onMemoryFault: MemoryFaultMode;
  /** Instructions that the guest may retire; no limit if absent. */
  readonly maxInstructions?: number;
  /** Milliseconds of real time; no limit if absent. */
  readonly timeoutMs?: number;
  /** True when the user wants the run to stop; asked between slices. */
  readonly interrupted?: () => boolean;
  /** Hears of every exit, before it is answered. */
  readonly onExit?: (exit: VcpuExit) => void;
}

/** Instructions, or exits if they come first, between two looks at the clock. */
const SLICE = 2_000_000;
const SLICE_EXITS = 50_000;
/** Exits to KVM, which a guest can take without an instruction in between. */
const SLICE_KVM_EXITS = 1_000_000;
/** Instructions that a vCPU may retire before it is the next one's turn. */
const QUANTUM = 20_000;

const MAP_GPA_ENCRYPTED = 1n << 4n;
const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
const KVM_SYSTEM_EVENT_RESET = 2;
const KVM_SYSTEM_EVENT_SEV_TERM = 6;
const KVM_SYSTEM_EVENT_TDX_FATAL = 7;

/** In the first data word of an emulation failure: instruction bytes follow. */
const INSTRUCTION_BYTES_FOLLOW = 1n;

/** One run of a board. */
export class RunLoop {
  private readonly board: Board;
  private readonly options: RunLoopOptions;
  private readonly faults: MemoryFaultPolicy;
  private answered = 0;
  private readonly processor: Processor;
  /** The processor's count of instructions when the run began. */
  private readonly first: number;
  private current = 0;
  private readonly last = new LastExits();
  private readonly counts = new Map<string, { n: number }>();
  private readonly ioExits = { n: 0 };
  private readonly mmioExits = { n: 0 };

  constructor(board: Board, options: RunLoopOptions) {
    this.board = board;
    this.options = options;
    this.processor = board.vm.state.processor;
    this.first = this.processor.insns;
    this.faults = new MemoryFaultPolicy(options.onMemoryFault);
  }

  /** Instructions retired so far. */
  get instructions(): number {
    return this.processor.insns - this.first;
  }

  /** Exits answered so far, by name, in the order in which each came first. */
  get exits(): Map<string, number> {
    return new Map([...this.counts].map(([name, count]) => [name, count.n]));
  }

  /** The vCPU whose turn it is. */
  private get vcpu(): Vcpu {
    return this.board.vcpus[this.current]!;
  }

  /** Runs to the end. Gives other tasks of this process a turn between slices, so that signals and input arrive. */
  async run(): Promise<EndState> {
    const deadline =
      this.options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + this.options.timeoutMs;
    for (;;) {
      const end = this.slice();
      if (end !== null) return end;
      await new Promise((resolve) => setImmediate(resolve));
      if (this.options.interrupted?.() === true)
        return endState('interrupted', `stopped by the user at ${this.where()}`);
      if (Date.now() >= deadline) return endState('timeout', `after ${this.options.timeoutMs} ms at ${this.where()}`);
    }
  }

  /** Runs one slice; null when the guest can go on. */
  private slice(): EndState | null {
    const { processor } = this;
    const limit = this.first + (this.options.maxInstructions ?? Number.POSITIVE_INFINITY);
    const quantum = this.board.vcpus.length > 1 ? QUANTUM : SLICE;
    let now = processor.insns;
    const sliceEnd = now + SLICE;
    let turnEnd = now + quantum;
    for (let exits = 0; ; exits++) {
      const { vcpu } = this;
      this.board.running = vcpu;
      const errno = vcpu.ioctlRun(Math.min(turnEnd, limit) - now, true, SLICE_KVM_EXITS);
      now = processor.insns;
      const interrupted = errno === -EINTR || errno === -EAGAIN;
      if (interrupted) this.board.memoryErrors?.answer(vcpu);
      const end = interrupted ? null : this.answerRun(vcpu.kvmRun, errno);
      if (end !== null) return end;
      if (interrupted || now >= turnEnd) {
        // The time slice is over, or the vCPU has nothing to do or lets others go first.
        if (!this.nextVcpu(interrupted)) return endState('halt', `at ${this.where()}`);
        turnEnd = now + quantum;
      }
      if (now >= limit) {
        return endState('max-instructions', `${this.instructions} instructions, at ${this.where()}`);
      }
      if (now >= sliceEnd || exits >= SLICE_EXITS) return null;
    }
  }

  /**
   * The next vCPU's turn, in order of their numbers. When none has anything to do, time moves on until one has; false when that
   * never comes.
   */
  private nextVcpu(mayBeIdle: boolean): boolean {
    const { vcpus, vm } = this.board;
    if (mayBeIdle && !vm.idle()) return false;
    this.current = (this.current + 1) % vcpus.length;
    return true;
  }

  /** Answers what KVM_RUN left in `run`; null to go on. HOT for port I/O and MMIO, which are answered where the ABI has them */
  private answerRun(run: KvmRun, errno: number): EndState | null {
    const reason = run.exitReason;
    if (this.options.onExit !== undefined && (errno === 0 || reason === KVM_EXIT_MEMORY_FAULT)) {
      this.options.onExit(readExit(run));
    }
    if (errno === 0 && reason === KVM_EXIT_IO) return this.answerIo(run);
    if (errno === 0 && reason === KVM_EXIT_MMIO) return this.answerMmio(run);
    if (errno !== 0 && reason !== KVM_EXIT_MEMORY_FAULT) {
      return endState('internal-error', `KVM_RUN: ${errnoName(errno)}, and KVM says no more, at ${this.where()}`);
    }
    const exit = readExit(run);
    this.last.add(exit);
    this.countOf(exit.reason).n++;
    return this.answer(exit);
  }

  private countOf(reason: VcpuExit['reason'], count = this.counts.get(reason)): { n: number } {
    const counter = count ?? { n: 0 };
    if (!this.counts.has(reason)) this.counts.set(reason, counter);
    return counter;
  }

  /** The exits that are not answered from kvm_run itself. */
  private answer(exit: VcpuExit): EndState | null {
    if (exit.reason !== 'intr' && exit.reason !== 'memory-fault') this.answered++;
    const { board } = this;
    switch (exit.reason) {
      case 'io':
        return this.answerIo(this.vcpu.kvmRun);
      case 'mmio':
        return this.answerMmio(this.vcpu.kvmRun);
      case 'hypercall':
        this.answerHypercall(exit);
        return null;
      case 'memory-fault':
        return this.answerMemoryFault(exit);
      case 'intr':
      case 'irq-window-open':
        return null;
      case 'dirty-ring-full':
        for (const vcpu of board.vcpus) vcpu.dirtyRingEntries();
        board.vm.resetDirtyRings();
        return null;
      case 'hlt':
        return endState('halt', `at ${this.where()}`);
      case 'shutdown':
        return endState('shutdown', 'triple fault');
      case 'system-event':
        if (exit.type === KVM_SYSTEM_EVENT_SHUTDOWN) return endState('poweroff', 'system event: shutdown');
        if (exit.type === KVM_SYSTEM_EVENT_RESET) return endState('reset', 'system event: reset');
        if (exit.type === KVM_SYSTEM_EVENT_SEV_TERM) {
          return endState(
            'shutdown',
            `the guest asked for its termination, GHCB 0x${(exit.data[0] ?? 0n).toString(16)}`,
          );
        }
        if (exit.type === KVM_SYSTEM_EVENT_TDX_FATAL) {
          return endState('internal-error', `the TD reported a fatal error, 0x${(exit.data[12] ?? 0n).toString(16)}`);
        }
        return endState('internal-error', `system event ${exit.type} at ${this.where()}`);
      case 'fail-entry':
        return endState(
          'internal-error',
          `the processor refused to enter the guest: 0x${exit.hardwareReason.toString(16)}`,
        );
      case 'internal-error':
        return endState('internal-error', `${describeInternalError(exit)} at ${this.where()}`);
      case 'rdmsr':
      case 'wrmsr':
        return endState('internal-error', `MSR exit that nobody asked for, at ${this.where()}`);
      case 'debug':
        return endState('internal-error', `debug exit that nobody asked for, at ${this.where()}`);
      case 'unknown':
        return endState('internal-error', `exit reason ${exit.exitReason} that nobody asked for, at ${this.where()}`);
      default:
        return unreachable(exit);
    }
  }

  /** HOT */
  private answerIo(run: KvmRun): EndState | null {
    const { board } = this;
    const { ports } = board;
    const { size, count, port } = run.io;
    const isWrite = run.io.direction === KVM_EXIT_IO_OUT;
    this.answered++;
    if (this.ioExits.n++ === 0) this.countOf('io', this.ioExits);
    this.last.addIo(isWrite, port, size, count);
    const view = run.pioView;
    for (let at = 0; at < size * count; at += size) {
      if (isWrite) {
        ports.write(port, size, size === 1 ? view.getUint8(at) : wordAt(view, at, size));
        continue;
      }
      const value = ports.read(port, size);
      if (size === 1) view.setUint8(at, value);
      else if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
    }
    return board.power === null ? null : this.powerEnd();
  }

  /** HOT */
  private answerMmio(run: KvmRun): EndState | null {
    const { mmio } = this.board;
    const { physAddr, len, isWrite } = run.mmio;
    this.answered++;
    if (this.mmioExits.n++ === 0) this.countOf('mmio', this.mmioExits);
    this.last.addMmio(isWrite, physAddr, len);
    if (isWrite) mmio.write(physAddr, run.mmio.bytes(len));
    else mmio.read(physAddr, run.mmio.bytes(len));
    return null;
  }

  private powerEnd(): EndState | null {
    const { board } = this;
    const { power } = board;
    if (power === null) return null;
    if (power.kind === 'debug-exit') return debugExit(power.value);
    if (power.kind === 'suspend') {
      board.power = null;
      return board.pc?.suspend() === true ? null : endState('halt', 'suspended to RAM, with no alarm set');
    }
    return power.kind === 'poweroff'
      ? endState('poweroff', 'the guest powered off')
      : endState('reset', 'the guest asked for a reset');
  }

  private answerHypercall(exit: Extract<VcpuExit, { reason: 'hypercall' }>): void {
    const { hypercall } = this.vcpu.kvmRun;
    const [gpa = 0n, pages = 0n, attributes = 0n] = exit.args;
    if (exit.nr !== KVM_HC_MAP_GPA_RANGE || !this.board.hasPrivateMemory) {
      hypercall.setRet(-KVM_ENOSYS, -1);
      return;
    }
    try {
      this.board.convert(Number(gpa), Number(pages) * 4096, (attributes & MAP_GPA_ENCRYPTED) !== 0n);
      hypercall.setRet(0, 0);
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
      hypercall.setRet(-error.code, -1);
    }
  }

  private answerMemoryFault(fault: Extract<VcpuExit, { reason: 'memory-fault' }>): EndState | null {
    const answer = this.faults.answer(fault, this.board.privatePages, this.board.hasPrivateMemory, this.answered);
    if (answer.action === 'stop') return endState('memory-fault', answer.reason);
    this.board.convert(answer.gpa, answer.size, answer.toPrivate);
    return null;
  }

  /** For an end that the guest did not choose: what there is to say; else null. */
  postMortem(end: EndState): PostMortem | null {
    if (this.vcpu.hasHiddenState) return null;
    if (end.kind === 'shutdown') return postMortemOfShutdown(this.board, this.last);
    return end.kind === 'internal-error'
      ? postMortemHere(this.board, this.board.vcpus[this.current]!, this.last)
      : null;
  }

  /** Memory faults that were answered by a conversion. */
  get conversionsByFault(): number {
    return this.faults.conversions;
  }

  /** RIP in words: KVM does not tell it of guests with hidden state, nor of a VM that it has given up. */
  private rip(): string {
    if (this.vcpu.hasHiddenState) return "a RIP that is the guest's own";
    try {
      return `rip 0x${this.vcpu.getRegs().rip.toString(16)}`;
    } catch (error) {
      if (error instanceof KvmError && error.errno === 'EIO')
        return 'a RIP that a VM which KVM gave up no longer tells';
      throw error;
    }
  }

  private where(): string {
    const rip = this.rip();
    return this.board.vcpus.length === 1 ? rip : `${rip} of vCPU ${this.current}`;
  }
}

function wordAt(view: DataView, at: number, size: number): number {
  return size === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
}

/** The words that KVM left: for an emulation failure they can hold the instruction, one byte of length and up to 15 of code. */
function describeInternalError(exit: Extract<VcpuExit, { reason: 'internal-error' }>): string {
  const [flags = 0n, first = 0n, second = 0n] = exit.data;
  if (exit.suberror !== KVM_INTERNAL_ERROR_EMULATION) return `internal error, suberror ${exit.suberror}`;
  if ((flags & INSTRUCTION_BYTES_FOLLOW) === 0n) return 'instruction that KVM cannot emulate';
  const bytes = [...new Uint8Array(BigUint64Array.of(first, second).buffer)];
  const code = bytes.slice(1, 1 + Math.min(bytes[0]!, 15));
  return `instruction that KVM cannot emulate (${code.map((b) => b.toString(16).padStart(2, '0')).join(' ')})`;
}
