/** The block compiler: hot records become functions that the interpreter calls like any other handler. */
import { CODE_TAGS } from '../decode/code-layout.ts';
import { RECORD_COMPILED, RECORD_HANDLER, RECORD_HEAT, RECORD_INNER } from '../decode/record.ts';
import type { FlagFunctions } from '../semantics/flags.ts';
import type { HandlerIndex } from '../semantics/handlers.ts';
import { T_I32, T_I64 } from '../wasm/code.ts';
import { ModuleBuilder } from '../wasm/module.ts';
import { type Region, RegionFinder } from './region.ts';
import { translateRegion } from './translate-region.ts';

/** Functions that exist at one time; when there are more, all are dropped and the hot ones come back. */
const MOST_FUNCTIONS = 2048;

/** How many times as many transfers as made it hot lead to a compiled record before its region is looked for once more. */
const SECOND_LOOK = 8;

const FLAG_FUNCTIONS = ['carry', 'overflow', 'adjust', 'parity', 'zero', 'sign', 'status'] as const;

/** What the compiler has done so far. */
export interface CompilerStatistics {
  compiled: number;
  refused: number;
  dropped: number;
}

export class BlockCompiler {
  private readonly memory: WebAssembly.Memory;
  private readonly u8: Uint8Array;
  private readonly i32: Int32Array;
  private readonly table: WebAssembly.Table;
  private readonly imports: Readonly<Record<string, unknown>>;
  private readonly finder: RegionFinder;
  /** Table indexes that nothing uses. */
  private readonly spare: number[] = [];
  /** Records that are compiled, with the size of their regions; negative when there is nothing more to be had. */
  private readonly entries = new Map<number, number>();
  readonly statistics: CompilerStatistics = { compiled: 0, refused: 0, dropped: 0 };

  constructor(memory: WebAssembly.Memory, exports: Readonly<Record<string, unknown>>, handlers: HandlerIndex) {
    this.memory = memory;
    this.u8 = new Uint8Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
    this.table = exports['table'] as WebAssembly.Table;
    this.imports = Object.fromEntries(['assist', 'reach', ...FLAG_FUNCTIONS].map((name) => [name, exports[name]!]));
    this.finder = new RegionFinder(this.u8, this.i32, handlers);
  }

  /** Compiles what begins with `record`, which was reached `after` times, if it can be. Changes nothing that a guest could see. */
  compile(record: number, slot: number, offset: number, after: number): void {
    const known = this.entries.get(record);
    if (known !== undefined && known < 0) return;
    const region = this.finder.find(record, offset);
    if (region === undefined) {
      this.statistics.refused++;
      return;
    }
    const size = sizeOf(region);
    if (known !== undefined) {
      // Links that were followed since then belong to it.
      this.entries.set(record, -size);
      if (size <= known) return;
    }
    if (this.entries.size >= MOST_FUNCTIONS) this.dropAll();
    const m = new ModuleBuilder();
    const assist = m.import('assist', [T_I32, T_I32], [T_I32]);
    const flags = Object.fromEntries(
      FLAG_FUNCTIONS.map((name) => [name, m.import(name, [], [T_I32])]),
    ) as unknown as FlagFunctions;
    const reach = m.import('reach', [T_I32, T_I64, T_I32, T_I32, T_I32], [T_I32]);
    const run = m.declare([T_I32], [T_I32]);
    const page = this.i32[(CODE_TAGS >> 2) + slot]! & ~0xfff;
    m.defineFrom(run, translateRegion(region, page, { u8: this.u8, i32: this.i32, flags, assist, reach }));
    m.export('run', run);
    const module = new WebAssembly.Module(m.finish());
    const { exports } = new WebAssembly.Instance(module, { env: { ...this.imports, memory: this.memory } });
    const w = record >> 2;
    this.statistics.compiled++;
    if (this.entries.has(record)) {
      this.table.set(this.i32[w + (RECORD_COMPILED >> 2)]!, exports['run']);
      return;
    }
    const index = this.spare.pop() ?? this.table.grow(1);
    this.table.set(index, exports['run']);
    this.i32[w + (RECORD_INNER >> 2)] = this.i32[w + (RECORD_HANDLER >> 2)]!;
    this.i32[w + (RECORD_HANDLER >> 2)] = index;
    this.i32[w + (RECORD_COMPILED >> 2)] = index;
    this.i32[w + (RECORD_HEAT >> 2)] = SECOND_LOOK * after;
    this.entries.set(record, size);
  }

  /** Forgets what was compiled from `record` on; the interpreter has it back. */
  drop(record: number): void {
    if (!this.entries.delete(record)) return;
    const w = record >> 2;
    const index = this.i32[w + (RECORD_COMPILED >> 2)]!;
    this.i32[w + (RECORD_COMPILED >> 2)] = 0;
    this.i32[w + (RECORD_HANDLER >> 2)] = this.i32[w + (RECORD_INNER >> 2)]!;
    this.table.set(index, null);
    this.spare.push(index);
    this.statistics.dropped++;
  }

  private dropAll(): void {
    for (const record of [...this.entries.keys()]) {
      this.drop(record);
      this.i32[(record + RECORD_HEAT) >> 2] = 1 << 12;
    }
  }
}

/** Instructions and ways between them. */
const sizeOf = ({ blocks }: Region): number =>
  blocks.reduce(
    (n, b) =>
      n + b.instructions.length + (b.next === undefined ? 0 : 1) + (b.taken === undefined ? 0 : 1) + b.returns.length,
    0,
  );
