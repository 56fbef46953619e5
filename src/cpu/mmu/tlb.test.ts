import { describe, expect, it } from 'vitest';
import { RBX, RCX, RDX } from '../../arch/registers.ts';
import {
  SVM_EXIT_HLT,
  SVM_EXIT_NPF,
  VMCB_ASID,
  VMCB_EXIT_INFO_1,
  VMCB_INSN_LEN,
  VMCB_NEXT_RIP,
  VMCB_RIP,
  VMCB_TLB_CTL,
} from '../../arch/vmcb.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { BareMachine, GUEST_MEMORY, VMCB_PA } from '../svm/bare-machine.testing.ts';
import { TAG_CODE, TAG_READ, TAG_WRITE, TLB_GLOBAL, TLB_LARGE, Tlb } from './tlb.ts';

const tcg = hardwareProfile('qemu-tcg-epyc');
const silicon = hardwareProfile('silicon-epyc');

describe('the TLB in memory', () => {
  const memory = new PhysicalMemory(64 * 1024 * 1024);
  const tlb = new Tlb(memory, true);

  it('answers what was inserted until it is flushed', () => {
    tlb.insert(0, 0x1000, 5, 0x3333, TAG_READ, 0);
    expect(tlb.lookup(0, 0x1abc, 5, TAG_READ)).toBe(0x3333abc);
    expect(tlb.lookup(0, 0x1abc, 5, TAG_WRITE)).toBe(-1);
    expect(tlb.lookup(0, 0x1abc, 4, TAG_READ)).toBe(-1);
    expect(tlb.lookup(1, 0x1abc, 5, TAG_READ)).toBe(-1);
    tlb.flushAll();
    expect(tlb.lookup(0, 0x1abc, 5, TAG_READ)).toBe(-1);
  });

  it('keeps global pages over a load of CR3 and drops them by INVLPG', () => {
    tlb.insert(0, 0x1000, 0, 0x3333, TAG_READ, TLB_GLOBAL);
    tlb.insert(0, 0x2000, 0, 0x3334, TAG_READ, 0);
    tlb.flushNonGlobal();
    expect(tlb.lookup(0, 0x1000, 0, TAG_READ)).not.toBe(-1);
    expect(tlb.lookup(0, 0x2000, 0, TAG_READ)).toBe(-1);
    tlb.invlpg(0x1fff, 0);
    expect(tlb.lookup(0, 0x1000, 0, TAG_READ)).toBe(-1);
  });

  it('drops all pieces of large pages by INVLPG', () => {
    tlb.insert(0, 0x1000, 0, 0x3333, TAG_READ, TLB_LARGE);
    tlb.insert(0, 0x2000, 0, 0x3334, TAG_READ, TLB_LARGE);
    tlb.insert(0, 0x3000, 0, 0x3335, TAG_READ, 0);
    tlb.invlpg(0x1000, 0);
    expect(tlb.lookup(0, 0x2000, 0, TAG_READ)).toBe(-1);
    expect(tlb.lookup(0, 0x3000, 0, TAG_READ)).not.toBe(-1);
  });

  it('never lets a frame be writable and executable', () => {
    tlb.flushAll();
    tlb.insert(0, 0x1000, 0, 0x3333, TAG_READ | TAG_WRITE, 0);
    tlb.insert(1, 0x7000, 0, 0x3333, TAG_CODE, 0);
    expect(tlb.lookup(0, 0x1000, 0, TAG_WRITE)).toBe(-1);
    expect(tlb.lookup(0, 0x1000, 0, TAG_READ)).not.toBe(-1);
    tlb.insert(2, 0x9000, 0, 0x3333, TAG_WRITE, 0);
    expect(tlb.lookup(1, 0x7000, 0, TAG_CODE)).toBe(-1);
  });
});

/** Maps 0x40000000 by 4 KiB pages: the page table is at guest 0x20000, its first entry 0x800000. */
function withPage(m: BareMachine): void {
  m.poke64(0x13000, 0x20027n);
  m.poke64(0x20000, 0x800067n);
  m.poke64(0x800000, 0x1111n);
  m.poke64(0x801000, 0x2222n);
}

