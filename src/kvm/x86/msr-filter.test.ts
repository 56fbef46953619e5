import { expect, test } from 'vitest';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;
const WRMSR = [0x0f, 0x30];
const RDMSR = [0x0f, 0x32];
const USER_SPACE_MSR = 188;
const UNKNOWN = 2;
const FILTERED = 4;

test('an unknown MSR goes to userspace, which answers the read', () => {
  const { vm, vcpu } = makeGuest([...mov(1, 0xdead), ...RDMSR, HLT]);
  vm.enableCap(USER_SPACE_MSR, 0, [7]);
  expect(vcpu.run().exit).toEqual({ reason: 'rdmsr', index: 0xdead, why: UNKNOWN });
  vcpu.kvmRun.msr.setData(0x1234, 0x5678);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs()).toMatchObject({ rax: 0x1234n, rdx: 0x5678n, rsi: 0n });
});

test('userspace may answer with #GP', () => {
  const { vm, vcpu } = makeGuest([...mov(1, 0xdead), ...mov(0, 5), ...mov(2, 6), ...WRMSR, HLT]);
  vm.enableCap(USER_SPACE_MSR, 0, [UNKNOWN]);
  expect(vcpu.run().exit).toEqual({ reason: 'wrmsr', index: 0xdead, why: UNKNOWN, data: 0x6_0000_0005n });
  vcpu.kvmRun.msr.error = true;
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(13n);
});

test('the filter keeps an MSR from the guest that it reached without exits, until it is changed', () => {
  const code = [...mov(1, 0xc0000082), ...mov(0, 0x5000), ...mov(2, 0), ...WRMSR, ...RDMSR, HLT];
  const { vm, vcpu } = makeGuest(code);
  vm.enableCap(USER_SPACE_MSR, 0, [FILTERED]);
  vm.setMsrFilter({ ranges: [{ flags: 2, base: 0xc0000080, nmsrs: 8, bitmap: Uint8Array.of(0xfb) }] });
  expect(vcpu.run().exit).toEqual({ reason: 'wrmsr', index: 0xc0000082, why: FILTERED, data: 0x5000n });
  vm.setMsrFilter({ ranges: [] });
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs()).toMatchObject({ rax: 0n, rsi: 0n });
});

test('without the capability a filtered MSR is #GP', () => {
  const { vm, vcpu } = makeGuest([...mov(1, 0x277), ...RDMSR, HLT]);
  vm.setMsrFilter({ defaultDeny: true, ranges: [{ flags: 1, base: 0x10, nmsrs: 1, bitmap: Uint8Array.of(1) }] });
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rsi).toBe(13n);
});

test('an emulated RDMSR is answered as well', () => {
  const { vm, vcpu } = makeGuest([...mov(1, 0xdead), 0x0f, 0x0b, 0x6b, 0x76, 0x6d, ...RDMSR, HLT], {
    params: { forceEmulationPrefix: 1 },
  });
  vm.enableCap(USER_SPACE_MSR, 0, [UNKNOWN]);
  expect(vcpu.run().exit).toEqual({ reason: 'rdmsr', index: 0xdead, why: UNKNOWN });
  vcpu.kvmRun.msr.setData(1, 2);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs()).toMatchObject({ rax: 1n, rdx: 2n });
});

test('filters that the kernel refuses', () => {
  const { vm } = makeGuest([HLT]);
  const range = { flags: 1, base: 0, nmsrs: 8, bitmap: Uint8Array.of(0) };
  expect(() => vm.setMsrFilter({ defaultDeny: true, ranges: [] })).toThrow('EINVAL');
  expect(() => vm.setMsrFilter({ ranges: [{ ...range, flags: 0 }] })).toThrow('EINVAL');
  expect(() => vm.setMsrFilter({ ranges: [{ ...range, flags: 4 }] })).toThrow('EINVAL');
  expect(() => vm.setMsrFilter({ ranges: [{ ...range, nmsrs: 0x3001, bitmap: new Uint8Array(0x700) }] })).toThrow(
    'EINVAL',
  );
  expect(() => vm.enableCap(USER_SPACE_MSR, 0, [8])).toThrow('EINVAL');
});
