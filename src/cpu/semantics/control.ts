/** Near jumps, calls and returns. */
import { RCX } from '../../arch/registers.ts';
import { i32, i64 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';

export const jmpRelative: MachineEmitter = (c) => c.jumpRelative();
export const jmpIndirect: MachineEmitter = (c) => c.jump(c.readUnsigned(0).get);

export const jcc =
  (cc: number): MachineEmitter =>
  (c) => {
    c.f.if(c.condition(cc), () => c.jumpRelative());
  };

const pushReturn = (c: MachineContext): void => {
  const sp = c.f.i64(i64.sub(c.sp(), i64.const(c.size)));
  c.stackWrite(sp.get, c.nextRip(), c.size);
  c.setSp(sp.get);
};
export const callRelative: MachineEmitter = (c) => {
  pushReturn(c);
  c.jumpRelative();
};
export const callIndirect: MachineEmitter = (c) => {
  const target = c.readUnsigned(0);
  pushReturn(c);
  c.jump(target.get);
};
/** The immediate, if any, is what to release besides the return address. */
export const ret: MachineEmitter = (c) => {
  const target = c.stackRead(c.sp(), c.size);
  c.setSp(i64.add(i64.add(c.sp(), i64.const(c.size)), c.immediate()));
  c.jump(target.get);
};

/** JCXZ, JECXZ, JRCXZ by address size. */
export const jcxz: MachineEmitter = (c) => {
  c.f.if(i64.eqz(i64.and(c.gpr(RCX, 8), c.addressMask())), () => c.jumpRelative());
};

/** LOOP counts rCX of the address size down; `cc` adds a condition (LOOPE 4, LOOPNE 5). */
export const loop =
  (cc?: number): MachineEmitter =>
  (c) => {
    const f = c.f;
    const mask = f.i64(c.addressMask());
    const old = f.i64(c.gpr(RCX, 8));
    const count = f.i64(i64.and(i64.sub(old.get, i64.const(1)), mask.get));
    // A 16-bit count keeps the rest of the register, a 32-bit one clears it.
    f.if(
      i64.eq(mask.get, i64.const(0xffff)),
      () => c.setGpr(RCX, 2, count.get),
      () => c.setGpr(RCX, 8, count.get),
    );
    const more = i64.ne(count.get, i64.const(0));
    const taken = cc === undefined ? more : i32.and(more, c.condition(cc));
    f.if(taken, () => c.jumpRelative());
  };
