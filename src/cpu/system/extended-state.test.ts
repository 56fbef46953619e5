import { describe, expect, it } from 'vitest';
import { RBX, RDX } from '../../arch/registers.ts';
import { SVM_EXIT_HLT, VMCB_CR4, VMCB_RAX } from '../../arch/vmcb.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { FPU_REGS, MXCSR_AT, PKRU_AT, XCR0_AT, XMM, XMM_SIZE } from '../state.ts';
import { BareMachine } from '../svm/bare-machine.testing.ts';
import { PKRU_OFFSET } from './extended-state.ts';

function machine(): BareMachine {
  const m = new BareMachine(hardwareProfile('silicon-epyc'));
  m.set64(VMCB_CR4, m.get64(VMCB_CR4) | (1n << 18n) | (1n << 22n));
  m.memory.i32[XCR0_AT >> 2] = 0x203;
  m.set64(VMCB_RAX, 0xffffffffn);
  m.processor.gpr[2 * RBX] = 0x20000;
  m.processor.gpr[2 * RDX] = -1;
  return m;
}

describe('XSAVE and XRSTOR', () => {
  it('move the components that XCR0 enables, and XRSTOR initialises what the area does not hold', () => {
    const m = machine();
    const { u8, i32 } = m.memory;
    u8.fill(0x5a, XMM + 3 * XMM_SIZE, XMM + 3 * XMM_SIZE + 16);
    u8.fill(0x77, FPU_REGS + 16, FPU_REGS + 26);
    i32[PKRU_AT >> 2] = 0x55555554;
    m.code('480fae23 f4'); // xsave64 [rbx]
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.peek64(0x20000 + 512)).toBe(0x203n);
    expect(m.peek64(0x20000 + 160 + 48)).toBe(0x5a5a5a5a5a5a5a5an);
    expect(m.peek64(0x20000 + 48)).toBe(0x7777777777777777n);
    expect(m.peek64(0x20000 + PKRU_OFFSET)).toBe(0x55555554n);
    m.poke64(0x20000 + 512, 0x201n);
    i32[PKRU_AT >> 2] = 0;
    u8.fill(0, FPU_REGS, FPU_REGS + 128);
    m.code('480fae2b f4'); // xrstor64 [rbx]
    m.set64(0x578, 0xa000n);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(u8[XMM + 3 * XMM_SIZE]).toBe(0);
    expect(u8[FPU_REGS + 16]).toBe(0x77);
    expect(i32[PKRU_AT >> 2]).toBe(0x55555554);
  });

  it('XSAVEC leaves out what is initial and puts PKRU behind AVX; XRSTOR takes it back', () => {
    const m = machine();
    const { u8, i32 } = m.memory;
    i32[XCR0_AT >> 2] = 0x207;
    u8.fill(0x5a, XMM + 3 * XMM_SIZE, XMM + 3 * XMM_SIZE + 32);
    i32[PKRU_AT >> 2] = 0x55555554;
    i32[MXCSR_AT >> 2] = 0x1f80;
    m.code('480fc723 b901000000 0f01d0 f4'); // xsavec64 [rbx]; mov ecx,1; xgetbv; hlt
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_RAX) & 0xffffffffn).toBe(0x206n);
    expect(m.peek64(0x20000 + 512)).toBe(0x206n);
    expect(m.peek64(0x20000 + 520)).toBe(0x8000000000000207n);
    expect(m.peek64(0x20000 + 576 + 48)).toBe(0x5a5a5a5a5a5a5a5an);
    expect(m.peek64(0x20000 + 576 + 256)).toBe(0x55555554n);
    u8.fill(0, XMM, XMM + 16 * XMM_SIZE);
    i32[PKRU_AT >> 2] = 0;
    m.code('480fae2b f4');
    m.set64(VMCB_RAX, 0xffffffffn);
    m.set64(0x578, 0xa000n);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(u8[XMM + 3 * XMM_SIZE + 31]).toBe(0x5a);
    expect(i32[PKRU_AT >> 2]).toBe(0x55555554);
  });

  it('XSAVEOPT does not write what is initial, but says so', () => {
    const m = machine();
    m.poke64(0x20000 + 160, 0x1234n);
    m.poke64(0x20000 + 512, 0x203n);
    m.code('480fae33 f4'); // xsaveopt64 [rbx]
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.peek64(0x20000 + 160)).toBe(0x1234n);
    expect(m.peek64(0x20000 + 512) & 2n).toBe(0n);
  });
});
