import { describe, expect, it } from 'vitest';
import {
  KVM_CAP_DIRTY_LOG_RING,
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_CAP_MEMORY_ATTRIBUTES,
} from '../capability-numbers.ts';
import { EventFd, Kvm, KvmError, type Vcpu, type VcpuExit, type Vm } from './index.ts';

const MEMORY = { hostMemory: 96 * 1024 * 1024 };
const CODE = 0x1000;

/** A vCPU in real mode at 0:0x1000, DS:0 flat, over 64 KiB of RAM in slot 0. */
function realMode(
  code: number[],
  type = 0,
  prepare: (vm: Vm) => void = () => {},
): { kvm: Kvm; vm: Vm; vcpu: Vcpu; ram: number } {
  const kvm = new Kvm(MEMORY);
  const vm = kvm.createVm(type);
  prepare(vm);
  const ram = kvm.mm.mmap({ size: 0x10000, kind: 'anon' });
  kvm.mm.write(ram + CODE, Uint8Array.from(code));
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: 0x10000, userspaceAddr: ram });
  const vcpu = vm.createVcpu(0);
  vcpu.setCpuid2(kvm.getSupportedCpuid());
  const sregs = vcpu.getSregs();
  vcpu.setSregs({ ...sregs, cs: { ...sregs.cs, base: 0n, selector: 0 } });
  vcpu.setRegs({ ...vcpu.getRegs(), rip: BigInt(CODE), rflags: 2n });
  return { kvm, vm, vcpu, ram };
}

