/** The body of one WebAssembly function: statements in order, structured control, locals. */
import { type Code, flatten, type I32, type I64, T_I32, T_I64, T_VOID, uleb } from './code.ts';

/** A function of the module under construction, as `call` names it. */
export interface FunctionRef {
  readonly index: number;
  readonly type: number;
}
/** A mutable i32 global. */
export interface GlobalRef {
  readonly index: number;
}
/** The target of a branch: a block (its end) or a loop (its start). */
export interface Label {
  readonly depth: number;
}

const getLocal: Code[] = [];
/** local.get, made once for each number. */
function localGet(index: number): Code {
  for (let i = getLocal.length; i <= index; i++) getLocal.push([0x20, uleb(i)]);
  return getLocal[index]!;
}

export class Local32 {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
  get get(): I32 {
    return localGet(this.index);
  }
  set(value: I32): Code {
    return [value, 0x21, uleb(this.index)];
  }
  tee(value: I32): I32 {
    return [value, 0x22, uleb(this.index)];
  }
}

export class Local64 {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
  get get(): I64 {
    return localGet(this.index);
  }
  set(value: I64): Code {
    return [value, 0x21, uleb(this.index)];
  }
  tee(value: I64): I64 {
    return [value, 0x22, uleb(this.index)];
  }
}

export const call = (target: FunctionRef, ...args: Code[]): Code => [...args, 0x10, uleb(target.index)];
/** Calls the table's function `index`, of type `type`. */
export const callIndirect = (type: number, index: Code, ...args: Code[]): Code => [...args, index, 0x11, uleb(type), 0];
export const getGlobal = (global: GlobalRef): I32 => [0x23, uleb(global.index)];
export const setGlobal = (global: GlobalRef, value: I32): Code => [value, 0x24, uleb(global.index)];

export class FunctionBuilder {
  private readonly body: (number | Code)[] = [];
  private readonly localTypes: number[] = [];
  private readonly params: number;
  private depth = 0;

  constructor(params: readonly number[]) {
    this.params = params.length;
  }

  /** Appends statements: code that leaves the stack as it was. */
  do(...statements: Code[]): void {
    for (const s of statements) this.body.push(s);
  }
  param32(index: number): Local32 {
    return new Local32(index);
  }
  param64(index: number): Local64 {
    return new Local64(index);
  }
  /** A new local, set to `value` here when one is given. */
  i32(value?: I32): Local32 {
    this.localTypes.push(T_I32);
    const local = new Local32(this.params + this.localTypes.length - 1);
    if (value !== undefined) this.do(local.set(value));
    return local;
  }
  i64(value?: I64): Local64 {
    this.localTypes.push(T_I64);
    const local = new Local64(this.params + this.localTypes.length - 1);
    if (value !== undefined) this.do(local.set(value));
    return local;
  }
  if(condition: I32, yes: () => void, no?: () => void): void {
    this.do([condition, 0x04, T_VOID]);
    this.depth++;
    yes();
    if (no !== undefined) {
      this.do([0x05]);
      no();
    }
    this.depth--;
    this.do([0x0b]);
  }
  block(inside: (end: Label) => void): void {
    this.structured(0x02, inside);
  }
  loop(inside: (start: Label) => void): void {
    this.structured(0x03, inside);
  }
  private structured(opcode: number, inside: (label: Label) => void): void {
    this.do([opcode, T_VOID]);
    this.depth++;
    inside({ depth: this.depth });
    this.depth--;
    this.do([0x0b]);
  }
  br(label: Label): void {
    this.do([0x0c, uleb(this.depth - label.depth)]);
  }
  brIf(label: Label, condition: I32): void {
    this.do([condition, 0x0d, uleb(this.depth - label.depth)]);
  }
  /** A switch on `value`: `cases[value]()`, or `otherwise()` beyond the list. Cases do not fall through. */
  switch(value: I32, cases: readonly (() => void)[], otherwise: () => void): void {
    const count = cases.length;
    this.block((end) => {
      for (let i = 0; i <= count; i++) {
        this.do([0x02, T_VOID]);
        this.depth++;
      }
      this.do([value, 0x0e, uleb(count), cases.map((_, i) => uleb(i)), uleb(count)]);
      for (const body of [...cases, otherwise]) {
        this.do([0x0b]);
        this.depth--;
        body();
        this.br(end);
      }
    });
  }
  return(...value: Code[]): void {
    this.do([...value, 0x0f]);
  }
  unreachable(): void {
    this.do([0x00]);
  }
  /** An entry of the module's code section, without its size. */
  finish(): Uint8Array {
    const locals = [uleb(this.localTypes.length), this.localTypes.map((t) => [1, t])];
    return flatten([locals, this.body, 0x0b]);
  }
}
