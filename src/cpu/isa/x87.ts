/** Encodings of the x87 instructions (@sdm volume 2, tables ). */
import { fldenv, fnclex, fninit, fnsave, fnstcw, fnstenv, fnstsw, fnstswAx, frstor } from '../semantics/fpu-state.ts'; // prettier-ignore
import { fcmov, fnop, wait, x87Fixed, x87Flags, x87Operand, x87Registers, x87Store } from '../semantics/x87.ts';
import { type EncodingTable, hex } from './rows.ts';

const ARITHMETIC = ['ADD', 'MUL', 'COM', 'COMP', 'SUB', 'SUBR', 'DIV', 'DIVR'] as const;
/** With ST(i) as destination the names of the reversed forms are exchanged. */
const TO_REGISTER = ['ADD', 'MUL', 'COM', 'COMP', 'SUBR', 'SUB', 'DIVR', 'DIV'] as const;

export function x87Encodings({ op }: EncodingTable): void {
  op('9B', 'WAIT', '', wait);
  ARITHMETIC.forEach((name, digit) => {
    op(`D8 /${digit}`, `F${name}`, 'Md', x87Operand(0xd8, digit, 4));
    op(`D8 /${digit}`, `F${name}`, 'Rq', x87Registers(0xd8, digit));
    op(`DA /${digit}`, `FI${name}`, 'Md', x87Operand(0xda, digit, 4));
    op(`DC /${digit}`, `F${name}`, 'Mq', x87Operand(0xdc, digit, 8));
    op(`DE /${digit}`, `FI${name}`, 'Mw', x87Operand(0xde, digit, 2));
  });
  op('DE d9', 'FCOMPP', '', x87Fixed(0xde, 0xd9));
  TO_REGISTER.forEach((name, digit) => {
    op(`DC /${digit}`, `F${name}`, 'Rq', x87Registers(0xdc, digit));
    if (digit !== 2 && digit !== 3) op(`DE /${digit}`, `F${name}P`, 'Rq', x87Registers(0xde, digit));
  });

  op('D9 /0', 'FLD', 'Md', x87Operand(0xd9, 0, 4));
  op('D9 /2', 'FST', 'Md', x87Store(0xd9, 2, 4));
  op('D9 /3', 'FSTP', 'Md', x87Store(0xd9, 3, 4));
  op('D9 /4', 'FLDENV', 'Mv', fldenv);
  op('D9 /5', 'FLDCW', 'Mw', x87Operand(0xd9, 5, 2));
  op('D9 /6', 'FNSTENV', 'Mv', fnstenv);
  op('D9 /7', 'FNSTCW', 'Mw', fnstcw);
  op('D9 /0', 'FLD', 'Rq', x87Registers(0xd9, 0));
  op('D9 /1', 'FXCH', 'Rq', x87Registers(0xd9, 1));
  op('D9 d0', 'FNOP', '', fnop);
  for (const [modrm, name] of [
    [0xe0, 'FCHS'],
    [0xe1, 'FABS'],
    [0xe4, 'FTST'],
    [0xe5, 'FXAM'],
    [0xe8, 'FLD1'],
    [0xe9, 'FLDL2T'],
    [0xea, 'FLDL2E'],
    [0xeb, 'FLDPI'],
    [0xec, 'FLDLG2'],
    [0xed, 'FLDLN2'],
    [0xee, 'FLDZ'],
    [0xf0, 'F2XM1'],
    [0xf1, 'FYL2X'],
    [0xf2, 'FPTAN'],
    [0xf3, 'FPATAN'],
    [0xf4, 'FXTRACT'],
    [0xf5, 'FPREM1'],
    [0xf6, 'FDECSTP'],
    [0xf7, 'FINCSTP'],
    [0xf8, 'FPREM'],
    [0xf9, 'FYL2XP1'],
    [0xfa, 'FSQRT'],
    [0xfb, 'FSINCOS'],
    [0xfc, 'FRNDINT'],
    [0xfd, 'FSCALE'],
    [0xfe, 'FSIN'],
    [0xff, 'FCOS'],
  ] as const) {
    op(`D9 ${hex(modrm)}`, name, '', x87Fixed(0xd9, modrm));
  }

  ['B', 'E', 'BE', 'U'].forEach((name, digit) => {
    // B, Z, BE and P by their numbers, and the negated ones.
    const condition = [2, 4, 6, 10][digit]!;
    op(`DA /${digit}`, `FCMOV${name}`, 'Rq', fcmov(condition));
    op(`DB /${digit}`, `FCMOVN${name}`, 'Rq', fcmov(condition + 1));
  });
  op('DA e9', 'FUCOMPP', '', x87Fixed(0xda, 0xe9));
  op('DB /0', 'FILD', 'Md', x87Operand(0xdb, 0, 4));
  op('DB /1', 'FISTTP', 'Md', x87Store(0xdb, 1, 4));
  op('DB /2', 'FIST', 'Md', x87Store(0xdb, 2, 4));
  op('DB /3', 'FISTP', 'Md', x87Store(0xdb, 3, 4));
  op('DB /5', 'FLD', 'M', x87Operand(0xdb, 5, 10));
  op('DB /7', 'FSTP', 'M', x87Store(0xdb, 7, 10));
  op('DB E2', 'FNCLEX', '', fnclex);
  op('DB E3', 'FNINIT', '', fninit);
  op('DB /5', 'FUCOMI', 'Rq', x87Flags(0xdb, 5));
  op('DB /6', 'FCOMI', 'Rq', x87Flags(0xdb, 6));

  op('DD /0', 'FLD', 'Mq', x87Operand(0xdd, 0, 8));
  op('DD /1', 'FISTTP', 'Mq', x87Store(0xdd, 1, 8));
  op('DD /2', 'FST', 'Mq', x87Store(0xdd, 2, 8));
  op('DD /3', 'FSTP', 'Mq', x87Store(0xdd, 3, 8));
  op('DD /4', 'FRSTOR', 'Mv', frstor);
  op('DD /6', 'FNSAVE', 'Mv', fnsave);
  op('DD /7', 'FNSTSW', 'Mw', fnstsw);
  ['FFREE', 'FXCH', 'FST', 'FSTP', 'FUCOM', 'FUCOMP'].forEach((name, digit) => {
    op(`DD /${digit}`, name, 'Rq', x87Registers(0xdd, digit));
  });

  op('DF /0', 'FILD', 'Mw', x87Operand(0xdf, 0, 2));
  op('DF /1', 'FISTTP', 'Mw', x87Store(0xdf, 1, 2));
  op('DF /2', 'FIST', 'Mw', x87Store(0xdf, 2, 2));
  op('DF /3', 'FISTP', 'Mw', x87Store(0xdf, 3, 2));
  op('DF /4', 'FBLD', 'M', x87Operand(0xdf, 4, 10));
  op('DF /5', 'FILD', 'Mq', x87Operand(0xdf, 5, 8));
  op('DF /6', 'FBSTP', 'M', x87Store(0xdf, 6, 10));
  op('DF /7', 'FISTP', 'Mq', x87Store(0xdf, 7, 8));
  op('DF E0', 'FNSTSW', '', fnstswAx);
  ['FFREEP', 'FXCH', 'FSTP', 'FSTP'].forEach((name, digit) => {
    op(`DF /${digit}`, name, 'Rq', x87Registers(0xdf, digit));
  });
  op('DF /5', 'FUCOMIP', 'Rq', x87Flags(0xdf, 5));
  op('DF /6', 'FCOMIP', 'Rq', x87Flags(0xdf, 6));
}
