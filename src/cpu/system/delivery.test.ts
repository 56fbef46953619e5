import { describe, expect, it } from 'vitest';
import { RBX, RCX, RDX, RSI } from '../../arch/registers.ts';
import {
  INTERCEPT_TASK_SWITCH,
  SVM_EXIT_EXCP_BASE,
  SVM_EXIT_HLT,
  SVM_EXIT_NPF,
  SVM_EXIT_SHUTDOWN,
  SVM_EXIT_TASK_SWITCH,
  SVM_EXIT_VINTR,
  VMCB_CPL,
  VMCB_CR2,
  VMCB_CS,
  VMCB_DR6,
  VMCB_EVENT_INJ,
  VMCB_EXIT_INFO_1,
  VMCB_EXIT_INFO_2,
  VMCB_EXIT_INT_INFO,
  VMCB_INT_CTL,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_INTERCEPT_WORD3,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
} from '../../arch/vmcb.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { BareMachine, VMCB_PA } from '../svm/bare-machine.testing.ts';

const tcg = hardwareProfile('qemu-tcg-epyc');
const silicon = hardwareProfile('silicon-epyc');
const handler = (vector: number): number => 0x4000 + vector * 32;

/** The quadwords on the guest's stack from its pointer up. */
function stack(m: BareMachine, count: number): string[] {
  const rsp = Number(m.get64(VMCB_RSP));
  return Array.from({ length: count }, (_, i) => m.peek64(rsp + i * 8).toString(16));
}

