/**
 * Encodings of AVX and AVX2. Those that SSE has are named, with how they are promoted: prefix, map, opcode and meaning are taken from
 * the SSE row.
 */
import * as X from '../semantics/avx.ts';
import { gather, maskedLoad, maskedStore } from '../semantics/gather.ts';
import type { MachineEmitter } from '../semantics/machine-context.ts';
import * as S from '../semantics/sse4.ts';
import * as V from '../semantics/vector.ts';
import { type VexForm, vex, vexIntoFirst } from '../semantics/vex.ts';
import type { Encoding } from './encoding.ts';
import { type EncodingTable, hex } from './rows.ts';

const MAPS = ['', '0F', '0F38', '0F3A'];
const words = (text: string): string[] => text.trim().split(/\s+/);

// Two sources.
const FLOAT =
  words(`ADDPS ADDPD MULPS MULPD SUBPS SUBPD DIVPS DIVPD MINPS MINPD MAXPS MAXPD ANDPS ANDPD ANDNPS ANDNPD ORPS ORPD XORPS XORPD
  UNPCKLPS UNPCKLPD UNPCKHPS UNPCKHPD SHUFPS CMPPS CMPPD HADDPS HADDPD HSUBPS HSUBPD ADDSUBPS ADDSUBPD DPPS`);
const INTEGER =
  words(`PUNPCKLBW PUNPCKLWD PUNPCKLDQ PUNPCKLQDQ PUNPCKHBW PUNPCKHWD PUNPCKHDQ PUNPCKHQDQ PACKSSWB PACKUSWB PACKSSDW PACKUSDW
  PCMPGTB PCMPGTW PCMPGTD PCMPGTQ PCMPEQB PCMPEQW PCMPEQD PCMPEQQ PADDB PADDW PADDD PADDQ PADDSB PADDSW PADDUSB PADDUSW PSUBB PSUBW PSUBD PSUBQ
  PSUBSB PSUBSW PSUBUSB PSUBUSW PMINUB PMINSW PMAXUB PMAXSW PMINSB PMINSD PMINUW PMINUD PMAXSB PMAXSD PMAXUW PMAXUD PAND PANDN POR PXOR
  PAVGB PAVGW PMULLW PMULHUW PMULHW PMULUDQ PMULDQ PMULLD PMADDWD PSADBW PSHUFB PHADDW PHADDD PHADDSW PMADDUBSW PHSUBW PHSUBD PHSUBSW
  PSIGNB PSIGNW PSIGND PMULHRSW PALIGNR PBLENDW`);
const COUNTED = words('PSRLW PSRLD PSRLQ PSRAW PSRAD PSLLW PSLLD PSLLQ');
const SCALAR = words('ADD MUL SUB DIV MIN MAX SQRT CMP').flatMap((n) => [`${n}SS`, `${n}SD`]);
const NARROW = words(`AESENC AESENCLAST AESDEC AESDECLAST PCLMULQDQ DPPD INSERTPS PINSRB PINSRW PINSRD MOVHLPS MOVLHPS
  CVTSI2SS CVTSI2SD CVTSS2SD CVTSD2SS ROUNDSS ROUNDSD RCPSS RSQRTSS`);
// One source.
const FLOAT_UNARY = words('SQRTPS SQRTPD RCPPS RSQRTPS CVTDQ2PS CVTPS2DQ CVTTPS2DQ ROUNDPS ROUNDPD MOVSLDUP MOVSHDUP');
const INTEGER_UNARY = words('PABSB PABSW PABSD PSHUFD PSHUFHW PSHUFLW');
const WIDENING = words(
  `PMOVSXBW PMOVSXBD PMOVSXBQ PMOVSXWD PMOVSXWQ PMOVSXDQ PMOVZXBW PMOVZXBD PMOVZXBQ PMOVZXWD PMOVZXWQ PMOVZXDQ`,
);
/** Neither a second source nor 256 bits. */
const NARROW_UNARY = words('AESIMC AESKEYGENASSIST PHMINPOSUW');
const PLAIN =
  words(`CVTSS2SI CVTSD2SI CVTTSS2SI CVTTSD2SI COMISS COMISD UCOMISS UCOMISD PEXTRB PEXTRW PEXTRD EXTRACTPS MASKMOVDQU
  LDMXCSR STMXCSR PCMPESTRI PCMPISTRI`);
