/**
 * What is compiled together: the instructions of one code page that are reached from a hot record over links that the interpreter has
 * followed or made. A link is the proof that going from one record to the next needs no lookup, so compiled code looks up exactly
 * where the interpreter would.
 */
import { FS } from '../../arch/registers.ts';
import {
  RECORD_COMPILED,
  RECORD_ENCODING,
  RECORD_HANDLER,
  RECORD_IMM,
  RECORD_INNER,
  RECORD_LENGTH,
  RECORD_MODE,
  RECORD_NEXT,
  RECORD_OPSIZE,
  RECORD_SEGMENT,
  RECORD_TAKEN,
  recordIsMemory,
} from '../decode/record.ts';
import type { Encoding } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';
import type { HandlerIndex } from '../semantics/handlers.ts';

/** Most instructions of a region, and most return addresses that its returns are compared with. */
const MOST = 256;
const RETURN_SITES = 4;

export interface Instruction {
  readonly record: number;
  readonly row: Encoding;
  /** Byte offset in the page, and length. */
  readonly offset: number;
  readonly length: number;
  /** Distance to the target of a relative branch, in bytes. */
  readonly relative: number;
}
/** Where control goes at the end of a block: into a block of the region, or out of it along a link of the last record. */
export interface Block {
  readonly index: number;
  readonly instructions: readonly Instruction[];
  next: Block | undefined;
  taken: Block | undefined;
  /** Blocks at return addresses, when this one ends in a return. */
  returns: Block[];
}
export interface Region {
  readonly entry: Block;
  readonly blocks: readonly Block[];
}

type Flow = 'straight' | 'conditional' | 'jump' | 'call' | 'indirect' | 'return';

/** How control leaves an instruction. */
export function flowOf(row: Encoding): Flow {
  if (row.mnemonic === 'RET') return 'return';
  const relative = row.operands.some((o) => o.place === 'rel');
  if (row.mnemonic === 'JMP') return relative ? 'jump' : 'indirect';
  if (row.mnemonic === 'CALL') return relative ? 'call' : 'indirect';
  return relative ? 'conditional' : 'straight';
}

/** Bytes of a branch target, by mode (CODE_MODE_AT), when no prefix says otherwise. */
const TARGET_SIZES = [2, 4, 8];

/** Finds regions among records. */
export class RegionFinder {
  private readonly u8: Uint8Array;
  private readonly i32: Int32Array;
  private readonly handlers: HandlerIndex;

  constructor(u8: Uint8Array, i32: Int32Array, handlers: HandlerIndex) {
    this.u8 = u8;
    this.i32 = i32;
    this.handlers = handlers;
  }

  private word(record: number, field: number): number {
    return this.i32[(record + field) >> 2]!;
  }

  /** The instruction of a record when it has a compiled form. */
  private compilable(record: number, offset: number): Instruction | undefined {
    const { u8, handlers } = this;
    const handler = this.word(record, this.word(record, RECORD_COMPILED) !== 0 ? RECORD_INNER : RECORD_HANDLER);
    if (handler === handlers.stale || handler === handlers.undefined || handler === handlers.crossing) return undefined;
    const mode = u8[record + RECORD_MODE]!;
    const row = ENCODINGS[u8[record + RECORD_ENCODING]! | (u8[record + RECORD_ENCODING + 1]! << 8)];
    if (row === undefined || row.meaning.kind !== 'emit' || row.mnemonic === 'ENTER') return undefined;
    if (
      mode === 2 &&
      recordIsMemory(u8, record) &&
      u8[record + RECORD_SEGMENT]! >= FS &&
      row.operands.some((o) => o.file !== 'gpr')
    ) {
      return undefined;
    }
    if (flowOf(row) !== 'straight' && u8[record + RECORD_OPSIZE] !== TARGET_SIZES[mode]) return undefined;
    return { record, row, offset, length: u8[record + RECORD_LENGTH]!, relative: this.word(record, RECORD_IMM) };
  }

  /** The region that begins with `record`, at byte `offset` of its page; undefined when nothing there can be compiled. */
  find(record: number, offset: number): Region | undefined {
    const found = new Map<number, Instruction>();
    const leaders = new Set<number>([record]);
    const sites: number[] = [];
    const work: [number, number][] = [[record, offset]];
    for (let item = work.shift(); item !== undefined && found.size < MOST; item = work.shift()) {
      const [at, where] = item;
      if (found.has(at)) continue;
      const instruction = this.compilable(at, where);
      if (instruction === undefined) continue;
      found.set(at, instruction);
      const flow = flowOf(instruction.row);
      const next = this.word(at, RECORD_NEXT);
      const taken = this.word(at, RECORD_TAKEN);
      if (next !== 0 && flow === 'call' && sites.length < RETURN_SITES && !sites.includes(next)) {
        sites.push(next);
        leaders.add(next);
        work.push([next, where + instruction.length]);
      }
      if (next !== 0 && (flow === 'straight' || flow === 'conditional')) {
        if (flow === 'conditional') leaders.add(next);
        work.unshift([next, where + instruction.length]);
      }
      if (taken !== 0 && (flow === 'conditional' || flow === 'jump' || flow === 'call')) {
        leaders.add(taken);
        work.push([taken, where + this.word(at, RECORD_IMM)]);
      }
    }
    if (!found.has(record)) return undefined;
    return this.blocks(record, found, leaders, sites);
  }

  private blocks(
    entry: number,
    found: ReadonlyMap<number, Instruction>,
    leaders: ReadonlySet<number>,
    sites: readonly number[],
  ): Region {
    const byLeader = new Map<number, Block>();
    const blocks: Block[] = [];
    for (const leader of leaders) {
      const first = found.get(leader);
      if (first === undefined) continue;
      const instructions = [first];
      let last = first;
      while (flowOf(last.row) === 'straight') {
        const next = this.word(last.record, RECORD_NEXT);
        const following = leaders.has(next) ? undefined : found.get(next);
        if (following === undefined) break;
        instructions.push(following);
        last = following;
      }
      const block: Block = { index: blocks.length, instructions, next: undefined, taken: undefined, returns: [] };
      byLeader.set(leader, block);
      blocks.push(block);
    }
    const siteBlocks = sites.map((s) => byLeader.get(s)).filter((b) => b !== undefined);
    for (const block of blocks) {
      const last = block.instructions.at(-1)!;
      const flow = flowOf(last.row);
      if (flow === 'straight' || flow === 'conditional') block.next = byLeader.get(this.word(last.record, RECORD_NEXT));
      if (flow !== 'straight' && flow !== 'indirect' && flow !== 'return') {
        block.taken = byLeader.get(this.word(last.record, RECORD_TAKEN));
      }
      if (flow === 'return') block.returns = siteBlocks;
    }
    return { entry: byLeader.get(entry)!, blocks };
  }
}
