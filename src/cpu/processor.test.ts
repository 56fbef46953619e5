import { describe, expect, it } from 'vitest';
import { RBX, RCX, RDX } from '../arch/registers.ts';
import {
  SVM_EXIT_CPUID,
  SVM_EXIT_ERR,
  SVM_EXIT_HLT,
  SVM_EXIT_INTR,
  SVM_EXIT_IOIO,
  SVM_EXIT_MSR,
  SVM_EXIT_NPF,
  SVM_EXIT_SHUTDOWN,
  SVM_EXIT_VMMCALL,
  VMCB_ASID,
  VMCB_EXIT_INFO_1,
  VMCB_EXIT_INFO_2,
  VMCB_EXIT_INT_INFO,
  VMCB_IDTR,
  VMCB_INTERCEPT_WORD3,
  VMCB_RAX,
  VMCB_RIP,
} from '../arch/vmcb.ts';
import { qemuTcgEpyc } from './profiles/qemu-tcg-epyc.ts';
import { siliconEpyc } from './profiles/silicon-epyc.ts';
import { BareMachine } from './svm/bare-machine.testing.ts';

describe('vmrun', () => {
  it('executes long-mode code up to an intercepted HLT', () => {
    const m = new BareMachine(qemuTcgEpyc);
    m.code('48c7c378563412 4889d9 48ffc1 f4'); // mov rbx,0x12345678; mov rcx,rbx; inc rcx; hlt
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_RIP)).toBe(0xa00dn);
    expect(m.register(RBX)).toBe(0x12345678n);
    expect(m.register(RCX)).toBe(0x12345679n);
    expect(m.processor.insns).toBe(3);
  });

  it('reports the page-table walk and the final access as they fault', () => {
    const m = new BareMachine(qemuTcgEpyc, 'long64', false);
    m.code('bb000000d0 8803 f4'); // mov ebx,0xd0000000; mov [rbx],al; hlt
    const seen: string[] = [];
    for (let i = 0; i < 10; i++) {
      const code = m.run();
      if (code !== SVM_EXIT_NPF) break;
      const gpa = m.get64(VMCB_EXIT_INFO_2);
      seen.push(`${m.get64(VMCB_RIP).toString(16)} ${m.get64(VMCB_EXIT_INFO_1).toString(16)} ${gpa.toString(16)}`);
      if (gpa >= 0xd0000000n) break;
      m.mapNested(Number(gpa >> 12n));
    }
    expect(seen).toEqual([
      'a000 200000006 10000',
      'a000 200000006 11000',
      'a000 200000006 12000',
      'a000 100000014 a000',
      'a005 200000006 15400',
      'a005 100000006 d0000000',
    ]);
  });

  it('reports a reserved nested bit with or without P, as the profile says', () => {
    for (const [profile, error] of [
      [qemuTcgEpyc, 0x10000000en],
      [siliconEpyc, 0x10000000fn],
    ] as const) {
      const m = new BareMachine(profile);
      m.code('bb00008000 8803 f4');
      m.memory.u64[m.nestedEntry(0x800) / 8] = 0x8000000800007n; // bit 51
      expect(m.run()).toBe(SVM_EXIT_NPF);
      expect(m.get64(VMCB_EXIT_INFO_1)).toBe(error);
      expect(m.get64(VMCB_EXIT_INFO_2)).toBe(0x800000n);
    }
  });

  it('reports ports, MSRs, CPUID and VMMCALL', () => {
    const m = new BareMachine(qemuTcgEpyc);
    m.set32(VMCB_INTERCEPT_WORD3, m.get32(VMCB_INTERCEPT_WORD3) | (1 << 18));
    const next = (rip: bigint): void => m.set64(VMCB_RIP, rip);
    m.code('e6ee 66ba7700 666f 0f30 0fa2 0f01d9'); // out 0xee,al; mov dx,0x77; outsw; wrmsr; cpuid; vmmcall
    expect(m.run()).toBe(SVM_EXIT_IOIO);
    expect([m.get64(VMCB_EXIT_INFO_1), m.get64(VMCB_EXIT_INFO_2)]).toEqual([0xee0010n, 0xa002n]);
    next(0xa002n);
    expect(m.run()).toBe(SVM_EXIT_IOIO);
    expect([m.get64(VMCB_EXIT_INFO_1), m.get64(VMCB_EXIT_INFO_2)]).toEqual([0x770024n, 0xa008n]);
    next(0xa008n);
    expect(m.run()).toBe(SVM_EXIT_MSR);
    expect(m.get64(VMCB_EXIT_INFO_1)).toBe(1n);
    next(0xa00an);
    expect(m.run()).toBe(SVM_EXIT_CPUID);
    next(0xa00cn);
    expect(m.run()).toBe(SVM_EXIT_VMMCALL);
  });

  it('takes a physical interrupt when the budget is spent', () => {
    const m = new BareMachine(qemuTcgEpyc);
    m.code('ebfe');
    expect(m.run(100)).toBe(SVM_EXIT_INTR);
    expect(m.processor.insns).toBe(100);
    expect(m.get64(VMCB_RIP)).toBe(0xa000n);
  });

  it('refuses a control block with ASID 0', () => {
    const m = new BareMachine(qemuTcgEpyc);
    m.set32(VMCB_ASID, 0);
    expect(m.run()).toBe(SVM_EXIT_ERR);
  });

  it('shuts down on a triple fault and reports the first event', () => {
    const m = new BareMachine(qemuTcgEpyc);
    m.set32(VMCB_IDTR + 4, 0);
    m.code('0f0b');
    expect(m.run()).toBe(SVM_EXIT_SHUTDOWN);
    expect(m.get64(VMCB_EXIT_INT_INFO)).toBe(0x80000306n);
  });

  it('keeps RAX and others across exits', () => {
    const m = new BareMachine(qemuTcgEpyc);
    m.set64(VMCB_RAX, 5n);
    m.code('4801c0 4889c2 f4');
    expect(m.run()).toBe(SVM_EXIT_HLT);
    expect(m.get64(VMCB_RAX)).toBe(10n);
    expect(m.register(RDX)).toBe(10n);
  });
});
