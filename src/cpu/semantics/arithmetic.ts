/** Binary and unary integer arithmetic and logic (@sdm vol. 2; @apm vol. 3). */
import { RFLAGS_CF, RFLAGS_OF } from '../../arch/registers.ts';
import { type I64, i32, i64 } from '../wasm/code.ts';
import type { ValueEmitter } from './context.ts';
import { FL_ADD, FL_DEC, FL_INC, FL_LOGIC, FL_SBB, FL_SUB } from './flags.ts';

export const add: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.update(0);
  const res = c.f.i64(c.sized(i64.add(dst.get, src.get)));
  c.write(0, res.get);
  c.setFlags(FL_ADD, res.get, dst.get, src.get);
};

export const adc: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.update(0);
  const res = c.f.i64(c.sized(i64.add(i64.add(dst.get, src.get), i64.extendU(c.carry()))));
  c.write(0, res.get);
  c.setFlags(FL_ADD, res.get, dst.get, src.get);
};

export const sub: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.update(0);
  const res = c.f.i64(c.sized(i64.sub(dst.get, src.get)));
  c.write(0, res.get);
  c.setFlags(FL_SUB, res.get, dst.get, src.get);
};

export const sbb: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.update(0);
  const res = c.f.i64(c.sized(i64.sub(i64.sub(dst.get, src.get), i64.extendU(c.carry()))));
  c.write(0, res.get);
  c.setFlags(FL_SBB, res.get, dst.get, src.get);
};

export const cmp: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.read(0);
  c.setFlags(FL_SUB, c.sized(i64.sub(dst.get, src.get)), dst.get, src.get);
};

const logic =
  (combine: (a: I64, b: I64) => I64): ValueEmitter =>
  (c) => {
    const src = c.read(1);
    const dst = c.update(0);
    const res = c.f.i64(combine(dst.get, src.get));
    c.write(0, res.get);
    c.setFlags(FL_LOGIC, res.get);
  };
export const and = logic(i64.and);
export const or = logic(i64.or);
export const xor = logic(i64.xor);

export const test: ValueEmitter = (c) => {
  const src = c.read(1);
  c.setFlags(FL_LOGIC, i64.and(c.read(0).get, src.get));
};

export const inc: ValueEmitter = (c) => {
  const dst = c.update(0);
  const carry = c.f.i64(i64.extendU(c.carry()));
  const res = c.f.i64(c.sized(i64.add(dst.get, i64.const(1))));
  c.write(0, res.get);
  c.setFlags(FL_INC, res.get, dst.get, carry.get);
};

export const dec: ValueEmitter = (c) => {
  const dst = c.update(0);
  const carry = c.f.i64(i64.extendU(c.carry()));
  const res = c.f.i64(c.sized(i64.sub(dst.get, i64.const(1))));
  c.write(0, res.get);
  c.setFlags(FL_DEC, res.get, dst.get, carry.get);
};

export const neg: ValueEmitter = (c) => {
  const dst = c.update(0);
  const res = c.f.i64(c.sized(i64.sub(i64.const(0), dst.get)));
  c.write(0, res.get);
  c.setFlags(FL_SUB, res.get, i64.const(0), dst.get);
};

export const not: ValueEmitter = (c) => {
  const dst = c.update(0);
  c.write(0, i64.not(dst.get));
};

/** The sum goes to the first operand and its old value to the second; the first wins when they are the same register. */
export const xadd: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.update(0);
  const res = c.f.i64(c.sized(i64.add(dst.get, src.get)));
  if (c.isMemory(0)) {
    c.write(0, res.get);
    c.write(1, dst.get);
  } else {
    c.write(1, dst.get);
    c.write(0, res.get);
  }
  c.setFlags(FL_ADD, res.get, dst.get, src.get);
};

/** ADCX and ADOX: addition through one flag, the others kept. */
const addThrough =
  (flagBit: number, flag: number): ValueEmitter =>
  (c) => {
    const src = c.readUnsigned(1);
    const dst = c.f.i64(c.unsized(c.update(0).get));
    const status = c.f.i32(c.status());
    const carryIn = i64.extendU(i32.and(i32.shrU(status.get, i32.const(flagBit)), i32.const(1)));
    const carry = c.f.i64(carryIn);
    const sum = c.f.i64(i64.add(dst.get, src.get));
    const res = c.f.i64(i64.add(sum.get, carry.get));
    const out =
      c.size === 8
        ? i32.or(i64.ltU(sum.get, dst.get), i64.ltU(res.get, sum.get))
        : i32.wrap(i64.shrU(res.get, i64.const(32)));
    const word = c.f.i32(i32.or(i32.and(status.get, i32.const(~flag)), i32.shl(out, i32.const(flagBit))));
    c.write(0, res.get);
    c.setStatus(word.get);
  };
export const adcx = addThrough(0, RFLAGS_CF);
export const adox = addThrough(11, RFLAGS_OF);
