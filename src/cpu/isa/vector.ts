/** Encodings of the MMX, SSE and state-management instructions. */
import * as F from '../semantics/floating.ts';
import { emms, fxrstor, fxsave, ldmxcsr, stmxcsr } from '../semantics/fpu-state.ts';
import type { MachineEmitter } from '../semantics/machine-context.ts';
import * as V from '../semantics/vector.ts';
import { type EncodingTable, hex } from './rows.ts';

export function vectorEncodings({ op }: EncodingTable): void {
  /** An MMX instruction and its SSE2 form. */
  const both = (opcode: number, name: string, emit: MachineEmitter): void => {
    op(`NP 0F ${hex(opcode)} /r`, name, 'Pq,Qq', emit);
    op(`66 0F ${hex(opcode)} /r`, name, 'Vx,Wx', emit);
  };
  const each = (from: number, suffixes: readonly string[], name: string, emitters: readonly MachineEmitter[]): void => {
    suffixes.forEach((suffix, i) => {
      both(from + i, `${name}${suffix}`, emitters[i]!);
    });
  };
  /** A PS instruction and its PD form. */
  const packed = (opcode: number, name: string, operands: string, ps: MachineEmitter, pd = ps): void => {
    op(`NP 0F ${hex(opcode)} /r`, `${name}PS`, operands, ps);
    op(`66 0F ${hex(opcode)} /r`, `${name}PD`, operands, pd);
  };

  packed(0x10, 'MOVU', 'Vx,Wx', V.moveVector(false));
  packed(0x11, 'MOVU', 'Wx,Vx', V.moveVector(false));
  op('F3 0F 10 /r', 'MOVSS', 'Vx,Wd', V.moveScalar(4));
  op('F3 0F 11 /r', 'MOVSS', 'Wd,Vx', V.moveScalar(4));
  op('F2 0F 10 /r', 'MOVSD', 'Vx,Wq', V.moveScalar(8));
  op('F2 0F 11 /r', 'MOVSD', 'Wq,Vx', V.moveScalar(8));
  op('NP 0F 12 /r', 'MOVHLPS', 'Vx,Ux', V.moveHalf(0, 8));
  op('NP 0F 16 /r', 'MOVLHPS', 'Vx,Ux', V.moveHalf(8, 0));
  packed(0x12, 'MOVL', 'Vx,Mq', V.moveHalf(0, 0));
  packed(0x13, 'MOVL', 'Mq,Vx', V.moveHalf(0, 0));
  packed(0x16, 'MOVH', 'Vx,Mq', V.moveHalf(8, 8));
  packed(0x17, 'MOVH', 'Mq,Vx', V.moveHalf(8, 8));
  op('NP 0F 14 /r', 'UNPCKLPS', 'Vx,Wx', V.punpckl[2]);
  op('66 0F 14 /r', 'UNPCKLPD', 'Vx,Wx', V.punpckl[3]);
  op('NP 0F 15 /r', 'UNPCKHPS', 'Vx,Wx', V.punpckh[2]);
  op('66 0F 15 /r', 'UNPCKHPD', 'Vx,Wx', V.punpckh[3]);
  packed(0x28, 'MOVA', 'Vx,Wx', V.moveVector(true));
  packed(0x29, 'MOVA', 'Wx,Vx', V.moveVector(true));
  packed(0x2b, 'MOVNT', 'Mx,Vx', V.moveVector(true));
  op('NP 0F 50 /r', 'MOVMSKPS', 'Gy,Ux', V.movmsk(4));
  op('66 0F 50 /r', 'MOVMSKPD', 'Gy,Ux', V.movmsk(8));
  packed(0x54, 'AND', 'Vx,Wx', V.pand);
  packed(0x55, 'ANDN', 'Vx,Wx', V.pandn);
  packed(0x56, 'OR', 'Vx,Wx', V.por);
  packed(0x57, 'XOR', 'Vx,Wx', V.pxor);
  each(0x60, ['BW', 'WD', 'DQ'], 'PUNPCKL', V.punpckl);
  each(0x68, ['BW', 'WD', 'DQ'], 'PUNPCKH', V.punpckh);
  op('66 0F 6C /r', 'PUNPCKLQDQ', 'Vx,Wx', V.punpckl[3]);
  op('66 0F 6D /r', 'PUNPCKHQDQ', 'Vx,Wx', V.punpckh[3]);
  both(0x63, 'PACKSSWB', V.packsswb);
  both(0x67, 'PACKUSWB', V.packuswb);
  both(0x6b, 'PACKSSDW', V.packssdw);
  each(0x64, ['B', 'W', 'D'], 'PCMPGT', V.pcmpgt);
  each(0x74, ['B', 'W', 'D'], 'PCMPEQ', V.pcmpeq);
  op('NP 0F 6E /r', 'MOVD', 'Pq,Ey', V.moveFromGeneral);
  op('66 0F 6E /r', 'MOVD', 'Vx,Ey', V.moveFromGeneral);
  op('NP 0F 7E /r', 'MOVD', 'Ey,Pq', V.moveToGeneral);
  op('66 0F 7E /r', 'MOVD', 'Ey,Vx', V.moveToGeneral);
  op('F3 0F 7E /r', 'MOVQ', 'Vx,Wq', V.moveQuad);
  op('66 0F D6 /r', 'MOVQ', 'Wq,Vx', V.moveQuad);
  op('NP 0F 6F /r', 'MOVQ', 'Pq,Qq', V.moveVector(false));
  op('NP 0F 7F /r', 'MOVQ', 'Qq,Pq', V.moveVector(false));
  op('66 0F 6F /r', 'MOVDQA', 'Vx,Wx', V.moveVector(true));
  op('66 0F 7F /r', 'MOVDQA', 'Wx,Vx', V.moveVector(true));
  op('F3 0F 6F /r', 'MOVDQU', 'Vx,Wx', V.moveVector(false));
  op('F3 0F 7F /r', 'MOVDQU', 'Wx,Vx', V.moveVector(false));
  op('F2 0F F0 /r', 'LDDQU', 'Vx,Mx', V.moveVector(false));
  op('NP 0F E7 /r', 'MOVNTQ', 'Mq,Pq', V.moveVector(true));
  op('66 0F E7 /r', 'MOVNTDQ', 'Mx,Vx', V.moveVector(true));
  op('F3 0F D6 /r', 'MOVQ2DQ', 'Vx,Nq', V.moveAcross);
  op('F2 0F D6 /r', 'MOVDQ2Q', 'Pq,Ux', V.moveAcross);
  op('NP 0F 70 /r', 'PSHUFW', 'Pq,Qq,Ib+', V.pshufw);
  op('66 0F 70 /r', 'PSHUFD', 'Vx,Wx,Ib+', V.pshufd);
  op('F3 0F 70 /r', 'PSHUFHW', 'Vx,Wx,Ib+', V.pshufhw);
  op('F2 0F 70 /r', 'PSHUFLW', 'Vx,Wx,Ib+', V.pshuflw);
  const [right, arithmetic, left] = [V.psrl(true), V.psra(true), V.psll(true)];
  ['W', 'D', 'Q'].forEach((suffix, i) => {
    for (const [prefix, operands] of [
      ['NP', 'Nq,Ib+'],
      ['66', 'Ux,Ib+'],
    ] as const) {
      // prettier-ignore
      op(`${prefix} 0F ${hex(0x71 + i)} /2`, `PSRL${suffix}`, operands, right[i]!);
      if (i < 2) op(`${prefix} 0F ${hex(0x71 + i)} /4`, `PSRA${suffix}`, operands, arithmetic[i]!);
      op(`${prefix} 0F ${hex(0x71 + i)} /6`, `PSLL${suffix}`, operands, left[i]!);
    }
  });
  op('66 0F 73 /3', 'PSRLDQ', 'Ux,Ib+', V.psrldq);
  op('66 0F 73 /7', 'PSLLDQ', 'Ux,Ib+', V.pslldq);
  each(0xd1, ['W', 'D', 'Q'], 'PSRL', V.psrl(false));
  each(0xe1, ['W', 'D'], 'PSRA', V.psra(false));
  each(0xf1, ['W', 'D', 'Q'], 'PSLL', V.psll(false));
  op('NP 0F 77', 'EMMS', '', emms);
  op('NP 0F C4 /r', 'PINSRW', 'Pq,Ed,Ib+', V.pinsrw);
  op('66 0F C4 /r', 'PINSRW', 'Vx,Ed,Ib+', V.pinsrw);
  op('NP 0F C5 /r', 'PEXTRW', 'Gy,Nq,Ib+', V.pextrw);
  op('66 0F C5 /r', 'PEXTRW', 'Gy,Ux,Ib+', V.pextrw);
  op('NP 0F C6 /r', 'SHUFPS', 'Vx,Wx,Ib+', V.shufps);
  op('66 0F C6 /r', 'SHUFPD', 'Vx,Wx,Ib+', V.shufpd);
  op('NP 0F D7 /r', 'PMOVMSKB', 'Gy,Nq', V.pmovmskb);
  op('66 0F D7 /r', 'PMOVMSKB', 'Gy,Ux', V.pmovmskb);
  both(0xd4, 'PADDQ', V.padd[3]);
  both(0xd5, 'PMULLW', V.pmullw);
  each(0xd8, ['B', 'W'], 'PSUBUS', V.psubUnsigned);
  both(0xda, 'PMINUB', V.pminub);
  both(0xdb, 'PAND', V.pand);
  each(0xdc, ['B', 'W'], 'PADDUS', V.paddUnsigned);
  both(0xde, 'PMAXUB', V.pmaxub);
  both(0xdf, 'PANDN', V.pandn);
  both(0xe0, 'PAVGB', V.pavg[0]);
  both(0xe3, 'PAVGW', V.pavg[1]);
  both(0xe4, 'PMULHUW', V.pmulhuw);
  both(0xe5, 'PMULHW', V.pmulhw);
  each(0xe8, ['B', 'W'], 'PSUBS', V.psubSigned);
  both(0xea, 'PMINSW', V.pminsw);
  both(0xeb, 'POR', V.por);
  each(0xec, ['B', 'W'], 'PADDS', V.paddSigned);
  both(0xee, 'PMAXSW', V.pmaxsw);
  both(0xef, 'PXOR', V.pxor);
  both(0xf4, 'PMULUDQ', V.pmuludq);
  both(0xf5, 'PMADDWD', V.pmaddwd);
  both(0xf6, 'PSADBW', V.psadbw);
  each(0xf8, ['B', 'W', 'D', 'Q'], 'PSUB', V.psub);
  each(0xfc, ['B', 'W', 'D'], 'PADD', V.padd);

  for (const [opcode, name, emit] of [
    [0x51, 'SQRT', F.sqrtf],
    [0x58, 'ADD', F.addf],
    [0x59, 'MUL', F.mulf],
    [0x5c, 'SUB', F.subf],
    [0x5d, 'MIN', F.minf],
    [0x5e, 'DIV', F.divf],
    [0x5f, 'MAX', F.maxf],
  ] as const) {
    // prettier-ignore
    packed(opcode, name, 'Vx,Wx', emit(F.PS), emit(F.PD));
    op(`F3 0F ${hex(opcode)} /r`, `${name}SS`, 'Vx,Wd', emit(F.SS));
    op(`F2 0F ${hex(opcode)} /r`, `${name}SD`, 'Vx,Wq', emit(F.SD));
  }
  packed(0xc2, 'CMP', 'Vx,Wx,Ib+', F.cmpf(F.PS), F.cmpf(F.PD));
  op('F3 0F C2 /r', 'CMPSS', 'Vx,Wd,Ib+', F.cmpf(F.SS));
  op('F2 0F C2 /r', 'CMPSD', 'Vx,Wq,Ib+', F.cmpf(F.SD));
  for (const [opcode, name] of [
    [0x2e, 'UCOMIS'],
    [0x2f, 'COMIS'],
  ] as const) {
    // prettier-ignore
    op(`NP 0F ${hex(opcode)} /r`, `${name}S`, 'Vx,Wd', F.comis(4, name === 'COMIS'));
    op(`66 0F ${hex(opcode)} /r`, `${name}D`, 'Vx,Wq', F.comis(8, name === 'COMIS'));
  }
  for (const [prefix, name, bytes, size] of [
    ['F3', 'SS', 4, 'd'],
    ['F2', 'SD', 8, 'q'],
  ] as const) {
    // prettier-ignore
    op(`${prefix} 0F 2A /r`, `CVTSI2${name}`, 'Vx,Ey', F.fromInteger(bytes));
    op(`${prefix} 0F 2C /r`, `CVTT${name}2SI`, `Gy,W${size}`, F.toInteger(bytes, false));
    op(`${prefix} 0F 2D /r`, `CVT${name}2SI`, `Gy,W${size}`, F.toInteger(bytes, true));
    op(`${prefix} 0F 5A /r`, `CVT${name}2${bytes === 4 ? 'SD' : 'SS'}`, `Vx,W${size}`, F.convertScalar(bytes));
  }
  op('NP 0F 5A /r', 'CVTPS2PD', 'Vx,Wq', F.cvtps2pd);
  op('66 0F 5A /r', 'CVTPD2PS', 'Vx,Wx', F.cvtpd2ps);
  op('NP 0F 5B /r', 'CVTDQ2PS', 'Vx,Wx', F.cvtdq2ps);
  op('F3 0F 5B /r', 'CVTTPS2DQ', 'Vx,Wx', F.cvttps2dq);
  op('F3 0F E6 /r', 'CVTDQ2PD', 'Vx,Wq', F.cvtdq2pd);
  op('66 0F 5B /r', 'CVTPS2DQ', 'Vx,Wx', F.cvtps2dq);
  op('F2 0F E6 /r', 'CVTPD2DQ', 'Vx,Wx', F.cvtpd2dq);
  op('66 0F E6 /r', 'CVTTPD2DQ', 'Vx,Wx', F.cvttpd2dq);
  op('NP 0F 2A /r', 'CVTPI2PS', 'Vx,Qq', F.fromMmx(4));
  op('66 0F 2A /r', 'CVTPI2PD', 'Vx,Qq', F.fromMmx(8));
  for (const [opcode, name, truncates] of [
    [0x2c, 'CVTT', true],
    [0x2d, 'CVT', false],
  ] as const) {
    // prettier-ignore
    op(`NP 0F ${hex(opcode)} /r`, `${name}PS2PI`, 'Pq,Wq', F.toMmx(4, truncates));
    op(`66 0F ${hex(opcode)} /r`, `${name}PD2PI`, 'Pq,Wx', F.toMmx(8, truncates));
  }
  for (const [opcode, name, emit] of [
    [0x52, 'RSQRT', F.rsqrtf],
    [0x53, 'RCP', F.rcpf],
  ] as const) {
    // prettier-ignore
    op(`NP 0F ${hex(opcode)} /r`, `${name}PS`, 'Vx,Wx', emit(F.PS));
    op(`F3 0F ${hex(opcode)} /r`, `${name}SS`, 'Vx,Wd', emit(F.SS));
  }
  op('NP 0F F7 /r', 'MASKMOVQ', 'Pq,Nq', V.maskMove, 'rdi');
  op('66 0F F7 /r', 'MASKMOVDQU', 'Vx,Ux', V.maskMove, 'rdi');

  op('NP 0F AE /0', 'FXSAVE', 'Mv', fxsave);
  op('NP 0F AE /1', 'FXRSTOR', 'Mv', fxrstor);
  op('NP 0F AE /2', 'LDMXCSR', 'Md', ldmxcsr);
  op('NP 0F AE /3', 'STMXCSR', 'Md', stmxcsr);
}
