/** The context of a handler: operands are found through the decoded record that the handler gets as its parameter. */
import { GP_VECTOR } from '../../arch/exceptions.ts';
import { RAX, RCX, SS } from '../../arch/registers.ts';
import { unreachable } from '../../arch/unreachable.ts';
import {
  RECORD_IMM,
  RECORD_IMM2,
  RECORD_LENGTH,
  RECORD_REG,
  RECORD_RM,
  RECORD_SCALE,
  RECORD_SEGMENT,
  RECORD_VVVV,
} from '../decode/record.ts';
import type { OperandSpec } from '../isa/operands.ts';
import {
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_WRITE,
  FPU_REGS,
  GPR,
  RIP_AT,
  SCRATCH,
  SEG,
  SEG_BASE,
  SEG_SIZE,
  XMM,
} from '../state.ts';
import { type I32, type I64, i32, i64, loadSigned, loadUnsigned, storeSized, zeroExtend } from '../wasm/code.ts';
import { call, type FunctionBuilder, getGlobal, type Local32, type Local64 } from '../wasm/function.ts';
import { STATUS_JUMPED, STATUS_TAKEN } from './handler-status.ts';
import { MachineContext } from './machine-context.ts';
import type { SharedFunctions } from './shared-functions.ts';
import { rawOffset, setState64, stackPointer, state64, storeRegister } from './state-access.ts';
import { lookUpTlb } from './tlb-lookup.ts';

/** What a handler is made for. */
export interface HandlerShape {
  readonly size: number;
  readonly flat: boolean;
  /** Flat, except that the segment's base is added: FS and GS in 64-bit mode. */
  readonly based: boolean;
  readonly memory: boolean;
  readonly operands: readonly OperandSpec[];
  /** The second operand selects a bit beyond the first: the memory operand moves to the word that holds it. */
  readonly bitString: boolean;
}

export class RecordContext extends MachineContext {
  readonly flat: boolean;
  readonly record: I32;
  private readonly shape: HandlerShape;
  private readonly support: SharedFunctions;
  private linear: Local64 | undefined;
  private written: { pointer: Local32; linear: Local64; size: number } | undefined;

  constructor(f: FunctionBuilder, support: SharedFunctions, shape: HandlerShape) {
    super(f, shape.size, support.flags, support.raise);
    this.shape = shape;
    this.support = support;
    this.flat = shape.flat;
    this.record = f.param32(0).get;
  }

  // Operands.

