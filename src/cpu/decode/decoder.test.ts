import { DecoderOptions, Decoder as Iced, Mnemonic } from 'iced-x86';
import { expect, test } from 'vitest';
import { DECODE_OK, Decoder } from './decoder.ts';

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
};
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
  if (kind === 3) {
    bytes[at++] = 0xc4;
    bytes[at++] = (next() & 0xe0) | 2;
    bytes[at++] = next() & 0xfb;
    bytes[at++] = 0xf2 + (next() % 6);
  }
  return bytes;
}

test.each([64, 32, 16])('%i-bit code decodes as iced-x86 does', (bits) => {
  const ours = new Decoder();
  const next = random(bits);
  const wrong = new Map<string, string>();
  let decoded = 0;
  let invalid = 0;
  for (let n = 0; n < 60_000; n++) {
    const bytes = candidates(next);
    const status = ours.decode(bytes, 0, 15, bits === 64 ? 2 : bits === 32 ? 1 : 0);
    const theirs = new Iced(bits, bytes, DecoderOptions.None);
    const instruction = theirs.decode();
    const name = Mnemonic[instruction.mnemonic]!.toUpperCase();
    const hex = Buffer.from(bytes.subarray(0, Math.max(instruction.length, 1))).toString('hex');
    if (status === DECODE_OK) {
      decoded++;
      const mnemonic = ours.row!.mnemonic;
      const family = mnemonic === 'NOP' ? nops : (families[mnemonic] ?? [mnemonic]);
      if (ours.length !== instruction.length || !family.includes(name)) {
        wrong.set(`${mnemonic} ${name}`, `${hex}: ${mnemonic} ${ours.length}, iced ${name} ${instruction.length}`);
      }
    } else {
      invalid++;
    }
    instruction.free();
    theirs.free();
  }
  expect([...wrong.values()].slice(0, 40)).toEqual([]);
  expect(decoded).toBeGreaterThan(invalid);
});
