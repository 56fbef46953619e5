import { beforeEach, describe, expect, it } from 'vitest';
import { CR4_LA57, CR4_OSFXSR, CR4_PAE, CR4_PCIDE, CR4_PGE, RCX, RDI, RSI } from '../../arch/registers.ts';
import {
  INTERCEPT_INVPCID,
  SVM_EXIT_EXCP_BASE,
  SVM_EXIT_HLT,
  SVM_EXIT_INVPCID,
  VMCB_ASID,
  VMCB_CR3,
  VMCB_CR4,
  VMCB_EXIT_INFO_1,
  VMCB_EXIT_INFO_2,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_INTERCEPT_WORD5,
  VMCB_RIP,
  VMCB_TLB_CTL,
} from '../../arch/vmcb.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { BareMachine } from '../svm/bare-machine.testing.ts';

// Nested tables of four levels, as the bare machine builds them.
const profile = { ...hardwareProfile('silicon-genoa'), la57: false };
const GP = SVM_EXIT_EXCP_BASE + 13;
const PTE = 0x20000;
const ROOT = 0x10000;
const NO_FLUSH = 1n << 63n;
const P_RW_A_D = 0x63n;
const GLOBAL = 0x100n;
const DESCRIPTOR = 0xb000;

let m: BareMachine;

/** What the guest reads at 0x40000000, whose only entry is that at PTE. */
function look(): bigint {
  execute('488b0c2500000040'); // mov rcx,[0x40000000]
  return m.register(RCX);
}
function execute(hex: string, end = SVM_EXIT_HLT): void {
  m.code(`${hex}f4`);
  m.set64(VMCB_RIP, 0xa000n);
  expect(m.run()).toBe(end);
}
function setRegister(n: number, value: bigint): void {
  m.processor.gpr[2 * n] = Number(BigInt.asIntN(32, value));
  m.processor.gpr[2 * n + 1] = Number(BigInt.asIntN(32, value >> 32n));
}
function loadCr3(value: bigint, end = SVM_EXIT_HLT): void {
  setRegister(RDI, value);
  execute('0f22df', end); // mov cr3,rdi
}
function invpcid(type: bigint, pcid: bigint, address = 0n, end = SVM_EXIT_HLT): void {
  m.poke64(DESCRIPTOR, pcid);
  m.poke64(DESCRIPTOR + 8, address);
  setRegister(RSI, type);
  execute('660f38823425 00b00000', end); // invpcid rsi,[0xb000]
}
/** The page at 0x40000000 is the frame that holds `n`; nobody is told. */
function map(n: bigint, flags = P_RW_A_D): void {
  m.poke64(PTE, (0x800000n + n * 0x1000n) | flags);
}

beforeEach(() => {
  m = new BareMachine(profile);
  m.set64(VMCB_CR4, BigInt(CR4_PAE | CR4_OSFXSR | CR4_PCIDE | CR4_PGE));
  m.set64(VMCB_CR3, BigInt(ROOT | 1));
  m.set32(VMCB_INTERCEPT_EXCEPTIONS, 1 << 13);
  m.poke64(0x13000, BigInt(PTE) | 0x27n);
  for (let i = 0; i < 8; i++) m.poke64(0x800000 + i * 0x1000, BigInt(i));
});

