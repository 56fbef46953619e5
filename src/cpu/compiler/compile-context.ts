/** The context of compiled code: operands are read from the record while the code is made, registers and flags are locals. */
import { FS, RAX, RSP, SS } from '../../arch/registers.ts';
import { unreachable } from '../../arch/unreachable.ts';
import {
  BASE_RIP,
  RECORD_ADDRSIZE,
  RECORD_BASE,
  RECORD_DISP,
  RECORD_IMM,
  RECORD_IMM2,
  RECORD_INDEX,
  RECORD_MODE,
  RECORD_OPSIZE,
  RECORD_REG,
  RECORD_RM,
  RECORD_SCALE,
  RECORD_SEGMENT,
  RECORD_VVVV,
  REGISTER_NONE,
  recordIsMemory,
} from '../decode/record.ts';
import { carryOf, conditionOf, FL_EXPLICIT, FL_SUB, STATUS_FLAGS, statusOf } from '../semantics/flags.ts';
import { LEFT_BEFORE_PLAIN, LEFT_MISSED } from '../semantics/handler-status.ts';
import { MachineContext } from '../semantics/machine-context.ts';
import { state64 } from '../semantics/state-access.ts';
import { lookUpTlb } from '../semantics/tlb-lookup.ts';
import { ACCESS_READ, ACCESS_RMW, ACCESS_WRITE, FPU_REGS, SEG, SEG_BASE, SEG_SIZE, XMM } from '../state.ts';
import {
  type I32,
  type I64,
  i32,
  i64,
  loadSigned,
  loadUnsigned,
  signExtend,
  storeSized,
  zeroExtend,
} from '../wasm/code.ts';
import { call, type FunctionRef, type Local32, type Local64 } from '../wasm/function.ts';
import type { Instruction } from './region.ts';
import { linearOf } from './segment-checks.ts';
import type { Surroundings } from './surroundings.ts';
import type { Translation } from './translation.ts';

/** What the end of a block does; the emitters of branches call it. */
export interface BlockEnd {
  /** The direct branch is taken. */
  taken(): void;
  /** Control goes to an address that only the guest knows. */
  indirect(target: I64): void;
}

/** A constant of 64 bits from its halves. */
const wide = (lo: number, hi: number): I64 =>
  hi === lo >> 31
    ? i64.const(lo)
    : i64.or(i64.shl(i64.const(hi), i64.const(32)), i64.and(i64.const(lo), i64.const(0xffffffff)));

export class CompileContext extends MachineContext {
  readonly flat: boolean;
  readonly record: I32;
  private readonly t: Translation;
  private readonly at: Instruction;
  private readonly u8: Uint8Array;
  private readonly i32: Int32Array;
  private readonly assistant: FunctionRef;
  private readonly reach: FunctionRef;
  private readonly end: BlockEnd;
  private readonly memory: boolean;
  private readonly bitString: boolean;
  /** Not 64-bit code: segments and 32-bit addresses. */
  private readonly legacy: boolean;
  private linear: Local64 | undefined;
  private written: Local32 | undefined;

  constructor(t: Translation, at: Instruction, around: Surroundings, end: BlockEnd) {
    // `raise` is never called: an instruction that would fault is left to the interpreter.
    super(t.f, around.u8[at.record + RECORD_OPSIZE]!, t.flagFunctions, t.flagFunctions.status);
    this.t = t;
    this.at = at;
    this.u8 = around.u8;
    this.i32 = around.i32;
    this.assistant = around.assist;
    this.reach = around.reach;
    this.end = end;
    this.record = i32.const(at.record);
    this.legacy = around.u8[at.record + RECORD_MODE] !== 2;
    this.flat = !this.legacy;
    this.memory = recordIsMemory(around.u8, at.record);
    this.bitString = at.row.options.has('bits') && this.memory;
  }

  private byte(field: number): number {
    return this.u8[this.at.record + field]!;
  }
  private word(field: number): number {
    return this.i32[(this.at.record + field) >> 2]!;
  }
  /** Leaves before this instruction: the interpreter executes it. */
  private bail(): void {
    this.leave(LEFT_BEFORE_PLAIN);
  }
  private leave(how: number): void {
    this.t.count(this.t.retired);
    this.t.leave(this.at.record | how, this.t.at(this.at.offset));
  }
  override fault(): void {
    this.bail();
  }

