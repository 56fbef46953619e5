/** AVX's memory operands with a mask: VMASKMOV, VPMASKMOV and the gathers. What the mask leaves out is not touched and cannot fault. */
import { ACCESS_READ, ACCESS_WRITE, VECTOR_STAGE } from '../state.ts';
import { type I32, type I64, i32, i64, v128 } from '../wasm/code.ts';
import type { Local64 } from '../wasm/function.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { clearUpper, requireAvx, writeStage } from './vex.ts';

const ZERO = i32.const(0);

/** `inside` with the byte offset of each of the elements of `bytes` in `width` whose top bit is set in register operand `mask`. */
function eachSelected(
  c: MachineContext,
  mask: number,
  bytes: number,
  width: number,
  inside: (at: Local64) => void,
): void {
  const { f } = c;
  const at = f.i64(i64.const(0));
  f.loop((again) => {
    const top = i32.load8U(i32.add(c.vector(mask), i32.wrap(at.get)), bytes - 1);
    f.if(i32.geU(top, i32.const(0x80)), () => inside(at));
    f.brIf(again, i64.ltU(at.tee(i64.add(at.get, i64.const(bytes))), i64.const(width)));
  });
}
const move = (bytes: 4 | 8, to: I32, offset: number, from: I32) =>
  bytes === 4 ? i32.store(to, offset, i32.load(from)) : i64.store(to, offset, i64.load(from));

/** Elements that are not selected become zero. */
export const maskedLoad =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireAvx(c);
    const width = c.vectorBytes(0);
    for (const at of [0, 16]) c.do(v128.store(ZERO, VECTOR_STAGE + at, v128.zero()));
    eachSelected(c, 1, bytes, width, (at) => {
      const from = c.pointer(bytes, ACCESS_READ, at.get);
      c.do(move(bytes, i32.wrap(at.get), VECTOR_STAGE, from.get));
    });
    writeStage(c, 0, width);
  };
/** All of the selected elements are reached for writing before the first is written. */
export const maskedStore =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireAvx(c);
    const width = c.vectorBytes(2);
    eachSelected(c, 1, bytes, width, (at) => {
      c.pointer(1, ACCESS_WRITE, at.get);
      c.pointer(1, ACCESS_WRITE, i64.add(at.get, i64.const(bytes - 1)));
    });
    eachSelected(c, 1, bytes, width, (at) => {
      const to = c.pointer(bytes, ACCESS_WRITE, at.get);
      c.do(move(bytes, to.get, 0, i32.add(c.vector(2), i32.wrap(at.get))));
      c.finish();
    });
  };

/**
 * Gathers of elements of `bytes` by indexes of `indexBytes`. An element that is there leaves the mask, so that a fault in a later one
 * is taken with what was done kept, and the instruction goes on from there.
 */
export const gather =
  (bytes: 4 | 8, indexBytes: 4 | 8): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireAvx(c);
    const count = Math.min(c.vectorBytes(0) / bytes, c.vectorBytes(3) / indexBytes);
    const width = count * bytes;
    const element = f.i64();
    const scaled = (at: I64): I64 => {
      const number = i64.shrU(at, i64.const(bytes === 4 ? 2 : 3));
      const address = i32.add(c.vector(3), i32.wrap(i64.mul(number, i64.const(indexBytes))));
      return i64.shl(indexBytes === 4 ? i64.load32S(address) : i64.load(address), c.scale());
    };
    // As on processors, a fault finds a mask of whole elements, and above the vector what VEX leaves there: zero.
    const vector = Math.max(c.vectorBytes(0), c.vectorBytes(3));
    for (let at = 0; at < 32; at += 16) {
      const extend = v128.shift(bytes === 4 ? 172 : 204);
      const value = at < vector ? extend(v128.load(c.vector(2), at), i32.const(bytes * 8 - 1)) : v128.zero();
      c.do(v128.store(c.vector(2), at, value));
    }
    const n = f.i64(i64.const(0));
    f.loop((again) => {
      const place = (operand: number): I32 => i32.add(c.vector(operand), i32.wrap(n.get));
      f.if(i32.geU(i32.load8U(place(2), bytes - 1), i32.const(0x80)), () => {
        f.do(element.set(scaled(n.get)));
        const from = c.pointer(bytes, ACCESS_READ, element.get);
        c.do(move(bytes, place(0), 0, from.get));
        if (vector === 16) clearUpper(c, 0);
      });
      c.do(bytes === 4 ? i32.store(place(2), 0, ZERO) : i64.store(place(2), 0, i64.const(0)));
      f.brIf(again, i64.ltU(n.tee(i64.add(n.get, i64.const(bytes))), i64.const(width)));
    });
    for (const operand of [0, 2]) {
      for (let at = width; at < 32; at += 8) c.do(i64.store(c.vector(operand), at, i64.const(0)));
    }
  };
