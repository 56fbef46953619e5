import { beforeEach, describe, expect, it } from 'vitest';
import { CR4_PVI, CR4_VME, RBX, RFLAGS_IF, RFLAGS_VIF, RFLAGS_VIP, RFLAGS_VM } from '../../arch/registers.ts';
import {
  SVM_EXIT_HLT,
  VMCB_CPL,
  VMCB_CR4,
  VMCB_CS,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
  VMCB_TR,
} from '../../arch/vmcb.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { BareMachine, GUEST_MEMORY, VMCB_PA } from '../svm/bare-machine.testing.ts';

const profile = hardwareProfile('silicon-epyc');
const handler = (vector: number): number => 0x4000 + vector * 32;
const IOPL3 = 0x3000;
const FRAME = 0x8f00;
const PROGRAM = 0xb000;
const [GP, UD, BP] = [13, 6, 3];

let m: BareMachine;

/** IRET of ring 0 to the program `hex` at B00:0 with stack 900:100 and these flags; every handler stops. */
function enter(hex: string, flags = 0): void {
  m.code(hex, PROGRAM);
  [0, 0x0b00, flags | RFLAGS_VM | 2, 0x100, 0x900, 0x111, 0x222, 0x333, 0x444].forEach((value, i) => {
    m.poke32(FRAME + i * 4, value);
  });
  m.set64(VMCB_RSP, BigInt(FRAME));
  m.set64(VMCB_RIP, 0xa000n);
  m.set64(VMCB_RFLAGS, 2n);
  m.code('cf');
  expect(m.run()).toBe(SVM_EXIT_HLT);
}
/** Vector of the handler that stopped. */
const stopped = (): number => (Number(m.get64(VMCB_RIP)) - 0x4000) / 32;
/** Words from ring 0's stack pointer up. */
const pushed = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => Number(m.peek64(Number(m.get64(VMCB_RSP)) + i * 4) & 0xffffffffn));

beforeEach(() => {
  m = new BareMachine(profile, 'protected32');
  for (let vector = 0; vector < 256; vector++) m.code('f4', handler(vector));
  m.poke32(0x3064, 0xffff << 16);
});

describe('virtual-8086 mode', () => {
  it('is entered by IRET and left by an exception, which pushes all segments and clears the data ones', () => {
    // mov ax,ds; add [es:0],ax; ud2
    enter('8cd8 2601060000 0f0b', RFLAGS_IF);
    expect(stopped()).toBe(UD);
    expect(m.memory.u8[GUEST_MEMORY + 0x1110]).toBe(0x22);
    expect(pushed(9)).toEqual([
      7,
      0xb00,
      RFLAGS_VM | 0x10000 | RFLAGS_IF | 2 | 4,
      0x100,
      0x900,
      0x111,
      0x222,
      0x333,
      0x444,
    ]);
    expect([m.get32(VMCB_CS) & 0xffff, m.get32(VMCB_SS) & 0xffff, m.memory.u8[VMCB_PA + VMCB_CPL]]).toEqual([8, 16, 0]);
    expect(Number(m.get64(VMCB_RFLAGS)) & (RFLAGS_VM | RFLAGS_IF)).toBe(0);
  });

  it('goes on after the handler returned', () => {
    m.code('8304240 2 cf'.replaceAll(' ', ''), handler(UD)); // add dword [esp],2; iret
    enter('0f0b b107 cc');
    expect(stopped()).toBe(BP);
    expect(m.processor.gpr[2] !== undefined && m.processor.gpr[2]! & 0xff).toBe(7);
  });

  it('has segments of paragraphs: loads, far calls and returns', () => {
    // mov ax,1234; mov es,ax; mov byte [es:5],77; push cs; call near: call b10:0 (retf); cc
    m.code('b301 cb', 0xb100);
    enter('b83412 8ec0 26c606050077 9a0000100b cc');
    expect(stopped()).toBe(BP);
    expect(m.memory.u8[GUEST_MEMORY + 0x12345]).toBe(0x77);
    expect(m.register(RBX) & 0xffn).toBe(1n);
  });

  it('is #GP with IOPL below 3 for CLI, STI, PUSHF, POPF, IRET and INT n, not for INT3', () => {
    for (const hex of ['fa', 'fb', '9c', '9d', 'cf', 'cd80', '669c', 'f4', '0f20c0']) {
      enter(hex);
      expect([hex, stopped(), ...pushed(2)]).toEqual([hex, GP, 0, 0]);
    }
    enter('cc');
    expect(stopped()).toBe(BP);
  });

  it('has them with IOPL 3, and INT n by the gate', () => {
    // cli; pushf; pop ax; mov bx,ax; sti; cd 80
    enter('fa 9c 58 89c3 fb cd80', IOPL3 | RFLAGS_IF);
    expect(stopped()).toBe(0x80);
    expect(Number(m.register(RBX)) & 0xffff).toBe(IOPL3 | 2);
    expect(pushed(3)[2]! & RFLAGS_IF).toBe(RFLAGS_IF);
    enter('cd20', IOPL3);
    expect([stopped(), pushed(1)[0]]).toEqual([GP, 0x20 * 8 + 2]);
    // push 202; push cs; push 9; iret
    enter('680202 0e 680900 cf 00 cc', IOPL3);
    expect([stopped(), pushed(3)[2]! & (RFLAGS_IF | IOPL3)]).toEqual([BP, RFLAGS_IF | IOPL3]);
  });

  it('asks the permission map for ports whatever IOPL is, and has no descriptor instructions', () => {
    enter('e480', IOPL3);
    expect(stopped()).toBe(GP);
    for (const hex of ['0f00c8', '0f00d8', '0f02c0', '0f03c0', '0f00e0', '63c0']) {
      enter(hex, IOPL3);
      expect([hex, stopped()]).toEqual([hex, UD]);
    }
  });
});

