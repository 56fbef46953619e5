import { expect, test } from 'vitest';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;
/** mov eax,cr4; or eax,1<<18; mov cr4,eax; then XCR0 = `value`. */
const enable = (value: number): number[] => [
  ...[0x0f, 0x20, 0xe0, 0x0d, 0, 0, 4, 0, 0x0f, 0x22, 0xe0],
  ...[...mov(1, 0), ...mov(2, 0), ...mov(0, value), 0x0f, 0x01, 0xd1],
];
// vpcmpeqd ymm1,ymm1,ymm1
const ONES = [0xc5, 0xf5, 0x76, 0xc9];

test('KVM_GET_XSAVE has the upper halves of what the guest put into YMM1, KVM_SET_XSAVE puts them back', () => {
  const { vcpu } = makeGuest([...enable(7), ...ONES, HLT, 0xc5, 0xfe, 0x7f, 0x0d, 0, 0x50, 0, 0, HLT], {
    hardware: 'silicon-epyc',
  });
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getXcrs()).toEqual([{ xcr: 0, value: 7n }]);
  const area = vcpu.getXsave();
  const view = new DataView(area.buffer);
  expect(area.length).toBe(4096);
  expect(view.getUint32(512, true)).toBe(6);
  expect(view.getUint32(160 + 16, true)).toBe(0xffffffff);
  expect(view.getUint32(576 + 16, true)).toBe(0xffffffff);
  expect(view.getUint32(576, true)).toBe(0);
  view.setUint32(576 + 16, 0x12345678, true);
  vcpu.setXsave(area);
  expect(new DataView(vcpu.getXsave().buffer).getUint32(576 + 16, true)).toBe(0x12345678);
  // What the header does not name becomes initial.
  view.setUint32(512, 2, true);
  vcpu.setXsave(area);
  expect(new DataView(vcpu.getXsave().buffer).getUint32(576 + 16, true)).toBe(0);
});

test('KVM_SET_XSAVE refuses components that there are not, the compacted form and reserved bits', () => {
  const { vcpu } = makeGuest([HLT], { hardware: 'silicon-epyc' });
  const refused = (change: (view: DataView) => void): void => {
    const area = vcpu.getXsave();
    change(new DataView(area.buffer));
    expect(() => vcpu.setXsave(area)).toThrow('EINVAL');
  };
  refused((view) => view.setUint32(512, 1 << 5, true));
  refused((view) => view.setUint32(516, 1, true));
  refused((view) => view.setUint32(524, 1 << 31, true));
  refused((view) => view.setUint32(560, 1, true));
  refused((view) => view.setUint32(24, 1 << 20, true));
  vcpu.setXsave(vcpu.getXsave());
});

test('XCR0 by the guest and by KVM_SET_XCRS: x87 always, AVX with SSE only, nothing that CPUID does not have', () => {
  const { vcpu } = makeGuest([...enable(5), HLT], { hardware: 'silicon-epyc' });
  vcpu.run();
  // #GP in the guest: its handler left the vector.
  expect(vcpu.getRegs().rsi).toBe(13n);
  for (const value of [0n, 2n, 5n, 1n << 7n, 1n << 32n]) {
    expect(() => vcpu.setXcrs([{ xcr: 0, value }])).toThrow('EINVAL');
  }
  vcpu.setXcrs([{ xcr: 0, value: 7n }]);
  expect(vcpu.getXcrs()[0]!.value).toBe(7n);
  const recorded = makeGuest([HLT], { hardware: 'qemu-tcg-epyc' });
  expect(() => recorded.vcpu.setXcrs([{ xcr: 0, value: 7n }])).toThrow('EINVAL');
});

test('CPUID leaf 0xd gives the size of the area for XCR0 as it is', () => {
  const leaf = [...mov(0, 0xd), ...mov(1, 0), 0x0f, 0xa2, HLT];
  const { vcpu } = makeGuest([...enable(3), ...leaf], { hardware: 'silicon-epyc' });
  vcpu.run();
  expect(vcpu.getRegs()).toMatchObject({ rax: 0x207n, rbx: 576n, rcx: 0xa88n });
  const wide = makeGuest([...enable(7), ...leaf], { hardware: 'silicon-epyc' });
  wide.vcpu.run();
  expect(wide.vcpu.getRegs()).toMatchObject({ rbx: 832n });
});
