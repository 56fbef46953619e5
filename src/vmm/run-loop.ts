/**
 * Runs the guest until something ends the run. Every exit of KVM_RUN has its answer here.
 */
import { unreachable } from '../arch/unreachable.ts';
import { KvmError } from '../kvm/api/kvm-error.ts';
import type { Vcpu } from '../kvm/api/vcpu.ts';
import type { VcpuExit } from '../kvm/api/vcpu-exit.ts';
import { KVM_ENOSYS, KVM_HC_MAP_GPA_RANGE } from '../kvm/kvm-para.ts';
import { KVM_INTERNAL_ERROR_EMULATION } from '../kvm/kvm-run.ts';
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
/** Instructions that a vCPU may retire before it is the next one's turn. */
const QUANTUM = 20_000;

const MAP_GPA_ENCRYPTED = 1n << 4n;
const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
const KVM_SYSTEM_EVENT_RESET = 2;

/** In the first data word of an emulation failure: instruction bytes follow. */
const INSTRUCTION_BYTES_FOLLOW = 1n;

/** One run of a board. */
export class RunLoop {
  /** Exits answered so far, by name. */
  readonly exits = new Map<string, number>();
  /** Instructions retired so far. */
  instructions = 0;
  private readonly board: Board;
  private readonly options: RunLoopOptions;
  private readonly faults: MemoryFaultPolicy;
  private answered = 0;
  private current = 0;
  private readonly last = new LastExits();

  constructor(board: Board, options: RunLoopOptions) {
    this.board = board;
    this.options = options;
    this.faults = new MemoryFaultPolicy(options.onMemoryFault);
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
    const processor = this.board.vm.state.processor;
    const first = processor.insns;
    const before = this.instructions;
    const limit = this.options.maxInstructions ?? Number.POSITIVE_INFINITY;
    const quantum = this.board.vcpus.length > 1 ? QUANTUM : SLICE;
    let turn = quantum;
    for (let exits = 0; ; exits++) {
      const start = processor.insns;
      const result = this.vcpu.run({
        maxInstructions: Math.min(turn, limit - this.instructions),
        sharesProcessor: true,
      });
      const done = processor.insns - start;
      this.instructions = before + (processor.insns - first);
      const end = this.answer(result.errno, result.exit);
      if (end !== null) return end;
      const interrupted = result.errno === 'EINTR' || result.errno === 'EAGAIN';
      turn -= done;
      if (interrupted || turn <= 0) {
        // The time slice is over, or the vCPU has nothing to do or lets others go first.
        if (!this.nextVcpu(interrupted)) return endState('halt', `at ${this.where()}`);
        turn = quantum;
      }
      const used = this.instructions - before;
      if (this.instructions >= limit) {
        return endState('max-instructions', `${this.instructions} instructions, at ${this.where()}`);
      }
      if (used >= SLICE || exits >= SLICE_EXITS) return null;
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

  private count(exit: VcpuExit): void {
    this.exits.set(exit.reason, (this.exits.get(exit.reason) ?? 0) + 1);
    this.last.add(exit);
    this.options.onExit?.(exit);
  }

  /** What KVM_RUN came back with; null to go on. */
  private answer(errno: string | null, exit: VcpuExit | null): EndState | null {
    if (errno === 'EINTR' || errno === 'EAGAIN') return null;
    if (errno !== null && exit?.reason !== 'memory-fault') {
      return endState('internal-error', `KVM_RUN: ${errno}, and KVM says no more, at ${this.where()}`);
    }
    if (exit === null) return endState('internal-error', `KVM_RUN gave no exit, at ${this.where()}`);
    this.count(exit);
    if (exit.reason !== 'intr' && exit.reason !== 'memory-fault') this.answered++;
    const { board } = this;
    switch (exit.reason) {
      case 'io':
        this.answerIo(exit);
        return this.powerEnd();
      case 'mmio':
        if (exit.isWrite) board.mmio.write(exit.physAddr, exit.data.slice());
        else board.mmio.read(exit.physAddr, exit.data);
        return null;
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

  private answerIo(exit: Extract<VcpuExit, { reason: 'io' }>): void {
    const { ports } = this.board;
    const { data, size, port } = exit;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let i = 0; i < exit.count; i++) {
      const at = i * size;
      if (exit.isWrite) {
        ports.write(
          port,
          size,
          size === 4 ? view.getUint32(at, true) : size === 2 ? view.getUint16(at, true) : view.getUint8(at),
        );
        continue;
      }
      const value = ports.read(port, size);
      if (size === 4) view.setUint32(at, value, true);
      else if (size === 2) view.setUint16(at, value, true);
      else view.setUint8(at, value);
    }
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
    if (end.kind === 'shutdown') return postMortemOfShutdown(this.board, this.last);
    return end.kind === 'internal-error'
      ? postMortemHere(this.board, this.board.vcpus[this.current]!, this.last)
      : null;
  }

  /** Memory faults that were answered by a conversion. */
  get conversionsByFault(): number {
    return this.faults.conversions;
  }

  private where(): string {
    const rip = `rip 0x${this.vcpu.getRegs().rip.toString(16)}`;
    return this.board.vcpus.length === 1 ? rip : `${rip} of vCPU ${this.current}`;
  }
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
