import { expect, test } from 'vitest';
import { Kvm } from '../kvm/api/index.ts';
import { CPU_FEATURES, MissingFeature, withFeatures } from './cpu-features.ts';
import { guestCpuid } from './guest-cpuid.ts';

const kvm = new Kvm({ hostMemory: 96 * 1024 * 1024, hardware: 'silicon-epyc' });

test('features can be kept from a guest, and those asked for must be there', () => {
  const cpuid = guestCpuid(kvm.getSupportedCpuid(), 3, 4);
  const leaf1 = (c: typeof cpuid) => c.find((e) => e.function === 1)!;
  const without = withFeatures(cpuid, [
    { name: 'x2apic', on: false },
    { name: 'tsc-deadline', on: true },
    { name: 'smep', on: false },
  ]);
  expect((leaf1(cpuid).ecx >>> 21) & 1).toBe(1);
  expect((leaf1(without).ecx >>> 21) & 1).toBe(0);
  expect((without.find((e) => e.function === 7)!.ebx >>> 7) & 1).toBe(0);
  expect(() => withFeatures(without, [{ name: 'x2apic', on: true }])).toThrow(MissingFeature);
  for (const name of CPU_FEATURES) expect(withFeatures(cpuid, [{ name, on: false }])).toHaveLength(cpuid.length);
});

test('vCPUs are the cores of one package', () => {
  const cpuid = guestCpuid(kvm.getSupportedCpuid(), 3, 6);
  const leaf1 = cpuid.find((e) => e.function === 1)!;
  expect([leaf1.ebx >>> 24, (leaf1.ebx >>> 16) & 0xff, (leaf1.edx >>> 28) & 1]).toEqual([3, 6, 1]);
  const levels = cpuid.filter((e) => e.function === 0xb);
  expect(levels.map((e) => [e.index, e.eax, e.ebx, e.ecx, e.edx])).toEqual([
    [0, 0, 1, 0x100, 3],
    [1, 3, 6, 0x201, 3],
    [2, 0, 0, 2, 3],
  ]);
});
