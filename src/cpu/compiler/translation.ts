/** The state of one function while a region is translated into it: registers and flags in locals, ways out, counting. */

import type { FlagFunctions, FlagValues } from '../semantics/flags.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import { tlbContext } from '../semantics/tlb-lookup.ts';
import { BUDGET_AT, FLAGS_DST, FLAGS_OP, FLAGS_RES, FLAGS_SRC, GPR, RIP_AT } from '../state.ts';
import { type Code, type I32, type I64, i32, i64, T_I32 } from '../wasm/code.ts';
import { FunctionBuilder, type Label, type Local32, type Local64 } from '../wasm/function.ts';
import type { Instruction } from './region.ts';
import { SegmentChecks } from './segment-checks.ts';
import type { Surroundings } from './surroundings.ts';

/** Most instructions in one call of compiled code: V8 replaces code by better code between calls only. */
export const FUEL = 8192;

/** A function whose unnamed locals are used again by every instruction; Liftoff and TurboFan both pay for each local. */
export class RecyclingBuilder extends FunctionBuilder {
  private readonly words: Local32[] = [];
  private readonly longs: Local64[] = [];
  private words32 = 0;
  private longs64 = 0;
  /** Called with what happens inside an `if`: see Translation.known. */
  around: (inside: () => void) => void = (inside) => inside();

  recycle(): void {
    this.words32 = 0;
    this.longs64 = 0;
  }
  lasting32(): Local32 {
    return super.i32();
  }
  lasting64(): Local64 {
    return super.i64();
  }
  override i32(value: I32 = i32.const(0)): Local32 {
    const local = this.words[this.words32] ?? super.i32();
    this.words[this.words32] = local;
    this.words32++;
    this.do(local.set(value));
    return local;
  }
  override i64(value: I64 = i64.const(0)): Local64 {
    const local = this.longs[this.longs64] ?? super.i64();
    this.longs[this.longs64] = local;
    this.longs64++;
    this.do(local.set(value));
    return local;
  }
  override if(condition: I32, yes: () => void, no?: () => void): void {
    super.if(condition, () => this.around(yes), no === undefined ? undefined : () => this.around(no));
  }
}

export class Translation {
  readonly f = new RecyclingBuilder([T_I32]);
  readonly flagFunctions: FlagFunctions;
  /** Kind of the flags in the locals, when there is only one at this place. */
  known: number | undefined;
  /** RIP of the page's first byte. */
  readonly base: Local64;
  /** Instructions that may still be executed in this call. */
  private readonly left: Local32;
  private readonly start: Local32;
  private readonly rip: Local64;
  private readonly answer: Local32;
  private readonly context: Local32;
  private readonly registers: (Local64 | undefined)[] = [];
  private readonly written = new Set<number>();
  private readonly flagOp: Local32;
  private readonly flagLocals: readonly [Local64, Local64, Local64];
  private flagsUsed = false;
  private flagsWritten = false;
  private exit: Label = { depth: 0 };
  /** Instructions of the current block before the one being translated. */
  retired = 0;
  current: Instruction;

  /** Segments that the code relies on; none in 64-bit mode. */
  readonly segments: SegmentChecks;

  constructor({ flags: flagFunctions, i32: words }: Surroundings, first: Instruction) {
    const { f } = this;
    this.segments = new SegmentChecks(words, () => f.lasting64());
    this.flagFunctions = flagFunctions;
    this.current = first;
    this.base = f.lasting64();
    this.left = f.lasting32();
    this.start = f.lasting32();
    this.rip = f.lasting64();
    this.answer = f.lasting32();
    this.context = f.lasting32();
    this.flagOp = f.lasting32();
    this.flagLocals = [f.lasting64(), f.lasting64(), f.lasting64()];
    f.around = (inside) => {
      const before = this.known;
      inside();
      if (this.known !== before) this.known = undefined;
    };
  }
  /** General register `number`, whole. */
  register(number: number): Local64 {
    const local = this.registers[number] ?? this.f.lasting64();
    this.registers[number] = local;
    return local;
  }
  setRegister(number: number, value: I64): void {
    const local = this.register(number);
    this.written.add(number);
    this.f.do(local.set(value));
  }
  /** Offset of the TLB context that data accesses use. */
  get tlbContext(): I32 {
    return this.context.get;
  }

