import { DecoderOptions, Decoder as Iced, type Instruction, Mnemonic, OpKind, Register } from 'iced-x86';
import { expect, test } from 'vitest';
import { ENCODINGS } from '../isa/table.ts';
import { encode, generator } from '../semantics/native-cases.testing.ts';
import { DECODE_OK, Decoder } from './decoder.ts';
import { BASE_RIP, RECORD_HAS_MEMORY, REGISTER_NONE } from './record.ts';

/** iced-x86's names where they differ by operand size or are aliases. */
const families: Readonly<Record<string, readonly string[]>> = {
  CBW: ['CBW', 'CWDE', 'CDQE'],
  CWD: ['CWD', 'CDQ', 'CQO'],
  JRCXZ: ['JCXZ', 'JECXZ', 'JRCXZ'],
  PUSHA: ['PUSHA', 'PUSHAD'],
  POPA: ['POPA', 'POPAD'],
  PUSHF: ['PUSHF', 'PUSHFD', 'PUSHFQ'],
  POPF: ['POPF', 'POPFD', 'POPFQ'],
  IRET: ['IRET', 'IRETD', 'IRETQ'],
  SYSRET: ['SYSRET', 'SYSRETQ'],
  SYSEXIT: ['SYSEXIT', 'SYSEXITQ'],
  CMPXCHG8B: ['CMPXCHG8B', 'CMPXCHG16B'],
  INSD: ['INSW', 'INSD'],
  OUTSD: ['OUTSW', 'OUTSD'],
  MOVS: ['MOVSB', 'MOVSW', 'MOVSD', 'MOVSQ'],
  CMPS: ['CMPSB', 'CMPSW', 'CMPSD', 'CMPSQ'],
  STOS: ['STOSB', 'STOSW', 'STOSD', 'STOSQ'],
  LODS: ['LODSB', 'LODSW', 'LODSD', 'LODSQ'],
  SCAS: ['SCASB', 'SCASW', 'SCASD', 'SCASQ'],
  SHL: ['SHL', 'SAL'],
  PREFETCHW: ['PREFETCH', 'PREFETCHW', 'PREFETCHWT1', 'RESERVEDNOP'],
  VMMCALL: ['VMMCALL', 'VMGEXIT'],
  XSAVE: ['XSAVE', 'XSAVE64'],
  XRSTOR: ['XRSTOR', 'XRSTOR64'],
  XSAVEOPT: ['XSAVEOPT', 'XSAVEOPT64'],
  XSAVEC: ['XSAVEC', 'XSAVEC64'],
  XSAVES: ['XSAVES', 'XSAVES64'],
  XRSTORS: ['XRSTORS', 'XRSTORS64'],
  FXSAVE: ['FXSAVE', 'FXSAVE64'],
  FXRSTOR: ['FXRSTOR', 'FXRSTOR64'],
  MOVD: ['MOVD', 'MOVQ'],
  PEXTRD: ['PEXTRD', 'PEXTRQ'],
  PINSRD: ['PINSRD', 'PINSRQ'],
  PCMPESTRM: ['PCMPESTRM', 'PCMPESTRM64'],
  PCMPESTRI: ['PCMPESTRI', 'PCMPESTRI64'],
};
/** iced-x86's names for a row: a VEX encoding differs as the one without V does. */
function familyOf(mnemonic: string): readonly string[] {
  const known = families[mnemonic];
  if (known !== undefined) return known;
  const legacy = mnemonic.startsWith('V') ? families[mnemonic.slice(1)] : undefined;
  return legacy === undefined ? [mnemonic] : legacy.map((name) => `V${name}`);
}
/** Encodings of the hint-NOP space that have names in newer manuals; to this processor they are NOPs. */
const nops = [
  'PREFETCHNTA',
  'PREFETCHT0',
  'PREFETCHT1',
  'PREFETCHT2',
  'PREFETCHIT0',
  'PREFETCHIT1',
  'ENDBR64',
  'ENDBR32',
  'RDSSPD',
  'RDSSPQ',
  'CLDEMOTE',
  'RESERVEDNOP',
  'NOP',
  'BNDMK',
  'BNDMOV',
  'BNDCL',
  'BNDCU',
  'BNDCN',
  'BNDLDX',
  'BNDSTX',
]; // prettier-ignore

