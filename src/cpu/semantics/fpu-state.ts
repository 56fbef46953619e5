/** Saving, restoring and initialising the x87, MMX and SSE state. */
import { GP_VECTOR, NM_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { CR0_EM, CR0_TS, MXCSR_MASK, RAX } from '../../arch/registers.ts';
import { ASSIST_X87_INIT, ASSIST_X87_LOAD_IMAGE, ASSIST_X87_MASK, ASSIST_X87_STORE_IMAGE } from '../floating/assist.ts';
import { ASSIST_IMAGE } from '../floating/fpu-memory.ts';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  CODE_MODE_AT,
  CR0_AT,
  FPU_CW_AT,
  FPU_REGS,
  FPU_SW_AT,
  FPU_TAG_AT,
  MXCSR_AT,
  XMM,
  XMM_SIZE,
} from '../state.ts';
import { type I32, i32, i64, v128 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState32, state32 } from './state-access.ts';
import { requireVector } from './vector.ts';
import { requireX87 } from './x87.ts';

export const fninit: MachineEmitter = (c) => {
  requireX87(c, false);
  c.assist(ASSIST_X87_INIT, i32.const(0));
};
/** FNCLEX: exception flags, the summary and busy. */
export const fnclex: MachineEmitter = (c) => {
  requireX87(c, false);
  c.do(setState32(FPU_SW_AT, i32.and(state32(FPU_SW_AT), i32.const(0x7f00))));
};
export const fnstcw: MachineEmitter = (c) => {
  requireX87(c, false);
  c.write(0, i64.extendU(state32(FPU_CW_AT)));
};
export const fnstsw: MachineEmitter = (c) => {
  requireX87(c, false);
  c.write(0, i64.extendU(state32(FPU_SW_AT)));
};
export const fnstswAx: MachineEmitter = (c) => {
  requireX87(c, false);
  c.setGpr(RAX, 2, i64.extendU(state32(FPU_SW_AT)));
};

/** Bytes of an environment with words of the operand size, and of the eight registers that FNSAVE adds. */
const environmentBytes = (c: MachineContext): number => 7 * wordBytes(c);
const wordBytes = (c: MachineContext): 2 | 4 => (c.size === 2 ? 2 : 4);
const REGISTER_BYTES = 80;

/** Moves `bytes` between the memory operand and ASSIST_IMAGE, after both ends have been reached. */
function moveImage(c: MachineContext, bytes: number, access: number): void {
  const { f } = c;
  c.pointer(1, access, i64.const(0));
  c.pointer(1, access, i64.const(bytes - 1));
  const n = f.i64(i64.const(0));
  f.loop((again) => {
    const pointer = c.pointer(2, access, n.get);
    const image = i32.wrap(n.get);
    if (access === ACCESS_WRITE) {
      c.do(i32.store16(pointer.get, 0, i32.load16U(image, ASSIST_IMAGE)));
      c.finish();
    } else {
      c.do(i32.store16(image, ASSIST_IMAGE, i32.load16U(pointer.get)));
    }
    f.brIf(again, i64.ltU(n.tee(i64.add(n.get, i64.const(2))), i64.const(bytes)));
  });
}
export const fnstenv: MachineEmitter = (c) => {
  requireX87(c, false);
  c.assist(ASSIST_X87_STORE_IMAGE, i32.const(wordBytes(c)));
  moveImage(c, environmentBytes(c), ACCESS_WRITE);
  c.assist(ASSIST_X87_MASK, i32.const(0));
};
export const fnsave: MachineEmitter = (c) => {
  requireX87(c, false);
  c.assist(ASSIST_X87_STORE_IMAGE, i32.const(wordBytes(c)));
  moveImage(c, environmentBytes(c) + REGISTER_BYTES, ACCESS_WRITE);
  c.assist(ASSIST_X87_INIT, i32.const(0));
};
export const fldenv: MachineEmitter = (c) => {
  requireX87(c);
  moveImage(c, environmentBytes(c), ACCESS_READ);
  c.assist(ASSIST_X87_LOAD_IMAGE, i32.const(wordBytes(c)));
};
export const frstor: MachineEmitter = (c) => {
  requireX87(c);
  moveImage(c, environmentBytes(c) + REGISTER_BYTES, ACCESS_READ);
  c.assist(ASSIST_X87_LOAD_IMAGE, i32.const(wordBytes(c) | 0x100));
};
export const emms: MachineEmitter = (c) => {
  requireVector(c, 8);
  c.do(setState32(FPU_TAG_AT, i32.const(0)));
};

