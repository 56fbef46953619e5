import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RFLAGS_AF, RFLAGS_CF, RFLAGS_OF, RFLAGS_PF, RFLAGS_SF, RFLAGS_ZF } from '../arch/registers.ts';
import * as A from './alu.ts';

const alu = new A.Alu();
const operands = new BigUint64Array(alu.i32.buffer, 0, 3);
const ALL = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;

/** Status flags that the manuals define for an operation on these operands. */
function definedFlags(op: number, size: number, src: bigint, src2: bigint): number {
  const isDouble = op === A.ALU_SHLD || op === A.ALU_SHRD;
  if (isDouble || (op >= A.ALU_ROL && op <= A.ALU_SAR)) {
    const count = Number((isDouble ? src2 : src) & (size === 8 ? 63n : 31n));
    const rotate = op <= A.ALU_RCR;
    if (count === 0) return ALL;
    if (isDouble && count > size * 8) return 0;
    return (
      ALL & ~(rotate ? 0 : RFLAGS_AF) & ~(count === 1 ? 0 : RFLAGS_OF) & ~(!rotate && count > size * 8 ? RFLAGS_CF : 0)
    );
  }
  if (op === A.ALU_BSF || op === A.ALU_BSR) return RFLAGS_ZF;
  if (op >= A.ALU_BT && op <= A.ALU_BTC) return RFLAGS_CF;
  if (op === A.ALU_MUL || op === A.ALU_IMUL || op === A.ALU_IMUL2) return RFLAGS_CF | RFLAGS_OF;
  if (op === A.ALU_DIV || op === A.ALU_IDIV) return 0;
  return op === A.ALU_AND || op === A.ALU_OR || op === A.ALU_XOR || op === A.ALU_TEST ? ALL & ~RFLAGS_AF : ALL;
}

type Vector = readonly [op: number, size: number, before: string, flags: number, after: string, flagsAfter: number];

test('what a processor answered', () => {
  const vectors = JSON.parse(readFileSync(new URL('./alu-vectors.json', import.meta.url), 'utf8')) as Vector[];
  expect(vectors.length).toBeGreaterThan(1000);
  for (const [op, size, before, flags, after, flagsAfter] of vectors) {
    const [dst, src, src2] = before.split(' ').map((x) => BigInt(`0x${x}`)) as [bigint, bigint, bigint];
    operands.set([dst, src, src2]);
    const result = alu.exec(op, size, flags | 0x202);
    const where = `op ${op} size ${size}: ${before} ${flags}`;
    const mask = (1n << BigInt(size * 8)) - 1n;
    expect(Array.from(operands, (x) => (x & mask).toString(16)).join(' '), where).toBe(after);
    if (flagsAfter === -1) expect(result, where).toBe(-1);
    else expect(result & definedFlags(op, size, src, src2), where).toBe(flagsAfter & definedFlags(op, size, src, src2));
    if (result !== -1) expect(result & ~ALL, where).toBe(0x202);
  }
});

const sizes = [1, 2, 4, 8] as const;
const arbitrary = fc.record({
  size: fc.constantFrom(...sizes),
  a: fc.bigInt(0n, 2n ** 64n - 1n),
  b: fc.bigInt(0n, 2n ** 64n - 1n),
  c: fc.boolean(),
});

/** Flags of an addition or subtraction, from the definition in the manual. */
function reference(subtract: boolean, size: number, a: bigint, b: bigint, carry: bigint): [bigint, number] {
  const bits = BigInt(size * 8);
  const mask = (1n << bits) - 1n;
  const wide = subtract ? a - b - carry : a + b + carry;
  const res = wide & mask;
  const signed = (x: bigint): bigint => BigInt.asIntN(size * 8, x);
  const exact = subtract ? signed(a) - signed(b) - carry : signed(a) + signed(b) + carry;
  const nibble = subtract ? (a & 15n) - (b & 15n) - carry : (a & 15n) + (b & 15n) + carry;
  let ones = 0;
  for (let x = res & 0xffn; x !== 0n; x >>= 1n) ones += Number(x & 1n);
  return [
    res,
    (wide < 0n || wide > mask ? RFLAGS_CF : 0) |
      (ones % 2 === 0 ? RFLAGS_PF : 0) |
      (nibble < 0n || nibble > 15n ? RFLAGS_AF : 0) |
      (res === 0n ? RFLAGS_ZF : 0) |
      (res >> (bits - 1n) === 1n ? RFLAGS_SF : 0) |
      (exact !== signed(res) ? RFLAGS_OF : 0),
  ];
}

test.each([
  ['ADD', A.ALU_ADD, false, false],
  ['ADC', A.ALU_ADC, false, true],
  ['SUB', A.ALU_SUB, true, false],
  ['SBB', A.ALU_SBB, true, true],
] as const)('%s follows its definition', (_name, op, subtract, withCarry) => {
  fc.assert(
    fc.property(arbitrary, ({ size, a, b, c }) => {
      const mask = (1n << BigInt(size * 8)) - 1n;
      const [x, y] = [a & mask, b & mask];
      operands.set([x, y, 0n]);
      const flags = alu.exec(op, size, c ? RFLAGS_CF : 0);
      const [res, expected] = reference(subtract, size, x, y, c && withCarry ? 1n : 0n);
      expect([operands[0], flags]).toEqual([res, expected]);
    }),
    { numRuns: 1500 },
  );
});

test('128-bit division follows its definition', () => {
  fc.assert(
    fc.property(
      fc.bigInt(0n, 2n ** 64n - 1n),
      fc.bigInt(0n, 2n ** 64n - 1n),
      fc.bigInt(0n, 2n ** 64n - 1n),
      fc.boolean(),
      (lo, hi, d, near) => {
        const high = near && d !== 0n ? hi % d : hi;
        operands.set([lo, d, high]);
        const fits = d !== 0n && high < d;
        const result = alu.exec(A.ALU_DIV, 8, 0);
        const all = (high << 64n) | lo;
        expect([result, operands[0], operands[2]]).toEqual(fits ? [0, all / d, all % d] : [-1, lo, high]);

        const [sa, sd] = [
          BigInt.asIntN(128, (near ? (lo >> 63n === 1n ? 2n ** 64n - 1n : 0n) : high) << 64n) | lo,
          BigInt.asIntN(64, d),
        ];
        operands.set([lo, d, BigInt.asUintN(64, sa >> 64n)]);
        const signedResult = alu.exec(A.ALU_IDIV, 8, 0);
        const q = sd === 0n ? 2n ** 64n : sa / sd;
        if (q !== BigInt.asIntN(64, q)) expect(signedResult).toBe(-1);
        else expect([operands[0], operands[2]]).toEqual([BigInt.asUintN(64, q), BigInt.asUintN(64, sa % sd)]);
      },
    ),
    { numRuns: 1500 },
  );
});

test('results are zero-extended and operands survive #DE', () => {
  operands.set([0x1122334455667788n, 0n, 5n]);
  expect(alu.exec(A.ALU_DIV, 4, 0x202)).toBe(-1);
  expect(Array.from(operands)).toEqual([0x1122334455667788n, 0n, 5n]);
  operands[1] = 1n;
  expect(alu.exec(A.ALU_ADD, 2, 0x202) & 0x202).toBe(0x202);
  expect(operands[0]).toBe(0x7789n);
});