  // Registers.

  /** A general register by its byte offset in the file: AH CH DH BH are odd. */
  private readRegister(offset: number, size: number, signed: boolean): I64 {
    const whole = this.t.register(offset >> 3).get;
    const value = (offset & 7) === 0 ? whole : i64.shrU(whole, i64.const(8));
    return signed ? signExtend(size, value) : zeroExtend(size, value);
  }
  private writeRegister(offset: number, size: number, value: I64): void {
    const number = offset >> 3;
    if (size === 8 || size === 4) {
      this.t.setRegister(number, zeroExtend(size, value));
      return;
    }
    const old = this.t.register(number).get;
    const high = (offset & 7) !== 0;
    const part = zeroExtend(size, value);
    const mask = high ? -0xff01 : size === 1 ? -0x100 : -0x10000;
    const moved = high ? i64.shl(part, i64.const(8)) : part;
    this.t.setRegister(number, i64.or(i64.and(old, i64.const(mask)), moved));
  }
  override gpr(number: number, size: number): I64 {
    return this.readRegister(number * 8, size, false);
  }
  override gprSigned(number: number, size: number): I64 {
    return this.readRegister(number * 8, size, true);
  }
  override setGpr(number: number, size: number, value: I64): void {
    this.writeRegister(number * 8, size, value);
  }
  override ah(): I64 {
    return this.readRegister(1, 1, false);
  }
  override setAh(value: I64): void {
    this.writeRegister(1, 1, value);
  }

  // Flags.

  override setFlags(kind: number, result: I64, dst?: I64, src?: I64): void {
    this.t.setFlags(kind, { res: result, dst, src });
  }
  override setStatus(word: I32): void {
    this.t.setFlags(FL_EXPLICIT, { src: i64.extendU(i32.and(word, i32.const(STATUS_FLAGS))) });
  }
  /** A derivation for flags of a kind known only when the code runs: after a comparison at once, else by a call. */
  private derive(known: (kind: number) => I32, otherwise: () => I32): I32 {
    const { t } = this;
    if (t.known !== undefined) return known(t.known);
    const value = this.f.i32();
    this.f.if(
      i32.eq(t.flagKind, i32.const(FL_SUB)),
      () => this.do(value.set(known(FL_SUB))),
      () => this.do(t.storeFlags(), value.set(otherwise())),
    );
    return value.get;
  }
  override status(): I32 {
    const { t } = this;
    if (t.known !== undefined) return statusOf(t.known, t.flags);
    this.do(t.storeFlags());
    return call(this.flags.status);
  }
  override carry(): I32 {
    return this.derive(
      (kind) => carryOf(kind, this.t.flags),
      () => call(this.flags.carry),
    );
  }
  override condition(cc: number): I32 {
    return this.derive(
      (kind) => conditionOf(kind, this.t.flags, cc),
      () => this.calledCondition(cc),
    );
  }
  private calledCondition(cc: number): I32 {
    const { carry, overflow, parity, sign, zero } = this.flags;
    const less = (): I32 => i32.xor(call(sign), call(overflow));
    const or = (a: FunctionRef, b: I32): I32 => i32.or(call(a), b);
    const by = [overflow, carry, zero, undefined, sign, parity] as const;
    const plain = by[cc >> 1];
    const value =
      plain !== undefined
        ? call(plain)
        : cc >> 1 === 3
          ? or(carry, call(zero))
          : cc >> 1 === 6
            ? less()
            : or(zero, less());
    return (cc & 1) !== 0 ? i32.eqz(value) : value;
  }

  // Operands.