export const ldmxcsr: MachineEmitter = (c) => {
  requireVector(c, 16);
  const value = c.f.i32(i32.wrap(c.readUnsigned(0).get));
  c.f.if(i32.and(value.get, i32.const(~MXCSR_MASK)), () => c.fault(GP_VECTOR, 0));
  c.do(setState32(MXCSR_AT, value.get));
};
export const stmxcsr: MachineEmitter = (c) => {
  requireVector(c, 16);
  c.write(0, i64.extendU(state32(MXCSR_AT)));
};

// The 512-byte image of FXSAVE (@sdm vol. 1, 10.5.1).
const IMAGE_SIZE = 512;
const IMAGE_ST = 32;
const IMAGE_XMM = 160;

/** FXSAVE reports #UD and #NM as x87 does; the image is aligned, and all of it is reachable before any of it moves. */
function requireImage(c: MachineContext, access: number): void {
  c.f.if(i32.and(state32(CR0_AT), i32.const(CR0_EM)), () => c.fault(UD_VECTOR));
  c.f.if(i32.and(state32(CR0_AT), i32.const(CR0_TS)), () => c.fault(NM_VECTOR));
  c.requireAligned(16, access);
  c.pointer(16, access, i64.const(0));
  c.pointer(16, access, i64.const(IMAGE_SIZE - 16));
}
/** Calls `move(image, state)` with host addresses for each 16-byte register of the image. */
function eachRegister(c: MachineContext, access: number, move: (image: I32, state: I32) => void): void {
  const { f } = c;
  const registers = (count: I32, image: number, state: number, stride: number): void => {
    const n = f.i32(i32.const(0));
    f.loop((again) => {
      const at = i64.add(i64.const(image), i64.shl(i64.extendU(n.get), i64.const(4)));
      const pointer = c.pointer(16, access, at);
      move(pointer.get, i32.add(i32.const(state), i32.mul(n.get, i32.const(stride))));
      f.brIf(again, i32.ltU(n.tee(i32.add(n.get, i32.const(1))), count));
    });
  };
  registers(i32.const(8), IMAGE_ST, FPU_REGS, 16);
  const longMode = i32.eq(state32(CODE_MODE_AT), i32.const(2));
  registers(i32.select(longMode, i32.const(16), i32.const(8)), IMAGE_XMM, XMM, XMM_SIZE);
}

export const fxsave: MachineEmitter = (c) => {
  requireImage(c, ACCESS_WRITE);
  const head = c.pointer(16, ACCESS_WRITE, i64.const(0));
  c.do(i64.store(head.get, 0, i64.const(0)), i64.store(head.get, 8, i64.const(0)));
  c.do(i32.store16(head.get, 0, state32(FPU_CW_AT)), i32.store16(head.get, 2, state32(FPU_SW_AT)));
  c.do(i32.store8(head.get, 4, state32(FPU_TAG_AT)));
  const second = c.pointer(16, ACCESS_WRITE, i64.const(16));
  c.do(i64.store(second.get, 0, i64.const(0)));
  c.do(i32.store(second.get, 8, state32(MXCSR_AT)), i32.store(second.get, 12, i32.const(MXCSR_MASK)));
  eachRegister(c, ACCESS_WRITE, (image, state) => c.do(v128.store(image, 0, v128.load(state))));
};

export const fxrstor: MachineEmitter = (c) => {
  requireImage(c, ACCESS_READ);
  const mxcsr = c.f.i32(i32.load(c.pointer(16, ACCESS_READ, i64.const(16)).get, 8));
  c.f.if(i32.and(mxcsr.get, i32.const(~MXCSR_MASK)), () => c.fault(GP_VECTOR, 0));
  const head = c.pointer(16, ACCESS_READ, i64.const(0));
  c.do(setState32(FPU_CW_AT, i32.load16U(head.get)), setState32(FPU_SW_AT, i32.load16U(head.get, 2)));
  c.do(setState32(FPU_TAG_AT, i32.load8U(head.get, 4)), setState32(MXCSR_AT, mxcsr.get));
  eachRegister(c, ACCESS_READ, (image, state) => c.do(v128.store(state, 0, v128.load(image))));
};