const LIG =
  /^(ADD|MUL|SUB|DIV|MIN|MAX|SQRT|CMP|CVT.*|U?COMI|ROUND|RCP|RSQRT)S[SD](2SI|2SD|2SS)?$|^CVTT?S[SD]2SI$|^CVTSI2S[SD]$/;

export function avxEncodings(table: EncodingTable): void {
  const { op } = table;
  const legacy = [...table.rows];
  const rowsOf = (mnemonic: string): Encoding[] => {
    const found = legacy.filter(
      (r) => r.map > 0 && r.map < 4 && r.mnemonic === mnemonic && !r.operands.some((o) => o.file === 'mmx'),
    );
    if (found.length === 0) throw new Error(`no ${mnemonic}`);
    return found;
  };
  const emitterOf = (row: Encoding): MachineEmitter => {
    if (row.meaning.kind !== 'emit') throw new Error(row.text);
    return row.meaning.emit;
  };
  /** `row` with VEX: `operands` in place of its own, all of its x when `wide` are qq. */
  const promote = (row: Encoding, length: string, operands: string, form: VexForm): void => {
    const digit = row.digit < 0 ? '/r' : `/${row.digit}`;
    const opcode = `${hex(row.opcode)} ${digit}`;
    const prefix = row.prefix === '' ? 'NP' : row.prefix;
    table.feature = length === '256' && INTEGER_NAMES.has(row.mnemonic) ? 'AVX2' : 'AVX';
    const options = [...row.options].filter((o) => o === 'v' || o === 'rdi').join(' ');
    const emit = row.mnemonic === 'PCMPESTRM' || row.mnemonic === 'PCMPISTRM' ? vexIntoFirst : vex;
    op(
      `VEX.${length}.${prefix}.${MAPS[row.map]} ${opcode}`,
      `V${row.mnemonic}`,
      operands,
      emit(emitterOf(row), form),
      options,
    );
  };
  const texts = (row: Encoding): string[] => row.operands.map((o) => o.text);
  const wider = (operands: string): string => operands.replace(/([VHWU])x/g, '$1qq');
  const both = (row: Encoding, operands: string, form: VexForm): void => {
    promote(row, '128', operands, form);
    promote(row, '256', wider(operands), { ...form, wide: true });
  };
  /** The operands with VEX.vvvv as first source. */
  const threeOf = (row: Encoding): string => {
    const [first, ...rest] = texts(row);
    return [first, 'Hx', ...rest].join();
  };
  const three: VexForm = { operands: [0, 2], first: 1, stages: true };
  const two: VexForm = { operands: [0, 1], stages: true };

  for (const name of [...FLOAT, ...INTEGER]) for (const row of rowsOf(name)) both(row, threeOf(row), three);
  for (const [name, immediateShift] of [
    ['SHUFPD', 2],
    ['BLENDPS', 4],
    ['BLENDPD', 2],
    ['MPSADBW', 3],
  ] as const) {
    for (const row of rowsOf(name)) both(row, threeOf(row), { ...three, immediateShift });
  }
  for (const name of COUNTED) {
    for (const row of rowsOf(name)) {
      if (row.digit >= 0) {
        both(row, 'Hx,Ux,Ib+', { operands: [0], first: 1, stages: true });
      } else {
        promote(row, '128', 'Vx,Hx,Wx', three);
        promote(row, '256', 'Vqq,Hqq,Wx', { ...three, wide: true, memory: 16, stride: 0 });
      }
    }
  }
  for (const name of ['PSRLDQ', 'PSLLDQ']) {
    for (const row of rowsOf(name)) both(row, 'Hx,Ux,Ib+', { operands: [0], first: 1, stages: true });
  }
  for (const name of [...SCALAR, ...NARROW]) {
    for (const row of rowsOf(name)) promote(row, LIG.test(name) ? 'LIG' : '128', threeOf(row), three);
  }
  for (const name of [...FLOAT_UNARY, ...INTEGER_UNARY]) {
    for (const row of rowsOf(name)) both(row, texts(row).join(), two);
  }
  for (const name of WIDENING) {
    for (const row of rowsOf(name)) {
      const bytes = row.operands[1]!.size;
      promote(row, '128', texts(row).join(), two);
      const source = { 2: 'Wd', 4: 'Wq', 8: 'Wx' }[bytes]!;
      promote(row, '256', `Vqq,${source}`, { ...two, wide: true, memory: 2 * bytes, stride: bytes });
    }
  }
  for (const name of ['CVTPS2PD', 'CVTDQ2PD']) {
    for (const row of rowsOf(name)) {
      promote(row, '128', 'Vx,Wq', two);
      promote(row, '256', 'Vqq,Wx', { ...two, wide: true, memory: 16, stride: 8 });
    }
  }
  for (const name of ['CVTPD2PS', 'CVTPD2DQ', 'CVTTPD2DQ']) {
    for (const row of rowsOf(name)) {
      promote(row, '128', 'Vx,Wx', two);
      promote(row, '256', 'Vx,Wqq', { ...two, wide: true, narrows: true });
    }
  }
  for (const row of rowsOf('MOVDDUP')) {
    promote(row, '128', 'Vx,Wq', two);
    promote(row, '256', 'Vqq,Wqq', { ...two, wide: true });
  }
  for (const name of NARROW_UNARY) for (const row of rowsOf(name)) promote(row, '128', texts(row).join(), two);
  for (const name of PLAIN) {
    for (const row of rowsOf(name)) {
      promote(row, LIG.test(name) ? 'LIG' : '128', texts(row).join(), { operands: [0, 1], stages: false });
    }
  }
  for (const name of ['PCMPESTRM', 'PCMPISTRM']) {
    for (const row of rowsOf(name)) promote(row, '128', texts(row).join(), { operands: [0, 1], stages: false });
  }
  for (const [name, maskBits] of [
    ['MOVMSKPS', 4],
    ['MOVMSKPD', 2],
    ['PMOVMSKB', 16],
  ] as const) {
    for (const row of rowsOf(name)) both(row, 'Gy,Ux', { operands: [0, 1], stages: false, maskBits });
  }
  for (const row of rowsOf('PTEST')) both(row, 'Vx,Wx', { operands: [0, 1], stages: false });

  moves(table, three, two);
  added(table, three, two);
}
const INTEGER_NAMES = new Set([
  ...INTEGER,
  ...COUNTED,
  ...INTEGER_UNARY,
  ...WIDENING,
  'PSRLDQ',
  'PSLLDQ',
  'MPSADBW',
  'PMOVMSKB',
]);

