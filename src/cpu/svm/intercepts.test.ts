import { describe, expect, it } from 'vitest';
import * as v from '../../arch/vmcb.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { BareMachine, GUEST_MEMORY, type GuestMode, VMCB_PA } from './bare-machine.testing.ts';

const tcg = hardwareProfile('qemu-tcg-epyc');
const silicon = hardwareProfile('silicon-epyc');

interface Case {
  readonly name: string;
  readonly code: string;
  readonly exit: number;
  /** Word of the control block and bit that ask for the exit. */
  readonly word: number;
  readonly bit: number;
  readonly info1?: bigint;
  readonly info2?: bigint;
  readonly mode?: GuestMode;
}

const W3 = v.VMCB_INTERCEPT_WORD3;
const W4 = v.VMCB_INTERCEPT_WORD4;
const CR = v.VMCB_INTERCEPT_CR;
const DR = v.VMCB_INTERCEPT_DR;

/** EXITINFO of silicon: with DecodeAssists. */
const cases: readonly Case[] = [
  { name: 'mov rbx,cr0', code: '0f20c3', exit: 0x00, word: CR, bit: 0, info1: (1n << 63n) | 3n },
  { name: 'mov rbx,cr3', code: '0f20db', exit: 0x03, word: CR, bit: 3, info1: (1n << 63n) | 3n },
  { name: 'mov rbx,cr8', code: '440f20c3', exit: 0x08, word: CR, bit: 8, info1: (1n << 63n) | 3n },
  { name: 'mov cr0,rcx', code: '0f22c1', exit: 0x10, word: CR, bit: 16, info1: (1n << 63n) | 1n },
  { name: 'mov cr4,rcx', code: '0f22e1', exit: 0x14, word: CR, bit: 20, info1: (1n << 63n) | 1n },
  { name: 'clts', code: '0f06', exit: 0x10, word: CR, bit: 16 },
  { name: 'smsw ebx', code: '0f01e3', exit: 0x00, word: CR, bit: 0 },
  { name: 'mov rbx,dr7', code: '0f21fb', exit: 0x27, word: DR, bit: 7 },
  { name: 'mov dr0,rbx', code: '0f23c3', exit: 0x30, word: DR, bit: 16 },
  { name: 'mov cr0,rcx, selectively', code: '0f22c1', exit: 0x65, word: W3, bit: 5, info1: (1n << 63n) | 1n },
  { name: 'sidt', code: '0f010c2500080000', exit: 0x66, word: W3, bit: 6 },
  { name: 'sgdt', code: '0f01042500080000', exit: 0x67, word: W3, bit: 7 },
  { name: 'sldt', code: '0f00c3', exit: 0x68, word: W3, bit: 8 },
  { name: 'str', code: '0f00cb', exit: 0x69, word: W3, bit: 9 },
  { name: 'lidt', code: '0f011c2500080000', exit: 0x6a, word: W3, bit: 10 },
  { name: 'lgdt', code: '0f01142500080000', exit: 0x6b, word: W3, bit: 11 },
  { name: 'lldt', code: '0f00d3', exit: 0x6c, word: W3, bit: 12 },
  { name: 'ltr', code: '0f00db', exit: 0x6d, word: W3, bit: 13 },
  { name: 'rdtsc', code: '0f31', exit: 0x6e, word: W3, bit: 14 },
  { name: 'rdpmc', code: '0f33', exit: 0x6f, word: W3, bit: 15 },
  { name: 'pushf', code: '9c', exit: 0x70, word: W3, bit: 16 },
  { name: 'popf', code: '9d', exit: 0x71, word: W3, bit: 17 },
  { name: 'cpuid', code: '0fa2', exit: 0x72, word: W3, bit: 18 },
  { name: 'rsm', code: '0faa', exit: 0x73, word: W3, bit: 19 },
  { name: 'iretq', code: '48cf', exit: 0x74, word: W3, bit: 20 },
  { name: 'int 0x31', code: 'cd31', exit: 0x75, word: W3, bit: 21, info1: 0x31n },
  { name: 'invd', code: '0f08', exit: 0x76, word: W3, bit: 22 },
  { name: 'pause', code: 'f390', exit: 0x77, word: W3, bit: 23 },
  { name: 'invlpg', code: '0f013c2500500000', exit: 0x79, word: W3, bit: 25, info1: 0x5000n },
  { name: 'invlpga', code: '0f01df', exit: 0x7a, word: W3, bit: 26 },
  { name: 'in eax,dx', code: 'ed', exit: 0x7b, word: W3, bit: 27, info1: 0x0241n, info2: 0xa001n },
  { name: 'out 0x80,al', code: 'e680', exit: 0x7b, word: W3, bit: 27, info1: 0x800210n, info2: 0xa002n },
  { name: 'in ax,0x21', code: '66e521', exit: 0x7b, word: W3, bit: 27, info1: 0x210221n, info2: 0xa003n },
  { name: 'out dx,ax in 32-bit code', code: '66ef', exit: 0x7b, word: W3, bit: 27, mode: 'protected32', info1: 0x120n },
  { name: 'rep outsb', code: 'f36e', exit: 0x7b, word: W3, bit: 27, info1: 0x0e1cn, info2: 0xa002n },
  { name: 'rdmsr', code: '0f32', exit: 0x7c, word: W3, bit: 28, info1: 0n },
  { name: 'wrmsr', code: '0f30', exit: 0x7c, word: W3, bit: 28, info1: 1n },
  { name: 'vmrun', code: '0f01d8', exit: 0x80, word: W4, bit: 0 },
  { name: 'vmmcall', code: '0f01d9', exit: 0x81, word: W4, bit: 1 },
  { name: 'vmload', code: '0f01da', exit: 0x82, word: W4, bit: 2 },
  { name: 'vmsave', code: '0f01db', exit: 0x83, word: W4, bit: 3 },
  { name: 'stgi', code: '0f01dc', exit: 0x84, word: W4, bit: 4 },
  { name: 'clgi', code: '0f01dd', exit: 0x85, word: W4, bit: 5 },
  { name: 'skinit', code: '0f01de', exit: 0x86, word: W4, bit: 6 },
  { name: 'rdtscp', code: '0f01f9', exit: 0x87, word: W4, bit: 7 },
  { name: 'icebp', code: 'f1', exit: 0x88, word: W4, bit: 8 },
  { name: 'wbinvd', code: '0f09', exit: 0x89, word: W4, bit: 9 },
  { name: 'monitor', code: '0f01c8', exit: 0x8a, word: W4, bit: 10 },
  { name: 'mwait', code: '0f01c9', exit: 0x8b, word: W4, bit: 11 },
  { name: 'xsetbv', code: '0f01d1', exit: 0x8d, word: W4, bit: 13 },
  { name: 'int3', code: 'cc', exit: 0x43, word: v.VMCB_INTERCEPT_EXCEPTIONS, bit: 3 },
  { name: 'ud2', code: '0f0b', exit: 0x46, word: v.VMCB_INTERCEPT_EXCEPTIONS, bit: 6 },
  { name: 'a task gate', code: 'cd21', exit: 0x7d, word: W3, bit: 29, mode: 'protected32', info1: 0x18n },
];

