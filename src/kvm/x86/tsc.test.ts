import { expect, test } from 'vitest';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;
const RDTSC = [0x0f, 0x31];
const WRMSR = [0x0f, 0x30];
const RDMSR = [0x0f, 0x32];
const TSC = 0x10;
const TSC_ADJUST = 0x3b;
const TSC_AUX = 0xc0000103;

const write = (msr: number, low: number, high = 0): number[] => [
  ...mov(1, msr),
  ...mov(0, low),
  ...mov(2, high),
  ...WRMSR,
];
const read = (msr: number): number[] => [...mov(1, msr), ...RDMSR];

function result(code: readonly number[]): { readonly rax: bigint; readonly rdx: bigint } {
  const { vcpu } = makeGuest([...code, HLT]);
  vcpu.run();
  return vcpu.getRegs();
}

test('the counter moves as far as TSC_ADJUST does', () => {
  expect(result([...write(TSC_ADJUST, 0, 5), ...RDTSC]).rdx).toBe(5n);
  expect(result([...write(TSC_ADJUST, 0, 5), ...write(TSC_ADJUST, 0, 2), ...RDTSC]).rdx).toBe(2n);
  expect(result([...write(TSC_ADJUST, 7, 5), ...read(TSC_ADJUST)])).toMatchObject({ rax: 7n, rdx: 5n });
});

test('a counter that the guest sets shows in TSC_ADJUST', () => {
  expect(result([...write(TSC, 0, 9), ...RDTSC]).rdx).toBe(9n);
  expect([8n, 9n]).toContain(result([...write(TSC, 0, 9), ...read(TSC_ADJUST)]).rdx);
});

test('userspace restores both without moving the other', () => {
  const { vcpu } = makeGuest([HLT]);
  vcpu.setMsrs([{ index: TSC, data: 1n << 40n }]);
  vcpu.setMsrs([{ index: TSC_ADJUST, data: 1n << 50n }]);
  const msrs = [
    { index: TSC, data: 0n },
    { index: TSC_ADJUST, data: 0n },
  ];
  vcpu.getMsrs(msrs);
  expect(msrs[0]!.data >> 40n).toBe(1n);
  expect(msrs[1]!.data).toBe(1n << 50n);
});

test('TSC_AUX is there for the RDTSCP that follows', () => {
  const { vcpu, kvm } = makeGuest([...write(TSC_AUX, 0x77), 0x0f, 0x01, 0xf9, HLT]);
  const entries = kvm.getSupportedCpuid();
  vcpu.setCpuid2(entries);
  vcpu.run();
  expect(vcpu.getRegs().rcx).toBe(0x77n);
});