function moves(table: EncodingTable, three: VexForm, two: VexForm): void {
  const { op } = table;
  table.feature = 'AVX';
  const plain: VexForm = { operands: [0, 1], stages: false };
  const whole = (text: string, name: string, operands: string, aligned: boolean): void => {
    op(`VEX.128.${text}`, name, operands, X.vmove(aligned));
    op(`VEX.256.${text}`, name, operands.replace(/x/g, 'qq'), X.vmove(aligned));
  };
  for (const [prefix, suffix] of [
    ['NP', 'PS'],
    ['66', 'PD'],
  ] as const) {
    whole(`${prefix}.0F 10 /r`, `VMOVU${suffix}`, 'Vx,Wx', false);
    whole(`${prefix}.0F 11 /r`, `VMOVU${suffix}`, 'Wx,Vx', false);
    whole(`${prefix}.0F 28 /r`, `VMOVA${suffix}`, 'Vx,Wx', true);
    whole(`${prefix}.0F 29 /r`, `VMOVA${suffix}`, 'Wx,Vx', true);
    whole(`${prefix}.0F 2B /r`, `VMOVNT${suffix}`, 'Mx,Vx', true);
    for (const [opcode, name, at] of [
      [0x12, 'VMOVL', 0],
      [0x16, 'VMOVH', 8],
    ] as const) {
      op(`VEX.128.${prefix}.0F ${hex(opcode)} /r`, `${name}${suffix}`, 'Vx,Hx,Mq', vex(V.moveHalf(at, at), three));
      op(`VEX.128.${prefix}.0F ${hex(opcode + 1)} /r`, `${name}${suffix}`, 'Mq,Vx', vex(V.moveHalf(at, at), plain));
    }
  }
  for (const [prefix, name, aligned] of [
    ['66', 'VMOVDQA', true],
    ['F3', 'VMOVDQU', false],
  ] as const) {
    whole(`${prefix}.0F 6F /r`, name, 'Vx,Wx', aligned);
    whole(`${prefix}.0F 7F /r`, name, 'Wx,Vx', aligned);
  }
  whole('66.0F E7 /r', 'VMOVNTDQ', 'Mx,Vx', true);
  whole('F2.0F F0 /r', 'VLDDQU', 'Vx,Mx', false);
  op('VEX.128.66.0F38 2A /r', 'VMOVNTDQA', 'Vx,Mx', X.vmove(true));
  table.feature = 'AVX2';
  op('VEX.256.66.0F38 2A /r', 'VMOVNTDQA', 'Vqq,Mqq', X.vmove(true));
  table.feature = 'AVX';
  for (const [prefix, name, size, bytes] of [
    ['F3', 'VMOVSS', 'd', 4],
    ['F2', 'VMOVSD', 'q', 8],
  ] as const) {
    const move = V.moveScalar(bytes);
    op(`VEX.LIG.${prefix}.0F 10 /r`, name, `Vx,M${size}`, vex(move, two));
    op(`VEX.LIG.${prefix}.0F 10 /r`, name, `Vx,Hx,U${size}`, vex(move, three));
    op(`VEX.LIG.${prefix}.0F 11 /r`, name, `M${size},Vx`, vex(move, plain));
    op(`VEX.LIG.${prefix}.0F 11 /r`, name, `U${size},Hx,Vx`, vex(move, three));
  }
  op('VEX.128.66.0F 6E /r', 'VMOVD', 'Vx,Ey', vex(V.moveFromGeneral, two));
  op('VEX.128.66.0F 7E /r', 'VMOVD', 'Ey,Vx', vex(V.moveToGeneral, plain));
  op('VEX.128.F3.0F 7E /r', 'VMOVQ', 'Vx,Wq', vex(V.moveQuad, two));
  op('VEX.128.66.0F D6 /r', 'VMOVQ', 'Mq,Vx', vex(V.moveQuad, plain));
  op('VEX.128.66.0F D6 /r', 'VMOVQ', 'Uq,Vx', vex(V.moveQuad, two));
  op('VEX.128.NP.0F 77', 'VZEROUPPER', '', X.vzero(false));
  op('VEX.256.NP.0F 77', 'VZEROALL', '', X.vzero(true));
}

