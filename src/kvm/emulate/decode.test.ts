import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code, Decoder, DecoderOptions } from 'iced-x86';
import { describe, expect, it } from 'vitest';
import { CS, RIP } from '../../arch/registers.ts';
import { EMULTYPE_TRAP_UD } from '../x86/emul-type.ts';
import { EMULATION_OK } from './ctxt.ts';
import { x86DecodeInsn } from './decode.ts';
import { initDecodeCache } from './emulate.ts';
import { FlatMachine } from './flat-machine.testing.ts';
import { UNDEFINED } from './opcode.ts';

/** Where recordings of a real kernel are. */
const corpus = join(import.meta.dirname, '../../../conformance');

/** Decodes `bytes` at `at`; the verdict and how many bytes were consumed. */
function decode(
  machine: FlatMachine,
  bytes: Uint8Array,
  emulationType = 0,
  at = 0x1000,
): { ok: boolean; length: number } {
  machine.memory.set(bytes.subarray(0, machine.memory.length - at), at);
  const { ctxt } = machine;
  ctxt.mode = machine.mode;
  ctxt.eipLo = at;
  ctxt.eipHi = 0;
  ctxt.haveException = false;
  initDecodeCache(ctxt);
  const ok = x86DecodeInsn(ctxt, null, 0, emulationType) === EMULATION_OK;
  return { ok, length: ctxt.fetch.ptr };
}

function machineOf(mode: string): FlatMachine {
  const machine = new FlatMachine(0x4000);
  if (mode === 'prot32') machine.protect(1);
  else if (mode === 'prot16') machine.protect(0);
  else if (mode !== 'prot64') machine.real();
  return machine;
}

interface Recorded {
  readonly bytes: string;
  readonly mode: string;
  readonly rip: string;
  readonly failed: boolean;
}

function recordedInstructions(): Map<string, Recorded> {
  const found = new Map<string, Recorded>();
  for (const dir of readdirSync(corpus, { withFileTypes: true })) {
    if (!dir.isDirectory()) continue;
    for (const file of readdirSync(join(corpus, dir.name))) {
      if (!file.endsWith('.json')) continue;
      const { steps } = JSON.parse(readFileSync(join(corpus, dir.name, file), 'utf8'));
      for (const step of steps) {
        for (const { event, fields } of step.expect.trace ?? []) {
          if (event !== 'kvm_emulate_insn' || fields.bytes === '' || fields.failed) continue;
          found.set(`${fields.mode} ${fields.bytes}`, fields);
        }
      }
    }
  }
  return found;
}

describe('decoding', () => {
  it('consumes as many bytes as the kernel did, for every recorded instruction', () => {
    const recorded = recordedInstructions();
    expect(recorded.size).toBeGreaterThan(100);
    const wrong: string[] = [];
    for (const { bytes, mode, rip } of recorded.values()) {
      const raw = new Uint8Array(16).fill(0x90);
      raw.set(Buffer.from(bytes, 'hex'));
      // In the last page of memory: what the kernel could not fetch, because a page was missing, is missing here too.
      const at = 0x3000 + (Number.parseInt(rip, 16) & 0xfff);
      const { length } = decode(machineOf(mode), raw, 0, at);
      if (length !== bytes.length / 2) wrong.push(`${mode} ${bytes}: ${length}`);
    }
    expect(wrong).toEqual([]);
  });

  it.each([
    ['prot64', 64],
    ['prot32', 32],
    ['prot16', 16],
  ])('agrees with another decoder on lengths (%s)', (mode, bitness) => {
    const machine = machineOf(mode);
    let seed = bitness;
    const random = () => {
      seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
      return seed >>> 24;
    };
    let compared = 0;
    const wrong: string[] = [];
    for (let i = 0; i < 60_000; i++) {
      const bytes = Uint8Array.from({ length: 16 }, random);
      // Half of them with a byte that is likely to begin something emulated.
      if ((i & 1) !== 0) bytes[0] = [0x0f, 0x66, 0x48, 0xf3, 0x67, 0xc7, 0x80, 0xff][(i >> 1) & 7]!;
      const { ok, length } = decode(machine, bytes);
      if (!ok || (machine.ctxt.d & UNDEFINED) !== 0) continue;
      const decoder = new Decoder(bitness, bytes, DecoderOptions.AMD);
      const other = decoder.decode();
      if (other.code !== Code.INVALID) {
        compared++;
        // Operand-size prefixes on near branches in 64-bit mode and moves to control registers differ by vendor, not by us.
        if (other.length !== length) {
          const nearBranch = bitness === 64 && machine.ctxt.isBranch;
          if (!nearBranch) wrong.push(`${Buffer.from(bytes).toString('hex')} ${length} ${other.length} ${other.code}`);
        }
      }
      other.free();
      decoder.free();
    }
    expect(compared).toBeGreaterThan(5000);
    expect(wrong).toEqual([]);
  });

  it('fetches up to the end of the page, then what is missing', () => {
    const machine = machineOf('prot64');
    machine.memory.set([0xc7, 0x04, 0x25, 0x00, 0x10, 0x00, 0x00, 0x78, 0x56, 0x34, 0x12], 0x1ffd);
    const { ctxt } = machine;
    ctxt.mode = machine.mode;
    ctxt.eipLo = 0x1ffd;
    initDecodeCache(ctxt);
    expect(x86DecodeInsn(ctxt, null, 0, 0)).toBe(EMULATION_OK);
    expect(machine.log).toEqual(['fetch 0x1ffd+3', 'fetch 0x2000+12']);
    expect(ctxt.fetch.ptr).toBe(11);
    expect(ctxt.fetch.end).toBe(15);
  });

  it('faults beyond 15 bytes and beyond the code segment', () => {
    const machine = machineOf('prot64');
    expect(decode(machine, new Uint8Array(16).fill(0x66)).ok).toBe(false);
    expect(machine.ctxt.haveException).toBe(true);
    expect(machine.ctxt.exception.vector).toBe(13);
    const real = machineOf('real');
    real.segments[CS]!.limit = 0x1001;
    expect(decode(real, Uint8Array.of(0xb8, 0x34, 0x12)).ok).toBe(false);
    expect(real.ctxt.exception.vector).toBe(13);
    expect(real.log).toEqual(['fetch 0x1000+2']);
  });

  it('takes bytes that the exit delivered instead of fetching', () => {
    const machine = machineOf('prot64');
    machine.ctxt.mode = machine.mode;
    machine.ctxt.eipLo = machine.regs[2 * RIP]!;
    initDecodeCache(machine.ctxt);
    expect(x86DecodeInsn(machine.ctxt, Uint8Array.of(0x8b, 0x03), 2, 0)).toBe(EMULATION_OK);
    expect(machine.log).toEqual([]);
  });

  it('emulates after #UD only what is marked so', () => {
    const machine = machineOf('prot64');
    expect(decode(machine, Uint8Array.of(0x0f, 0x05), EMULTYPE_TRAP_UD).ok).toBe(true);
    expect(decode(machine, Uint8Array.of(0x0f, 0x38, 0xf0, 0x03), EMULTYPE_TRAP_UD).ok).toBe(true);
    expect(decode(machine, Uint8Array.of(0x0f, 0x0b), EMULTYPE_TRAP_UD).ok).toBe(false);
    expect(decode(machine, Uint8Array.of(0x90), EMULTYPE_TRAP_UD).ok).toBe(false);
    expect(machine.ctxt.haveException).toBe(false);
  });
});