describe('instruction intercepts', () => {
  for (const c of cases) {
    it(`${c.name} exits with its code, its words and the next RIP`, () => {
      const m = new BareMachine(silicon, c.mode);
      m.code(`${c.code}f4`);
      m.set64(v.VMCB_CR4, m.get64(v.VMCB_CR4) | (1n << 18n));
      if (c.mode === 'protected32') m.poke64(0x2000 + 0x21 * 8, (0x18n << 16n) | (0x8500n << 32n));
      m.set32(c.word, m.get32(c.word) | (1 << c.bit));
      expect(m.run()).toBe(c.exit);
      expect(m.get64(v.VMCB_RIP)).toBe(0xa000n);
      if (c.info1 !== undefined) expect(m.get64(v.VMCB_EXIT_INFO_1)).toBe(c.info1);
      if (c.info2 !== undefined) expect(m.get64(v.VMCB_EXIT_INFO_2)).toBe(c.info2);
      if (c.exit !== 0x46 && c.exit !== 0x7d) {
        expect(m.get64(v.VMCB_NEXT_RIP)).toBe(0xa000n + BigInt(c.code.length / 2));
      }
    });
  }

  it('a privileged instruction in ring 3 is #GP, whatever is intercepted', () => {
    for (const c of cases.filter((x) =>
      /^(mov|clts|lidt|lgdt|lldt|ltr|invd|invlpg|wbinvd|rdmsr|wrmsr|vmrun|stgi|xsetbv)/.test(x.name),
    )) {
      const m = new BareMachine(silicon);
      m.code(`${c.code}f4`);
      m.set64(v.VMCB_CR4, m.get64(v.VMCB_CR4) | (1n << 18n));
      m.set32(v.VMCB_CS, 0x2b | (0xafb << 16));
      m.set32(v.VMCB_SS, 0x23 | (0xcf3 << 16));
      m.memory.u8[VMCB_PA + v.VMCB_CPL] = 3;
      m.set32(c.word, m.get32(c.word) | (1 << c.bit));
      m.set32(v.VMCB_INTERCEPT_EXCEPTIONS, 1 << 13);
      expect([c.name, m.run()]).toEqual([c.name, 0x4d]);
    }
  });

  it('VMRUN with an address that cannot be one is #GP before its intercept on QEMU only', () => {
    for (const [profile, exit] of [
      [tcg, 0x4d],
      [silicon, 0x80],
    ] as const) {
      const m = new BareMachine(profile);
      m.set64(v.VMCB_RAX, 0x10000000000000n);
      m.code('0f01d8');
      m.set32(v.VMCB_INTERCEPT_EXCEPTIONS, 1 << 13);
      expect(m.run()).toBe(exit);
    }
  });
});

