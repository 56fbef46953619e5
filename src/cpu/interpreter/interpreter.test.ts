import { expect, test } from 'vitest';
import { DB_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { DS, FS, GS, RAX, RBX, RCX, RDI, RDX, RFLAGS_TF, RSI, RSP } from '../../arch/registers.ts';
import { INT_SHADOW_AT, SEG, SEG_SIZE, STATUS_BUDGET, STATUS_EXCEPTION, STATUS_EXIT, STATUS_OK } from '../state.ts';
import { SYS_HLT } from '../system-ops.ts';
import { FlatMachine } from './flat-machine.testing.ts';

const CODE = 0x10000;
const HLT = 0xf4;

function machine(code: number[], mode: 'long64' | 'protected32' | 'real16' = 'long64'): FlatMachine {
  const m = new FlatMachine(mode);
  m.load(CODE & (mode === 'real16' ? 0x7fff : -1), code);
  m.rip = CODE & (mode === 'real16' ? 0x7fff : -1);
  m.setRegister(RSP, 0x8000);
  return m;
}

test('a loop: mov, add, sub, jnz', () => {
  // mov ecx,1000; xor eax,eax; 1: add rax,rcx; sub ecx,1; jnz 1b; hlt
  const m = machine([0xb9, 0xe8, 3, 0, 0, 0x31, 0xc0, 0x48, 0x01, 0xc8, 0x83, 0xe9, 1, 0x75, 0xf8, HLT]);
  expect(m.run(100_000)).toBe(STATUS_EXIT);
  expect(m.low(RAX)).toBe(500500);
  expect(m.retired).toBe(2 + 3000);
  expect(m.rip).toBe(CODE + 15);
});

test('the budget stops between instructions, and the run goes on', () => {
  const m = machine([0xff, 0xc0, 0xeb, 0xfc]); // inc eax; jmp
  expect(m.run(7)).toBe(STATUS_BUDGET);
  expect([m.low(RAX), m.rip]).toEqual([4, CODE + 2]);
  expect(m.interpreter.run()).toBe(STATUS_BUDGET);
  expect(m.run(1)).toBe(STATUS_BUDGET);
  expect([m.low(RAX), m.rip, m.retired]).toEqual([4, CODE, 8]);
});

test('call, ret, push, pop, memory operands', () => {
  // call f; hlt; f: push rbx; mov rbx,[rip+9]; mov [rsp-16],rbx; pop rbx; ret; nop
  const m = machine([
    0xe8,
    1,
    0,
    0,
    0,
    HLT,
    0x53,
    0x48,
    0x8b,
    0x1d,
    7,
    0,
    0,
    0,
    0x48,
    0x89,
    0x5c,
    0x24,
    0xf0,
    0x5b,
    0xc3,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
  ]);
  m.setRegister(RBX, 77);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([...m.bytes(0x8000 - 8 - 8 - 16, 8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect([m.low(RBX), m.low(RSP), m.rip]).toEqual([77, 0x8000, CODE + 5]);
});

test('a fault leaves no trace', () => {
  const m = machine([0x01, 0x03, 0x48, 0xff, 0x34, 0x24]); // add [rbx],eax
  m.readOnly.add(0x20);
  m.setRegister(RBX, 0x20010);
  m.setRegister(RAX, 5);
  const flags = m.interpreter.readRflags();
  expect(m.run(100)).toBe(STATUS_EXCEPTION);
  expect([m.faultVector, m.rip, m.retired, m.interpreter.readRflags()]).toEqual([PF_VECTOR, CODE, 0, flags]);
  expect(m.translations.at(-1)).toEqual({ address: 0x20010, access: 3 });
});

test('accesses that cross a page', () => {
  const m = machine([0x48, 0x01, 0x03, 0x48, 0x8b, 0x0b, 0x48, 0x89, 0x4b, 0x08, HLT]); // add [rbx],rax; mov rcx,[rbx]; mov [rbx+8],rcx
  m.load(0x20ffc, [1, 2, 3, 4, 5, 6, 7, 8]);
  m.setRegister(RBX, 0x20ffc);
  m.setRegister(RAX, 0x01010101, 0x01010101);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([...m.bytes(0x20ffc, 16)]).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('an instruction across a page: the second page is fetched only when needed', () => {
  const m = machine([]);
  m.load(0x11ffe, [0x90, 0xb8, 1, 2, 3, 4, HLT]);
  m.rip = 0x11ffe;
  m.absent.add(0x12);
  expect(m.run(100)).toBe(STATUS_EXCEPTION);
  expect([m.rip, m.retired]).toEqual([0x11fff, 1]);
  m.absent.clear();
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect(m.low(RAX)).toBe(0x04030201);
});

test('code that writes itself', () => {
  // mov byte [rip+1],2; mov eax,1; hlt: the immediate of the next instruction changes
  const m = machine([0xc6, 0x05, 1, 0, 0, 0, 2, 0xb8, 1, 0, 0, 0, HLT]);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect(m.low(RAX)).toBe(2);
  m.load(CODE + 8, [9]);
  m.rip = CODE + 7;
  m.run(100);
  expect(m.low(RAX)).toBe(9);
});

test('a loop that writes its own code in every pass', () => {
  // mov ecx,1000; 1: inc byte [rip+2]; add eax,0; dec ecx; jnz 1b; hlt: the immediate counts up
  const m = machine([0xb9, 0xe8, 3, 0, 0, 0xfe, 0x05, 2, 0, 0, 0, 0x83, 0xc0, 0, 0xff, 0xc9, 0x75, 0xf3, HLT]);
  expect(m.run(10_000)).toBe(STATUS_EXIT);
  let sum = 0;
  for (let i = 1; i <= 1000; i++) sum += (i << 24) >> 24;
  expect(m.low(RAX)).toBe(sum);
});

test('an undefined instruction, and LOCK where it does not belong', () => {
  for (const code of [
    [0x0f, 0x0b],
    [0xf0, 0x01, 0xc0],
    [0xf0, 0x90],
  ]) {
    const m = machine(code);
    expect(m.run(10)).toBe(STATUS_EXCEPTION);
    expect([m.faultVector, m.rip]).toEqual([UD_VECTOR, CODE]);
  }
});

test('a prefix chain longer than an instruction may be', () => {
  const m = machine([...new Array(15).fill(0x66), 0x90]);
  expect(m.run(10)).toBe(STATUS_EXCEPTION);
  expect(m.faultVector).toBe(13);
});

test('single step traps after the instruction', () => {
  const m = machine([0xff, 0xc0, 0xff, 0xc0]);
  m.interpreter.writeRflags(2 | RFLAGS_TF);
  expect(m.run(10)).toBe(STATUS_EXCEPTION);
  expect([m.faultVector, m.rip, m.low(RAX)]).toEqual([DB_VECTOR, CODE + 2, 1]);
});

test('an interrupt shadow lasts one instruction', () => {
  const m = machine([0x90, 0x90]);
  m.memory.i32[INT_SHADOW_AT >> 2] = 1;
  m.run(1);
  expect(m.memory.i32[INT_SHADOW_AT >> 2]).toBe(0);
});

test('system instructions go to the port, which sees exact counts', () => {
  const m = machine([0x90, 0x90, HLT, 0x90, HLT]);
  const seen: number[] = [];
  m.onSystem = (op) => {
    expect(op).toBe(SYS_HLT);
    seen.push(m.retired);
    return seen.length === 1 ? STATUS_OK : STATUS_EXIT;
  };
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect(seen).toEqual([2, 4]);
});

test.each([1, 2, 4, 8])('rep movs and rep stos of %i bytes over pages, forward and backward', (size) => {
  const opcode = size === 1 ? 0 : 1;
  const prefix = size === 2 ? [0x66] : size === 8 ? [0x48] : [];
  const count = 9000 / size;
  for (const backward of [false, true]) {
    const m = machine([backward ? 0xfd : 0xfc, 0xf3, ...prefix, 0xa4 + opcode, HLT]);
    const data = Uint8Array.from({ length: 9000 }, (_, i) => (i * 7) & 0xff);
    m.load(0x20003, data);
    m.setRegister(RSI, 0x20003 + (backward ? 9000 - size : 0));
    m.setRegister(RDI, 0x30ff5 + (backward ? 9000 - size : 0));
    m.setRegister(RCX, count);
    expect(m.run(1000)).toBe(STATUS_EXIT);
    expect(m.low(RCX)).toBe(0);
    expect(m.low(RSI)).toBe(0x20003 + (backward ? -size : 9000));
    expect(m.bytes(0x30ff5, 9000)).toEqual(data);
  }
  const m = machine([0xf3, ...prefix, 0xaa + opcode, HLT]);
  m.setRegister(RAX, 0x04030201, 0x08070605);
  m.setRegister(RDI, 0x20ffd);
  m.setRegister(RCX, count);
  expect(m.run(1000)).toBe(STATUS_EXIT);
  expect([...m.bytes(0x20ffd, 9000)]).toEqual(Array.from({ length: 9000 }, (_, i) => (i % size) + 1));
  expect(m.bytes(0x20ffd + 9000, 1)[0]).toBe(0);
});

test('rep movsb onto itself repeats the pattern', () => {
  const m = machine([0xf3, 0xa4, HLT]);
  m.load(0x20000, [1, 2, 3]);
  m.setRegister(RSI, 0x20000);
  m.setRegister(RDI, 0x20003);
  m.setRegister(RCX, 9);
  m.run(100);
  expect([...m.bytes(0x20000, 12)]).toEqual([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
});

test('repne scasb and repe cmpsb stop where they should', () => {
  const m = machine([0xf2, 0xae, HLT]);
  m.load(0x20ffe, [5, 6, 7, 0, 9]);
  m.setRegister(RDI, 0x20ffe);
  m.setRegister(RCX, 100);
  m.run(100);
  expect([m.low(RDI), m.low(RCX), m.interpreter.readRflags() & 0x40]).toEqual([0x21002, 96, 0x40]);
  const c = machine([0xf3, 0xa6, HLT]);
  c.load(0x20000, [1, 2, 3, 4, 5]);
  c.load(0x30000, [1, 2, 3, 9, 5]);
  c.setRegister(RSI, 0x20000);
  c.setRegister(RDI, 0x30000);
  c.setRegister(RCX, 5);
  c.run(100);
  expect([c.low(RCX), c.interpreter.readRflags() & 0x41]).toEqual([1, 1]);
});

test('cmps asks for its second operand first', () => {
  const m = machine([0xa6, HLT]);
  m.absent.add(0x20);
  m.absent.add(0x30);
  m.setRegister(RSI, 0x20000);
  m.setRegister(RDI, 0x30000);
  expect(m.run(100)).toBe(STATUS_EXCEPTION);
  expect(m.translations.at(-1)?.address).toBe(0x30000);
});

test('a fault in a repeated instruction keeps the iterations done', () => {
  const m = machine([0xf3, 0xaa, HLT]);
  m.absent.add(0x21);
  m.setRegister(RDI, 0x20ff0);
  m.setRegister(RCX, 100);
  expect(m.run(100)).toBe(STATUS_EXCEPTION);
  expect([m.low(RCX), m.low(RDI), m.rip]).toEqual([84, 0x21000, CODE]);
});

test('32-bit code: pusha, popa, 16-bit operands, stack', () => {
  // pushad; mov ax,0x1234; push ax; pop dx; popad; hlt
  const m = machine(
    [0x60, 0x66, 0xb8, 0x34, 0x12, 0x66, 0x50, 0x66, 0x5a, 0x89, 0x15, 0, 0, 2, 0, 0x61, HLT],
    'protected32',
  );
  m.setRegister(RDX, -1, 0);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([...m.bytes(0x20000, 4)]).toEqual([0x34, 0x12, 0xff, 0xff]);
  expect([m.low(RSP), m.low(RDX)]).toEqual([0x8000, -1]);
});

test('16-bit code: a segment limit', () => {
  // mov bx,0xffff; mov al,[bx]; mov ax,[bx]
  const m = machine([0xbb, 0xff, 0xff, 0x8a, 0x07, 0x8b, 0x07], 'real16');
  expect(m.run(100)).toBe(STATUS_EXCEPTION);
  expect([m.faultVector, m.retired]).toEqual([13, 2]);
});

test('pop into memory addressed by the stack pointer, enter and leave', () => {
  // pop qword [rsp+8]; enter 16,0; leave; hlt
  const m = machine([0x8f, 0x44, 0x24, 0x08, 0xc8, 16, 0, 0, 0xc9, HLT]);
  m.load(0x8000, [1, 2, 3, 4, 5, 6, 7, 8]);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([...m.bytes(0x8010, 8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(m.low(RSP)).toBe(0x8008);
});

test('an instruction across a page is kept, and dropped when either page is written', () => {
  const m = machine([]);
  // 0x11ffe: mov eax,imm32 (three of its five bytes in the next page); jmp back
  m.load(0x11ffe, [0xb8, 1, 2, 3, 4, 0xeb, 0xf9]);
  const go = (): number => {
    m.rip = 0x11ffe;
    expect(m.run(200)).toBe(STATUS_BUDGET);
    return m.low(RAX);
  };
  expect(go()).toBe(0x04030201);
  const before = m.translations.length;
  expect(go()).toBe(0x04030201);
  expect(m.translations.length).toBe(before);
  m.load(0x12001, [9]);
  expect(go()).toBe(0x04090201);
  m.load(0x11fff, [7]);
  expect(go()).toBe(0x04090207);
  // Without its translation, the second page is asked for again.
  m.flushTlb();
  m.absent.add(0x12);
  m.rip = 0x11ffe;
  expect(m.run(200)).toBe(STATUS_EXCEPTION);
  expect(m.rip).toBe(0x11ffe);
});

test('FS and GS bases in 64-bit mode', () => {
  // mov rax,gs:[rbx]; mov fs:[rbx+8],rax; hlt
  const m = machine([0x65, 0x48, 0x8b, 0x03, 0x64, 0x48, 0x89, 0x43, 8, HLT]);
  m.load(0x21000, [1, 2, 3, 4, 5, 6, 7, 8]);
  m.memory.i32[(SEG + GS * SEG_SIZE) >> 2] = 0x1000;
  m.memory.i32[(SEG + FS * SEG_SIZE) >> 2] = 0x2000;
  m.memory.i32[(SEG + DS * SEG_SIZE) >> 2] = 0x5000;
  m.setRegister(RBX, 0x20000);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([...m.bytes(0x22008, 8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
});
