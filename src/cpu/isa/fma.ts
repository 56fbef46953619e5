/** Encodings of FMA and F16C. */
import { PD, PS, SD, SS } from '../semantics/floating.ts';
import { fromHalf, fused, storeHalves, toHalves } from '../semantics/fused.ts';
import { type VexForm, vex } from '../semantics/vex.ts';
import { type EncodingTable, hex } from './rows.ts';

/** Opcode of the 132 form, name, and signs: product 1, addend in even lanes 2, in odd lanes 4. */
const PACKED = [
  [0x96, 'ADDSUB', 2],
  [0x97, 'SUBADD', 4],
  [0x98, 'ADD', 0],
  [0x9a, 'SUB', 6],
] as const;
const NEGATED = [
  [0x9c, 'NMADD', 1],
  [0x9e, 'NMSUB', 7],
] as const;

export function fmaEncodings(table: EncodingTable): void {
  const { op } = table;
  const form: VexForm = { operands: [0, 1, 2], first: 0, source: 2, stages: true };
  const each = [...PACKED.map(([o, n, s]) => [o, `M${n}`, s] as const), ...NEGATED];
  table.feature = 'FMA';
  (['132', '213', '231'] as const).forEach((order, i) => {
    for (const [base, name, signs] of each) {
      const opcode = base + 16 * i;
      for (const [w, suffix, packed, scalar] of [
        ['W0', 'S', PS, SS],
        ['W1', 'D', PD, SD],
      ] as const) {
        const text = `66.0F38.${w} ${hex(opcode)} /r`;
        op(`VEX.128.${text}`, `VF${name}${order}P${suffix}`, 'Vx,Hx,Wx', vex(fused(packed, order, signs), form));
        const wide = { ...form, wide: true };
        op(`VEX.256.${text}`, `VF${name}${order}P${suffix}`, 'Vqq,Hqq,Wqq', vex(fused(packed, order, signs), wide));
        if (signs === 2 || signs === 4) continue;
        const source = suffix === 'S' ? 'Wd' : 'Wq';
        op(
          `VEX.LIG.66.0F38.${w} ${hex(opcode + 1)} /r`,
          `VF${name}${order}S${suffix}`,
          `Vx,Hx,${source}`,
          vex(fused(scalar, order, signs), form),
        );
      }
    }
  });

  table.feature = 'F16C';
  const widens: VexForm = { operands: [0, 1], stages: true };
  op('VEX.128.66.0F38.W0 13 /r', 'VCVTPH2PS', 'Vx,Wq', vex(fromHalf, widens));
  const wide: VexForm = { ...widens, wide: true, memory: 16, stride: 8 };
  op('VEX.256.66.0F38.W0 13 /r', 'VCVTPH2PS', 'Vqq,Wx', vex(fromHalf, wide));
  const narrows: VexForm = { operands: [0, 1], stages: true, left: true };
  op('VEX.128.66.0F3A.W0 1D /r', 'VCVTPS2PH', 'Wq,Vx,Ib+', storeHalves(vex(toHalves, narrows), 8));
  const both = vex(toHalves, { ...narrows, wide: true, narrows: true });
  op('VEX.256.66.0F3A.W0 1D /r', 'VCVTPS2PH', 'Wx,Vqq,Ib+', storeHalves(both, 16));
  table.feature = 'base';
}