describe('exceptions in long mode', () => {
  it('pushes the frame of a fault with RF in its flags and runs the handler', () => {
    const m = new BareMachine(tcg);
    m.code('0f0b');
    m.code('f4', handler(6));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_RIP)).toBe(BigInt(handler(6)));
    expect(stack(m, 5)).toEqual(['a000', '8', '10002', '9000', '10']);
  });

  it('pushes the error code and sets CR2 for #PF', () => {
    const m = new BareMachine(tcg);
    m.poke64(0x12000 + 8 * 8, 0n); // 0x1000000 not present
    m.code('bb00000001 c60305 f4');
    m.code('f4', handler(14));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_CR2)).toBe(0x1000000n);
    expect(stack(m, 2)).toEqual(['2', 'a005']);
  });

  it('exits instead when the exception is intercepted, with CR2 untouched', () => {
    const m = new BareMachine(tcg);
    m.poke64(0x12000 + 8 * 8, 0n);
    m.set32(VMCB_INTERCEPT_EXCEPTIONS, 1 << 14);
    m.code('bb00000001 8a03 f4');
    expect(m.run()).toBe(SVM_EXIT_EXCP_BASE + 14);
    expect(m.get64(VMCB_EXIT_INFO_1)).toBe(0n);
    expect(m.get64(VMCB_EXIT_INFO_2)).toBe(0x1000000n);
    expect(m.get64(VMCB_CR2)).toBe(0n);
    expect(m.get64(VMCB_RIP)).toBe(0xa005n);
  });

  it('returns with IRET from an INT 3', () => {
    const m = new BareMachine(tcg);
    m.code('cc 48c7c307000000 f4');
    m.code('488b0c24 48cf', handler(3)); // mov rcx,[rsp]; iretq
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RCX)).toBe(0xa001n);
    expect(m.register(RBX)).toBe(7n);
    expect(m.get64(VMCB_RSP)).toBe(0x9000n);
  });

  it('goes to ring 3 by IRET and back through a gate on the stack of the TSS', () => {
    const m = new BareMachine(tcg);
    for (let i = 0; i < 4; i++) m.poke64(0x11000 + i * 8, BigInt(0x12027 + i * 0x1000));
    m.poke64(0x10000, 0x11027n);
    // push 0x23; push 0x7000; push 2; push 0x2b; push 0xb000; iretq
    m.code('6a23 6800700000 6a02 6a2b 6800b00000 48cf');
    m.code('488cc9 cd80', 0xb000); // mov rcx, cs; int 0x80
    m.code('488ccb 488cd6 f4', handler(0x80)); // mov rbx, cs; mov rsi, ss; hlt
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RCX)).toBe(0x2bn);
    expect(m.register(RBX)).toBe(8n);
    expect(m.register(RSI)).toBe(0n);
    expect(m.get64(VMCB_RSP)).toBe(0x8000n - 40n);
    expect(stack(m, 5)).toEqual(['b005', '2b', '2', '7000', '23']);
    expect(m.memory.u8[VMCB_PA + VMCB_CPL]).toBe(0);
  });

  it('gives #GP with the selector of the gate when INT may not use it', () => {
    for (const [profile, error] of [
      [tcg, '102'],
      [silicon, '82'],
    ] as const) {
      const m = new BareMachine(profile);
      m.code('6a23 6800700000 6a02 6a2b 6800b00000 48cf');
      m.code('cd10', 0xb000);
      m.code('f4', handler(13));
      expect(m.run()).toBe(SVM_EXIT_HLT);
      expect(stack(m, 2)).toEqual([error, 'b000']);
    }
  });

  it('reports the event whose delivery a nested fault cut short, and finishes it when injected', () => {
    const m = new BareMachine(tcg);
    m.code('0f0b');
    m.code('f4', handler(6));
    m.unmapNested(8);
    expect(m.run()).toBe(SVM_EXIT_NPF);
    expect(m.get64(VMCB_EXIT_INFO_1)).toBe(0x100000006n);
    expect(m.get64(VMCB_EXIT_INFO_2)).toBe(0x8ff8n);
    expect(m.get64(VMCB_EXIT_INT_INFO)).toBe(0x80000306n);
    expect(m.get64(VMCB_RSP)).toBe(0x9000n);
    m.mapNested(8);
    m.set64(VMCB_EVENT_INJ, 0x80000306n);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(stack(m, 2)).toEqual(['a000', '8']);
  });

  it('makes a double fault of two contributory faults and a shutdown of the third', () => {
    const m = new BareMachine(tcg);
    m.poke64(0x2000 + 13 * 16, 0n);
    m.code('66b8ffff 8ed8'); // mov ax,0xffff; mov ds,ax -> #GP, whose gate is not there -> #DF
    m.code('f4', handler(8));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_RIP)).toBe(BigInt(handler(8)));
    expect(stack(m, 2)).toEqual(['0', 'a004']);
    m.set64(VMCB_RIP, 0xa000n);
    m.poke64(0x2000 + 8 * 16, 0n);
    expect(m.run()).toBe(SVM_EXIT_SHUTDOWN);
  });

  it('steps with TF', () => {
    const m = new BareMachine(tcg);
    m.set64(VMCB_RFLAGS, 0x102n);
    m.set32(VMCB_INTERCEPT_EXCEPTIONS, 1 << 1);
    m.code('90 90 f4');
    expect(m.run()).toBe(SVM_EXIT_EXCP_BASE + 1);
    expect(m.get64(VMCB_RIP)).toBe(0xa001n);
    expect(m.get64(VMCB_DR6) & 0x4000n).toBe(0x4000n);
  });

  it('opens the interrupt window after STI and one more instruction', () => {
    const m = new BareMachine(tcg);
    m.set32(VMCB_INTERCEPT_WORD3, m.get32(VMCB_INTERCEPT_WORD3) | (1 << 4));
    m.set32(VMCB_INT_CTL, (1 << 8) | (1 << 20) | (1 << 24));
    m.code('90 fb 90 90 f4');
    expect(m.run()).toBe(SVM_EXIT_VINTR);
    expect(m.get64(VMCB_RIP)).toBe(0xa003n);
  });

  it('switches to an interrupt stack', () => {
    const m = new BareMachine(tcg);
    m.poke64(0x2000 + 6 * 16, (BigInt(handler(6)) & 0xffffn) | (8n << 16n) | (0x8e01n << 32n));
    m.poke64(0x3024, 0x7000n);
    m.code('0f0b');
    m.code('f4', handler(6));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_RSP)).toBe(0x7000n - 40n);
    expect(m.get32(VMCB_SS) & 0xffff).toBe(16);
  });

  it('makes SYSCALL and SYSRET meet', () => {
    const m = new BareMachine(tcg);
    m.memory.u64[(VMCB_PA + 0x600) / 8] = 0x0018_0008_0000_0000n;
    m.memory.u64[(VMCB_PA + 0x608) / 8] = 0xc000n;
    m.processor.vmload(VMCB_PA);
    m.code('6a23 6800700000 6a02 6a2b 6800b00000 48cf');
    m.code('0f05 488ccb cd80', 0xb000); // syscall; mov rbx, cs; int 0x80
    m.code('488cca 480f07', 0xc000); // mov rdx, cs; sysretq
    m.code('f4', handler(0x80));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RDX)).toBe(8n);
    expect(m.register(RBX)).toBe(0x2bn);
    expect(m.register(RCX)).toBe(0xb002n);
  });
});

