/**
 * `softkvm run --check-engines`: one guest with either engine, compared. After every slice of the run loop the processor's state is
 * hashed, at every slice whose number is a power of two the machine's memory too, and at the end everything that was reported.
 */
import { COMPILED, type Engine, INTERPRETER, setDefaultEngine } from '../../cpu/compiler/engine.ts';
import { CODE_END } from '../../cpu/state.ts';
import type { Board } from '../../vmm/board.ts';
import { type RunOptions, type RunReport, runGuest } from './run-guest.ts';

interface Checkpoint {
  readonly instructions: number;
  readonly rip: string;
  readonly hash: number;
}

/** What `--check-engines --json` prints. */
export interface EngineCheck {
  readonly version: 1;
  readonly agree: boolean;
  /** The first thing that was not the same. */
  readonly difference?: string;
  readonly checkpoints: number;
  readonly instructions: number;
  /** Milliseconds of each run. */
  readonly interpreter: number;
  readonly compiled: number;
  readonly end: RunReport['end'];
}

const FNV_PRIME = 0x01000193;
const FNV_BASIS = 0x811c9dc5;

function hashText(text: string): number {
  let hash = FNV_BASIS;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), FNV_PRIME);
  return hash;
}
/** FNV-1a over words that are not zero and their places. HOT */
function hashWords(words: Int32Array, from: number): number {
  let hash = FNV_BASIS;
  for (let i = from; i < words.length; i++) {
    const word = words[i]!;
    if (word !== 0) hash = Math.imul(Math.imul(hash ^ i, FNV_PRIME) ^ word, FNV_PRIME);
  }
  return hash;
}

function checkpoint(board: Board, withMemory: boolean): Checkpoint {
  const { processor } = board.vm.state;
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? v.toString(16) : v));
  // Registers that KVM cannot read are in memory, in the guest's own page.
  const hidden = board.vcpu.hasHiddenState;
  const regs = hidden ? null : board.vcpu.getRegs();
  let hash = hashText(text(regs) + text(hidden ? null : board.vcpu.getSregs()) + processor.fpu.join());
  if (withMemory) hash ^= hashWords(processor.memory.i32, CODE_END >> 2);
  return { instructions: processor.insns, rip: regs === null ? 'hidden' : regs.rip.toString(16), hash };
}

async function runWith(engine: Engine, o: RunOptions): Promise<{ report: RunReport; seen: Checkpoint[] }> {
  const seen: Checkpoint[] = [];
  let board: Board | undefined;
  setDefaultEngine(engine);
  const report = await runGuest({
    ...o,
    onBoard: (b) => {
      board = b;
    },
    interrupted: () => {
      const number = seen.length;
      if (board !== undefined) seen.push(checkpoint(board, (number & (number - 1)) === 0));
      return o.interrupted();
    },
  });
  return { report, seen };
}

/** Runs the guest twice. @throws InputError, UnsupportedError */
export async function checkEngines(o: RunOptions): Promise<EngineCheck> {
  const plain = await runWith(INTERPRETER, o);
  const compiled = await runWith(COMPILED, { ...o, onSerial: () => {} });
  const difference = differenceOf(plain, compiled);
  return {
    version: 1,
    agree: difference === undefined,
    ...(difference === undefined ? {} : { difference }),
    checkpoints: plain.seen.length,
    instructions: plain.report.instructions,
    interpreter: plain.report.milliseconds,
    compiled: compiled.report.milliseconds,
    end: plain.report.end,
  };
}

type Ran = Awaited<ReturnType<typeof runWith>>;
function differenceOf(a: Ran, b: Ran): string | undefined {
  for (let i = 0; i < Math.min(a.seen.length, b.seen.length); i++) {
    const [x, y] = [a.seen[i]!, b.seen[i]!];
    if (x.instructions === y.instructions && x.rip === y.rip && x.hash === y.hash) continue;
    return `checkpoint ${i}: interpreter at ${x.instructions} instructions, rip 0x${x.rip}; compiled at ${y.instructions}, rip 0x${y.rip}`;
  }
  if (a.seen.length !== b.seen.length) return `${a.seen.length} checkpoints and ${b.seen.length}`;
  for (const key of ['end', 'instructions', 'exits', 'stats', 'swap', 'memoryErrors', 'log', 'serial'] as const) {
    if (JSON.stringify(a.report[key]) !== JSON.stringify(b.report[key])) return `the report's ${key}`;
  }
  return undefined;
}
