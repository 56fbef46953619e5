/** A VM without a processor, for tests of what needs none. */
import type { Processor } from '../cpu/processor.ts';
import type { HardwareProfile } from '../cpu/profile.ts';
import { HostMachine } from '../host/machine.ts';
import { type MemoryRegion, setUserMemoryRegion } from './memslots/set-memory-region.ts';
import { initVm } from './mmu/create.ts';
import { linux612 } from './mmu/revisions/linux-6.12.ts';
import { defaultParams, type KvmParams } from './params.ts';
import type { TraceEvent } from './trace/events.ts';
import { VcpuState } from './vcpu-state.ts';
import type { VendorOps } from './vendor-ops.ts';
import { VmState } from './vm-state.ts';

export interface BareVmOptions {
  /** VM type */
  readonly type?: number;
  readonly params?: Partial<KvmParams>;
  readonly memoryBytes?: number;
  readonly maxPhyAddr?: number;
}

/** The vendor's part, as far as the MMU asks for it: two-dimensional paging unless `npt` is false, and flushes that nobody sees. */
const vendor = {
  name: 'svm',
  tdpEnabled: true,
  maxTdpLevel: 4,
  maxHugePageLevel: 3,
  cpuDirtyLogSize: 0,
  loadMmuPgd() {},
  flushTlbCurrent() {},
  flushTlbAll() {},
  flushTlbGva() {},
  getRflags: () => 2,
  getCpl: () => 0,
};

/** A VM of a new process on a new machine, its notifier registered. */
export function bareVm(options: BareVmOptions = {}): VmState {
  const host = new HostMachine({ memoryBytes: options.memoryBytes ?? 128 * 1024 * 1024 });
  const vm = new VmState({
    host,
    mm: host.createProcess(),
    processor: { insns: 0 } as unknown as Processor,
    profile: { maxPhyAddr: options.maxPhyAddr ?? 40, gbPages: true } as HardwareProfile,
    params: { ...defaultParams, ...options.params },
    revision: linux612,
    vendor: { ...vendor, tdpEnabled: options.params?.npt !== false } as unknown as VendorOps,
    type: options.type ?? 0,
  });
  initVm(vm);
  vm.mm.registerNotifier(vm.notifier);
  return vm;
}

/** One more vCPU. */
export function addVcpu(vm: VmState): VcpuState {
  const vcpu = new VcpuState(vm, vm.vcpus.length);
  vm.vcpus.push(vcpu);
  return vcpu;
}

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
  const vm = bareVm({ type });
  const events: TraceEvent[] = [];
  vm.trace.setSink((event) => events.push(event));
  return {
    vm,
    events,
    map: (size) => vm.mm.mmap({ size, kind: 'anon' }),
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
    addVcpu: () => addVcpu(vm),
  };
}
