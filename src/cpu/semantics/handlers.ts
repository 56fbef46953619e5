/** Makes the interpreter's handlers: every row of the encoding table, in every size and form, through the one emitter it names. */
import { UD_VECTOR } from '../../arch/exceptions.ts';
import type { Encoding } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';
import { STATUS_OK } from '../state.ts';
import { i32, T_I32 } from '../wasm/code.ts';
import { call } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { RecordContext } from './record-context.ts';
import { stringHandler } from './strings.ts';
import { STATUS_STALE, type Support } from './support.ts';

/** Forms of a handler: bit 1 its operand is memory, bit 0 it is known to run in 64-bit mode without a segment base. */
const FORMS = 4;
const SIZES = 4;
const sizeIndex = (size: number): number => (size >= 16 ? 0 : 31 - Math.clz32(size));

/** Table index of each handler, by row, size and form. */
export class HandlerIndex {
  private readonly indexes = new Int32Array(ENCODINGS.length * SIZES * FORMS).fill(-1);
  /** Raises #UD. */
  undefined = 0;
  /** Answers STATUS_STALE. */
  stale = 0;

  private slot(row: number, size: number, memory: boolean, flat: boolean): number {
    return (row * SIZES + sizeIndex(size)) * FORMS + (memory ? 2 : 0) + (flat ? 1 : 0);
  }
  set(row: number, size: number, memory: boolean, flat: boolean, index: number): void {
    this.indexes[this.slot(row, size, memory, flat)] = index;
  }
  /** The handler of a decoded instruction; the general form where there is no flat one. */
  get(row: number, size: number, memory: boolean, flat: boolean): number {
    const index = this.indexes[this.slot(row, size, memory, flat)]!;
    if (index >= 0) return index;
    const general = this.indexes[this.slot(row, size, memory, false)]!;
    if (general < 0)
      throw new Error(`no handler for ${ENCODINGS[row]!.text} size ${size} memory ${memory} flat ${flat}`);
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

/** Adds all handlers to the module and its table. */
export function defineHandlers(m: ModuleBuilder, support: Support): HandlerIndex {
  const index = new HandlerIndex();
  const known = new Map<string, number>();
  const emitters = new Map<unknown, number>();
  const number = (emitter: unknown): number => {
    if (!emitters.has(emitter)) emitters.set(emitter, emitters.size);
    return emitters.get(emitter)!;
  };
  const system = m.tableEntry(support.system);
  const constant = (status: () => ReturnType<typeof i32.const>): number =>
    m.tableEntry(m.function([T_I32], [T_I32], (f) => f.do(status())));
  index.undefined = constant(() => call(support.raise, i32.const(UD_VECTOR), i32.const(-1)));
  index.stale = constant(() => i32.const(STATUS_STALE));

  for (const row of ENCODINGS) {
    const { meaning } = row;
    const sizes = sizesOf(row);
    for (const size of sizes) {
      if (meaning.kind === 'system') {
        index.set(row.id, size, false, false, system);
        index.set(row.id, size, true, false, system);
        continue;
      }
      if (meaning.kind === 'string') {
        const handler = m.function([T_I32], [T_I32], (f) => stringHandler(f, support, meaning.string, size));
        index.set(row.id, size, true, false, m.tableEntry(handler));
        continue;
      }
      const form = (memory: boolean, flat: boolean): void => {
        const bitString = row.options.has('bits') && memory;
        const operands = row.operands;
        const key = [number(meaning.emit), size, memory, flat, bitString, operands.map((o) => o.text).join()].join('|');
        let entry = known.get(key);
        if (entry === undefined) {
          const handler = m.function([T_I32], [T_I32], (f) => {
            meaning.emit(new RecordContext(f, support, { size, flat, memory, operands, bitString }));
            f.do(i32.const(STATUS_OK));
          });
          entry = m.tableEntry(handler);
          known.set(key, entry);
        }
        index.set(row.id, size, memory, flat, entry);
      };
      if (hasRegisterForm(row)) {
        form(false, false);
        if (row.options.has('mode')) form(false, true);
      }
      if (hasMemoryForm(row)) {
        form(true, false);
        form(true, true);
      }
    }
  }
  return index;
}
