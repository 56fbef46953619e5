import { expect, test } from 'vitest';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;

test('HLT leaves KVM with RIP behind it', () => {
  const { vcpu } = makeGuest([HLT]);
  expect(vcpu.run()).toEqual({ ret: 0, errno: null, exit: { reason: 'hlt' } });
  expect(vcpu.getRegs().rip).toBe(0x1001n);
  expect(vcpu.stats()['halt_exits']).toBe(1);
});

test('OUT and IN go to userspace and complete at the next KVM_RUN', () => {
  // mov eax,0x11223344; mov edx,0x1234; out dx,ax; in al,dx; hlt
  const { vcpu, texts } = makeGuest([...mov(0, 0x11223344), ...mov(2, 0x1234), 0x66, 0xef, 0xec, HLT]);
  const out = vcpu.run().exit;
  if (out?.reason !== 'io') throw new Error(String(out?.reason));
  expect([out.isWrite, out.port, out.size, out.count, ...out.data]).toEqual([true, 0x1234, 2, 1, 0x44, 0x33]);
  const read = vcpu.run().exit;
  if (read?.reason !== 'io') throw new Error(String(read?.reason));
  expect([read.isWrite, read.size]).toEqual([false, 1]);
  read.data[0] = 0x99;
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rax).toBe(0x11223399n);
  expect(texts('kvm_pio')).toEqual([
    'pio_write at 0x1234 size 2 count 1 val 0x3344 ',
    'pio_read at 0x1234 size 1 count 1 val 0x99 ',
  ]);
});

test('INS takes a block from userspace', () => {
  // mov edx,0x60; mov edi,0x5000; mov ecx,3; rep insb; hlt
  const { vcpu, peek } = makeGuest([...mov(2, 0x60), ...mov(7, 0x5000), ...mov(1, 3), 0xf3, 0x6c, HLT]);
  const exit = vcpu.run().exit;
  if (exit?.reason !== 'io') throw new Error(String(exit?.reason));
  expect([exit.count, exit.size]).toEqual([3, 1]);
  exit.data.set([7, 8, 9]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(peek(0x5000, 3)).toEqual([7, 8, 9]);
  expect(vcpu.getRegs().rcx).toBe(0n);
});

test('an MMIO read exits at the instruction and completes with the data userspace gives', () => {
  // mov eax,[0xd0000000]; hlt
  const { vcpu } = makeGuest([0xa1, 0, 0, 0, 0xd0, HLT]);
  const exit = vcpu.run().exit;
  if (exit?.reason !== 'mmio') throw new Error(String(exit?.reason));
  expect([exit.isWrite, exit.physAddr, exit.len]).toEqual([false, 0xd0000000, 4]);
  expect(vcpu.getRegs().rip).toBe(0x1000n);
  exit.data.set([1, 2, 3, 4]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rax).toBe(0x04030201n);
});

test('an MMIO write exits behind the instruction', () => {
  // mov eax,imm; mov [0xd0000000],eax; hlt
  const { vcpu } = makeGuest([...mov(0, 0xaabbccdd), 0xa3, 0, 0, 0, 0xd0, HLT]);
  const exit = vcpu.run().exit;
  if (exit?.reason !== 'mmio') throw new Error(String(exit?.reason));
  expect([exit.isWrite, exit.len, ...exit.data]).toEqual([true, 4, 0xdd, 0xcc, 0xbb, 0xaa]);
  expect(vcpu.getRegs().rip).toBe(0x100an);
});

test('an access over the end of RAM is memory for one part and MMIO for the other', () => {
  // mov eax,[0x1ffffe]; hlt
  const { vcpu, poke } = makeGuest([0xa1, 0xfe, 0xff, 0x1f, 0, HLT]);
  poke(0x1ffffe, [0x11, 0x22]);
  const exit = vcpu.run().exit;
  if (exit?.reason !== 'mmio') throw new Error(String(exit?.reason));
  expect([exit.physAddr, exit.len]).toEqual([0x200000, 2]);
  exit.data.set([0x33, 0x44]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rax).toBe(0x44332211n);
});

test('a 16-byte MMIO read over two unmapped pages goes out in pieces of at most eight bytes', () => {
  // mov eax,cr4; or eax,0x200; mov cr4,eax; movups xmm0,[0xd0000ff4]; hlt
  const { vcpu } = makeGuest([
    0x0f,
    0x20,
    0xe0,
    0x0d,
    0,
    2,
    0,
    0,
    0x0f,
    0x22,
    0xe0,
    0x0f,
    0x10,
    0x05,
    0xf4,
    0x0f,
    0,
    0xd0,
    HLT,
  ]);
  const pieces: [number, number][] = [];
  for (let exit = vcpu.run().exit; exit?.reason === 'mmio'; exit = vcpu.run().exit)
    pieces.push([exit.physAddr, exit.len]);
  expect(pieces).toEqual([
    [0xd0000ff4, 8],
    [0xd0000ffc, 4],
    [0xd0001000, 4],
  ]);
});

test('immediate_exit completes what is in flight and enters no guest', () => {
  const { vcpu } = makeGuest([0xa1, 0, 0, 0, 0xd0, HLT]);
  const exit = vcpu.run().exit;
  if (exit?.reason !== 'mmio') throw new Error(String(exit?.reason));
  exit.data.fill(5);
  vcpu.kvmRun.immediateExit = true;
  expect(vcpu.run()).toMatchObject({ ret: -1, errno: 'EINTR' });
  expect(vcpu.getRegs().rax).toBe(0x05050505n);
  expect(vcpu.getRegs().rip).toBe(0x1005n);
});

test('limits end an endless loop with EINTR', () => {
  const { vcpu } = makeGuest([0xeb, 0xfe]);
  expect(vcpu.run({ maxInstructions: 1000 })).toMatchObject({ ret: -1, errno: 'EINTR' });
  expect(vcpu.kvmRun.exitReason).toBe(10);
  expect(vcpu.run({ maxExits: 1, maxInstructions: 5 })).toMatchObject({ errno: 'EINTR' });
});

test('without a signal a halted vCPU with its APIC in KVM would sleep for ever', () => {
  const { vcpu } = makeGuest([HLT], { irqchip: true });
  expect(vcpu.run()).toMatchObject({ ret: -1, errno: 'EINTR' });
  expect(vcpu.getMpState()).toBe(3);
});