  sizeOf(index: number): number {
    const { size } = this.at.row.operands[index]!;
    return size === 0 ? this.size : size === -1 ? Math.max(this.size, 4) : size;
  }
  isMemory(index: number): boolean {
    return this.memory && this.at.row.operands[index]!.place === 'rm';
  }
  private registerOffset(index: number): number {
    const { place } = this.at.row.operands[index]!;
    if (place === 'extra') return this.word(RECORD_IMM2);
    return this.byte(place === 'reg' ? RECORD_REG : place === 'vvvv' ? RECORD_VVVV : RECORD_RM);
  }
  override constant(index: number): number | undefined {
    const { place } = this.at.row.operands[index]!;
    return place === 'one' ? 1 : place === 'imm' ? this.word(RECORD_IMM) : undefined;
  }
  private fetch(index: number, signed: boolean, access: number): Local64 {
    const { f } = this;
    const { place } = this.at.row.operands[index]!;
    const size = this.sizeOf(index);
    if (this.isMemory(index)) {
      const pointer = this.pointer(size, access).get;
      return f.i64(signed ? loadSigned(size, pointer) : loadUnsigned(size, pointer));
    }
    switch (place) {
      case 'imm':
        return f.i64(signed ? this.immediate() : zeroExtend(size, this.immediate()));
      case 'one':
        return f.i64(i64.const(1));
      case 'acc':
        return f.i64(this.readRegister(RAX * 8, size, signed));
      case 'cl':
        return f.i64(this.readRegister(8, 1, signed));
      case 'reg':
      case 'rm':
      case 'vvvv':
        return f.i64(this.readRegister(this.registerOffset(index), size, signed));
      case 'rel':
      case 'far':
      case 'dx':
      case 'sreg':
      case 'extra':
        throw new Error(`operand ${place} has no value of its own`);
      default:
        return unreachable(place);
    }
  }
  read(index: number): Local64 {
    return this.fetch(index, true, ACCESS_READ);
  }
  readUnsigned(index: number): Local64 {
    return this.fetch(index, false, ACCESS_READ);
  }
  update(index: number): Local64 {
    return this.fetch(index, true, ACCESS_RMW);
  }
  write(index: number, value: I64): void {
    const { place } = this.at.row.operands[index]!;
    const size = this.sizeOf(index);
    if (this.isMemory(index)) {
      const pointer = this.written ?? this.pointer(size, ACCESS_WRITE);
      this.do(storeSized(size, pointer.get, 0, value));
    } else if (place === 'acc') {
      this.setGpr(RAX, size, value);
    } else {
      this.writeRegister(this.registerOffset(index), size, value);
    }
  }
  vector(index: number): I32 {
    const mmx = this.at.row.operands[index]!.file === 'mmx';
    const offset = this.registerOffset(index);
    return i32.const(mmx ? FPU_REGS + offset * 2 : XMM + offset * 4);
  }
  vectorBytes(index: number): number {
    const { file, size } = this.at.row.operands[index]!;
    return file === 'mmx' ? 8 : size === 32 ? 32 : 16;
  }
  /** An exception is the interpreter's; asking the assist once more for it changes nothing. */
  assist(operation: number, argument: I32): void {
    this.f.if(call(this.assistant, i32.const(operation), argument), () => this.bail());
  }
  immediate(): I64 {
    return wide(this.word(RECORD_IMM), this.word(RECORD_IMM + 4));
  }
  immediate2(): I32 {
    return i32.const(this.word(RECORD_IMM2));
  }
  scale(): I64 {
    return i64.const(this.byte(RECORD_SCALE));
  }

  // Memory.