describe('CR4.VME', () => {
  beforeEach(() => {
    m.set64(VMCB_CR4, BigInt(CR4_VME));
    m.set32(VMCB_TR + 4, 0x200);
    m.processor.vmload(VMCB_PA);
    // The redirection map at 68, the I/O map at 88: INT 21 is ring 0's.
    m.poke32(0x3064, 0x88 << 16);
    m.poke32(0x3068 + 4, 1 << 1);
    m.poke32(0x22 * 4, (0x0b20 << 16) | 5);
  });

  it('keeps INT n in the program where the map says so, with VIF for IF', () => {
    m.code('89e5 8b5e04 cf', 0xb205); // mov bp,sp; mov bx,[bp+4]; iret
    enter('cd22 cc', RFLAGS_VIF);
    expect(stopped()).toBe(BP);
    expect(Number(m.register(RBX)) & 0xffff).toBe(IOPL3 | RFLAGS_IF | 2);
    expect(pushed(3)[2]! & (RFLAGS_VIF | RFLAGS_IF | IOPL3)).toBe(RFLAGS_VIF);
    m.code('cc', 0xb205);
    enter('cd22', RFLAGS_VIF);
    expect([stopped(), pushed(2)[0], pushed(3)[2]! & RFLAGS_VIF]).toEqual([BP, 6, 0]);
    enter('cd21');
    expect(stopped()).toBe(GP);
    enter('cd22', IOPL3 | RFLAGS_IF);
    expect([stopped(), pushed(3)[2]! & RFLAGS_IF]).toEqual([BP, 0]);
  });

  it('lets CLI, STI, PUSHF and POPF work on VIF', () => {
    enter('fa cc', RFLAGS_VIF | RFLAGS_IF);
    expect([stopped(), pushed(3)[2]! & (RFLAGS_VIF | RFLAGS_IF)]).toEqual([BP, RFLAGS_IF]);
    enter('fb 9c 5b cc');
    expect([stopped(), pushed(3)[2]! & RFLAGS_VIF]).toEqual([BP, RFLAGS_VIF]);
    expect(Number(m.register(RBX)) & 0x3200).toBe(0x3200);
    enter('fb', RFLAGS_VIP);
    expect(stopped()).toBe(GP);
    enter('680002 9d cc');
    expect([stopped(), pushed(3)[2]! & (RFLAGS_VIF | RFLAGS_IF)]).toEqual([BP, RFLAGS_VIF]);
    for (const hex of ['680002 9d', '680001 9d', '669c']) {
      enter(hex, RFLAGS_VIP);
      expect([hex, stopped()]).toEqual([hex, GP]);
    }
  });

  it('CR4.PVI does the same for CLI and STI in ring 3 of protected mode', () => {
    m.set64(VMCB_CR4, BigInt(CR4_PVI));
    m.code('fb 0f0b', PROGRAM);
    // A frame to ring 3's flat segments: EIP CS EFLAGS ESP SS.
    [PROGRAM, 0x1b, 2, 0x9000, 0x23].forEach((value, i) => {
      m.poke32(FRAME + i * 4, value);
    });
    m.set64(VMCB_RSP, BigInt(FRAME));
    m.code('cf');
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect([stopped(), pushed(3)[2]! & (RFLAGS_VIF | RFLAGS_IF)]).toEqual([UD, RFLAGS_VIF]);
  });
});