describe('staleness', () => {
  it('a changed entry is not seen before INVLPG', () => {
    const m = new BareMachine(silicon);
    withPage(m);
    // mov ebx,0x40000000; mov rcx,[rbx]; mov dword [0x20000],0x801067; mov rdx,[rbx]; invlpg [rbx]; mov rbx,[rbx]; hlt
    m.code('bb00000040 488b0b c7042500000200 67108000 488b13 0f013b 488b1b f4');
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect([RCX, RDX, RBX].map((n) => m.register(n))).toEqual([0x1111n, 0x1111n, 0x2222n]);
  });

  it('a load of CR3 flushes, a nested entry changed behind it stays', () => {
    const m = new BareMachine(silicon);
    withPage(m);
    // mov ebx,0x40000000; mov rcx,[rbx]; mov eax,cr3; ...; mov cr3,rax; mov rdx,[rbx]; hlt
    m.code('bb00000040 488b0b c7042500000200 67108000 0f20d8 0f22d8 488b13 f4');
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect([RCX, RDX].map((n) => m.register(n))).toEqual([0x1111n, 0x2222n]);
  });

  it('survives exits on silicon and not on QEMU', () => {
    for (const [profile, stale] of [
      [silicon, true],
      [tcg, false],
    ] as const) {
      const m = new BareMachine(profile);
      withPage(m);
      m.code('bb00000040 488b0b f4 488b13 f4');
      expect(m.run()).toBe(SVM_EXIT_HLT);
      m.unmapNested(0x800);
      m.set64(VMCB_RIP, 0xa009n);
      expect(m.run()).toBe(stale ? SVM_EXIT_HLT : SVM_EXIT_NPF);
      m.set64(VMCB_RIP, 0xa009n);
      m.set32(VMCB_TLB_CTL, 1);
      expect(m.run()).toBe(SVM_EXIT_NPF);
    }
  });

  it('is lost with another ASID, and by INVLPGA', () => {
    const m = new BareMachine(silicon);
    withPage(m);
    m.code('bb00000040 488b0b f4 488b13 f4');
    m.run();
    m.unmapNested(0x800);
    m.processor.invlpga(0x40000000, 0, 7);
    m.set64(VMCB_RIP, 0xa009n);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    m.processor.invlpga(0x40000000, 0, 1);
    m.set64(VMCB_RIP, 0xa009n);
    expect(m.run()).toBe(SVM_EXIT_NPF);
    m.mapNested(0x800);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    m.unmapNested(0x800);
    m.set32(VMCB_ASID, 2);
    m.set64(VMCB_RIP, 0xa009n);
    expect(m.run()).toBe(SVM_EXIT_NPF);
  });

  it('is captured and restored', () => {
    const m = new BareMachine(silicon);
    withPage(m);
    m.code('bb00000040 488b0b f4 488b13 f4');
    m.run();
    const state = m.processor.capture();
    m.unmapNested(0x800);
    m.processor.flushTlbAll();
    m.processor.restore(state);
    m.set64(VMCB_RIP, 0xa009n);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RDX)).toBe(0x1111n);
    m.processor.flushTlbAll();
    m.set64(VMCB_RIP, 0xa009n);
    expect(m.run()).toBe(SVM_EXIT_NPF);
  });
});

describe('code that changes', () => {
  it('is seen when the guest patches the instruction ahead', () => {
    const m = new BareMachine(silicon);
    // mov byte [0xa009],0xb9 turns "mov ebx,1" into "mov ecx,1"
    m.code('c6042509a00000b9 90 bb01000000 f4');
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect([m.register(RBX), m.register(RCX)]).toEqual([0n, 1n]);
  });

  it('is seen when a data page becomes code and data again', () => {
    const m = new BareMachine(silicon);
    // mov ecx,3; l: mov [0xb001],cl; call rdx; loop l; hlt
    m.code('b903000000 888c2501b00000 ffd2 e2f5 f4');
    m.code('b300 c3', 0xb000); // mov bl,imm; ret
    m.processor.gpr[2 * RDX] = 0xb000;
    m.processor.gpr[2 * RBX] = 0;
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RBX)).toBe(1n);
  });

  it('is seen when the host writes', () => {
    const m = new BareMachine(silicon);
    m.code('bb01000000 f4');
    m.run();
    m.poke(0xa001, [9]);
    m.set64(VMCB_RIP, 0xa000n);
    m.run();
    expect(m.register(RBX)).toBe(9n);
    expect(m.memory.u8[GUEST_MEMORY + 0xa001]).toBe(9);
  });
});

describe('assists of silicon', () => {
  it('stores the next RIP and the instruction bytes', () => {
    const m = new BareMachine(silicon);
    m.unmapNested(0x800);
    m.code('bb00008000 8803 f4');
    expect(m.run()).toBe(SVM_EXIT_NPF);
    expect(m.get64(VMCB_EXIT_INFO_1)).toBe(0x100000006n);
    const at = VMCB_PA + VMCB_INSN_LEN;
    expect([...m.memory.u8.subarray(at, at + 4)]).toEqual([15, 0x88, 0x03, 0xf4]);
    expect(m.get64(VMCB_NEXT_RIP)).toBe(0n);
    m.mapNested(0x800);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_NEXT_RIP)).toBe(0xa008n);
  });
});
