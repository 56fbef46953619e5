/** Encodings of the integer instructions, in the order of their opcodes. */
import {
  adc,
  adcx,
  add,
  adox,
  and,
  cmp,
  dec,
  inc,
  neg,
  not,
  or,
  sbb,
  sub,
  test,
  xadd,
  xor,
} from '../semantics/arithmetic.ts';
import { aaa, aad, aam, aas, daa, das, salc } from '../semantics/bcd.ts';
import {
  andn,
  bextr,
  blsi,
  blsmsk,
  blsr,
  bsf,
  bsr,
  bswap,
  bt,
  btc,
  btr,
  bts,
  bzhi,
  clc,
  cmc,
  crc32,
  lzcnt,
  movbe,
  pdep,
  pext,
  popcnt,
  stc,
  tzcnt,
} from '../semantics/bits.ts'; // prettier-ignore
import { callIndirect, callRelative, jcc, jcxz, jmpIndirect, jmpRelative, loop, ret } from '../semantics/control.ts';
import type { MachineEmitter } from '../semantics/machine-context.ts';
import {
  bound,
  cld,
  cmovcc,
  cmpxchg,
  cmpxchgPair,
  lahf,
  lea,
  mov,
  movzx,
  nop,
  sahf,
  setcc,
  std,
  xchg,
  xlat,
} from '../semantics/moves.ts'; // prettier-ignore
import { div, extendAccumulator, idiv, imul, imul2, imul3, mul, mulx, signIntoDx } from '../semantics/multiply.ts';
import { rcl, rcr, rol, ror, rorx, sar, sarx, shl, shld, shlx, shr, shrd, shrx } from '../semantics/shifts.ts';
import { enter, leave, pop, popa, push, pusha } from '../semantics/stack.ts';
import { vexInteger } from '../semantics/vex.ts';
import type { Feature } from './features.ts';
import { CONDITIONS, type EncodingTable, hex } from './rows.ts';

type Pair = readonly [string, MachineEmitter];
const arithmetic: readonly Pair[] = [
  ['ADD', add],
  ['OR', or],
  ['ADC', adc],
  ['SBB', sbb],
  ['AND', and],
  ['SUB', sub],
  ['XOR', xor],
  ['CMP', cmp],
]; // prettier-ignore
const shifts: readonly Pair[] = [
  ['ROL', rol],
  ['ROR', ror],
  ['RCL', rcl],
  ['RCR', rcr],
  ['SHL', shl],
  ['SHR', shr],
  ['SHL', shl],
  ['SAR', sar],
]; // prettier-ignore

