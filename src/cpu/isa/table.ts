/** The encoding table: every encoding that the processor knows, and the index by map and opcode that the decoder uses. */
import { avxEncodings } from './avx.ts';
import { type Encoding, MAPS } from './encoding.ts';
import { fmaEncodings } from './fma.ts';
import { integerEncodings } from './integer.ts';
import { EncodingTable } from './rows.ts';
import { sse4Encodings } from './sse4.ts';
import { systemEncodings } from './system.ts';
import { vectorEncodings } from './vector.ts';
import { x87Encodings } from './x87.ts';

function build(): readonly Encoding[] {
  const table = new EncodingTable();
  systemEncodings(table);
  integerEncodings(table);
  vectorEncodings(table);
  sse4Encodings(table);
  x87Encodings(table);
  avxEncodings(table);
  fmaEncodings(table);
  return table.rows;
}

/** All rows; a row's id is its position. Where several fit, the first one counts. */
export const ENCODINGS: readonly Encoding[] = build();

const byOpcode: Encoding[][] = Array.from({ length: MAPS * 256 }, () => []);
for (const row of ENCODINGS) {
  for (let i = 0; i < row.span; i++) byOpcode[row.map * 256 + row.opcode + i]!.push(row);
}
/** The rows of opcode `opcode` in map `map`, in the table's order. */
export const encodingsOf = (map: number, opcode: number): readonly Encoding[] => byOpcode[map * 256 + opcode]!;