function errorOf(call: () => unknown): KvmError {
  try {
    call();
  } catch (error) {
    if (error instanceof KvmError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

function ioOf(exit: VcpuExit | null): Extract<VcpuExit, { reason: 'io' }> {
  if (exit?.reason !== 'io') throw new Error(`expected a port I/O exit, got ${exit?.reason}`);
  return exit;
}

describe('Kvm', () => {
  it('refuses VM types with EINVAL and unsupported parameters by name', () => {
    const kvm = new Kvm(MEMORY);
    for (const type of [2, 4, 31, 32, -1]) expect(errorOf(() => kvm.createVm(type)).errno).toBe('EINVAL');
    expect(() => new Kvm({ ...MEMORY, params: { enableVmwareBackdoor: true } })).toThrow(
      'kvm.enable_vmware_backdoor=1 is not supported yet',
    );
    expect(() => new Kvm({ ...MEMORY, hardware: 'no-such' })).toThrow(/no-such/);
    expect(() => new Kvm({ ...MEMORY, revision: 'no-such' })).toThrow(/no-such/);
    expect(kvm.checkExtension(KVM_CAP_MEMORY_ATTRIBUTES)).toBe(8);
  });

  it('errors say what failed, and on what', () => {
    const vm = new Kvm(MEMORY).createVm(1);
    const error = errorOf(() => vm.setMemoryAttributes({ address: 0x800, size: 0x1000, attributes: 8 }));
    expect([error.errno, error.code, error.operation]).toEqual(['EINVAL', 22, 'KVM_SET_MEMORY_ATTRIBUTES']);
    expect(error.message).toContain('gpa 0x800');
    vm.createVcpu(3);
    expect(errorOf(() => vm.createVcpu(3)).errno).toBe('EEXIST');
    expect(errorOf(() => vm.createVcpu(4096)).errno).toBe('EINVAL');
  });

  it('a VM that KVM declared dead answers EIO', () => {
    const { vm, vcpu } = realMode([0xf4]);
    vm.state.log.kvmBugOn(true, 'test', 'a test');
    for (const call of [() => vm.createVcpu(1), () => vm.getDirtyLog(0), () => vcpu.run(), () => vcpu.getRegs()]) {
      expect(errorOf(call).errno).toBe('EIO');
    }
    vm.close();
    vm.close();
  });
});

describe('KVM_RUN', () => {
  it('port output, input that userspace answers, halt', () => {
    // mov al,0x41; out 0x10,al; in ax,0x12; hlt
    const { vcpu, vm } = realMode([0xb0, 0x41, 0xe6, 0x10, 0xe5, 0x12, 0xf4]);
    const out = ioOf(vcpu.run().exit);
    expect([out.isWrite, out.port, out.size, out.count, ...out.data]).toEqual([true, 0x10, 1, 1, 0x41]);
    const input = ioOf(vcpu.run().exit);
    expect([input.isWrite, input.port, input.data.length]).toEqual([false, 0x12, 2]);
    input.data.set([0x34, 0x12]);
    expect(vcpu.run()).toEqual({ ret: 0, errno: null, exit: { reason: 'hlt' } });
    expect(vcpu.getRegs().rax & 0xffffn).toBe(0x1234n);
    expect(vcpu.stats()['io_exits']).toBe(2);
    vm.close();
  });

  it('MMIO: a read that userspace answers, a write', () => {
    // mov ax,0xe000; mov ds,ax; mov eax,[0x20]; mov [0x24],eax; hlt
    const { vcpu } = realMode([0xb8, 0, 0xe0, 0x8e, 0xd8, 0x66, 0xa1, 0x20, 0, 0x66, 0xa3, 0x24, 0, 0xf4]);
    const read = vcpu.run().exit;
    if (read?.reason !== 'mmio') throw new Error(`expected MMIO, got ${read?.reason}`);
    expect([read.isWrite, read.physAddr, read.len]).toEqual([false, 0xe0020, 4]);
    read.data.set([4, 3, 2, 1]);
    const write = vcpu.run().exit;
    expect(write).toEqual({
      reason: 'mmio',
      isWrite: true,
      physAddr: 0xe0024,
      len: 4,
      data: Uint8Array.of(4, 3, 2, 1),
    });
  });

  it('limits end it like a signal', () => {
    // jmp $
    const { vcpu } = realMode([0xeb, 0xfe]);
    expect(vcpu.run({ maxInstructions: 1000 })).toEqual({ ret: -1, errno: 'EINTR', exit: null });
    vcpu.interrupt();
    expect(vcpu.run().errno).toBe('EINTR');
  });

  it('private memory without guest_memfd is a memory fault, and converting it back goes on', () => {
    // mov [0x8000],al; hlt
    const { vcpu, vm } = realMode([0xa2, 0, 0x80, 0xf4], 1);
    vm.setMemoryAttributes({ address: 0x8000, size: 0x1000, attributes: 8 });
    const fault = { reason: 'memory-fault', isPrivate: true, flags: 8, gpa: 0x8000, size: 0x1000 };
    expect(vcpu.run()).toEqual({ ret: -1, errno: 'EFAULT', exit: fault });
    vm.setMemoryAttributes({ address: 0x8000, size: 0x1000, attributes: 0 });
    expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  });

  it('in-kernel writes: ioeventfd and coalesced ports take no exit', () => {
    // mov al,1; out 0x10,al; out 0x20,al; out 0x30,al
    const { vcpu, vm } = realMode([0xb0, 1, 0xe6, 0x10, 0xe6, 0x20, 0xe6, 0x30]);
    const eventfd = new EventFd();
    vm.ioeventfd({ eventfd, addr: 0x10, len: 1, flags: 2 });
    vm.registerCoalescedMmio({ addr: 0x20, size: 1, pio: true });
    expect(ioOf(vcpu.run().exit).port).toBe(0x30);
    expect(eventfd.read()).toBe(1n);
    expect(vm.coalescedRing().entries.map((e) => [e.physAddr, e.pio, e.data[0]])).toEqual([[0x20, true, 1]]);
  });
});

describe('dirty tracking through the API', () => {
  // mov [0x8000],al; mov [0x9000],al; hlt
  const writer = [0xa2, 0, 0x80, 0xa2, 0, 0x90, 0xf4];

  function relog(vm: Vm, ram: number): void {
    vm.setUserMemoryRegion({ slot: 0, flags: 1, guestPhysAddr: 0, memorySize: 0x10000, userspaceAddr: ram });
  }

  it('bitmap', () => {
    const { vcpu, vm, ram } = realMode(writer, 0, (v) => v.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, [1]));
    relog(vm, ram);
    expect(vcpu.run().exit?.reason).toBe('hlt');
    // The code's page counts too: fetching it mapped it writable.
    expect([...vm.getDirtyLog(0)]).toEqual([2, 3, 0, 0, 0, 0, 0, 0]);
    vm.clearDirtyLog({ slot: 0, firstPage: 0, numPages: 16, bitmap: Uint8Array.of(0, 1) });
    expect(vm.getDirtyLog(0)[1]).toBe(2);
    expect(errorOf(() => vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, [2])).errno).toBe('EINVAL');
    expect(errorOf(() => vm.resetDirtyRings()).errno).toBe('EINVAL');
  });

  it('ring: enabled once, before vCPUs, with a size that fits', () => {
    const enable = (v: Vm, bytes: number) => v.enableCap(KVM_CAP_DIRTY_LOG_RING, 0, [bytes]);
    const { vcpu, vm, ram } = realMode(writer, 0, (v) => {
      for (const bytes of [0, 3 * 4096, 2048]) expect(errorOf(() => enable(v, bytes)).errno).toBe('EINVAL');
      expect(errorOf(() => enable(v, 1 << 21)).errno).toBe('E2BIG');
      expect(enable(v, 4096)).toBe(0);
      expect(errorOf(() => enable(v, 4096)).errno).toBe('EINVAL');
    });
    relog(vm, ram);
    vcpu.run();
    expect(vcpu.dirtyRingEntries().map((e) => [e.slot, e.offset])).toEqual([
      [0, 1],
      [0, 8],
      [0, 9],
    ]);
    expect(vm.resetDirtyRings()).toBe(3);
    expect(errorOf(() => vm.getDirtyLog(0)).errno).toBe('ENXIO');
  });
});

describe('GuestMemfd', () => {
  it('answers as its file does, until it is closed', () => {
    const vm = new Kvm(MEMORY).createVm(1);
    const gmem = vm.createGuestMemfd({ size: 0x4000 });
    gmem.allocate(0, 0x2000);
    gmem.punchHole(0, 0x1000);
    expect(gmem.stat()).toEqual({ size: 0x4000, blocks: 0 });
    expect([() => gmem.mmap(), () => gmem.pread(), () => gmem.ftruncate(0)].map((c) => errorOf(c).errno)).toEqual([
      'ENODEV',
      'ESPIPE',
      'EINVAL',
    ]);
    gmem.close();
    expect(errorOf(() => gmem.close()).errno).toBe('EBADF');
    const region = { slot: 1, flags: 4, guestPhysAddr: 0x100000, memorySize: 0x4000 };
    expect(errorOf(() => vm.setUserMemoryRegion2({ ...region, guestMemfd: gmem })).errno).toBe('EBADF');
    expect(errorOf(() => vm.setUserMemoryRegion2({ ...region, guestMemfd: 99 })).errno).toBe('EBADF');
    expect(errorOf(() => vm.setUserMemoryRegion2(region)).errno).toBe('EINVAL');
    expect(errorOf(() => vm.setUserMemoryRegion(region)).errno).toBe('EINVAL');
  });
});
