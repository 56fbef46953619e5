/**
 * What there is to say about a guest that cannot go on: where it was, the code there, the exceptions that led to a triple fault, and its
 * last exits.
 */
import { exceptionName } from '../arch/exceptions.ts';
import { hi64, lo64 } from '../arch/halves.ts';
import { addressText, listing } from '../cpu/decode/disassemble.ts';
import type { Vcpu } from '../kvm/api/vcpu.ts';
import type { VcpuExit } from '../kvm/api/vcpu-exit.ts';
import type { Board } from './board.ts';

export interface PostMortem {
  /** Bits of the code: 16, 32 or 64. */
  readonly bits: number;
  /** Instruction pointer, hexadecimal; outside 64-bit code an offset in CS. */
  readonly rip: string;
  /** Bytes there, hexadecimal; empty when there is nothing at that address. */
  readonly bytes: string;
  /** A line an instruction: address, bytes, text. */
  readonly code: readonly string[];
  /** A triple fault's exceptions, first to last, the first with its error code and address. */
  readonly exceptions: readonly string[];
  /** Exits to the VMM, oldest first. */
  readonly lastExits: readonly string[];
}

const INSTRUCTIONS = 5;
const CODE_BYTES = 32;
const EXITS = 8;
const BITS = [16, 32, 64];
const NOTHING = 'no memory is mapped there';

/** Kinds of exits that are kept as plain numbers, so that keeping them costs next to nothing. */
const KEPT_WHOLE = 0;
const KEPT_IO = 1;
const KEPT_MMIO = 2;

/** One of the last exits. */
class KeptExit {
  kind = KEPT_WHOLE;
  exit: VcpuExit | null = null;
  isWrite = false;
  /** Port or gpa. */
  address = 0;
  /** Bytes, and how often. */
  size = 0;
  count = 0;

  text(): string {
    if (this.kind === KEPT_IO) return ioText(this.isWrite, this.address, this.size, this.count);
    return this.kind === KEPT_MMIO ? mmioText(this.isWrite, this.address, this.size) : exitText(this.exit!);
  }
}

/** The last exits of a run. */
export class LastExits {
  private readonly ring = Array.from({ length: EXITS }, () => new KeptExit());
  private kept = 0;

  add(exit: VcpuExit): void {
    const slot = this.ring[this.kept++ % EXITS]!;
    slot.kind = KEPT_WHOLE;
    slot.exit = exit;
  }

  /** HOT */
  addIo(isWrite: boolean, port: number, size: number, count: number): void {
    this.keep(KEPT_IO, isWrite, port, size, count);
  }

  /** HOT */
  addMmio(isWrite: boolean, gpa: number, len: number): void {
    this.keep(KEPT_MMIO, isWrite, gpa, len, 1);
  }

  private keep(kind: number, isWrite: boolean, address: number, size: number, count: number): void {
    const slot = this.ring[this.kept++ % EXITS]!;
    slot.kind = kind;
    slot.isWrite = isWrite;
    slot.address = address;
    slot.size = size;
    slot.count = count;
  }

  texts(): string[] {
    const first = Math.max(0, this.kept - EXITS);
    return Array.from({ length: this.kept - first }, (_, i) => this.ring[(first + i) % EXITS]!.text());
  }
}

function ioText(isWrite: boolean, port: number, size: number, count: number): string {
  const times = count === 1 ? '' : ` ${count} times`;
  return `io ${isWrite ? 'out' : 'in'} port 0x${port.toString(16)}, ${size} bytes${times}`;
}

function mmioText(isWrite: boolean, gpa: number, len: number): string {
  return `mmio ${isWrite ? 'write' : 'read'} at gpa 0x${gpa.toString(16)}, ${len} bytes`;
}

/** An exit in one line; what it carried is gone by now. */
function exitText(exit: VcpuExit): string {
  switch (exit.reason) {
    case 'io':
      return ioText(exit.isWrite, exit.port, exit.size, exit.count);
    case 'mmio':
      return mmioText(exit.isWrite, exit.physAddr, exit.len);
    case 'memory-fault':
      return `memory-fault at gpa 0x${exit.gpa.toString(16)}, ${exit.isPrivate ? 'private' : 'shared'}`;
    case 'internal-error':
      return `internal-error, suberror ${exit.suberror}`;
    case 'hypercall':
      return `hypercall ${exit.nr}`;
    default:
      return exit.reason;
  }
}

/** A report of a triple fault; null when the processor has not seen one. */
export function postMortemOfShutdown(board: Board, exits: LastExits): PostMortem | null {
  const s = board.vm.state.processor.shutdown;
  if (s === null) return null;
  const bytes = s.code ?? new Uint8Array(0);
  const error = s.error < 0 ? '' : ` with error code 0x${s.error.toString(16)}`;
  const page = exceptionName(s.vectors[0]!) === '#PF' ? ` at ${addressText(s.addressLo, s.addressHi)}` : '';
  return {
    bits: BITS[s.mode]!,
    rip: addressText(s.ripLo, s.ripHi),
    bytes: hexBytes(bytes),
    code: s.code === null ? [NOTHING] : listing(bytes, s.mode, s.ripLo, s.ripHi, INSTRUCTIONS),
    exceptions: s.vectors.map((v, i) => (i === 0 ? `${exceptionName(v)}${error}${page}` : exceptionName(v))),
    lastExits: exits.texts(),
  };
}

/** A report of a guest that stopped where it is now. */
export function postMortemHere(board: Board, vcpu: Vcpu, exits: LastExits): PostMortem {
  const { rip } = vcpu.getRegs();
  const { cs, efer } = vcpu.getSregs();
  const mode = (efer & 0x400n) !== 0n && cs.l !== 0 ? 2 : cs.db !== 0 ? 1 : 0;
  const linear = mode === 2 ? rip : (cs.base + rip) & 0xffffffffn;
  const bytes = codeAt(board, vcpu, linear);
  const [lo, hi] = [lo64(rip), hi64(rip)];
  return {
    bits: BITS[mode]!,
    rip: addressText(lo, hi),
    bytes: hexBytes(bytes),
    code: bytes.length === 0 ? [NOTHING] : listing(bytes, mode, lo, hi, INSTRUCTIONS),
    exceptions: [],
    lastExits: exits.texts(),
  };
}

/** The bytes from a linear address to the end of its page, a few at most; empty where the guest has no memory. */
function codeAt(board: Board, vcpu: Vcpu, linear: bigint): Uint8Array {
  const { physicalAddress, valid } = vcpu.translate(linear);
  if (!valid) return new Uint8Array(0);
  const gpa = Number(physicalAddress);
  const size = Math.min(CODE_BYTES, 4096 - (gpa % 4096));
  return board.hasMemory(gpa, size) ? board.readMemory(gpa, size) : new Uint8Array(0);
}

const hexBytes = (bytes: Uint8Array): string => [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(' ');

/** The report as lines for a terminal. */
export function postMortemLines(p: PostMortem): string[] {
  const lines = [`  at rip ${p.rip}, ${p.bits}-bit code${p.bytes === '' ? `: ${NOTHING}` : ''}`];
  if (p.bytes !== '') lines.push(`  bytes ${p.bytes}`, ...p.code.map((line) => `    ${line}`));
  if (p.exceptions.length > 0) lines.push(`  exceptions ${p.exceptions.join(', then ')}`);
  lines.push(`  last exits ${p.lastExits.length === 0 ? 'none' : ''}`.trimEnd());
  for (const exit of p.lastExits) lines.push(`    ${exit}`);
  return lines;
}