describe('clean bits', () => {
  const ALL = v.VMCB_CLEAN_INTERCEPTS | v.VMCB_CLEAN_PERM_MAP | v.VMCB_CLEAN_NPT;
  /** After a first exit: CPUID, then HLT. */
  const stopped = (): BareMachine => {
    const m = new BareMachine(silicon);
    m.code('0fa2 0fa2 f4');
    m.set32(W3, m.get32(W3) | (1 << 18));
    expect(m.run()).toBe(0x72);
    return m;
  };

  it('vouch for intercepts that then need not be read again; without them a change counts', () => {
    const m = stopped();
    m.set32(W3, m.get32(W3) & ~(1 << 18));
    m.set32(v.VMCB_CLEAN, ALL);
    expect(m.run()).toBe(0x72);
    m.set32(v.VMCB_CLEAN, 0);
    expect(m.run()).toBe(0x78);
  });

  it('vouch for no state: what is changed there counts, and is checked', () => {
    const m = stopped();
    m.set32(v.VMCB_CLEAN, ALL);
    m.set64(v.VMCB_RIP, 0xa004n);
    expect(m.run()).toBe(0x78);
    m.set64(v.VMCB_CR4, m.get64(v.VMCB_CR4) & ~(1n << 5n));
    expect(m.run()).toBe(-1);
    expect(m.run()).toBe(-1);
    m.set64(v.VMCB_CR4, m.get64(v.VMCB_CR4) | (1n << 5n));
    expect(m.run()).toBe(0x78);
  });

  it('are of the block that ran last', () => {
    const m = stopped();
    const other = VMCB_PA + 0x100000;
    m.memory.u8.copyWithin(other, VMCB_PA, VMCB_PA + 4096);
    m.memory.i32[(other + W3) >> 2]! &= ~(1 << 18);
    m.memory.i32[(other + v.VMCB_CLEAN) >> 2] = ALL;
    m.processor.vmrun(other);
    expect(m.memory.i32[(other + v.VMCB_EXIT_CODE) >> 2]).toBe(0x78);
  });
});

describe('without nested paging', () => {
  it("walks the hypervisor's tables and exits with #PF", () => {
    const m = new BareMachine(tcg);
    // A shadow table in host memory that maps the guest's code page and nothing else.
    const table = 0x3f00000;
    const u64 = m.memory.u64;
    for (let i = 0; i < 3; i++) u64[(table + i * 0x1000) / 8] = BigInt(table + (i + 1) * 0x1000) | 7n;
    u64[(table + 0x3000) / 8 + 0xa] = BigInt(GUEST_MEMORY + 0xa000) | 7n;
    u64[(table + 0x3000) / 8 + 0xb] = 0x80000000b0017n | (1n << 51n);
    m.set64(v.VMCB_NESTED_CTL, 0n);
    m.set64(v.VMCB_CR3, BigInt(table));
    m.set32(v.VMCB_INTERCEPT_EXCEPTIONS, 1 << 14);
    m.code('bb00900000 8903 f4');
    expect(m.run()).toBe(0x4e);
    expect([m.get64(v.VMCB_EXIT_INFO_1), m.get64(v.VMCB_EXIT_INFO_2)]).toEqual([2n, 0x9000n]);
    u64[(table + 0x3000) / 8 + 9] = BigInt(GUEST_MEMORY + 0x9000) | 7n;
    expect(m.run()).toBe(v.SVM_EXIT_HLT);
    m.code('8a042500b00000 f4');
    m.set64(v.VMCB_RIP, 0xa000n);
    expect(m.run()).toBe(0x4e);
    expect(m.get64(v.VMCB_EXIT_INFO_1)).toBe(8n);
    expect(m.get64(v.VMCB_CR2)).toBe(0n);
  });
});
