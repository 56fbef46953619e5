/** A VM without a processor, for tests of what needs none. */

import type { Processor } from '../cpu/processor.ts';
import type { HardwareProfile } from '../cpu/profile.ts';
import { HostMachine } from '../host/machine.ts';
import { type MemoryRegion, setUserMemoryRegion } from './memslots/set-memory-region.ts';
import { initVm } from './mmu/create.ts';
import type { Revision } from './mmu/revisions/revision.ts';
import { defaultParams } from './params.ts';
import type { TraceEvent } from './trace/events.ts';
import { VcpuState } from './vcpu-state.ts';
import type { VendorOps } from './vendor-ops.ts';
import { VmState } from './vm-state.ts';

export interface TestVm {
  readonly vm: VmState;
  readonly events: TraceEvent[];
  /** Host memory of `size` bytes; its address. */
  map(size: number): number;
  /** KVM_SET_USER_MEMORY_REGION2 (or 1) with the fields that matter. */
  slot(region: Partial<MemoryRegion> & { slot: number }, version?: 1 | 2): number;
  addVcpu(): VcpuState;
}

/** @param type VM type */
export function makeTestVm(type = 0): TestVm {
  const host = new HostMachine({ memoryBytes: 128 * 1024 * 1024 });
  const mm = host.createProcess();
  const vendor = {
    name: 'svm',
    tdpEnabled: true,
    maxTdpLevel: 4,
    maxHugePageLevel: 3,
    flushTlbCurrent() {},
    flushTlbAll() {},
  };
  const vm = new VmState({
    host,
    mm,
    processor: { insns: 0 } as unknown as Processor,
    profile: { maxPhyAddr: 40 } as HardwareProfile,
    params: defaultParams,
    revision: { name: 'test' } as Revision,
    vendor: vendor as unknown as VendorOps,
    type,
  });
  initVm(vm);
  mm.registerNotifier(vm.notifier);
  const events: TraceEvent[] = [];
  vm.trace.setSink((event) => events.push(event));
  return {
    vm,
    events,
    map: (size) => mm.mmap({ size, kind: 'anon' }),
    slot: (region, version = 2) =>
      setUserMemoryRegion(
        vm,
        {
          flags: 0,
          guestPhysAddr: 0n,
          memorySize: 0n,
          userspaceAddr: 0n,
          guestMemfdOffset: 0n,
          guestMemfd: 'other-file',
          ...region,
        },
        version,
      ),
    addVcpu: () => {
      const vcpu = new VcpuState(vm, vm.vcpus.length);
      vm.vcpus.push(vcpu);
      return vcpu;
    },
  };
}
