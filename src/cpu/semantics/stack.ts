/** Instructions on the stack. The stack pointer is written last, after everything that can fault. */
import { RBP, RSP } from '../../arch/registers.ts';
import { QUIRK_PUSHA_UPWARDS, QUIRKS_AT } from '../state.ts';
import { type I64, i32, i64 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { state32 } from './state-access.ts';

const down = (c: MachineContext, bytes: number): I64 => i64.sub(c.sp(), i64.const(bytes));
const up = (c: MachineContext, bytes: number): I64 => i64.add(c.sp(), i64.const(bytes));

export const push: MachineEmitter = (c) => {
  const value = c.read(0);
  c.stackWrite(down(c, c.size), value.get, c.size);
  c.setSp(down(c, c.size));
};

/** The new stack pointer is what a memory operand's address and a popped stack pointer see. */
export const pop: MachineEmitter = (c) => {
  const value = c.stackRead(c.sp(), c.size);
  if (!c.isMemory(0)) {
    c.setSp(up(c, c.size));
    c.write(0, value.get);
    return;
  }
  const before = c.f.i64(c.sp());
  c.setSp(up(c, c.size));
  const address = c.f.i64(c.offset());
  c.setGpr(RSP, 8, before.get);
  // The address moves by as much as the stack pointer will have.
  const pointer = c.pointer(c.size, 1, i64.sub(address.get, c.offset()));
  c.do(
    c.size === 2
      ? i64.store16(pointer.get, 0, value.get)
      : c.size === 4
        ? i64.store32(pointer.get, 0, value.get)
        : i64.store(pointer.get, 0, value.get),
  );
  c.finish();
  c.setSp(up(c, c.size));
};

export const pusha: MachineEmitter = (c) => {
  const push = (i: number): void => c.stackWrite(down(c, c.size * (i + 1)), c.gpr(i, c.size), c.size);
  // Which address is the first to fault.
  c.f.if(
    i32.and(state32(QUIRKS_AT), i32.const(QUIRK_PUSHA_UPWARDS)),
    () => {
      for (let i = 7; i >= 0; i--) push(i);
    },
    () => {
      for (let i = 0; i < 8; i++) push(i);
    },
  );
  c.setSp(down(c, c.size * 8));
};

/** The stored stack pointer is skipped. */
export const popa: MachineEmitter = (c) => {
  const values = Array.from({ length: 8 }, (_, i) => c.stackRead(up(c, c.size * i), c.size));
  values.forEach((value, i) => {
    if (7 - i !== RSP) c.setGpr(7 - i, c.size, value.get);
  });
  c.setSp(up(c, c.size * 8));
};

/** ENTER: frame size in the immediate, nesting level (modulo 32) in the second. */
export const enter: MachineEmitter = (c) => {
  const f = c.f;
  const { size } = c;
  const level = f.i32(i32.and(c.immediate2(), i32.const(31)));
  const at = f.i64(down(c, size));
  c.stackWrite(at.get, c.gpr(RBP, size), size);
  const frame = f.i64(at.get);
  f.if(level.get, () => {
    const from = f.i64(c.gpr(RBP, 8));
    f.block((end) => {
      f.loop((again) => {
        f.brIf(end, i32.leU(level.get, i32.const(1)));
        f.do(from.set(i64.sub(from.get, i64.const(size))), at.set(i64.sub(at.get, i64.const(size))));
        const link = c.stackRead(from.get, size);
        c.stackWrite(at.get, link.get, size);
        f.do(level.set(i32.sub(level.get, i32.const(1))));
        f.br(again);
      });
    });
    f.do(at.set(i64.sub(at.get, i64.const(size))));
    c.stackWrite(at.get, frame.get, size);
  });
  c.setGpr(RBP, size, frame.get);
  c.setSp(i64.sub(at.get, c.immediate()));
};

export const leave: MachineEmitter = (c) => {
  const frame = c.f.i64(c.gpr(RBP, 8));
  const value = c.stackRead(frame.get, c.size);
  c.setSp(i64.add(frame.get, i64.const(c.size)));
  c.setGpr(RBP, c.size, value.get);
};