/** A small generator with a seed, so that a failure can be had again. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    return (x >>> 20) & 0xff;
  };
}

const prefixes = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0x48, 0x41, 0x44, 0x4f, 0x40];

function candidates(next: () => number): Uint8Array {
  const bytes = new Uint8Array(15);
  for (let i = 0; i < 15; i++) bytes[i] = next();
  let at = 0;
  for (let n = next() % 4; n > 1; n--) bytes[at++] = prefixes[next() % prefixes.length]!;
  const kind = next() % 8;
  if (kind < 3) bytes[at++] = 0x0f;
  if (kind === 0) bytes[at++] = [0x38, 0x3a, 0xae, 0x01, 0xc7][next() % 5]!;
  if (kind === 3 || kind === 4) {
    const map = 1 + (next() % 3);
    bytes[at++] = 0xc4;
    bytes[at++] = (next() & 0xe0) | map;
    // Half of them without a second source.
    bytes[at++] = (next() & 0xff) | (next() % 2 === 0 ? 0x78 : 0);
    if (kind === 3) bytes[at++] = 0xf2 + (next() % 6);
  }
  if (kind === 5) {
    bytes[at++] = 0xc5;
    bytes[at++] = (next() & 0xff) | (next() % 2 === 0 ? 0x78 : 0);
  }
  return bytes;
}

/** A register of iced-x86 as the byte offset that records hold. */
function offsetOf(register: Register): number {
  // The index of a gather is none of the record's own.
  if (register === Register.None || (register >= Register.XMM0 && register <= Register.YMM31)) return REGISTER_NONE;
  if (register === Register.RIP || register === Register.EIP) return BASE_RIP;
  for (const first of [Register.AX, Register.EAX, Register.RAX]) {
    if (register >= first && register < first + 16) return (register - first) * 8;
  }
  throw new Error(`register ${register}`);
}

/** What iced-x86 and the decoder think of the memory operand, in one form. */
function addresses(d: Decoder, theirs: Instruction): readonly [string, string] {
  const wide = d.addressSize === 8;
  const mask = d.addressSize === 2 ? 0xffff : 0xffffffff;
  const disp = wide
    ? BigInt.asUintN(64, (BigInt(d.dispHi) << 32n) | BigInt(d.dispLo >>> 0))
    : BigInt((d.dispLo & mask) >>> 0);
  const vsib = d.row!.options.has('vsib');
  const scale = d.index === REGISTER_NONE && !vsib ? 1 : 1 << d.scale;
  // 64-bit mode ignores prefixes for the first four, which iced-x86 reports.
  const segmentName = (n: number): string => (d.mode === 2 && n < 4 ? 'flat' : String(n));
  const ours = [d.base, d.index, scale, disp, segmentName(d.segment)].join(' ');
  const segments = [Register.ES, Register.CS, Register.SS, Register.DS, Register.FS, Register.GS];
  const scaleTheirs = theirs.memoryIndex === Register.None ? 1 : theirs.memoryIndexScale;
  const dispTheirs = BigInt.asUintN(d.addressSize * 8, theirs.memoryDisplacement);
  return [
    ours,
    [
      offsetOf(theirs.memoryBase),
      offsetOf(theirs.memoryIndex),
      scaleTheirs,
      dispTheirs,
      segmentName(segments.indexOf(theirs.memorySegment)),
    ].join(' '),
  ];
}