describe('process-context identifiers', () => {
  it('keep their translations over MOV to CR3 with bit 63 set', () => {
    map(1n);
    expect(look()).toBe(1n);
    map(2n);
    expect(look()).toBe(1n);
    loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
    expect(m.get64(VMCB_CR3)).toBe(BigInt(ROOT | 2));
    expect(look()).toBe(2n);
    map(3n);
    loadCr3(BigInt(ROOT | 1) | NO_FLUSH);
    expect(look()).toBe(1n);
    loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
    expect(look()).toBe(2n);
    loadCr3(BigInt(ROOT | 1));
    expect(look()).toBe(3n);
    map(4n);
    loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
    expect(look()).toBe(2n);
    loadCr3(BigInt(ROOT | 2));
    expect(look()).toBe(4n);
    loadCr3(BigInt(ROOT | 1) | NO_FLUSH);
    expect(look()).toBe(3n);
  });

  it('are selected by what VMRUN loads, and lost with the address space', () => {
    map(1n);
    look();
    map(2n);
    m.set64(VMCB_CR3, BigInt(ROOT | 2));
    expect(look()).toBe(2n);
    m.set64(VMCB_CR3, BigInt(ROOT | 1));
    expect(look()).toBe(1n);
    m.set64(VMCB_CR3, BigInt(ROOT | 2));
    m.set32(VMCB_TLB_CTL, 7); // all but global ones of this ASID
    look();
    m.set32(VMCB_TLB_CTL, 0);
    m.set64(VMCB_CR3, BigInt(ROOT | 1));
    expect(look()).toBe(2n);
    map(3n);
    m.set32(VMCB_ASID, 2);
    expect(look()).toBe(3n);
  });

  it('are captured and restored, and INVLPGA reaches all of them', () => {
    map(1n);
    look();
    loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
    map(2n);
    const state = m.processor.capture();
    m.processor.flushTlbAll();
    m.processor.restore(state);
    loadCr3(BigInt(ROOT | 1) | NO_FLUSH);
    expect(look()).toBe(1n);
    loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
    m.processor.invlpga(0x40000000, 0, 1);
    loadCr3(BigInt(ROOT | 1) | NO_FLUSH);
    expect(look()).toBe(2n);
  });

  it('share global translations', () => {
    map(1n, P_RW_A_D | GLOBAL);
    look();
    map(2n);
    loadCr3(BigInt(ROOT | 2));
    expect(look()).toBe(1n);
    invpcid(3n, 0n);
    expect(look()).toBe(1n);
    invpcid(2n, 0n);
    expect(look()).toBe(2n);
  });

  it('leave code that changed meanwhile to be read again', () => {
    m.code('bb01000000c3', 0x800000);
    m.code('bb02000000c3', 0x801000);
    map(0n);
    execute('b800000040ffd0'); // mov eax,0x40000000; call rax
    m.poke(0x800001, [7]);
    loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
    // mov byte [0x800001],9: the page is code under the other identifier
    execute('c6042501008000 09');
    loadCr3(BigInt(ROOT | 1) | NO_FLUSH);
    execute('b800000040ffd0');
    expect(m.register(3)).toBe(9n);
  });
});

describe('INVPCID', () => {
  it('forgets an address, or all, of one identifier', () => {
    for (const [type, pcid, address, expected] of [
      [0n, 1n, 0x40000000n, 2n],
      [0n, 1n, 0x40001000n, 1n],
      [0n, 3n, 0x40000000n, 1n],
      [1n, 1n, 0n, 2n],
      [1n, 3n, 0n, 1n],
      [3n, 0n, 0n, 2n],
      [2n, 0n, 0n, 2n],
    ] as const) {
      for (const away of [false, true]) {
        m.processor.flushTlbAll();
        map(1n);
        look();
        map(2n);
        if (away) loadCr3(BigInt(ROOT | 2) | NO_FLUSH);
        invpcid(type, pcid, address);
        if (away) loadCr3(BigInt(ROOT | 1) | NO_FLUSH);
        expect([type, pcid, address, away, look()]).toEqual([type, pcid, address, away, expected]);
      }
    }
  });

  it('is #GP for what it does not know', () => {
    invpcid(4n, 0n, 0n, GP);
    invpcid(1n << 32n, 0n, 0n, GP);
    invpcid(2n, 0x1000n, 0n, GP);
    invpcid(0n, 1n, 1n << 47n, GP);
    invpcid(1n, 1n, 1n << 47n);
    m.set64(VMCB_CR4, BigInt(CR4_PAE | CR4_OSFXSR));
    m.set64(VMCB_CR3, BigInt(ROOT));
    invpcid(0n, 0n);
    invpcid(1n, 1n, 0n, GP);
    invpcid(2n, 1n);
  });

  it('exits with its operands, before the descriptor is read', () => {
    m.set32(VMCB_INTERCEPT_WORD5, INTERCEPT_INVPCID);
    invpcid(9n, 0x1000n, 0n, SVM_EXIT_INVPCID);
    expect([m.get64(VMCB_EXIT_INFO_1), m.get64(VMCB_EXIT_INFO_2)]).toEqual([BigInt(DESCRIPTOR), 9n]);
  });
});

describe('control registers', () => {
  it('allow CR4.PCIDE with identifier 0 in long mode only, and keep CR0.PG on', () => {
    const set = '0f20e04831f00f22e0'; // mov rax,cr4; xor rax,rsi; mov cr4,rax
    setRegister(RSI, BigInt(CR4_PCIDE));
    execute(set);
    loadCr3(BigInt(ROOT | 5));
    execute(set, GP);
    loadCr3(BigInt(ROOT) | NO_FLUSH, GP);
    loadCr3(BigInt(ROOT));
    execute(set);
    execute('0f20c00fbaf01f0f22c0', GP); // mov rax,cr0; btr eax,31; mov cr0,rax
    setRegister(RSI, BigInt(CR4_LA57));
    execute(set, GP);
  });
});
