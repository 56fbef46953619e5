/** Where the two vendors' processors differ, and instructions that neither has. */
import { describe, expect, it, test } from 'vitest';
import { CR4_OSFXSR, CR4_OSXSAVE, CR4_PAE, RAX, RBX, RCX, RDX, RSP } from '../../arch/registers.ts';
import {
  INTERCEPT_MSR_PROT,
  SVM_EXIT_EXCP_BASE,
  SVM_EXIT_HLT,
  VMCB_CPL,
  VMCB_CR4,
  VMCB_CS,
  VMCB_EXIT_INFO_2,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_INTERCEPT_WORD3,
  VMCB_RAX,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
} from '../../arch/vmcb.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { BareMachine, VMCB_PA } from '../svm/bare-machine.testing.ts';

const amd = hardwareProfile('silicon-epyc');
const intel = hardwareProfile('silicon-skylake');
const [UD, GP, PF] = [6, 13, 14].map((vector) => SVM_EXIT_EXCP_BASE + vector) as [number, number, number];
const NON_CANONICAL = 1n << 47n;

/** Executes `hex`, then HLT; exceptions end it. MSRs are the processor's. */
function execute(m: BareMachine, hex: string): number {
  m.set32(VMCB_INTERCEPT_EXCEPTIONS, (1 << 6) | (1 << 13) | (1 << 14));
  m.set32(VMCB_INTERCEPT_WORD3, m.get32(VMCB_INTERCEPT_WORD3) & ~INTERCEPT_MSR_PROT);
  m.set64(VMCB_RIP, 0xa000n);
  m.code(`${hex}f4`);
  return m.run();
}
function set(m: BareMachine, n: number, value: bigint): void {
  if (n === RAX) m.set64(VMCB_RAX, value);
  else if (n === RSP) m.set64(VMCB_RSP, value);
  else {
    m.processor.gpr[2 * n] = Number(BigInt.asIntN(32, value));
    m.processor.gpr[2 * n + 1] = Number(BigInt.asIntN(32, value >> 32n));
  }
}
function wrmsr(m: BareMachine, msr: number, value: bigint): number {
  set(m, RCX, BigInt(msr));
  set(m, RAX, value & 0xffffffffn);
  set(m, RDX, value >> 32n);
  return execute(m, '0f30');
}
const cpl = (m: BareMachine): number => m.memory.u8[VMCB_PA + VMCB_CPL]!;
/** Ring 3 in a segment of the GDT: 18 for 32-bit code, 28 for 64-bit code. */
function toRing3(m: BareMachine, wide: boolean): void {
  m.set32(VMCB_CS, wide ? 0x2b | (0xafb << 16) : 0x1b | (0xcfb << 16));
  m.set32(VMCB_SS, 0x23 | (0xcf3 << 16));
  m.memory.u8[VMCB_PA + VMCB_CPL] = 3;
}
/** Pages are the user's as well. */
function forUsers(m: BareMachine): void {
  m.poke64(0x10000, 0x11027n);
  for (let i = 0; i < 8; i++) m.poke64(0x12000 + i * 8, (BigInt(i) << 21n) | 0xe7n);
}

describe('SYSENTER and SYSEXIT', () => {
  it('are undefined in AMD long mode', () => {
    const m = new BareMachine(amd);
    expect([execute(m, '0f34'), execute(m, '480f35')]).toEqual([UD, UD]);
  });

  it('enter ring 0 and come back on Intel', () => {
    const m = new BareMachine(intel);
    forUsers(m);
    expect(execute(m, '0f34')).toBe(GP);
    expect([wrmsr(m, 0x174, 8n), wrmsr(m, 0x175, 0x8800n), wrmsr(m, 0x176, 0xb000n)]).toEqual(
      Array(3).fill(SVM_EXIT_HLT),
    );
    toRing3(m, true);
    m.set64(VMCB_RFLAGS, 0x202n);
    m.code('4889e3 9c 5a f4', 0xb000); // mov rbx,rsp; pushf; pop rdx; hlt
    expect(execute(m, '0f34')).toBe(SVM_EXIT_HLT);
    expect([cpl(m), m.get32(VMCB_CS) & 0xffff, m.get32(VMCB_SS) & 0xffff]).toEqual([0, 8, 16]);
    expect([m.register(RBX), m.register(RDX) & 0x200n]).toEqual([0x8800n, 0n]);
    set(m, RDX, NON_CANONICAL);
    set(m, RCX, 0x9000n);
    expect([execute(m, '480f35'), cpl(m)]).toEqual([GP, 0]);
    set(m, RDX, 0xb100n);
    m.code('0f0b', 0xb100);
    expect([execute(m, '480f35'), cpl(m), m.get64(VMCB_RIP)]).toEqual([UD, 3, 0xb100n]);
    expect([m.get32(VMCB_CS) & 0xffff, m.get32(VMCB_SS) & 0xffff]).toEqual([0x2b, 0x33]);
  });

  it('have addresses that Intel wants canonical, and AMD takes as they are', () => {
    for (const msr of [0x175, 0x176]) {
      expect(wrmsr(new BareMachine(intel), msr, NON_CANONICAL)).toBe(GP);
      expect(wrmsr(new BareMachine(amd), msr, NON_CANONICAL)).toBe(SVM_EXIT_HLT);
    }
    expect(wrmsr(new BareMachine(amd), 0xc0000082, NON_CANONICAL)).toBe(GP);
  });
});