export function integerEncodings(table: EncodingTable): void {
  const { op, string } = table;
  table.feature = 'base';
  /** A row of an extension. */
  const of = (feature: Feature, text: string, mnemonic: string, operands: string, emit: MachineEmitter): void => {
    table.feature = feature;
    op(text, mnemonic, operands, text.startsWith('VEX') ? vexInteger(emit) : emit, operands === 'Gd,Ev' ? 'v' : '');
    table.feature = 'base';
  };
  arithmetic.forEach(([name, emit], i) => {
    const lock = emit === cmp ? '' : 'lock';
    op(`${hex(i * 8)} /r`, name, 'Eb,Gb', emit, lock);
    op(`${hex(i * 8 + 1)} /r`, name, 'Ev,Gv', emit, lock);
    op(`${hex(i * 8 + 2)} /r`, name, 'Gb,Eb', emit);
    op(`${hex(i * 8 + 3)} /r`, name, 'Gv,Ev', emit);
    op(`${hex(i * 8 + 4)}`, name, 'AL,Ib', emit);
    op(`${hex(i * 8 + 5)}`, name, 'rAX,Iz', emit);
    op(`80 /${i}`, name, 'Eb,Ib', emit, lock);
    op(`81 /${i}`, name, 'Ev,Iz', emit, lock);
    op(`82 /${i}`, name, 'Eb,Ib', emit, `${lock} i64`.trim());
    op(`83 /${i}`, name, 'Ev,Ib', emit, lock);
  });
  op('27', 'DAA', '', daa, 'b i64');
  op('2F', 'DAS', '', das, 'b i64');
  op('37', 'AAA', '', aaa, 'b i64');
  op('3F', 'AAS', '', aas, 'b i64');
  op('40+r', 'INC', 'Zv', inc, 'i64');
  op('48+r', 'DEC', 'Zv', dec, 'i64');
  op('50+r', 'PUSH', 'Zv', push, 'd64 mode');
  op('58+r', 'POP', 'Zv', pop, 'd64 mode');
  op('60', 'PUSHA', '', pusha, 'i64 v mode');
  op('61', 'POPA', '', popa, 'i64 v mode');
  op('62 /r', 'BOUND', 'Gv,Mv', bound, 'i64');
  op('63 /r', 'MOVSXD', 'Gv,Ed', mov, 'o64');
  op('68', 'PUSH', 'Iz', push, 'd64 mode');
  op('69 /r', 'IMUL', 'Gv,Ev,Iz', imul3);
  op('6A', 'PUSH', 'Ib', push, 'd64 mode v');
  op('6B /r', 'IMUL', 'Gv,Ev,Ib', imul3);
  CONDITIONS.forEach((name, cc) => {
    op(hex(0x70 + cc), `J${name}`, 'Jb', jcc(cc), 'f64 mode v');
    op(`0F ${hex(0x80 + cc)}`, `J${name}`, 'Jz', jcc(cc), 'f64 mode');
    op(`0F ${hex(0x40 + cc)} /r`, `CMOV${name}`, 'Gv,Ev', cmovcc(cc));
    op(`0F ${hex(0x90 + cc)} /r`, `SET${name}`, 'Eb', setcc(cc));
  });
  op('84 /r', 'TEST', 'Eb,Gb', test);
  op('85 /r', 'TEST', 'Ev,Gv', test);
  op('86 /r', 'XCHG', 'Eb,Gb', xchg, 'lock');
  op('87 /r', 'XCHG', 'Ev,Gv', xchg, 'lock');
  op('88 /r', 'MOV', 'Eb,Gb', mov);
  op('89 /r', 'MOV', 'Ev,Gv', mov);
  op('8A /r', 'MOV', 'Gb,Eb', mov);
  op('8B /r', 'MOV', 'Gv,Ev', mov);
  op('8D /r', 'LEA', 'Gv,Mv', lea);
  op('8F /0', 'POP', 'Ev', pop, 'd64 mode');
  op('90', 'NOP', '', nop, 'norexb');
  op('90+r', 'XCHG', 'Zv,rAX', xchg);
  op('98', 'CBW', '', extendAccumulator, 'v');
  op('99', 'CWD', '', signIntoDx, 'v');
  op('9E', 'SAHF', '', sahf, 'b');
  op('9F', 'LAHF', '', lahf, 'b');
  op('A0', 'MOV', 'AL,Ob', mov);
  op('A1', 'MOV', 'rAX,Ov', mov);
  op('A2', 'MOV', 'Ob,AL', mov);
  op('A3', 'MOV', 'Ov,rAX', mov);
  op('A8', 'TEST', 'AL,Ib', test);
  op('A9', 'TEST', 'rAX,Iz', test);
  for (const [opcode, name] of [
    [0xa4, 'movs'],
    [0xa6, 'cmps'],
    [0xaa, 'stos'],
    [0xac, 'lods'],
    [0xae, 'scas'],
  ] as const) {
    // prettier-ignore
    string(hex(opcode), name.toUpperCase(), name, 'b');
    string(hex(opcode + 1), name.toUpperCase(), name, 'v');
  }
  op('B0+r', 'MOV', 'Zb,Ib', mov);
  op('B8+r', 'MOV', 'Zv,Iv', mov);
  shifts.forEach(([name, emit], i) => {
    op(`C0 /${i}`, name, 'Eb,Ib+', emit);
    op(`C1 /${i}`, name, 'Ev,Ib+', emit);
    op(`D0 /${i}`, name, 'Eb,1', emit);
    op(`D1 /${i}`, name, 'Ev,1', emit);
    op(`D2 /${i}`, name, 'Eb,CL', emit);
    op(`D3 /${i}`, name, 'Ev,CL', emit);
  });
  op('C2', 'RET', 'Iw+', ret, 'f64 mode v');
  op('C3', 'RET', '', ret, 'f64 mode v');
  op('C6 /0', 'MOV', 'Eb,Ib', mov);
  op('C7 /0', 'MOV', 'Ev,Iz', mov);
  op('C8', 'ENTER', 'Iw+,Ib+', enter, 'd64 mode v');
  op('C9', 'LEAVE', '', leave, 'd64 mode v');
  op('D4', 'AAM', 'Ib+', aam, 'b i64');
  op('D5', 'AAD', 'Ib+', aad, 'b i64');
  op('D6', 'SALC', '', salc, 'b i64');
  op('D7', 'XLATB', '', xlat, 'b xlat');
  op('E0', 'LOOPNE', 'Jb', loop(5), 'f64 mode v');
  op('E1', 'LOOPE', 'Jb', loop(4), 'f64 mode v');
  op('E2', 'LOOP', 'Jb', loop(), 'f64 mode v');
  op('E3', 'JRCXZ', 'Jb', jcxz, 'f64 mode v');
  op('E8', 'CALL', 'Jz', callRelative, 'f64 mode');
  op('E9', 'JMP', 'Jz', jmpRelative, 'f64 mode');
  op('EB', 'JMP', 'Jb', jmpRelative, 'f64 mode v');
  op('F5', 'CMC', '', cmc);
  for (const [i, suffix] of [
    [0, 'b'],
    [1, 'v'],
  ] as const) {
    // prettier-ignore
    const opcode = hex(0xf6 + i);
    op(`${opcode} /0`, 'TEST', `E${suffix},I${i === 0 ? 'b' : 'z'}`, test);
    op(`${opcode} /1`, 'TEST', `E${suffix},I${i === 0 ? 'b' : 'z'}`, test);
    op(`${opcode} /2`, 'NOT', `E${suffix}`, not, 'lock');
    op(`${opcode} /3`, 'NEG', `E${suffix}`, neg, 'lock');
    op(`${opcode} /4`, 'MUL', `E${suffix}`, mul);
    op(`${opcode} /5`, 'IMUL', `E${suffix}`, imul);
    op(`${opcode} /6`, 'DIV', `E${suffix}`, div);
    op(`${opcode} /7`, 'IDIV', `E${suffix}`, idiv);
    op(`${hex(0xfe + i)} /0`, 'INC', `E${suffix}`, inc, 'lock');
    op(`${hex(0xfe + i)} /1`, 'DEC', `E${suffix}`, dec, 'lock');
  }
  op('F8', 'CLC', '', clc);
  op('F9', 'STC', '', stc);
  op('FC', 'CLD', '', cld);
  op('FD', 'STD', '', std);
  op('FF /2', 'CALL', 'Ev', callIndirect, 'f64 mode');
  op('FF /4', 'JMP', 'Ev', jmpIndirect, 'f64 mode');
  op('FF /6', 'PUSH', 'Ev', push, 'd64 mode');

  // Two-byte opcodes.
  op('0F 0D /r', 'PREFETCHW', 'Mb', nop);
  for (let i = 0x18; i <= 0x1f; i++) op(`0F ${hex(i)} /r`, 'NOP', 'Ev', nop);
  for (const [opcode, name, emit, lock] of [
    [0xa3, 'BT', bt, ''],
    [0xab, 'BTS', bts, 'lock'],
    [0xb3, 'BTR', btr, 'lock'],
    [0xbb, 'BTC', btc, 'lock'],
  ] as const) {
    // prettier-ignore
    op(`0F ${hex(opcode)} /r`, name, 'Ev,Gv', emit, `${lock} bits`.trim());
    op(`0F BA /${4 + ((opcode - 0xa3) >> 3)}`, name, 'Ev,Ib+', emit, lock);
  }
  op('0F A4 /r', 'SHLD', 'Ev,Gv,Ib+', shld);
  op('0F A5 /r', 'SHLD', 'Ev,Gv,CL', shld);
  op('0F AC /r', 'SHRD', 'Ev,Gv,Ib+', shrd);
  op('0F AD /r', 'SHRD', 'Ev,Gv,CL', shrd);
  op('0F AF /r', 'IMUL', 'Gv,Ev', imul2);
  op('0F B0 /r', 'CMPXCHG', 'Eb,Gb', cmpxchg, 'lock');
  op('0F B1 /r', 'CMPXCHG', 'Ev,Gv', cmpxchg, 'lock');
  op('0F B6 /r', 'MOVZX', 'Gv,Eb', movzx);
  op('0F B7 /r', 'MOVZX', 'Gv,Ew', movzx);
  of('POPCNT', 'F3 0F B8 /r', 'POPCNT', 'Gv,Ev', popcnt);
  of('BMI1', 'F3 0F BC /r', 'TZCNT', 'Gv,Ev', tzcnt);
  op('0F BC /r', 'BSF', 'Gv,Ev', bsf);
  of('LZCNT', 'F3 0F BD /r', 'LZCNT', 'Gv,Ev', lzcnt);
  op('0F BD /r', 'BSR', 'Gv,Ev', bsr);
  op('0F BE /r', 'MOVSX', 'Gv,Eb', mov);
  op('0F BF /r', 'MOVSX', 'Gv,Ew', mov);
  op('0F C0 /r', 'XADD', 'Eb,Gb', xadd, 'lock');
  op('0F C1 /r', 'XADD', 'Ev,Gv', xadd, 'lock');
  op('NP 0F C3 /r', 'MOVNTI', 'My,Gy', mov);
  op('0F C7 /1', 'CMPXCHG8B', 'Mv', cmpxchgPair, 'lock');
  op('0F C8+r', 'BSWAP', 'Zv', bswap);
  op('NP 0F AE E8', 'LFENCE', '', nop, 'fence');
  op('NP 0F AE F0', 'MFENCE', '', nop, 'fence');
  op('NP 0F AE F8', 'SFENCE', '', nop, 'fence');

  // Three-byte opcodes and VEX.
  of('SSE4.2', 'F2 0F 38 F0 /r', 'CRC32', 'Gy,Eb', crc32);
  of('SSE4.2', 'F2 0F 38 F1 /r', 'CRC32', 'Gd,Ev', crc32);
  of('MOVBE', 'NR 0F 38 F0 /r', 'MOVBE', 'Gv,Mv', movbe);
  of('MOVBE', 'NR 0F 38 F1 /r', 'MOVBE', 'Mv,Gv', movbe);
  of('ADX', '66 0F 38 F6 /r', 'ADCX', 'Gy,Ey', adcx);
  of('ADX', 'F3 0F 38 F6 /r', 'ADOX', 'Gy,Ey', adox);
  of('BMI1', 'VEX.NP.0F38 F2 /r', 'ANDN', 'Gy,By,Ey', andn);
  of('BMI1', 'VEX.NP.0F38 F3 /1', 'BLSR', 'By,Ey', blsr);
  of('BMI1', 'VEX.NP.0F38 F3 /2', 'BLSMSK', 'By,Ey', blsmsk);
  of('BMI1', 'VEX.NP.0F38 F3 /3', 'BLSI', 'By,Ey', blsi);
  of('BMI2', 'VEX.NP.0F38 F5 /r', 'BZHI', 'Gy,Ey,By', bzhi);
  of('BMI2', 'VEX.F3.0F38 F5 /r', 'PEXT', 'Gy,By,Ey', pext);
  of('BMI2', 'VEX.F2.0F38 F5 /r', 'PDEP', 'Gy,By,Ey', pdep);
  of('BMI2', 'VEX.F2.0F38 F6 /r', 'MULX', 'Gy,By,Ey', mulx);
  of('BMI1', 'VEX.NP.0F38 F7 /r', 'BEXTR', 'Gy,Ey,By', bextr);
  of('BMI2', 'VEX.66.0F38 F7 /r', 'SHLX', 'Gy,Ey,By', shlx);
  of('BMI2', 'VEX.F3.0F38 F7 /r', 'SARX', 'Gy,Ey,By', sarx);
  of('BMI2', 'VEX.F2.0F38 F7 /r', 'SHRX', 'Gy,Ey,By', shrx);
  of('BMI2', 'VEX.F2.0F3A F0 /r', 'RORX', 'Gy,Ey,Ib+', rorx);
}