test.each([64, 32, 16])('%i-bit code decodes as iced-x86 does', (bits) => {
  const ours = new Decoder();
  const next = random(bits);
  const wrong = new Map<string, string>();
  let decoded = 0;
  let invalid = 0;
  for (let n = 0; n < 100_000; n++) {
    const bytes = candidates(next);
    const status = ours.decode(bytes, 0, 15, bits === 64 ? 2 : bits === 32 ? 1 : 0);
    const theirs = new Iced(bits, bytes, DecoderOptions.None);
    const instruction = theirs.decode();
    const name = Mnemonic[instruction.mnemonic]!.toUpperCase();
    const hex = Buffer.from(bytes.subarray(0, Math.max(instruction.length, 1))).toString('hex');
    if (status === DECODE_OK) {
      decoded++;
      const mnemonic = ours.row!.mnemonic;
      const family = mnemonic === 'NOP' ? nops : familyOf(mnemonic);
      if (ours.length !== instruction.length || !family.includes(name)) {
        wrong.set(`${mnemonic} ${name}`, `${hex}: ${mnemonic} ${ours.length}, iced ${name} ${instruction.length}`);
      } else {
        const named = ours.row!.hasModrm && (ours.flags & RECORD_HAS_MEMORY) !== 0 && !ours.row!.options.has('rdi');
        const hasMemory = [0, 1, 2].some((i) => i < instruction.opCount && instruction.opKind(i) === OpKind.Memory);
        if (named && hasMemory) {
          const [a, b] = addresses(ours, instruction);
          if (a !== b) wrong.set(`address ${mnemonic}`, `${hex}: ${mnemonic} [${a}], iced [${b}]`);
        }
        if (ours.row!.operands[0]?.place === 'rel') {
          const target = BigInt.asUintN(ours.operandSize * 8, (BigInt(ours.immHi) << 32n) | BigInt(ours.immLo >>> 0));
          if (target !== instruction.nearBranchTarget) {
            wrong.set(`target ${mnemonic}`, `${hex}: ${mnemonic} ${target}, iced ${instruction.nearBranchTarget}`);
          }
        }
      }
    } else {
      invalid++;
    }
    instruction.free();
    theirs.free();
  }
  expect([...wrong.values()].slice(0, 40)).toEqual([]);
  expect(decoded).toBeGreaterThan(invalid / 2);
});

test('every x87 and vector encoding has the name and length that iced-x86 gives it', () => {
  const ours = new Decoder();
  const wrong: string[] = [];
  const seen = new Set<number>();
  const rows = ENCODINGS.filter((row) => /^F/.test(row.mnemonic) || row.operands.some((o) => o.file !== 'gpr'));
  const next = generator(7);
  for (let n = 0; n < 80 * rows.length; n++) {
    const row = rows[n % rows.length]!;
    const code = encode(row, next);
    if (code.length === 0) continue;
    seen.add(row.id);
    const bytes = Uint8Array.from([...code, ...new Array<number>(15 - code.length).fill(0x90)]);
    ours.decode(bytes, 0, 15, 2);
    const theirs = new Iced(64, bytes, DecoderOptions.None);
    const instruction = theirs.decode();
    const name = Mnemonic[instruction.mnemonic]!.toUpperCase();
    const family = familyOf(row.mnemonic);
    if (ours.length !== instruction.length || !family.includes(name)) {
      wrong.push(`${row.text}: ${row.mnemonic} ${ours.length}, iced ${name} ${instruction.length}`);
    } else if (row.hasModrm && (ours.flags & RECORD_HAS_MEMORY) !== 0 && !row.options.has('rdi')) {
      const [a, b] = addresses(ours, instruction);
      if (a !== b) wrong.push(`${row.text}: [${a}], iced [${b}]`);
    }
    instruction.free();
    theirs.free();
  }
  expect([...new Set(wrong)].slice(0, 20)).toEqual([]);
  expect(rows.filter((row) => !seen.has(row.id)).map((row) => row.text)).toEqual([]);
});
