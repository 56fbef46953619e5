/**
 * Both engines on the same guests, in one run: millions of instructions a second, and what compilation gains. Asserts that both retire
 * the same number of instructions; BENCH_ROUNDS makes the guests run longer.
 */
import { expect, test } from 'vitest';
import { RBX, RCX, RDI, RSI, RSP } from '../../arch/registers.ts';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import { STATUS_BUDGET, STATUS_EXCEPTION, STATUS_EXIT } from '../state.ts';
import { COMPILED, type Engine, INTERPRETER } from './engine.ts';

const CODE = 0x10000;
const DATA = 0x400000;
const OTHER = 0x600000;
const SIEVE = 1 << 20;
const FAULTS = 1500;
const rounds = Number(process.env['BENCH_ROUNDS'] ?? 20_000);
const N = [SIEVE & 0xff, (SIEVE >> 8) & 0xff, (SIEVE >> 16) & 0xff, SIEVE >> 24];

interface Guest {
  readonly name: string;
  readonly code: readonly number[];
  readonly prepare: (m: FlatMachine) => void;
}

const guests: readonly Guest[] = [
  {
    // 1: imul rax,rcx; add rax,rdx; rol rdx,7; xor rdx,rax; lea rbx,[rbx+rax*4+3]; test al,1; jz 2f; not rdx; 2: sub rcx,1; jnz 1b
    name: 'integer mix',
    code: [
      0x48, 0x0f, 0xaf, 0xc1, 0x48, 0x01, 0xd0, 0x48, 0xc1, 0xc2, 7, 0x48, 0x31, 0xc2, 0x48, 0x8d, 0x5c, 0x83, 3, 0xa8,
      1, 0x74, 3, 0x48, 0xf7, 0xd2, 0x48, 0x83, 0xe9, 1, 0x75, 0xe0,
    ],
    prepare: (m) => m.setRegister(RCX, rounds * 10),
  },
  {
    // Eratosthenes: mov esi,2; 1: j = i * i, done when above; a[i] == 0: 2: a[j] = 1; j += i; jb 2b; 3: inc esi; jmp 1b
    name: 'sieve',
    code: [
      0xbe,
      2,
      0,
      0,
      0,
      0x89,
      0xf0,
      0x0f,
      0xaf,
      0xc6,
      0x3d,
      ...N,
      0x73,
      0x17,
      0x80,
      0x3c,
      0x37,
      0,
      0x75,
      0x0d,
      0xc6,
      0x04,
      0x07,
      1,
      0x01,
      0xf0,
      0x3d,
      ...N,
      0x72,
      0xf3,
      0xff,
      0xc6,
      0xeb,
      0xdd,
    ],
    prepare: (m) => {
      m.load(DATA, new Uint8Array(SIEVE));
      m.setRegister(RDI, DATA);
    },
  },
  {
    // 1: mov ecx,8192; 2: mov rax,[rsi+rcx*8-8]; mov [rdi+rcx*8-8],rax; dec rcx; jnz 2b; sub ebx,1; jnz 1b
    name: 'memcpy',
    code: [
      0xb9, 0, 0x20, 0, 0, 0x48, 0x8b, 0x44, 0xce, 0xf8, 0x48, 0x89, 0x44, 0xcf, 0xf8, 0x48, 0xff, 0xc9, 0x75, 0xf1,
      0x83, 0xeb, 1, 0x75, 0xe7,
    ],
    prepare: (m) => {
      m.setRegister(RSI, DATA);
      m.setRegister(RDI, OTHER);
      m.setRegister(RBX, Math.ceil(rounds / 400));
    },
  },
  {
    // 1: call f; sub ecx,1; jnz 1b; hlt; f: ret
    name: 'call and return',
    code: [0xe8, 6, 0, 0, 0, 0x83, 0xe9, 1, 0x75, 0xf6, 0xf4, 0xc3],
    prepare: (m) => m.setRegister(RCX, rounds * 10),
  },
  {
    // 1: mov [rdi],rax; add rdi,4096; sub ecx,1; jnz 1b: every store faults once
    name: 'page-fault round trips',
    code: [0x48, 0x89, 0x07, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0x83, 0xe9, 1, 0x75, 0xf1],
    prepare: (m) => {
      m.flushTlb();
      for (let page = 0; page < FAULTS; page++) m.absent.add(DATA / 4096 + page);
      m.setRegister(RDI, DATA);
      m.setRegister(RCX, FAULTS);
    },
  },
];

/** The best of a few runs, in millions of instructions a second, and the instructions of one. */
function measure(guest: Guest, engine: Engine): { rate: number; retired: number } {
  const m = new FlatMachine('long64', engine);
  m.load(CODE, [...guest.code, 0xf4]);
  let rate = 0;
  let retired = 0;
  for (let n = 0; n < (rounds > 100_000 ? 8 : 3); n++) {
    m.rip = CODE;
    m.setRegister(RSP, 0x8000);
    guest.prepare(m);
    m.translations = [];
    const before = m.retired;
    const start = performance.now();
    let status = STATUS_BUDGET;
    while (status !== STATUS_EXIT) {
      status = m.run(1_000_000);
      if (status === STATUS_EXCEPTION) m.absent.delete(Math.floor(m.low(RDI) / 4096));
    }
    retired = m.retired - before;
    rate = Math.max(rate, retired / (performance.now() - start) / 1000);
  }
  return { rate, retired };
}

test.each(guests)('$name', (guest) => {
  const interpreted = measure(guest, INTERPRETER);
  const compiled = measure(guest, COMPILED);
  expect(compiled.retired).toBe(interpreted.retired);
  const ratio = compiled.rate / interpreted.rate;
  console.log(
    `${guest.name}: interpreter ${interpreted.rate.toFixed(1)}, compiled ${compiled.rate.toFixed(1)} M instructions/s, ${ratio.toFixed(1)} times`,
  );
});
