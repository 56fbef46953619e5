/** A WebAssembly module put together in memory: one imported memory, functions, one function table, i32 globals. */
import { type Code, flatten, sleb, T_I32, uleb } from './code.ts';
import { FunctionBuilder, type FunctionRef, type GlobalRef } from './function.ts';

const text = (s: string): Code => [uleb(s.length), [...s].map((c) => c.charCodeAt(0))];
const section = (id: number, items: readonly Code[]): Code => {
  const bytes = flatten([uleb(items.length), items]);
  return [id, uleb(bytes.length), [...bytes]];
};

export class ModuleBuilder {
  private readonly types: string[] = [];
  private readonly typeCodes: Code[] = [];
  private readonly imports: Code[] = [];
  private readonly functionTypes: Code[] = [];
  private readonly bodies: (Uint8Array | undefined)[] = [];
  private readonly exports: Code[] = [];
  private readonly globals: Code[] = [];
  private readonly table: number[] = [];
  private importedFunctions = 0;

  /** @param memoryPages smallest size, in 64 KiB pages, of the memory that the module imports as `env.memory`. */
  constructor(memoryPages = 1) {
    this.imports.push([text('env'), text('memory'), 0x02, 0x00, uleb(memoryPages)]);
  }

  private typeOf(params: readonly number[], results: readonly number[]): number {
    const key = `${params.join()}>${results.join()}`;
    const known = this.types.indexOf(key);
    if (known >= 0) return known;
    this.types.push(key);
    this.typeCodes.push([0x60, uleb(params.length), [...params], uleb(results.length), [...results]]);
    return this.types.length - 1;
  }
  /** The index of a function type, for call_indirect. */
  type(params: readonly number[], results: readonly number[]): number {
    return this.typeOf(params, results);
  }
  /** Imports `env.name`. All imports come before the first function. */
  import(name: string, params: readonly number[], results: readonly number[]): FunctionRef {
    if (this.bodies.length !== 0) throw new Error(`import ${name} after a function`);
    const type = this.typeOf(params, results);
    this.imports.push([text('env'), text(name), 0x00, uleb(type)]);
    return { index: this.importedFunctions++, type };
  }
  /** Declares a function; `define` gives it its body. */
  declare(params: readonly number[], results: readonly number[]): FunctionRef {
    const type = this.typeOf(params, results);
    this.functionTypes.push(uleb(type));
    this.bodies.push(undefined);
    return { index: this.importedFunctions + this.bodies.length - 1, type };
  }
  define(ref: FunctionRef, params: readonly number[], body: (f: FunctionBuilder) => void): void {
    const f = new FunctionBuilder(params);
    body(f);
    this.defineFrom(ref, f);
  }
  /** The body of a declared function, from a builder of one's own. */
  defineFrom(ref: FunctionRef, f: FunctionBuilder): void {
    this.bodies[ref.index - this.importedFunctions] = f.finish();
  }
  function(params: readonly number[], results: readonly number[], body: (f: FunctionBuilder) => void): FunctionRef {
    const ref = this.declare(params, results);
    this.define(ref, params, body);
    return ref;
  }
  export(name: string, ref: FunctionRef): void {
    this.exports.push([text(name), 0x00, uleb(ref.index)]);
  }
  /** Exports the function table; it can grow. */
  exportTable(name: string): void {
    this.exports.push([text(name), 0x01, 0]);
  }
  global(initial = 0): GlobalRef {
    this.globals.push([T_I32, 0x01, 0x41, sleb(initial), 0x0b]);
    return { index: this.globals.length - 1 };
  }
  /** Puts a function into the table; answers its index there. */
  tableEntry(ref: FunctionRef): number {
    this.table.push(ref.index);
    return this.table.length - 1;
  }

  finish(): Uint8Array {
    const parts: Code[] = [
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, this.typeCodes),
      section(2, this.imports),
      section(3, this.functionTypes),
    ];
    const size = this.table.length;
    if (size !== 0) parts.push(section(4, [[0x70, 0x00, uleb(size)]]));
    if (this.globals.length !== 0) parts.push(section(6, this.globals));
    parts.push(section(7, this.exports));
    if (size !== 0) parts.push(section(9, [[0x00, 0x41, 0x00, 0x0b, uleb(size), this.table.map(uleb)]]));
    const bodies = this.bodies.map((b, i) => {
      if (b === undefined) throw new Error(`function ${i} was declared and never defined`);
      return b;
    });
    const sizes = bodies.map((b) => flatten(uleb(b.length)));
    const count = flatten(uleb(bodies.length));
    const codeSize = bodies.reduce((n, b, i) => n + b.length + sizes[i]!.length, count.length);
    const head = flatten([parts, 10, uleb(codeSize)]);
    const bytes = new Uint8Array(head.length + codeSize);
    let at = 0;
    const append = (part: Uint8Array): void => {
      bytes.set(part, at);
      at += part.length;
    };
    append(head);
    append(count);
    for (let i = 0; i < bodies.length; i++) {
      append(sizes[i]!);
      append(bodies[i]!);
    }
    return bytes;
  }
}
