/**
 * The opcode maps, gone over with iced-x86: every encoding that it knows and whose feature a profile's CPUID reports decodes and has a
 * handler; every other is undefined. SOFTKVM_INVENTORY=1 takes every opcode with every ModRM; without it a share of them.
 */
import { CpuidFeature, DecoderOptions, Decoder as Iced, Mnemonic } from 'iced-x86';
import { expect, test } from 'vitest';
import { absentFeatures } from '../isa/features.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { DECODE_OK, Decoder } from './decoder.ts';

/** iced-x86's features that all profiles have. What CPUID would tell apart of them (CMOV, MMX, ...) no profile lacks. */
const EVERYWHERE =
  `INTEL8086 INTEL186 INTEL286 INTEL386 INTEL486 FPU FPU287 FPU387 X64 MSR TSC CMOV MMX SSE SSE2 MULTIBYTENOP PAUSE MONITOR
  SMAP XSAVE SVM SKINIT_or_SVM PKU SYSCALL RDPMC SEP CPUID SMM FXSR CLFSH CX8 CMPXCHG16B PREFETCHW`.split(/\s+/);
/** By their names in features.ts. */
const NAMED: Readonly<Record<string, string>> = { SSE4_1: 'SSE4.1', SSE4_2: 'SSE4.2' };
/** Hints that older processors take for NOPs, and encodings of an instruction with a prefix that they ignore. */
const HARMLESS = ['PREFETCHWT1', 'PREFETCHITI', 'CLDEMOTE', 'CET_IBT', 'SEV_ES', 'WBNOINVD', 'LZCNT', 'BMI1', 'MPX'];
/** Decoded, so that an intercept or a mode can come before #UD: VMX or TDX on a processor without it. */
const SYSTEM = ['VMX', 'INVEPT', 'INVVPID', 'TDX'];
/** What iced-x86 knows and processors in general do not: #UD, whatever else is reported. */
const NOT_EXECUTED = ['Ud0', 'Ud1', 'Ud2', 'Reservednop', 'Fstpnce', 'Fneni', 'Fndisi', 'Fnsetpm', 'Fcomp'];

function heads(bits: number): number[][] {
  const all: number[][] = [];
  for (const prefix of [[], [0x66], [0xf2], [0xf3]]) {
    for (const rex of bits === 64 ? [[], [0x48]] : [[]]) {
      for (const map of [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]]) all.push([...prefix, ...rex, ...map]);
    }
  }
  for (let map = 1; map <= 3; map++) {
    for (let pp = 0; pp < 4; pp++) {
      for (const l of [0, 4]) {
        for (const w of [0, 0x80]) for (const v of [0x78, 0x60]) all.push([0xc4, 0xe0 | map, w | v | l | pp]);
      }
    }
  }
  return all;
}
const whole = process.env['SOFTKVM_INVENTORY'] !== undefined;
/** Opcodes whose ModRM byte is part of the opcode. */
const extended = [0x01, 0xae, 0xc7, 0xd9, 0xda, 0xdb, 0xdd, 0xde, 0xdf];
/** ModRM bytes: all register forms, and memory with no, with a SIB and with a plain base; or one of each kind for each digit. */
const isTaken = (opcode: number, modrm: number): boolean => {
  if (whole) return modrm >= 0xc0 || [0, 1, 4].includes(modrm & 7);
  if (modrm >= 0xc0 && extended.includes(opcode)) return true;
  return (modrm & 7) === (modrm >= 0xc0 ? 1 : 4) && (modrm >= 0xc0 || modrm < 0x40);
};

test.each(['silicon-genoa', 'silicon-icelake', 'qemu-tcg-epyc'])(
  '%s executes what its CPUID reports, and no more',
  { timeout: 600_000 },
  (name) => {
    const absent = absentFeatures(hardwareProfile(name).cpuid);
    const ours = new Decoder(absent);
    const missing = new Set<string>();
    const tooMuch = new Set<string>();
    const executed = new Set<string>();
    const undefinedOnes = new Set<string>();
    for (const bits of whole ? [64, 32, 16] : [64]) {
      for (const head of heads(bits)) {
        for (let opcode = 0; opcode < 256; opcode++) {
          for (let modrm = 0; modrm < 256; modrm++) {
            if (!isTaken(opcode, modrm)) continue;
            const bytes = Uint8Array.from([...head, opcode, modrm, 0x25, 0, 0, 0, 0, 0, 0, 0, 0]);
            const theirs = new Iced(bits, bytes, DecoderOptions.None);
            const instruction = theirs.decode();
            const decoded = ours.decode(bytes, 0, bytes.length, bits === 64 ? 2 : bits === 32 ? 1 : 0) === DECODE_OK;
            const mnemonic = Mnemonic[instruction.mnemonic]!;
            const features = [...instruction.cpuidFeatures()].map((f) => CpuidFeature[f]!);
            const hex = `${bits} ${mnemonic} ${Buffer.from(bytes.subarray(0, head.length + 2)).toString('hex')}`;
            if (mnemonic === 'INVALID') {
              if (decoded) tooMuch.add(`${bits} ${ours.row!.mnemonic} ${Buffer.from(bytes).toString('hex')}`);
            } else {
              const has = features.every(
                (f) => EVERYWHERE.includes(f) || (!absent.has((NAMED[f] ?? f) as never) && KNOWN.has(NAMED[f] ?? f)),
              );
              const ignorable = features.some((f) => HARMLESS.includes(f) || SYSTEM.includes(f));
              if (decoded) executed.add(mnemonic);
              else undefinedOnes.add(mnemonic);
              if (has && !decoded && !NOT_EXECUTED.includes(mnemonic)) missing.add(hex);
              if (!has && decoded && !ignorable && ours.row!.mnemonic !== 'NOP')
                tooMuch.add(`${features.join('+')} ${hex}`);
            }
            instruction.free();
            theirs.free();
          }
        }
      }
    }
    expect([...missing].slice(0, 20)).toEqual([]);
    expect([...tooMuch].slice(0, 20)).toEqual([]);
    if (whole)
      console.log(
        `${name}: ${executed.size} instructions are executed, ${undefinedOnes.size} have undefined encodings`,
      );
    expect(executed.size).toBeGreaterThan(name.startsWith('silicon') ? 900 : 500);
  },
);

/** Every name of features.ts. */
const KNOWN: ReadonlySet<string> = absentFeatures([]);
