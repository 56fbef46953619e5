/** Decimal adjustment and the other one-byte instructions that 64-bit mode dropped (@sdm vol. 2 DAA, DAS, AAA, AAS, AAM, AAD). */
import { DE_VECTOR } from '../../arch/exceptions.ts';
import { RAX, RFLAGS_AF, RFLAGS_CF } from '../../arch/registers.ts';
import { type I64, i32, i64 } from '../wasm/code.ts';
import type { ValueEmitter } from './context.ts';
import { FL_LOGIC, FL_RESULT } from './flags.ts';

const flag = (bits: number) => i32.const(bits);

const decimalAdjust =
  (subtract: boolean): ValueEmitter =>
  (c) => {
    const f = c.f;
    const by = subtract ? i64.sub : i64.add;
    const old = f.i64(c.gpr(RAX, 1));
    const al = f.i64(old.get);
    const status = f.i32(c.status());
    const out = f.i32(i32.const(0));
    const lowDigit = i64.gtU(i64.and(old.get, i64.const(15)), i64.const(9));
    f.if(i32.or(lowDigit, i32.and(status.get, flag(RFLAGS_AF))), () => {
      f.do(al.set(by(al.get, i64.const(6))), out.set(flag(RFLAGS_AF)));
      // DAS also reports the borrow of this step.
      if (subtract) f.do(out.set(i32.or(out.get, i64.ltU(old.get, i64.const(6)))));
    });
    f.if(i32.or(i64.gtU(old.get, i64.const(0x99)), i32.and(status.get, flag(RFLAGS_CF))), () => {
      f.do(al.set(by(al.get, i64.const(0x60))), out.set(i32.or(out.get, flag(RFLAGS_CF))));
    });
    c.setGpr(RAX, 1, al.get);
    c.setFlags(FL_RESULT, i64.extend8S(al.get), undefined, i64.extendU(out.get));
  };
export const daa = decimalAdjust(false);
export const das = decimalAdjust(true);

const asciiAdjust =
  (by: (a: I64, b: I64) => I64): ValueEmitter =>
  (c) => {
    const f = c.f;
    const ax = f.i64(c.gpr(RAX, 2));
    const status = f.i32(c.status());
    const adjust = f.i32(
      i32.or(
        i64.gtU(i64.and(ax.get, i64.const(15)), i64.const(9)),
        i32.ne(i32.and(status.get, flag(RFLAGS_AF)), i32.const(0)),
      ),
    );
    f.if(adjust.get, () => f.do(ax.set(by(ax.get, i64.const(0x106)))));
    c.setGpr(RAX, 2, i64.and(ax.get, i64.const(0xff0f)));
    const both = RFLAGS_AF | RFLAGS_CF;
    c.setStatus(i32.or(i32.and(status.get, flag(~both)), i32.select(adjust.get, flag(both), i32.const(0))));
  };
export const aaa = asciiAdjust(i64.add);
export const aas = asciiAdjust(i64.sub);

export const aam: ValueEmitter = (c) => {
  const base = c.readUnsigned(0);
  c.f.if(i64.eqz(base.get), () => c.fault(DE_VECTOR));
  const al = c.f.i64(c.gpr(RAX, 1));
  const low = c.f.i64(i64.remU(al.get, base.get));
  c.setGpr(RAX, 2, i64.or(i64.shl(i64.divU(al.get, base.get), i64.const(8)), low.get));
  c.setFlags(FL_LOGIC, i64.extend8S(low.get));
};

export const aad: ValueEmitter = (c) => {
  const base = c.readUnsigned(0);
  const ax = c.f.i64(c.gpr(RAX, 2));
  const al = c.f.i64(i64.and(i64.add(ax.get, i64.mul(i64.shrU(ax.get, i64.const(8)), base.get)), i64.const(0xff)));
  c.setGpr(RAX, 2, al.get);
  c.setFlags(FL_LOGIC, i64.extend8S(al.get));
};

/** SALC: AL <- CF ? FF : 0. */
export const salc: ValueEmitter = (c) => c.setGpr(RAX, 1, i64.sub(i64.const(0), i64.extendU(c.carry())));
