import { describe, expect, it } from 'vitest';
import { siliconEpyc } from '../cpu/profiles/silicon-epyc.ts';
import { siliconSkylake } from '../cpu/profiles/silicon-skylake.ts';
import { makeTestVm } from './bare-vm.testing.ts';
import * as C from './capabilities.ts';
import * as N from './capability-numbers.ts';
import { defaultParams } from './params.ts';

const host = { profile: siliconEpyc, params: defaultParams };
const KVM_CAP_MULTI_ADDRESS_SPACE = 118;

describe('KVM_CHECK_EXTENSION', () => {
  it('what depends on the type of the VM', () => {
    const ask = (cap: number) =>
      [null, makeTestVm(0).vm, makeTestVm(1).vm].map((vm) => C.checkExtension(host, vm, cap));
    expect(ask(N.KVM_CAP_MEMORY_ATTRIBUTES)).toEqual([8, 0, 8]);
    expect(ask(N.KVM_CAP_GUEST_MEMFD)).toEqual([1, 0, 1]);
    expect(ask(KVM_CAP_MULTI_ADDRESS_SPACE)).toEqual([2, 2, 1]);
  });

  it('what depends on module parameters', () => {
    const ask = (cap: number) =>
      [{}, { tdpMmu: false }, { npt: false }].map((p) =>
        C.checkExtension({ ...host, params: { ...defaultParams, ...p } }, null, cap),
      );
    expect(ask(N.KVM_CAP_VM_TYPES)).toEqual([3, 1, 1]);
    expect(ask(N.KVM_CAP_PRE_FAULT_MEMORY)).toEqual([1, 1, 0]);
  });

  it('whose paging the parameters are of', () => {
    const intel = { profile: siliconSkylake, params: { ...defaultParams, npt: false } };
    expect(C.checkExtension(intel, null, N.KVM_CAP_PRE_FAULT_MEMORY)).toBe(1);
  });

  it('numbers and unknown capabilities', () => {
    const values = [
      10,
      15,
      N.KVM_CAP_DIRTY_LOG_RING,
      N.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
      N.KVM_CAP_EXIT_HYPERCALL,
      228,
      9999,
    ];
    expect(values.map((cap) => C.checkExtension(host, null, cap))).toEqual([32764, 2, 1048576, 3, 4096, 0, 0]);
  });
});
