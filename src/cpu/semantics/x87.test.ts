import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RBX } from '../../arch/registers.ts';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import { FPU_CW_AT, FPU_SW_AT, FPU_TAG_AT, STATUS_BUDGET } from '../state.ts';

const CODE = 0x10000;
const DATA = 0x20000;
const machine = new FlatMachine();

/** Runs `code` with RBX at `data`, and answers the 16 bytes behind it. */
function run(code: number[], data: Uint8Array): DataView {
  machine.load(CODE, code);
  machine.load(DATA, data);
  machine.setRegister(RBX, DATA);
  machine.rip = CODE;
  expect(machine.run(2)).toBe(STATUS_BUDGET);
  return new DataView(machine.bytes(DATA + 16, 16).buffer);
}
const bytesOf = (set: (view: DataView) => void): Uint8Array => {
  const bytes = new Uint8Array(16);
  set(new DataView(bytes.buffer));
  return bytes;
};

test('a double loaded and stored is rounded as Math.fround rounds it, or kept', () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true }), (x) => {
      const data = bytesOf((v) => v.setFloat64(0, x, true));
      // fld qword [rbx]; fstp dword [rbx+16], then the same with fstp qword.
      expect(run([0xdd, 0x03, 0xd9, 0x5b, 16], data).getFloat32(0, true)).toBe(Math.fround(x));
      expect(run([0xdd, 0x03, 0xdd, 0x5b, 16], data).getFloat64(0, true)).toBe(x);
    }),
    { numRuns: 1000 },
  );
});

test('a float widens exactly', () => {
  fc.assert(
    fc.property(fc.float({ noNaN: true }), (x) => {
      const data = bytesOf((v) => v.setFloat32(0, x, true));
      expect(run([0xd9, 0x03, 0xdd, 0x5b, 16], data).getFloat64(0, true)).toBe(x);
    }),
  );
});

test('an integer loaded is rounded as a conversion to double rounds it', () => {
  fc.assert(
    fc.property(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), (x) => {
      const data = bytesOf((v) => v.setBigInt64(0, x, true));
      expect(run([0xdf, 0x2b, 0xdd, 0x5b, 16], data).getFloat64(0, true)).toBe(Number(x));
    }),
  );
});

test('loads and stores move the top and mark registers in use', () => {
  const { i32 } = machine.memory;
  machine.load(CODE, [0xdb, 0xe3, 0xd9, 0xee, 0xd9, 0xe8, 0xd9, 0x1b]); // fninit; fldz; fld1; fstp dword [rbx]
  machine.rip = CODE;
  machine.run(3);
  expect([(i32[FPU_SW_AT >> 2]! >> 11) & 7, i32[FPU_TAG_AT >> 2]]).toEqual([6, 0xc0]);
  machine.run(1);
  expect([(i32[FPU_SW_AT >> 2]! >> 11) & 7, i32[FPU_TAG_AT >> 2]]).toEqual([7, 0x80]);
  expect([...machine.bytes(DATA, 4)]).toEqual([0, 0, 0x80, 0x3f]);
});

test('a double stored as an integer is rounded as the control word says', () => {
  fc.assert(
    fc.property(fc.double({ min: -70000, max: 70000, noNaN: true }), fc.constantFrom(0, 1, 2, 3), (x, rounding) => {
      machine.memory.i32[FPU_CW_AT >> 2] = 0x37f | (rounding << 10);
      const data = bytesOf((v) => v.setFloat64(0, x, true));
      const nearest = Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
      const want = [nearest, Math.floor(x), Math.ceil(x), Math.trunc(x)][rounding]! + 0;
      // fld qword [rbx]; fistp qword [rbx+16], then the same with dword and word.
      expect(Number(run([0xdd, 0x03, 0xdf, 0x7b, 16], data).getBigInt64(0, true))).toBe(want);
      expect(run([0xdd, 0x03, 0xdb, 0x5b, 16], data).getInt32(0, true)).toBe(want);
      const fits = want >= -32768 && want <= 32767;
      expect(run([0xdd, 0x03, 0xdf, 0x5b, 16], data).getInt16(0, true)).toBe(fits ? want : -32768);
    }),
    { numRuns: 1000 },
  );
  expect(
    run(
      [0xdd, 0x03, 0xdf, 0x7b, 16],
      bytesOf((v) => v.setFloat64(0, -(2 ** 63), true)),
    ).getBigInt64(0, true),
  ).toBe(-(2n ** 63n));
});

test('FNSAVE and FRSTOR carry the registers, the top and the tags in both operand sizes', () => {
  const { i32 } = machine.memory;
  for (const prefix of [[], [0x66]]) {
    // fninit; fld1; fldpi; fldz; fnsave [rbx]; frstor [rbx]; fstp st0; faddp; fstp dword [rbx]
    const code = [0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xeb, 0xd9, 0xee, ...prefix, 0xdd, 0x33];
    machine.load(CODE, [...code, ...prefix, 0xdd, 0x23, 0xdd, 0xd8, 0xde, 0xc1, 0xd9, 0x1b]);
    machine.setRegister(RBX, DATA + 0xfe0);
    machine.rip = CODE;
    machine.run(5);
    expect([i32[FPU_SW_AT >> 2], i32[FPU_TAG_AT >> 2]]).toEqual([0, 0]);
    machine.run(1);
    expect([(i32[FPU_SW_AT >> 2]! >> 11) & 7, i32[FPU_TAG_AT >> 2]]).toEqual([5, 0xe0]);
    machine.run(3);
    expect(new DataView(machine.bytes(DATA + 0xfe0, 4).buffer).getFloat32(0, true)).toBe(Math.fround(Math.PI + 1));
  }
});

test('FNSTENV stores two bits a register and masks all exceptions; FLDENV brings an unmasked one back, which WAIT reports', () => {
  const { i32 } = machine.memory;
  // fninit; fldz; fld1; fnstenv [rbx]; fldenv [rbx+32]; wait
  machine.load(CODE, [0xdb, 0xe3, 0xd9, 0xee, 0xd9, 0xe8, 0xd9, 0x33, 0xd9, 0x63, 32, 0x9b]);
  machine.load(DATA + 32, [0x7b, 0x03, 0, 0, 0x04, 0, 0, 0, 0xff, 0xff, 0, 0]);
  machine.setRegister(RBX, DATA);
  machine.rip = CODE;
  machine.run(4);
  expect(new DataView(machine.bytes(DATA, 12).buffer).getUint16(8, true)).toBe(0x4fff);
  machine.run(1);
  expect(i32[FPU_SW_AT >> 2]).toBe(0x8084);
  machine.run(1);
  expect(machine.faultVector).toBe(16);
});