  offset(): I64 {
    const base = this.byte(RECORD_BASE);
    const index = this.byte(RECORD_INDEX);
    const displacement = wide(this.word(RECORD_DISP), this.word(RECORD_DISP + 4));
    let at = displacement;
    if (index !== REGISTER_NONE) {
      const scaled = i64.shl(this.t.register(index >> 3).get, i64.const(this.byte(RECORD_SCALE)));
      at = i64.add(scaled, at);
    }
    if (base === BASE_RIP) at = i64.add(this.rip(), at);
    else if (base !== REGISTER_NONE) at = i64.add(this.t.register(base >> 3).get, at);
    return this.addressed(at);
  }
  /** Truncates to the address size. */
  private addressed(at: I64): I64 {
    const size = this.byte(RECORD_ADDRSIZE);
    return size === 8 ? at : i64.and(at, i64.const(size === 4 ? 0xffffffff : 0xffff));
  }
  private bitStringDelta(): I64 {
    const shift = this.size === 2 ? 4 : this.size === 4 ? 5 : 6;
    return i64.mul(i64.shrS(this.read(1).get, i64.const(shift)), i64.const(this.size));
  }
  private linearAddress(size: number, delta: I64 | undefined): Local64 {
    if (this.linear !== undefined && delta === undefined) return this.linear;
    const displacement = this.bitString ? this.bitStringDelta() : delta;
    let at = this.offset();
    if (displacement !== undefined) at = this.addressed(i64.add(at, displacement));
    const segment = this.byte(RECORD_SEGMENT);
    if (!this.legacy && segment >= FS) at = i64.add(at, state64(SEG + segment * SEG_SIZE + SEG_BASE));
    const linear = this.legacy ? this.segmented(segment, at, size) : this.f.i64(at);
    if (delta === undefined) this.linear = linear;
    return linear;
  }
  /** The linear address of `size` bytes at an offset; what a limit or another kind of segment forbids is the interpreter's. */
  private segmented(segment: number, offset: I64, size: number): Local64 {
    const linear = this.f.i64(offset);
    const used = this.t.segments.use(segment);
    if (used === null) {
      this.bail();
      return linear;
    }
    const { limit } = used;
    if (limit !== undefined) {
      this.f.if(i64.gtU(i64.add(linear.get, i64.const(size - 1)), limit.get), () => this.bail());
    }
    if (used.base !== undefined) this.do(linear.set(linearOf(used, linear.get)));
    return linear;
  }
  pointer(size: number, access: number, delta?: I64): Local32 {
    const pointer = this.pointerTo(this.linearAddress(size, delta), size, access, this.byte(RECORD_SEGMENT));
    if (access !== ACCESS_READ) this.written = pointer;
    return pointer;
  }
  /** A miss is resolved without leaving, where that has no other effect than the one on the TLB. */
  private pointerTo(linear: Local64, size: number, access: number, segment: number): Local32 {
    const last = size === 1 ? undefined : i64.const(size - 1);
    const missed = (pointer: Local32): void => {
      const [bytes, kind] = [i32.const(size), i32.const(access)];
      const reached = call(this.reach, this.record, linear.get, bytes, kind, i32.const(segment));
      this.f.if(i32.eqz(pointer.tee(reached)), () => this.leave(LEFT_MISSED));
    };
    return lookUpTlb(this.f, linear, last, access, missed, this.t.tlbContext);
  }
  /** What crosses a page is the interpreter's. */
  finish(): void {}
  requireAligned(size: number): void {
    const linear = this.linearAddress(size, undefined);
    this.f.if(i32.and(i32.wrap(linear.get), i32.const(size - 1)), () => this.bail());
  }

  // Control.

  rip(): I64 {
    return this.t.at(this.at.offset);
  }
  nextRip(): I64 {
    return this.t.at(this.at.offset + this.at.length);
  }
  relativeTarget(): I64 {
    const target = i64.add(this.rip(), this.immediate());
    return this.legacy ? zeroExtend(this.size, target) : target;
  }
  jumpRelative(): void {
    this.end.taken();
  }
  jump(target: I64): void {
    this.end.indirect(this.legacy ? zeroExtend(this.size, target) : target);
  }
  addressMask(): I64 {
    const size = this.byte(RECORD_ADDRSIZE);
    return i64.const(size === 8 ? -1 : size === 4 ? 0xffffffff : 0xffff);
  }

  // The stack.

  sp(): I64 {
    return this.t.register(RSP).get;
  }
  setSp(value: I64): void {
    this.setGpr(RSP, this.legacy ? this.t.segments.stackSize() : 8, value);
  }
  private stackLinear(sp: I64, size: number): Local64 {
    if (!this.legacy) return this.f.i64(sp);
    return this.segmented(SS, zeroExtend(this.t.segments.stackSize(), sp), size);
  }
  stackWrite(sp: I64, value: I64, size: number): void {
    this.do(storeSized(size, this.pointerTo(this.stackLinear(sp, size), size, ACCESS_WRITE, SS).get, 0, value));
  }
  stackRead(sp: I64, size: number): Local64 {
    return this.f.i64(loadUnsigned(size, this.pointerTo(this.stackLinear(sp, size), size, ACCESS_READ, SS).get));
  }
}
