/** Encodings of SSE3, SSSE3, SSE4.1, SSE4.2, AES and PCLMULQDQ. */
import * as A from '../floating/aes.ts';
import * as F from '../semantics/floating.ts';
import type { MachineEmitter } from '../semantics/machine-context.ts';
import * as S from '../semantics/sse4.ts';
import { type EncodingTable, hex } from './rows.ts';

export function sse4Encodings(table: EncodingTable): void {
  const { op } = table;
  table.feature = 'SSE3';
  op('F3 0F 12 /r', 'MOVSLDUP', 'Vx,Wx', S.movsldup);
  op('F3 0F 16 /r', 'MOVSHDUP', 'Vx,Wx', S.movshdup);
  op('F2 0F 12 /r', 'MOVDDUP', 'Vx,Wq', S.movddup);
  for (const [opcode, name, emit] of [
    [0x7c, 'HADD', F.haddf],
    [0x7d, 'HSUB', F.hsubf],
    [0xd0, 'ADDSUB', F.addsubf],
  ] as const) {
    op(`66 0F ${hex(opcode)} /r`, `${name}PD`, 'Vx,Wx', emit(F.PD));
    op(`F2 0F ${hex(opcode)} /r`, `${name}PS`, 'Vx,Wx', emit(F.PS));
  }

  // In both register files.
  table.feature = 'SSSE3';
  (
    [
      [0x00, 'PSHUFB', S.pshufb],
      [0x01, 'PHADDW', S.phaddw],
      [0x02, 'PHADDD', S.phaddd],
      [0x03, 'PHADDSW', S.phaddsw],
      [0x04, 'PMADDUBSW', S.pmaddubsw],
      [0x05, 'PHSUBW', S.phsubw],
      [0x06, 'PHSUBD', S.phsubd],
      [0x07, 'PHSUBSW', S.phsubsw],
      [0x08, 'PSIGNB', S.psign[0]],
      [0x09, 'PSIGNW', S.psign[1]],
      [0x0a, 'PSIGND', S.psign[2]],
      [0x0b, 'PMULHRSW', S.pmulhrsw],
      [0x1c, 'PABSB', S.pabs[0]],
      [0x1d, 'PABSW', S.pabs[1]],
      [0x1e, 'PABSD', S.pabs[2]],
    ] as const
  ).forEach(([opcode, name, emit]) => {
    op(`NP 0F 38 ${hex(opcode)} /r`, name, 'Pq,Qq', emit);
    op(`66 0F 38 ${hex(opcode)} /r`, name, 'Vx,Wx', emit);
  });
  op('NP 0F 3A 0F /r', 'PALIGNR', 'Pq,Qq,Ib+', S.palignr);
  op('66 0F 3A 0F /r', 'PALIGNR', 'Vx,Wx,Ib+', S.palignr);

  table.feature = 'SSE4.1';
  const vector = (opcode: number, name: string, emit: MachineEmitter, source = 'Wx'): void =>
    op(`66 0F 38 ${hex(opcode)} /r`, name, `Vx,${source}`, emit);
  const immediate = (opcode: number, name: string, emit: MachineEmitter, operands = 'Vx,Wx'): void =>
    op(`66 0F 3A ${hex(opcode)} /r`, name, `${operands},Ib+`, emit);
  vector(0x10, 'PBLENDVB', S.pblendvb);
  vector(0x14, 'BLENDVPS', S.blendvps);
  vector(0x15, 'BLENDVPD', S.blendvpd);
  vector(0x17, 'PTEST', S.ptest);
  ['BW', 'BD', 'BQ', 'WD', 'WQ', 'DQ'].forEach((suffix, i) => {
    const source = ['Wq', 'Wd', 'Ww', 'Wq', 'Wd', 'Wq'][i]!;
    vector(0x20 + i, `PMOVSX${suffix}`, S.pmovsx[i]!, source);
    vector(0x30 + i, `PMOVZX${suffix}`, S.pmovzx[i]!, source);
  });
  vector(0x28, 'PMULDQ', S.pmuldq);
  vector(0x29, 'PCMPEQQ', S.pcmpeqq);
  vector(0x2a, 'MOVNTDQA', S.movntdqa, 'Mx');
  vector(0x2b, 'PACKUSDW', S.packusdw);
  vector(0x38, 'PMINSB', S.pminsb);
  vector(0x39, 'PMINSD', S.pminsd);
  vector(0x3a, 'PMINUW', S.pminuw);
  vector(0x3b, 'PMINUD', S.pminud);
  vector(0x3c, 'PMAXSB', S.pmaxsb);
  vector(0x3d, 'PMAXSD', S.pmaxsd);
  vector(0x3e, 'PMAXUW', S.pmaxuw);
  vector(0x3f, 'PMAXUD', S.pmaxud);
  vector(0x40, 'PMULLD', S.pmulld);
  vector(0x41, 'PHMINPOSUW', S.phminposuw);
  immediate(0x08, 'ROUNDPS', F.roundf(F.PS));
  immediate(0x09, 'ROUNDPD', F.roundf(F.PD));
  immediate(0x0a, 'ROUNDSS', F.roundf(F.SS), 'Vx,Wd');
  immediate(0x0b, 'ROUNDSD', F.roundf(F.SD), 'Vx,Wq');
  immediate(0x0c, 'BLENDPS', S.blendps);
  immediate(0x0d, 'BLENDPD', S.blendpd);
  immediate(0x0e, 'PBLENDW', S.pblendw);
  for (const form of ['M', 'R']) {
    immediate(0x14, 'PEXTRB', S.extract(1), `${form}${form === 'M' ? 'b' : 'd'},Vx`);
    immediate(0x15, 'PEXTRW', S.extract(2), `${form}${form === 'M' ? 'w' : 'd'},Vx`);
  }
  immediate(0x16, 'PEXTRD', S.extract(0), 'Ey,Vx');
  immediate(0x17, 'EXTRACTPS', S.extract(4), 'Ed,Vx');
  immediate(0x20, 'PINSRB', S.insert(1), 'Vx,Ed');
  immediate(0x21, 'INSERTPS', S.insertps, 'Vx,Wd');
  immediate(0x22, 'PINSRD', S.insert(0), 'Vx,Ey');
  immediate(0x40, 'DPPS', F.dotf(F.PS));
  immediate(0x41, 'DPPD', F.dotf(F.PD));
  immediate(0x42, 'MPSADBW', S.mpsadbw);
  table.feature = 'SSE4.2';
  vector(0x37, 'PCMPGTQ', S.pcmpgtq);
  ['M', 'I'].forEach((answer, i) => {
    op(`66 0F 3A ${hex(0x60 + i)} /r`, `PCMPESTR${answer}`, 'Vx,Wx,Ib+', S.compareStrings(true, i === 0), 'v');
    immediate(0x62 + i, `PCMPISTR${answer}`, S.compareStrings(false, i === 0));
  });

  table.feature = 'AES';
  ['ENC', 'ENCLAST', 'DEC', 'DECLAST'].forEach((name, i) => {
    vector(0xdc + i, `AES${name}`, S.aesOperation(i));
  });
  vector(0xdb, 'AESIMC', S.aesOperation(A.AES_INVERSE_MIX));
  immediate(0xdf, 'AESKEYGENASSIST', S.aesOperation(A.AES_KEY, true));
  table.feature = 'PCLMULQDQ';
  immediate(0x44, 'PCLMULQDQ', S.aesOperation(A.CARRYLESS_MULTIPLY, true));
  table.feature = 'base';
}