  // Flags.

  get flags(): FlagValues {
    this.flagsUsed = true;
    const [res, dst, src] = this.flagLocals;
    return { res: res.get, dst: dst.get, src: src.get };
  }
  get flagKind(): I32 {
    this.flagsUsed = true;
    return this.flagOp.get;
  }
  setFlags(kind: number, values: { res?: I64 | undefined; dst?: I64 | undefined; src?: I64 | undefined }): void {
    this.flagsUsed = this.flagsWritten = true;
    const { f } = this;
    const [res, dst, src] = this.flagLocals;
    if (values.src !== undefined) f.do(src.set(values.src));
    if (values.dst !== undefined) f.do(dst.set(values.dst));
    if (values.res !== undefined) f.do(res.set(values.res));
    f.do(this.flagOp.set(i32.const(kind)));
    this.known = kind;
  }
  /** Puts the flags where the functions that derive them look. */
  storeFlags(): Code {
    this.flagsUsed = true;
    const [res, dst, src] = this.flagLocals;
    return [
      setState32(FLAGS_OP, this.flagOp.get),
      setState64(FLAGS_RES, res.get),
      setState64(FLAGS_DST, dst.get),
      setState64(FLAGS_SRC, src.get),
    ];
  }

  // Counting and leaving.

  /** Address in RIP's space of byte `offset` of the page. */
  at(offset: number): I64 {
    return i64.add(this.base.get, i64.const(offset));
  }
  /** Counts the instructions of the block that have retired. */
  count(instructions: number): void {
    if (instructions !== 0) this.f.do(this.left.set(i32.sub(this.left.get, i32.const(instructions))));
  }
  /** Whether fewer than `instructions` + 1 may still be executed. */
  isShort(instructions: number): I32 {
    return i32.leS(this.left.get, i32.const(instructions));
  }
  /** Leaves with `answer`; RIP becomes `rip`. */
  leave(answer: number, rip: I64): void {
    this.f.do(this.rip.set(rip), this.answer.set(i32.const(answer)));
    this.f.br(this.exit);
  }

  /** The function: prologue, what `inside` translates, epilogue. */
  body(first: Instruction, bound: number, refused: number, inside: () => void): FunctionBuilder {
    const { f } = this;
    const checks: Code[] = [];
    const prologue: Code[] = [];
    const fuel = i32.const(FUEL);
    f.do(this.start.set(state32(BUDGET_AT)));
    f.do(this.start.set(i32.select(i32.ltS(this.start.get, fuel), this.start.get, fuel)));
    f.do(this.left.set(this.start.get));
    f.if(this.isShort(bound), () => f.return(i32.const(refused)));
    f.do(checks, prologue);
    f.do(this.base.set(i64.sub(state64(RIP_AT), i64.const(first.offset))), this.context.set(tlbContext()));
    this.known = undefined;
    f.block((exit) => {
      this.exit = exit;
      inside();
      f.unreachable();
    });
    this.registers.forEach((local, number) => {
      if (local === undefined) return;
      prologue.push(local.set(state64(GPR + number * 8)));
      if (this.written.has(number)) f.do(setState64(GPR + number * 8, local.get));
    });
    const changed = this.segments.changed();
    // if (changed) return refused
    if (changed !== undefined) checks.push([changed, 0x04, 0x40, i32.const(refused), 0x0f, 0x0b]);
    prologue.push(...this.segments.loads);
    if (this.flagsUsed) {
      const [res, dst, src] = this.flagLocals;
      prologue.push(this.flagOp.set(state32(FLAGS_OP)), res.set(state64(FLAGS_RES)));
      prologue.push(dst.set(state64(FLAGS_DST)), src.set(state64(FLAGS_SRC)));
    }
    if (this.flagsWritten) f.do(this.storeFlags());
    f.do(setState64(RIP_AT, this.rip.get));
    const spent = i32.sub(this.start.get, this.left.get);
    f.do(setState32(BUDGET_AT, i32.sub(state32(BUDGET_AT), spent)));
    f.do(this.answer.get);
    return f;
  }
}
