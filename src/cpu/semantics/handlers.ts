/** Makes the interpreter's handlers: every row of the encoding table, in every size and form, through the one emitter it names. */
import { UD_VECTOR } from '../../arch/exceptions.ts';
import { CS } from '../../arch/registers.ts';
import { RECORD_INNER, RECORD_SECOND } from '../decode/record.ts';
import { type Encoding, MAP_VEX } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';
import {
  CODE_MODE_AT,
  RIP_AT,
  SEG,
  SEG_BASE,
  SEG_SIZE,
  STATUS_OK,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_PAGE,
} from '../state.ts';
import { i32, i64, T_I32 } from '../wasm/code.ts';
import { call, callIndirect, type FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { STATUS_REFETCH, STATUS_STALE } from './handler-status.ts';
import { RecordContext } from './record-context.ts';
import type { SharedFunctions } from './shared-functions.ts';
import { state32, state64 } from './state-access.ts';
import { stringHandler } from './strings.ts';
import { tlbEntry } from './tlb-lookup.ts';

/**
 * Forms of a handler. Flat: known to run in 64-bit mode, and a memory operand has no segment base; based: the same with one (FS, GS).
 */
export const FORM_REGISTER = 0;
export const FORM_REGISTER_FLAT = 1;
export const FORM_MEMORY = 2;
export const FORM_MEMORY_FLAT = 3;
export const FORM_MEMORY_BASED = 4;
const FORMS = 5;
const SIZES = 4;
const sizeIndex = (size: number): number => (size >= 16 ? 0 : 31 - Math.clz32(size));

/** Table index of each handler, by row, size and form. */
export class HandlerIndex {
  private readonly indexes = new Int32Array(ENCODINGS.length * SIZES * FORMS).fill(-1);
  /** Raises #UD. */
  undefined = 0;
  /** Answers STATUS_STALE. */
  stale = 0;
  /** Runs the record's inner handler when the next page is the one it was decoded from; else STATUS_REFETCH. */
  crossing = 0;

  private slot(row: number, size: number, form: number): number {
    return (row * SIZES + sizeIndex(size)) * FORMS + form;
  }
  set(row: number, size: number, form: number, index: number): void {
    this.indexes[this.slot(row, size, form)] = index;
  }
  /** The handler of a decoded instruction; the general form where there is no better one. */
  get(row: number, size: number, form: number): number {
    const index = this.indexes[this.slot(row, size, form)]!;
    if (index >= 0) return index;
    const general = this.indexes[this.slot(row, size, form < FORM_MEMORY ? FORM_REGISTER : FORM_MEMORY)]!;
    if (general < 0) throw new Error(`no handler for ${ENCODINGS[row]!.text} size ${size} form ${form}`);
    return general;
  }
}

/** Operand sizes that a row can have. */
function sizesOf(row: Encoding): readonly number[] {
  if (row.size !== 0) return [row.size];
  const low = row.atLeast4 ? [4] : [2, 4];
  return row.options.has('i64') ? low : [...low, 8];
}

/** A memory operand that no ModRM names: XLAT, MASKMOV. */
const impliesMemory = (row: Encoding): boolean => row.options.has('xlat') || row.options.has('rdi');
const hasMemoryForm = (row: Encoding): boolean =>
  (row.hasModrm && row.form !== 'register') || row.operands.some((o) => o.text[0] === 'O') || impliesMemory(row);
const hasRegisterForm = (row: Encoding): boolean => row.form !== 'memory' && !impliesMemory(row);

/** Adds all handlers to the module and its table; `quick` has those of system instructions that are generated (quick-system.ts). */
export function defineHandlers(
  m: ModuleBuilder,
  support: SharedFunctions,
  quick: ReadonlyMap<number, FunctionRef>,
): HandlerIndex {
  const index = new HandlerIndex();
  const known = new Map<string, number>();
  const emitters = new Map<unknown, number>();
  const number = (emitter: unknown): number => {
    if (!emitters.has(emitter)) emitters.set(emitter, emitters.size);
    return emitters.get(emitter)!;
  };
  const system = m.tableEntry(support.system);
  const generated = new Map([...quick].map(([op, handler]) => [op, m.tableEntry(handler)]));
  const constant = (status: () => ReturnType<typeof i32.const>): number =>
    m.tableEntry(m.function([T_I32], [T_I32], (f) => f.do(status())));
  index.undefined = constant(() => call(support.raise, i32.const(UD_VECTOR), i32.const(-1)));
  index.stale = constant(() => i32.const(STATUS_STALE));

  index.crossing = m.tableEntry(defineCrossing(m));

  for (const row of ENCODINGS) {
    const { meaning } = row;
    const sizes = sizesOf(row);
    const isAvx = row.map >= MAP_VEX && row.operands.some((o) => o.file !== 'gpr');
    for (const size of sizes) {
      if (meaning.kind === 'system') {
        const handler = generated.get(meaning.op) ?? system;
        index.set(row.id, size, FORM_REGISTER, handler);
        index.set(row.id, size, FORM_MEMORY, handler);
        continue;
      }
      if (meaning.kind === 'string') {
        const handler = m.function([T_I32], [T_I32], (f) => stringHandler(f, support, meaning.string, size));
        index.set(row.id, size, FORM_MEMORY, m.tableEntry(handler));
        continue;
      }
      const make = (form: number): void => {
        const memory = form >= FORM_MEMORY;
        const based = form === FORM_MEMORY_BASED;
        const flat = based || form === FORM_REGISTER_FLAT || form === FORM_MEMORY_FLAT;
        const bitString = row.options.has('bits') && memory;
        const operands = row.operands;
        const key = [number(meaning.emit), size, form, bitString, operands.map((o) => o.text).join()].join('|');
        let entry = known.get(key);
        if (entry === undefined) {
          const handler = m.function([T_I32], [T_I32], (f) => {
            meaning.emit(new RecordContext(f, support, { size, flat, based, memory, operands, bitString }));
            f.do(i32.const(STATUS_OK));
          });
          entry = m.tableEntry(handler);
          known.set(key, entry);
        }
        index.set(row.id, size, form, entry);
      };
      if (hasRegisterForm(row)) {
        make(FORM_REGISTER);
        if (row.options.has('mode')) make(FORM_REGISTER_FLAT);
      }
      if (hasMemoryForm(row)) {
        make(FORM_MEMORY);
        // VEX makes hundreds of handlers; where it matters, they are compiled.
        if (!row.options.has('i64') && !isAvx) make(FORM_MEMORY_FLAT);
        // FS and GS reach per-CPU and per-thread data: integers.
        if (!row.options.has('i64') && row.operands.every((o) => o.file === 'gpr')) make(FORM_MEMORY_BASED);
      }
    }
  }
  return index;
}

/** (record) -> status: see `HandlerIndex.crossing`. */
function defineCrossing(m: ModuleBuilder): FunctionRef {
  const handler = m.type([T_I32], [T_I32]);
  return m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0).get;
    const linear = f.i64(state64(RIP_AT));
    f.if(i32.ne(state32(CODE_MODE_AT), i32.const(2)), () => {
      const at = i64.add(linear.get, state64(SEG + CS * SEG_SIZE + SEG_BASE));
      f.do(linear.set(i64.and(at, i64.const(0xffffffff))));
    });
    f.do(linear.set(i64.and(i64.add(linear.get, i64.const(4096)), i64.const(-4096))));
    const entry = f.i32(tlbEntry(linear.get));
    const same = i32.and(
      i64.eq(i64.load(entry.get, TLB_BASE + TLB_CODE_TAG), linear.get),
      i32.eq(i32.load(entry.get, TLB_BASE + TLB_PAGE), i32.load(record, RECORD_SECOND)),
    );
    f.if(same, () => f.return(callIndirect(handler, i32.load(record, RECORD_INNER), record)));
    f.do(i32.const(STATUS_REFETCH));
  });
}
