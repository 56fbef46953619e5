import { describe, expect, it } from 'vitest';
import { FS, RAX, RCX, RDX, RIP, RSP, TR } from '../../arch/registers.ts';
import type { FlatMachine } from './flat-machine.testing.ts';
import { CODE, DATA, get, put, run, type Setup } from './snippet.testing.ts';

describe('moves', () => {
  const forms: [what: string, code: string, setup: Setup, check: (m: FlatMachine) => unknown, want: unknown][] = [
    [
      'mov eax, [rbx] clears the upper half',
      '8b03',
      (m) => {
        put(m, DATA, '11223344');
        m.setReg(RAX, -1n & 0xffffffffffffffffn);
      },
      (m) => m.reg(RAX),
      0x44332211n,
    ],
    [
      'mov ax, [rbx] keeps the rest',
      '668b03',
      (m) => {
        put(m, DATA, '1122');
        m.setReg(RAX, 0x1111_2222_3333_4444n);
      },
      (m) => m.reg(RAX),
      0x1111_2222_3333_2211n,
    ],
    ['mov ah, [rbx]', '8a23', (m) => put(m, DATA, '7f'), (m) => m.reg(RAX), 0x7f00n],
    ['mov spl, [rbx]', '408a23', (m) => put(m, DATA, '7f'), (m) => m.reg(RSP), 0x807fn],
    ['mov [rbx], r/m64 imm32 sign-extended', '48c703ffffffff', () => {}, (m) => get(m, DATA, 8), 'ffffffffffffffff'],
    ['mov rax, imm64', '48b88877665544332211', () => {}, (m) => m.reg(RAX), 0x1122334455667788n],
    ['mov al, moffs64', 'a0 0040000000000000', (m) => put(m, DATA, '5a'), (m) => m.reg(RAX), 0x5an],
    ['movzx eax, word', '0fb703', (m) => put(m, DATA, 'ffff'), (m) => m.reg(RAX), 0xffffn],
    ['movsx rax, byte', '480fbe03', (m) => put(m, DATA, '80'), (m) => m.reg(RAX), 0xffffffffffffff80n],
    ['movsxd rax, dword', '486303', (m) => put(m, DATA, '00000080'), (m) => m.reg(RAX), 0xffffffff80000000n],
    ['lea rax, [rip+0x10]', '488d0510000000', () => {}, (m) => m.reg(RAX), 0x1017n],
    ['lea eax, [rbx+rcx*4+8]', '8d448b08', (m) => m.setReg(RCX, 3n), (m) => m.reg(RAX), 0x4014n],
    [
      'mov rip-relative with an immediate behind',
      'c705f52f000078563412',
      () => {},
      (m) => get(m, 0x3fff, 4),
      '78563412',
    ],
    ['bswap rax', '480fc8', (m) => m.setReg(RAX, 0x1122334455667788n), (m) => m.reg(RAX), 0x8877665544332211n],
    ['movbe eax, [rbx]', '0f38f003', (m) => put(m, DATA, '11223344'), (m) => m.reg(RAX), 0x11223344n],
    ['cwd', '6699', (m) => m.setReg(RAX, 0x8000n), (m) => m.reg(RDX), 0xffffn],
    ['cdqe', '4898', (m) => m.setReg(RAX, 0x80000000n), (m) => m.reg(RAX), 0xffffffff80000000n],
    [
      'cmovz not taken clears the upper half',
      '0f4403',
      (m) => m.setReg(RAX, 0xffffffff00000001n),
      (m) => m.reg(RAX),
      1n,
    ],
    [
      'sete [rbx]',
      '0f9403',
      (m) => {
        m.eflags = 0x42;
      },
      (m) => get(m, DATA, 1),
      '01',
    ],
    [
      'xlatb',
      'd7',
      (m) => {
        put(m, DATA + 5, '99');
        m.setReg(RAX, 5n);
      },
      (m) => m.reg(RAX),
      0x99n,
    ],
    [
      'lahf',
      '9f',
      (m) => {
        m.eflags = 0xd7;
      },
      (m) => m.reg(RAX),
      0xd700n,
    ],
    ['movups xmm1, [rbx]', '0f100b', (m) => put(m, DATA, '000102030405060708090a0b0c0d0e0f'), (m) => m.xmm[1]![15], 15],
    ['movdqa [rbx], xmm2', '660f7f13', (m) => m.xmm[2]!.fill(7), (m) => get(m, DATA, 16), '07'.repeat(16)],
    ['movq mm3, [rbx]', '0f6f1b', (m) => put(m, DATA, '0807060504030201'), (m) => m.mmx[3]![0], 8],
    ['fnstcw [rbx]', 'd93b', () => {}, (m) => get(m, DATA, 2), '7f03'],
    [
      'fs segment base',
      '64a1 0000000000000000',
      (m) => {
        put(m, DATA, '01000000');
        m.segments[FS]!.baseLo = DATA;
      },
      (m) => m.reg(RAX),
      1n,
    ],
    [
      'sgdt',
      '0f0103',
      (m) => {
        m.gdt = { limit: 0x7f, baseLo: 0x1000, baseHi: -1 };
      },
      (m) => get(m, DATA, 10),
      '7f0000100000ffffffff',
    ],
    ['lidt', '0f011b', (m) => put(m, DATA, 'ff0f 0020000000000000'), (m) => m.idt.limit, 0xfff],
    ['mov rax, cr4', '0f20e0', () => {}, (m) => m.reg(RAX), 0x620n],
    [
      'str eax',
      '0f00c8',
      (m) => {
        m.segments[TR]!.selector = 0x30;
      },
      (m) => m.reg(RAX),
      0x30n,
    ],
  ]; // prettier-ignore
  it.each(forms)('%s', (_, code, setup, check, want) => {
    const { machine, outcome } = run(code, setup);
    expect(outcome.kind).toBe('done');
    expect(check(machine)).toEqual(want);
    expect(machine.reg(RIP)).toBe(BigInt(CODE + code.replaceAll(' ', '').length / 2));
  });
});