describe('other modes', () => {
  it('delivers and returns in 32-bit protected mode', () => {
    const m = new BareMachine(tcg, 'protected32');
    m.code('cd80 bb07000000 f4');
    m.code('8b0c24 cf', handler(0x80));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RCX)).toBe(0xa002n);
    expect(m.register(RBX)).toBe(7n);
    expect(m.get64(VMCB_RSP)).toBe(0x9000n);
  });

  it('changes rings in 32-bit protected mode', () => {
    const m = new BareMachine(tcg, 'protected32');
    m.code('6a23 6800700000 6a02 6a1b 6800b00000 cf');
    m.code('8cc9 cd80', 0xb000);
    m.code('8ccb 8cd6 f4', handler(0x80));
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect([m.register(RCX), m.register(RBX), m.register(RSI)]).toEqual([0x1bn, 8n, 0x10n]);
    expect(m.get64(VMCB_RSP)).toBe(0x8000n - 20n);
  });

  it('uses the vectors of real mode', () => {
    const m = new BareMachine(tcg, 'real');
    m.code('cd80 bb0700 f4');
    m.poke32(0x80 * 4, 0x0400_0200); // 0400:0200
    m.code('8ce9 8cca cf', 0x4200); // mov cx,gs; mov dx,cs; iret
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RDX) & 0xffffn).toBe(0x400n);
    expect(m.register(RBX) & 0xffffn).toBe(7n);
    expect(m.get64(VMCB_RSP)).toBe(0x9000n);
    expect(m.get32(VMCB_CS) & 0xffff).toBe(0);
  });

  it('enters protected mode and long mode by hand', () => {
    const m = new BareMachine(tcg, 'protected32');
    m.set32(VMCB_INTERCEPT_WORD3, m.get32(VMCB_INTERCEPT_WORD3) & ~(1 << 28));
    m.poke64(0x10000, 0x11027n);
    for (let i = 0; i < 4; i++) m.poke64(0x11000 + i * 8, BigInt(0x12027 + i * 0x1000));
    for (let i = 0; i < 2048; i++) m.poke64(0x12000 + i * 8, (BigInt(i) << 21n) | 0xe7n);
    m.poke64(0x1038, 0x00af9b000000ffffn); // selector 38: 64-bit code
    // mov eax,0x10000; mov cr3,eax; mov eax,cr4; or eax,0x20; mov cr4,eax; mov ecx,0xc0000080; rdmsr; or eax,0x100; wrmsr
    m.code('b800000100 0f22d8 0f20e0 83c820 0f22e0 b9800000c0 0f32 0d00010000 0f30');
    // mov eax,cr0; or eax,0x80000000; mov cr0,eax; jmp 0x38:0xb000
    m.code('0f20c0 0d00000080 0f22c0 ea00b00000 3800', 0xa000 + 31);
    m.code('48c7c3ffffffff f4', 0xb000);
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.register(RBX)).toBe(0xffffffffffffffffn);
  });
});

describe('task gates', () => {
  it('exit with the exception that came to the gate, not with the INT n that it interrupted', () => {
    const m = new BareMachine(silicon, 'protected32');
    m.set32(VMCB_INTERCEPT_WORD3, m.get32(VMCB_INTERCEPT_WORD3) | INTERCEPT_TASK_SWITCH);
    m.poke64(0x2000 + 0x21 * 8, 0x0000_0e00_0008_0000n); // not present
    m.poke64(0x2000 + 11 * 8, 0x0000_8500_0030_0000n); // a task gate
    m.code('cd21 f4');
    expect(m.run()).toBe(SVM_EXIT_TASK_SWITCH);
    expect(m.get64(VMCB_RIP)).toBe(0xa000n);
    expect(m.get64(VMCB_EXIT_INFO_1)).toBe(0x30n);
    // #NP with the error code of gate 0x21.
    expect(m.get64(VMCB_EXIT_INT_INFO)).toBe(0x10a_8000_0b0bn);
  });
});
