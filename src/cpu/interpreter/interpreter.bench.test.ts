/** Throughput of the interpreter on a loop of simple instructions; asserts only that it ran, and prints the rate. */
import { expect, test } from 'vitest';
import { RBX, RCX, RSP } from '../../arch/registers.ts';
import { STATUS_EXIT } from '../state.ts';
import { FlatMachine } from './flat-machine.testing.ts';

const CODE = 0x10000;

test.each([
  // 1: add rax,rcx; xor rdx,rax; mov rsi,rdx; shr rsi,3; lea rdi,[rsi+rax*2]; sub ecx,1; jnz 1b
  [
    'arithmetic',
    [
      0x48, 0x01, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0x89, 0xd6, 0x48, 0xc1, 0xee, 3, 0x48, 0x8d, 0x3c, 0x46, 0x83, 0xe9, 1,
      0x75, 0xea,
    ],
    7,
  ],
  // 1: mov rax,[rbx]; add rax,rcx; mov [rbx+8],rax; add [rbx+16],rax; push rax; pop rdx; cmp rax,rdx; jne; sub ecx,1; jnz 1b
  [
    'memory',
    [
      0x48, 0x8b, 0x03, 0x48, 0x01, 0xc8, 0x48, 0x89, 0x43, 8, 0x48, 0x01, 0x43, 16, 0x50, 0x5a, 0x48, 0x39, 0xd0, 0x75,
      0, 0x83, 0xe9, 1, 0x75, 0xe6,
    ],
    10,
  ],
  // 1: call f; sub ecx,1; jnz 1b; hlt; f: ret
  ['calls', [0xe8, 6, 0, 0, 0, 0x83, 0xe9, 1, 0x75, 0xf6, 0xf4, 0xc3], 4],
] as const)('%s', (name, code, perRound) => {
  const rounds = Number(process.env['BENCH_ROUNDS'] ?? 200_000);
  const m = new FlatMachine();
  m.load(CODE, [...code, 0xf4]);
  let best = 0;
  for (let i = 0; i < (rounds > 1_000_000 ? 4 : 1); i++) {
    m.rip = CODE;
    m.setRegister(RCX, rounds);
    m.setRegister(RBX, 0x20000);
    m.setRegister(RSP, 0x8000);
    const start = performance.now();
    expect(m.run(2 ** 31 - 1)).toBe(STATUS_EXIT);
    best = Math.max(best, (rounds * perRound) / (performance.now() - start) / 1000);
  }
  console.log(`${name}: ${best.toFixed(0)} M instructions/s`);
});
