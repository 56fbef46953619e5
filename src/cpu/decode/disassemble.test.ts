import { expect, test } from 'vitest';
import { disassemble, listing } from './disassemble.ts';

const text = (mode: number, ...bytes: number[]): string => disassemble(Uint8Array.from(bytes), 0, mode, 0x1000, 0).text;

test('64-bit instructions', () => {
  expect(text(2, 0x48, 0x89, 0xd8)).toBe('mov rax, rbx');
  expect(text(2, 0x44, 0x8b, 0x44, 0xb5, 0xf8)).toBe('mov r8d, dword [rbp+rsi*4-0x8]');
  expect(text(2, 0x8a, 0x25, 0x10, 0, 0, 0)).toBe('mov ah, byte [0x1016]');
  expect(text(2, 0x0f, 0x22, 0xd8)).toBe('mov cr3, rax');
  expect(text(2, 0xeb, 0xfe)).toBe('jmp 0x1000');
  expect(text(2, 0xf3, 0xa4)).toMatch(/^rep movs/);
  expect(text(2, 0xf0, 0x0f, 0xc1, 0x07)).toBe('lock xadd dword [rdi], eax');
  expect(text(2, 0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0)).toBe('mov rax, qword gs:[0x28]');
  expect(text(2, 0x66, 0x0f, 0xef, 0xc1)).toBe('pxor xmm0, xmm1');
});

test('16-bit and 32-bit instructions', () => {
  expect(text(0, 0xea, 0x5b, 0xe0, 0x00, 0xf0)).toBe('jmp 0xf000:0xe05b');
  expect(text(1, 0x83, 0xc4, 0x08)).toBe('add esp, 0x8');
  expect(text(1, 0x8e, 0xd8)).toMatch(/^mov ds, /);
});

test('what is no instruction, and what is cut off', () => {
  expect(text(2, 0x06)).toBe('(bad)');
  expect(text(2, 0x48)).toBe('(cut off)');
  expect(listing(Uint8Array.of(0x90, 0x0f, 0x0b, 0x48), 2, -1, 0, 8)).toEqual([
    `0xffffffff  ${'90'.padEnd(24)} nop`,
    `0x100000000  ${'0f 0b'.padEnd(24)} ud2`,
  ]);
});