/** What SSE does not have. */
function added(table: EncodingTable, three: VexForm, two: VexForm): void {
  const { op } = table;
  const wide = (form: VexForm): VexForm => ({ ...form, wide: true });
  const both = (text: string, name: string, operands: string, emit: MachineEmitter, form: VexForm): void => {
    op(`VEX.128.${text}`, name, operands, vex(emit, form));
    op(`VEX.256.${text}`, name, operands.replace(/([VHWL])x/g, '$1qq'), vex(emit, wide(form)));
  };
  table.feature = 'AVX';
  op('VEX.128.66.0F38.W0 18 /r', 'VBROADCASTSS', 'Vx,Md', X.broadcast(4));
  op('VEX.256.66.0F38.W0 18 /r', 'VBROADCASTSS', 'Vqq,Md', X.broadcast(4));
  op('VEX.256.66.0F38.W0 19 /r', 'VBROADCASTSD', 'Vqq,Mq', X.broadcast(8));
  op('VEX.256.66.0F38.W0 1A /r', 'VBROADCASTF128', 'Vqq,Mx', X.broadcast(16));
  op('VEX.256.66.0F3A.W0 06 /r', 'VPERM2F128', 'Vqq,Hqq,Wqq,Ib+', X.permuteHalves);
  op('VEX.256.66.0F3A.W0 18 /r', 'VINSERTF128', 'Vqq,Hqq,Wx,Ib+', X.insertHalf);
  op('VEX.256.66.0F3A.W0 19 /r', 'VEXTRACTF128', 'Wx,Vqq,Ib+', X.extractHalf);
  both('66.0F38.W0 0C /r', 'VPERMILPS', 'Vx,Hx,Wx', X.permuteInLane(4), three);
  both('66.0F38.W0 0D /r', 'VPERMILPD', 'Vx,Hx,Wx', X.permuteInLane(8), three);
  both('66.0F3A.W0 04 /r', 'VPERMILPS', 'Vx,Wx,Ib+', V.pshufd, two);
  both('66.0F3A.W0 05 /r', 'VPERMILPD', 'Vx,Wx,Ib+', X.permuteInLaneBy, { ...two, immediateShift: 2 });
  both('66.0F38.W0 0E /r', 'VTESTPS', 'Vx,Wx', S.testps, { operands: [0, 1], stages: false });
  both('66.0F38.W0 0F /r', 'VTESTPD', 'Vx,Wx', S.testpd, { operands: [0, 1], stages: false });
  const blend: VexForm = { operands: [0, 2, 3], first: 1, stages: true };
  both('66.0F3A.W0 4A /r', 'VBLENDVPS', 'Vx,Hx,Wx,Lx', S.blendvps, blend);
  both('66.0F3A.W0 4B /r', 'VBLENDVPD', 'Vx,Hx,Wx,Lx', S.blendvpd, blend);
  op('VEX.128.66.0F3A.W0 4C /r', 'VPBLENDVB', 'Vx,Hx,Wx,Lx', vex(S.pblendvb, blend));
  const masked = (w: string, opcode: number, name: string, bytes: 4 | 8, operands: string): void => {
    const emit = operands.startsWith('V') ? maskedLoad(bytes) : maskedStore(bytes);
    op(`VEX.128.66.0F38.${w} ${hex(opcode)} /r`, name, operands, emit);
    op(`VEX.256.66.0F38.${w} ${hex(opcode)} /r`, name, operands.replace(/x/g, 'qq'), emit);
  };
  masked('W0', 0x2c, 'VMASKMOVPS', 4, 'Vx,Hx,Mx');
  masked('W0', 0x2d, 'VMASKMOVPD', 8, 'Vx,Hx,Mx');
  masked('W0', 0x2e, 'VMASKMOVPS', 4, 'Mx,Hx,Vx');
  masked('W0', 0x2f, 'VMASKMOVPD', 8, 'Mx,Hx,Vx');

  table.feature = 'AVX2';
  masked('W0', 0x8c, 'VPMASKMOVD', 4, 'Vx,Hx,Mx');
  masked('W1', 0x8c, 'VPMASKMOVQ', 8, 'Vx,Hx,Mx');
  masked('W0', 0x8e, 'VPMASKMOVD', 4, 'Mx,Hx,Vx');
  masked('W1', 0x8e, 'VPMASKMOVQ', 8, 'Mx,Hx,Vx');
  op('VEX.256.66.0F3A.W0 4C /r', 'VPBLENDVB', 'Vqq,Hqq,Wqq,Lqq', vex(S.pblendvb, wide(blend)));
  for (const length of ['128', '256']) {
    const v = length === '128' ? 'Vx' : 'Vqq';
    op(`VEX.${length}.66.0F38.W0 18 /r`, 'VBROADCASTSS', `${v},Ux`, X.broadcast(4));
    op(`VEX.${length}.66.0F38.W0 58 /r`, 'VPBROADCASTD', `${v},Wd`, X.broadcast(4));
    op(`VEX.${length}.66.0F38.W0 59 /r`, 'VPBROADCASTQ', `${v},Wq`, X.broadcast(8));
    op(`VEX.${length}.66.0F38.W0 78 /r`, 'VPBROADCASTB', `${v},Wb`, X.broadcast(1));
    op(`VEX.${length}.66.0F38.W0 79 /r`, 'VPBROADCASTW', `${v},Ww`, X.broadcast(2));
  }
  op('VEX.256.66.0F38.W0 19 /r', 'VBROADCASTSD', 'Vqq,Ux', X.broadcast(8));
  op('VEX.256.66.0F38.W0 5A /r', 'VBROADCASTI128', 'Vqq,Mx', X.broadcast(16));
  op('VEX.256.66.0F3A.W0 46 /r', 'VPERM2I128', 'Vqq,Hqq,Wqq,Ib+', X.permuteHalves);
  op('VEX.256.66.0F3A.W0 38 /r', 'VINSERTI128', 'Vqq,Hqq,Wx,Ib+', X.insertHalf);
  op('VEX.256.66.0F3A.W0 39 /r', 'VEXTRACTI128', 'Wx,Vqq,Ib+', X.extractHalf);
  op('VEX.256.66.0F3A.W1 00 /r', 'VPERMQ', 'Vqq,Wqq,Ib+', X.permuteQuads);
  op('VEX.256.66.0F3A.W1 01 /r', 'VPERMPD', 'Vqq,Wqq,Ib+', X.permuteQuads);
  op('VEX.256.66.0F38.W0 36 /r', 'VPERMD', 'Vqq,Hqq,Wqq', X.permuteDoublewords);
  op('VEX.256.66.0F38.W0 16 /r', 'VPERMPS', 'Vqq,Hqq,Wqq', X.permuteDoublewords);
  both('66.0F3A.W0 02 /r', 'VPBLENDD', 'Vx,Hx,Wx,Ib+', S.blendps, { ...three, immediateShift: 4 });
  both('66.0F38.W0 45 /r', 'VPSRLVD', 'Vx,Hx,Wx', X.shiftEach(4, 'right'), three);
  both('66.0F38.W1 45 /r', 'VPSRLVQ', 'Vx,Hx,Wx', X.shiftEach(8, 'right'), three);
  both('66.0F38.W0 46 /r', 'VPSRAVD', 'Vx,Hx,Wx', X.shiftEach(4, 'arithmetic'), three);
  both('66.0F38.W0 47 /r', 'VPSLLVD', 'Vx,Hx,Wx', X.shiftEach(4, 'left'), three);
  both('66.0F38.W1 47 /r', 'VPSLLVQ', 'Vx,Hx,Wx', X.shiftEach(8, 'left'), three);
  for (const [opcode, name, index, bytes] of [
    [0x90, 'VPGATHERD', 4, 4],
    [0x90, 'VPGATHERD', 4, 8],
    [0x91, 'VPGATHERQ', 8, 4],
    [0x91, 'VPGATHERQ', 8, 8],
    [0x92, 'VGATHERD', 4, 4],
    [0x92, 'VGATHERD', 4, 8],
    [0x93, 'VGATHERQ', 8, 4],
    [0x93, 'VGATHERQ', 8, 8],
  ] as const) {
    const suffix = opcode < 0x92 ? { 4: 'D', 8: 'Q' }[bytes] : { 4: 'PS', 8: 'PD' }[bytes];
    for (const length of ['128', '256']) {
      // The wider of elements and indexes fills the register.
      const register = (own: number, other: number): string => (length === '256' && own >= other ? 'qq' : 'x');
      const [v, x] = [register(bytes, index), register(index, bytes)];
      op(
        `VEX.${length}.66.0F38.W${bytes === 4 ? 0 : 1} ${hex(opcode)} /r`,
        `${name}${suffix}`,
        `V${v},M${bytes === 4 ? 'd' : 'q'},H${v},X${x}`,
        gather(bytes, index),
        'vsib',
      );
    }
  }
  table.feature = 'base';
}