  sizeOf(index: number): number {
    const { size } = this.shape.operands[index]!;
    return size === 0 ? this.size : size === -1 ? Math.max(this.size, 4) : size;
  }
  isMemory(index: number): boolean {
    return this.shape.memory && this.shape.operands[index]!.place === 'rm';
  }
  /** Address and constant offset of a register operand. */
  private registerField(index: number): I32 {
    const { place } = this.shape.operands[index]!;
    if (place === 'extra') return this.immediate2();
    const field = place === 'reg' ? RECORD_REG : place === 'vvvv' ? RECORD_VVVV : RECORD_RM;
    return i32.load8U(this.record, field);
  }
  private fetch(index: number, load: typeof loadSigned, access: number): Local64 {
    const { place } = this.shape.operands[index]!;
    const size = this.sizeOf(index);
    if (this.isMemory(index)) return this.f.i64(load(size, this.pointer(size, access).get));
    switch (place) {
      case 'imm':
        return this.f.i64(load === loadSigned ? this.immediate() : zeroExtend(size, this.immediate()));
      case 'one':
        return this.f.i64(i64.const(1));
      case 'acc':
        return this.f.i64(load(size, i32.const(0), GPR + RAX * 8));
      case 'cl':
        return this.f.i64(load(1, i32.const(0), GPR + RCX * 8));
      case 'reg':
      case 'rm':
      case 'vvvv':
        return this.f.i64(load(size, this.registerField(index), GPR));
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
    return this.fetch(index, loadSigned, ACCESS_READ);
  }
  readUnsigned(index: number): Local64 {
    return this.fetch(index, loadUnsigned, ACCESS_READ);
  }
  update(index: number): Local64 {
    return this.fetch(index, loadSigned, ACCESS_RMW);
  }
  write(index: number, value: I64): void {
    const { place } = this.shape.operands[index]!;
    const size = this.sizeOf(index);
    if (this.isMemory(index)) {
      const pointer = this.written?.pointer ?? this.pointer(size, ACCESS_WRITE);
      this.do(storeSized(size, pointer.get, 0, value));
      this.finish();
    } else if (place === 'acc') {
      this.setGpr(RAX, size, value);
    } else {
      this.do(storeRegister(this.registerField(index), GPR, size, value));
    }
  }
  vector(index: number): I32 {
    const { file } = this.shape.operands[index]!;
    const field = this.registerField(index);
    if (file === 'mmx') return i32.add(i32.shl(field, i32.const(1)), i32.const(FPU_REGS));
    return i32.add(i32.shl(field, i32.const(2)), i32.const(XMM));
  }
  vectorBytes(index: number): number {
    const { file, size } = this.shape.operands[index]!;
    return file === 'mmx' ? 8 : size === 32 ? 32 : 16;
  }
  assist(operation: number, argument: I32): void {
    const status = this.f.i32(call(this.support.assist, i32.const(operation), argument));
    this.f.if(status.get, () => this.f.return(status.get));
  }
  immediate(): I64 {
    return i64.load(this.record, RECORD_IMM);
  }
  immediate2(): I32 {
    return i32.load(this.record, RECORD_IMM2);
  }
  scale(): I64 {
    return i64.load8U(this.record, RECORD_SCALE);
  }

  // Memory.

  private bitStringDelta(): I64 {
    const shift = this.size === 2 ? 4 : this.size === 4 ? 5 : 6;
    const words = i64.shrS(this.read(1).get, i64.const(shift));
    return i64.mul(words, i64.const(this.size));
  }
  offset(): I64 {
    return this.flat ? rawOffset(this.record) : call(this.support.offset, this.record);
  }
  private linearAddress(size: number, access: number, delta: I64 | undefined): Local64 {
    if (this.linear !== undefined && delta === undefined) return this.linear;
    const displacement = this.shape.bitString ? this.bitStringDelta() : delta;
    let at = this.offset();
    if (displacement !== undefined) at = i64.add(at, displacement);
    if (displacement !== undefined && !this.flat) at = i64.and(at, this.addressMask());
    if (this.shape.based) {
      const segment = i32.mul(i32.load8U(this.record, RECORD_SEGMENT), i32.const(SEG_SIZE));
      at = i64.add(at, i64.load(segment, SEG + SEG_BASE));
    }
    const linear = this.f.i64(at);
    if (!this.flat) {
      const segment = i32.load8U(this.record, RECORD_SEGMENT);
      this.do(linear.set(call(this.support.segmented, linear.get, i32.const(size), i32.const(access), segment)));
      this.returnFault();
    }
    if (delta === undefined) this.linear = linear;
    return linear;
  }
  private returnFault(): void {
    this.f.if(getGlobal(this.support.fault), () => this.f.return(getGlobal(this.support.fault)));
  }
  pointer(size: number, access: number, delta?: I64): Local32 {
    const linear = this.linearAddress(size, access, delta);
    const pointer = this.pointerTo(linear, size, access, i32.load8U(this.record, RECORD_SEGMENT));
    if (access !== ACCESS_READ) this.written = { pointer, linear, size };
    return pointer;
  }
  private pointerTo(linear: Local64, size: number, access: number, segment: I32): Local32 {
    return lookUpTlb(this.f, linear, size === 1 ? undefined : i64.const(size - 1), access, (pointer) => {
      const { slowAccess, fault } = this.support;
      const args = [this.record, linear.get, i32.const(size), i32.const(access), segment];
      this.f.if(i32.eqz(pointer.tee(call(slowAccess, ...args))), () => this.f.return(getGlobal(fault)));
    });
  }
  finish(): void {
    const { pointer, linear, size } = this.written!;
    if (size > 1) this.finishAt(pointer, linear, size);
  }
  private finishAt(pointer: Local32, linear: Local64, size: number): void {
    this.f.if(i32.eq(pointer.get, i32.const(SCRATCH)), () => {
      const status = this.f.i32(call(this.support.finishWrite, this.record, linear.get, i32.const(size)));
      this.f.if(status.get, () => this.f.return(status.get));
    });
  }
  requireAligned(size: number, access = ACCESS_READ): void {
    const linear = this.linearAddress(size, access, undefined);
    this.f.if(i32.and(i32.wrap(linear.get), i32.const(size - 1)), () => this.fault(GP_VECTOR, 0));
  }

  // Control.

  rip(): I64 {
    return state64(RIP_AT);
  }
  nextRip(): I64 {
    return i64.add(state64(RIP_AT), i64.load8U(this.record, RECORD_LENGTH));
  }
  relativeTarget(): I64 {
    return zeroExtend(this.size, i64.add(this.rip(), this.immediate()));
  }
  jumpRelative(): void {
    this.do(setState64(RIP_AT, this.relativeTarget()));
    this.f.return(i32.const(STATUS_TAKEN));
  }
  jump(target: I64): void {
    this.do(setState64(RIP_AT, zeroExtend(this.size, target)));
    this.f.return(i32.const(STATUS_JUMPED));
  }
  addressMask(): I64 {
    return call(this.support.addressMask, this.record);
  }

  // The stack.

  sp(): I64 {
    return stackPointer();
  }
  setSp(value: I64): void {
    if (this.flat) this.setGpr(4, 8, value);
    else this.do(call(this.support.setStackPointer, value));
  }
  stackWrite(sp: I64, value: I64, size: number): void {
    if (this.flat) {
      const linear = this.f.i64(sp);
      const pointer = this.pointerTo(linear, size, ACCESS_WRITE, i32.const(SS));
      this.do(storeSized(size, pointer.get, 0, value));
      this.finishAt(pointer, linear, size);
      return;
    }
    const status = this.f.i32(call(this.support.stackWrite, this.record, sp, value, i32.const(size)));
    this.f.if(status.get, () => this.f.return(status.get));
  }
  stackRead(sp: I64, size: number): Local64 {
    if (this.flat) {
      const linear = this.f.i64(sp);
      return this.f.i64(loadUnsigned(size, this.pointerTo(linear, size, ACCESS_READ, i32.const(SS)).get));
    }
    const value = this.f.i64(call(this.support.stackRead, this.record, sp, i32.const(size)));
    this.returnFault();
    return value;
  }
}