describe('SYSCALL and SYSRET', () => {
  it('of a non-canonical target fault before the return on Intel, behind it on AMD', () => {
    for (const [profile, ring] of [
      [intel, 0],
      [amd, 3],
    ] as const) {
      const m = new BareMachine(profile);
      forUsers(m);
      expect(wrmsr(m, 0xc0000081, 0x0010000800000000n)).toBe(SVM_EXIT_HLT);
      set(m, RCX, NON_CANONICAL);
      expect([profile.name, execute(m, '480f07'), cpl(m)]).toEqual([profile.name, GP, ring]);
      expect(m.get64(VMCB_RIP)).toBe(ring === 0 ? 0xa000n : NON_CANONICAL);
    }
  });

  it('are of 64-bit code only on Intel', () => {
    for (const [profile, end] of [
      [intel, UD],
      [amd, SVM_EXIT_HLT],
    ] as const) {
      const m = new BareMachine(profile);
      forUsers(m);
      wrmsr(m, 0xc0000081, 0x0010000800000000n);
      wrmsr(m, 0xc0000083, 0xb000n);
      m.code('f4', 0xb000);
      toRing3(m, false);
      expect([profile.name, execute(m, '0f05')]).toEqual([profile.name, end]);
    }
  });
});

test('MONITOR reads where it looks; MWAIT knows one hint', () => {
  const m = new BareMachine(intel);
  m.poke64(0x12000 + 8 * 8, 0n);
  set(m, RAX, 0x1000000n);
  set(m, RCX, 0n);
  expect([execute(m, '0f01c8'), m.get64(VMCB_EXIT_INFO_2)]).toEqual([PF, 0x1000000n]);
  set(m, RAX, NON_CANONICAL);
  expect(execute(m, '0f01c8')).toBe(GP);
  set(m, RAX, 0xb000n);
  expect([execute(m, '0f01c8'), execute(m, '0f01c9')]).toEqual([SVM_EXIT_HLT, SVM_EXIT_HLT]);
  set(m, RCX, 1n);
  expect([execute(m, '0f01c8'), execute(m, '0f01c9')]).toEqual([GP, SVM_EXIT_HLT]);
  set(m, RCX, 2n);
  expect(execute(m, '0f01c9')).toBe(GP);
  forUsers(m);
  toRing3(m, true);
  expect(execute(m, '0f01c9')).toBe(UD);
});

test('WAITPKG, SHA and RDRAND are undefined; CET and hint encodings do nothing', () => {
  for (const profile of [amd, intel, hardwareProfile('silicon-genoa'), hardwareProfile('silicon-icelake')]) {
    // Nested tables of four levels, as the bare machine builds them.
    const m = new BareMachine({ ...profile, la57: false });
    for (const hex of [
      'f20faef0',
      '660faef0',
      'f30faef0',
      '0f38c8c0',
      '0fc7f0',
      '0fc7f8',
      'f30fc7e8',
      '0f01cf',
      '0f0b',
    ]) {
      expect([profile.name, hex, execute(m, hex)]).toEqual([profile.name, hex, UD]);
    }
    for (const hex of ['f30f1efa', 'f30f1efb', 'f3480f1ec8', '0f1ec0', '0f1dc0', '0f1f00', '0f18c8', 'f390']) {
      expect([profile.name, hex, execute(m, hex)]).toEqual([profile.name, hex, SVM_EXIT_HLT]);
    }
  }
});

test('RDPID reads TSC_AUX where it exists', () => {
  const m = new BareMachine({ ...hardwareProfile('silicon-icelake'), la57: false });
  expect(wrmsr(m, 0xc0000103, 0x55n)).toBe(SVM_EXIT_HLT);
  set(m, RBX, -1n);
  expect([execute(m, 'f30fc7fb'), m.register(RBX)]).toEqual([SVM_EXIT_HLT, 0x55n]);
  expect(execute(new BareMachine(amd), 'f30fc7fb')).toBe(UD);
});

test('XSETBV wants x87, SSE with AVX, and nothing that is not there', () => {
  const m = new BareMachine(amd);
  set(m, RCX, 0n);
  set(m, RDX, 0n);
  set(m, RAX, 7n);
  expect(execute(m, '0f01d1')).toBe(UD);
  m.set64(VMCB_CR4, BigInt(CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE));
  const results = [7n, 3n, 1n, 0x207n, 0n, 6n, 5n, 0xfn].map((value) => {
    set(m, RAX, value);
    return execute(m, '0f01d1');
  });
  expect(results).toEqual([...Array(4).fill(SVM_EXIT_HLT), ...Array(4).fill(GP)]);
  set(m, RAX, 7n);
  set(m, RCX, 1n);
  expect(execute(m, '0f01d1')).toBe(GP);
  forUsers(m);
  toRing3(m, true);
  set(m, RCX, 0n);
  expect(execute(m, '0f01d1')).toBe(GP);
});
