/** The block compiler: hot records become functions that the interpreter calls like any other handler. */
import { CODE_TAGS } from '../decode/code-layout.ts';
import { RECORD_COMPILED, RECORD_HANDLER, RECORD_HEAT, RECORD_INNER } from '../decode/record.ts';
import type { FlagFunctions } from '../semantics/flags.ts';
import type { HandlerIndex } from '../semantics/handlers.ts';
import { T_I32 } from '../wasm/code.ts';
import { ModuleBuilder } from '../wasm/module.ts';
import { RegionFinder } from './region.ts';
import { translateRegion } from './translate-region.ts';

/** Functions that exist at one time; when there are more, all are dropped and the hot ones come back. */
const MOST_FUNCTIONS = 2048;

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
  /** Records that are compiled. */
  private readonly entries = new Set<number>();
  readonly statistics: CompilerStatistics = { compiled: 0, refused: 0, dropped: 0 };

  constructor(memory: WebAssembly.Memory, exports: Readonly<Record<string, unknown>>, handlers: HandlerIndex) {
    this.memory = memory;
    this.u8 = new Uint8Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
    this.table = exports['table'] as WebAssembly.Table;
    this.imports = Object.fromEntries(['assist', ...FLAG_FUNCTIONS].map((name) => [name, exports[name]!]));
    this.finder = new RegionFinder(this.u8, this.i32, handlers);
  }

  /** Compiles what begins with `record`, which was reached often, if it can be. Changes nothing that a guest could see. */
  compile(record: number, slot: number, offset: number): void {
    if (this.entries.has(record)) return;
    const region = this.finder.find(record, offset);
    if (region === undefined) {
      this.statistics.refused++;
      return;
    }
    if (this.entries.size >= MOST_FUNCTIONS) this.dropAll();
    const m = new ModuleBuilder();
    const assist = m.import('assist', [T_I32, T_I32], [T_I32]);
    const flags = Object.fromEntries(
      FLAG_FUNCTIONS.map((name) => [name, m.import(name, [], [T_I32])]),
    ) as unknown as FlagFunctions;
    const run = m.declare([T_I32], [T_I32]);
    const page = this.i32[(CODE_TAGS >> 2) + slot]! & ~0xfff;
    m.defineFrom(run, translateRegion(region, page, { u8: this.u8, i32: this.i32, flags, assist }));
    m.export('run', run);
    const module = new WebAssembly.Module(m.finish());
    const { exports } = new WebAssembly.Instance(module, { env: { ...this.imports, memory: this.memory } });
    const index = this.spare.pop() ?? this.table.grow(1);
    this.table.set(index, exports['run']);
    const w = record >> 2;
    this.i32[w + (RECORD_INNER >> 2)] = this.i32[w + (RECORD_HANDLER >> 2)]!;
    this.i32[w + (RECORD_HANDLER >> 2)] = index;
    this.i32[w + (RECORD_COMPILED >> 2)] = index;
    this.entries.add(record);
    this.statistics.compiled++;
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
    for (const record of [...this.entries]) {
      this.drop(record);
      this.i32[(record + RECORD_HEAT) >> 2] = 1 << 12;
    }
  }
}
