import { expect, test } from 'vitest';
import { REQ_TRIPLE_FAULT } from '../vcpu-state.ts';
import { clearExceptionQueue, queueException, queueExceptionE, requeueException } from './exceptions.ts';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;

test('the guest takes the exception of an instruction that KVM emulates', () => {
  // lock; mov eax,[0xd0000000] is #UD: the processor sees it itself; ud2 is intercepted
  const { vcpu, texts } = makeGuest([0x0f, 0x0b, HLT]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(6n);
  expect(texts('kvm_inj_exception')[0]).toBe('#UD');
});

test('contributory after contributory is a double fault, a third one a triple fault', () => {
  const { vcpu } = makeGuest([HLT]);
  const { state } = vcpu;
  queueExceptionE(state, 13, 0);
  queueExceptionE(state, 11, 4);
  expect(state.x86.exception).toMatchObject({ vector: 8, pending: true, errorCode: 0, hasErrorCode: true });
  queueExceptionE(state, 14, 2);
  expect(state.requests & REQ_TRIPLE_FAULT).not.toBe(0);
  expect(vcpu.run().exit).toEqual({ reason: 'shutdown' });
});

test('a benign exception replaces a pending one', () => {
  const { vcpu } = makeGuest([HLT]);
  queueException(vcpu.state, 6);
  queueExceptionE(vcpu.state, 13, 8);
  expect(vcpu.state.x86.exception).toMatchObject({ vector: 13, errorCode: 8, pending: true });
  clearExceptionQueue(vcpu.state);
  requeueException(vcpu.state, 14, true, 7);
  expect(vcpu.state.x86.exception).toMatchObject({ vector: 14, injected: true, pending: false });
});

test.each(['qemu-tcg-epyc', 'silicon-epyc'])(
  'INT3 reaches its handler with RIP behind it, though its delivery first faults: %s',
  (hardware) => {
    const { vcpu, peek } = makeGuest([0xcc, HLT], { hardware });
    expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
    expect(vcpu.getRegs().rsi).toBe(3n);
    expect(peek(0x8000 - 12, 4)).toEqual([0x01, 0x10, 0, 0]);
  },
);

test('a triple fault of the guest is a shutdown, and the vCPU is reset', () => {
  // lidt [0x3000] with limit 0; int3
  const { vcpu } = makeGuest([0x0f, 0x01, 0x1d, 0, 0x30, 0, 0, 0xcc]);
  expect(vcpu.run().exit).toEqual({ reason: 'shutdown' });
  expect(vcpu.getRegs().rip).toBe(0xfff0n);
  expect(vcpu.getSregs().cs.selector).toBe(0xf000);
});

test('KVM_SET_VCPU_EVENTS injects what it is given', () => {
  const { vcpu } = makeGuest([HLT]);
  const events = vcpu.getVcpuEvents();
  events.exception = { injected: true, nr: 13, hasErrorCode: true, pending: false, errorCode: 0x10 };
  vcpu.setVcpuEvents(events);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(13n);
  events.exception.nr = 32;
  expect(() => vcpu.setVcpuEvents(events)).toThrow('EINVAL');
});

test('single step: a debug exit after every instruction, emulated ones included', () => {
  const { vcpu } = makeGuest([0x40, ...mov(3, 5), 0xf4]);
  vcpu.setGuestDebug({ control: 3 });
  const first = vcpu.run().exit;
  expect(first).toMatchObject({ reason: 'debug', exception: 1, pc: 0x1001n });
  expect(vcpu.getRegs().rflags & 0x100n).toBe(0n);
  expect(vcpu.run().exit).toMatchObject({ reason: 'debug', pc: 0x1006n });
});

test('hardware breakpoints: a code breakpoint before its instruction, a data breakpoint behind the access', () => {
  // inc eax; mov [0x3000],eax; inc eax; hlt
  const { vcpu } = makeGuest([0x40, 0xa3, 0, 0x30, 0, 0, 0x40, HLT]);
  const debugreg = [0x1006n, 0x3000n, 0n, 0n, 0n, 0n, 0n, 0x400n | 1n | 4n | (1n << 20n) | (3n << 22n)];
  vcpu.setGuestDebug({ control: 1 | (1 << 17), debugreg });
  expect(vcpu.run().exit).toMatchObject({ reason: 'debug', exception: 1, pc: 0x1006n, dr6: 0xffff0ff2n });
  expect(vcpu.run().exit).toMatchObject({ reason: 'debug', pc: 0x1006n, dr6: 0xffff0ff1n });
  vcpu.setGuestDebug({ control: 0 });
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rax).toBe(2n);
});

test("the guest's own breakpoint is an exception of its own", () => {
  // mov eax,0x1014; mov dr0,eax; mov eax,0x401; mov dr7,eax; nops
  const code = [...mov(0, 0x1014), 0x0f, 0x23, 0xc0, ...mov(0, 0x401), 0x0f, 0x23, 0xf8];
  const { vcpu } = makeGuest([...code, 0x90, 0x90, 0x90, 0x90, 0x90, HLT]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(1n);
});

test('an NMI from userspace goes through vector 2', () => {
  const { vcpu } = makeGuest([0x90, HLT]);
  vcpu.nmi();
  expect(vcpu.getVcpuEvents().nmi).toMatchObject({ pending: 1, masked: false });
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(2n);
  expect(vcpu.getVcpuEvents().nmi).toMatchObject({ pending: 0, masked: true });
});

test('KVM_INTERRUPT is delivered through its vector', () => {
  const { vcpu } = makeGuest([0xfb, 0x90, HLT]);
  vcpu.injectInterrupt(0x1d);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(0x1dn);
});
