import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { RFLAGS_AF, RFLAGS_CF, RFLAGS_OF, RFLAGS_PF, RFLAGS_SF, RFLAGS_ZF } from '../../arch/registers.ts';
import { DECODE_OK, Decoder } from '../decode/decoder.ts';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import { FPU_REGS, GPR, STATUS_BUDGET, XMM, XMM_SIZE } from '../state.ts';
import { DATA_ADDRESS, DATA_SIZE, generator, stateOf } from './native-cases.testing.ts';

/** [code, seed of the state, flags afterwards or -1 for a fault, what changed] */
type Vector = readonly [code: string, seed: number, flags: number, changed: string];

const ALL = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;
const CODE = 0x10000;

/** Flags that an instruction leaves undefined. */
function undefinedFlags(mnemonic: string): number {
  if (/^(SH|SA)[LR]D?$/.test(mnemonic)) return RFLAGS_OF | RFLAGS_AF;
  if (/^R[OC][LR]$/.test(mnemonic)) return RFLAGS_OF;
  if (/^I?MUL$/.test(mnemonic)) return RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF;
  if (/^I?DIV$/.test(mnemonic)) return ALL;
  if (/^BS[FR]$/.test(mnemonic)) return ALL & ~RFLAGS_ZF;
  if (/^BT[SRC]?$/.test(mnemonic)) return ALL & ~(RFLAGS_CF | RFLAGS_ZF);
  if (/^[TL]ZCNT$/.test(mnemonic)) return ALL & ~(RFLAGS_CF | RFLAGS_ZF);
  if (/^(ANDN|BLS.*|BZHI|BEXTR)$/.test(mnemonic)) return RFLAGS_AF | RFLAGS_PF | (mnemonic === 'BEXTR' ? RFLAGS_SF : 0);
  return /^(AND|OR|XOR|TEST)$/.test(mnemonic) ? RFLAGS_AF : 0;
}

test('the generator of states has not changed', () => {
  const next = generator(1);
  expect([next(), next(), next()]).toEqual([2724113954, 2227202063, 2985840911]);
});

test('whole instructions do what a processor did', () => {
  const vectors = JSON.parse(readFileSync(new URL('./native-vectors.json', import.meta.url), 'utf8')) as Vector[];
  expect(vectors.length).toBeGreaterThan(1000);
  const machine = new FlatMachine();
  const decoder = new Decoder();
  const { u64, u8 } = machine.memory;
  for (const [hex, seed, flags, changed] of vectors) {
    const code = Buffer.from(hex, 'hex');
    expect(decoder.decode(code, 0, code.length, 2), hex).toBe(DECODE_OK);
    const where = `${decoder.row!.mnemonic} ${hex} seed ${seed}`;
    const state = stateOf(seed);
    const data = new BigUint64Array(state.data.buffer);
    u64.set(state.gpr, GPR >> 3);
    for (let i = 0; i < 32; i++) u64[((XMM + (i >> 1) * XMM_SIZE) >> 3) + (i & 1)] = state.xmm[i]!;
    for (let i = 0; i < 8; i++) u64[(FPU_REGS >> 3) + i * 2] = state.mmx[i]!;
    machine.load(DATA_ADDRESS, state.data);
    machine.load(CODE, code);
    machine.interpreter.writeRflags(state.flags);
    machine.rip = CODE;
    const status = machine.run(1);
    expect(status === STATUS_BUDGET ? 0 : -1, where).toBe(flags === -1 ? -1 : 0);

    for (const change of changed === '' ? [] : changed.split(' ')) {
      const [name, value] = change.split('=') as [string, string];
      const i = Number(name.slice(1));
      const bank = { g: state.gpr, x: state.xmm, m: state.mmx, d: data }[name[0]!]!;
      bank[i] = BigInt(`0x${value}`);
    }
    const registers = u64.slice(GPR >> 3, (GPR >> 3) + 16);
    expect(registers, where).toEqual(state.gpr);
    const xmm = Array.from({ length: 32 }, (_, i) => u64[((XMM + (i >> 1) * XMM_SIZE) >> 3) + (i & 1)]!);
    expect(BigUint64Array.from(xmm), where).toEqual(state.xmm);
    const mmx = Array.from({ length: 8 }, (_, i) => u64[(FPU_REGS >> 3) + i * 2]!);
    expect(BigUint64Array.from(mmx), where).toEqual(state.mmx);
    expect(machine.bytes(DATA_ADDRESS, DATA_SIZE), where).toEqual(state.data);
    if (flags !== -1) {
      const defined = ~undefinedFlags(decoder.row!.mnemonic) & (ALL | 0x400);
      expect(machine.interpreter.readRflags() & defined, where).toBe(flags & defined);
    }
  }
  expect(u8.length).toBeGreaterThan(0);
});
