import { beforeEach, describe, expect, it } from 'vitest';
import { R8 } from '../../../arch/registers.ts';
import * as T from '../../../arch/tdx.ts';
import { EXIT_REASON_EPT_VIOLATION } from '../../../arch/vmx-exit-reasons.ts';
import { firmware, tdcall } from '../../../cpu/tdx/bare-td.testing.ts';
import { SEPT_FREE, SEPT_PENDING, SEPT_PRESENT } from '../../../cpu/tdx/secure-ept.ts';
import { fromCpuidEntry2 } from '../../api/cpuid-entry.ts';
import { Kvm, KvmError } from '../../api/index.ts';
import type { Vcpu } from '../../api/vcpu.ts';
import type { Vm } from '../../api/vm.ts';
import { ROLE_IS_MIRROR } from '../../mmu/role.ts';
import * as K from './commands.ts';

const FIRMWARE_GPA = 0xffffc000;
const RAM = 0x100000;
const ACCEPT = tdcall(T.TDG_MEM_PAGE_ACCEPT, { 1: RAM });
/** Stores 7 at RAM + 0x34; loads from the shared alias of the same page. */
const STORE = [0xc6, 0x04, 0x25, 0x34, 0, 0x10, 0, 7];
const MAP_SHARED = tdcall(T.TDG_VP_VMCALL, { 1: 0xfc00, 10: 0, 11: T.TDVMCALL_MAP_GPA, 12: 2 ** 47 + RAM, 13: 4096 });
const FATAL = tdcall(T.TDG_VP_VMCALL, { 1: 0xfc00, 10: 0, 11: T.TDVMCALL_REPORT_FATAL_ERROR, 12: 0xbad });

function kvmOf(hardware = 'silicon-sapphire-rapids'): Kvm {
  return new Kvm({ hardware, hostMemory: 80 << 20 });
}

/** The errno of what `fn` throws, or null. */
function errno(fn: () => unknown): string | null {
  try {
    fn();
    return null;
  } catch (error) {
    if (error instanceof KvmError) return error.errno;
    throw error;
  }
}

class TestTd {
  readonly kvm = kvmOf();
  readonly vm: Vm;
  readonly ram: number;
  readonly code: number;
  vcpu!: Vcpu;

  constructor() {
    this.vm = this.kvm.createVm(5);
    this.vm.enableCap(201, 0, [1 << 12]);
    this.vm.createIrqchip();
    this.ram = this.slot(0, RAM, 0x10000, true);
    this.code = this.slot(1, FIRMWARE_GPA, 0x4000, true);
  }

  slot(slot: number, gpa: number, size: number, gmem: boolean): number {
    const hva = this.kvm.mm.mmap({ size, kind: 'anon' });
    this.vm.setUserMemoryRegion2({
      slot,
      flags: gmem ? 4 : 0,
      guestPhysAddr: gpa,
      memorySize: size,
      userspaceAddr: hva,
      ...(gmem ? { guestMemfd: this.vm.createGuestMemfd({ size }), guestMemfdOffset: 0 } : {}),
    });
    return hva;
  }

  cpuid(eax8 = 48 << 16): K.TdxInitVm['cpuid'] {
    const width = eax8 >>> 16;
    return this.kvm
      .getSupportedCpuid()
      .map(fromCpuidEntry2)
      .filter((e) =>
        this.kvm.processor.tdx.cpuidConfig.some((c) => c.leaf === e.leaf && Math.max(c.subleaf, 0) === e.index),
      )
      .map((e) => (e.leaf === 0x80000008 ? { ...e, eax: (e.eax & ~0xff0000) | (width << 16) } : e));
  }

  initVm(change: Partial<K.TdxInitVm> = {}, flags = 0): K.TdxInitVm {
    const data = { attributes: T.TD_ATTR_SEPT_VE_DISABLE, xfam: 3, cpuid: this.cpuid(), ...change };
    this.vm.memoryEncryptOp({ id: K.KVM_TDX_INIT_VM, flags, data });
    return data;
  }

  createVcpu(): void {
    this.vcpu = this.vm.createVcpu(0);
    this.vcpu.setCpuid2(this.kvm.getSupportedCpuid());
  }

  initVcpu(): void {
    this.vcpu.memoryEncryptOp({ id: K.KVM_TDX_INIT_VCPU, data: { rcx: 1 } });
  }

  region(change: Partial<K.TdxInitMemRegion> = {}, flags = 1): void {
    const data = { sourceAddr: this.code, gpa: FIRMWARE_GPA, nrPages: 4, ...change };
    this.vcpu.memoryEncryptOp({ id: K.KVM_TDX_INIT_MEM_REGION, flags, data });
  }

  setPrivate(gpa: number, size: number, on = true): void {
    this.vm.setMemoryAttributes({ address: gpa, size, attributes: on ? 8 : 0 });
  }

  finalize(): void {
    this.vm.memoryEncryptOp({ id: K.KVM_TDX_FINALIZE_VM });
  }

  /** All of it, with `code` in 64-bit mode. */
  launch(code: readonly number[]): this {
    this.initVm();
    this.createVcpu();
    this.kvm.mm.write(this.code, firmware(code));
    this.setPrivate(FIRMWARE_GPA, 0x4000);
    this.setPrivate(RAM, 0x10000);
    this.initVcpu();
    this.region();
    this.finalize();
    return this;
  }

  /** State of the secure EPT's entry. */
  sept(gpa: number): number {
    const args = { rcx: gpa, rdx: this.vm.state.tdx!.tdr * 4096, r8: 0, r9: 0 };
    const status = this.kvm.processor.tdx.seamcall(T.TDH_MEM_SEPT_RD, args);
    return status === 0 ? args.rdx >>> 8 : -1;
  }
}

let td: TestTd;
beforeEach(() => {
  td = new TestTd();
});

describe('bad input', () => {
  it('TDs need a processor that has TDX, and parameters that TDX can do with', () => {
    for (const hardware of ['silicon-skylake', 'silicon-epyc']) {
      const kvm = kvmOf(hardware);
      expect(errno(() => kvm.createVm(5))).toBe('EINVAL');
      expect(errno(() => kvm.createVm(0).memoryEncryptOp({ id: 0 }))).toBe('ENOTTY');
    }
    expect(td.kvm.checkExtension(235)).toBe((1 << 0) | (1 << 1) | (1 << 5));
    expect(errno(() => td.kvm.createVm(4))).toBe('EINVAL');
    const noMmio = new Kvm({ hardware: 'silicon-sapphire-rapids', params: { mmioCaching: false } });
    expect(errno(() => noMmio.createVm(5))).toBe('EINVAL');
    const old = new Kvm({ hardware: 'silicon-sapphire-rapids', revision: 'linux-6.9' });
    expect(errno(() => old.createVm(5))).toBe('EINVAL');
    expect(errno(() => td.kvm.createVm(0).memoryEncryptOp({ id: 0 }))).toBe('ENOTTY');
  });

  it('a launch has one order', () => {
    expect(errno(() => td.vm.createVcpu(0))).toBe('EIO');
    expect(errno(() => td.finalize())).toBe('EINVAL');
    td.initVm();
    expect(errno(() => td.initVm())).toBe('EINVAL');
    td.createVcpu();
    expect(td.vcpu.run()).toMatchObject({ ret: -1, errno: 'EINVAL' });
    expect(errno(() => td.region())).toBe('EINVAL');
    td.initVcpu();
    expect(errno(() => td.initVcpu())).toBe('EINVAL');
    expect(td.vcpu.run()).toMatchObject({ ret: -1, errno: 'EINVAL' });
    td.finalize();
    expect(errno(() => td.finalize())).toBe('EINVAL');
    expect(errno(() => td.region())).toBe('EINVAL');
    expect(errno(() => td.initVcpu())).toBe('EINVAL');
    expect(td.vm.state.log.entries).toEqual([]);
  });

  it('a vCPU needs an APIC in the kernel', () => {
    const vm = td.kvm.createVm(5);
    const { cpuid } = td.initVm();
    vm.memoryEncryptOp({ id: K.KVM_TDX_INIT_VM, data: { attributes: 0, xfam: 3, cpuid } });
    expect(errno(() => vm.createVcpu(0))).toBe('EINVAL');
  });

  it.each<[string, () => unknown]>([
    ['flags', () => td.initVm({}, 1)],
    ['a debug attribute', () => td.initVm({ attributes: T.TD_ATTR_DEBUG })],
    ['state that the processor has not', () => td.initVm({ xfam: 0x40003 })],
    ['addresses of 52 bits without five levels of EPT', () => td.initVm({ cpuid: td.cpuid(52 << 16) })],
    ['no address width', () => td.initVm({ cpuid: [] })],
    [
      'CPUID that the module does not know',
      () => td.initVm({ cpuid: [...td.cpuid(), { leaf: 0x40000000, index: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 }] }),
    ],
    ['an error filled in', () => td.vm.memoryEncryptOp({ id: K.KVM_TDX_CAPABILITIES, data: {}, error: 1 })],
    ['a command of a vCPU', () => td.vm.memoryEncryptOp({ id: K.KVM_TDX_INIT_VCPU, data: {} })],
  ])('KVM_TDX_INIT_VM refuses %s', (_, fn) => {
    expect(errno(fn)).toBe('EINVAL');
    expect(td.kvm.processor.tdx.tds.size).toBe(0);
  });

  it('what the module refuses is named, and leaves nothing behind', () => {
    const free = td.kvm.machine.pages.freeFrames;
    const command = {
      id: K.KVM_TDX_INIT_VM,
      data: { attributes: 0, xfam: 1, cpuid: td.cpuid() },
      error: 0,
      errorHi: 0,
    };
    expect(errno(() => td.vm.memoryEncryptOp(command))).toBe('EINVAL');
    expect([command.errorHi >>> 0, command.error]).toEqual([T.TDX_OPERAND_INVALID, T.OPERAND_ID_XFAM]);
    expect(td.kvm.machine.pages.freeFrames).toBe(free);
    td.initVm();
  });

  it('memory to start with is private, and from guest_memfd', () => {
    td.slot(2, 0x300000, 0x1000, false);
    td.initVm();
    td.createVcpu();
    td.initVcpu();
    expect(errno(() => td.region())).toBe('EINVAL');
    td.setPrivate(FIRMWARE_GPA, 0x4000);
    td.setPrivate(0x300000, 0x1000);
    expect(errno(() => td.region({ gpa: 0x300000, nrPages: 1 }))).toBe('EINVAL');
    expect(errno(() => td.region({ gpa: 0x400000, nrPages: 1 }))).toBe('EINVAL');
    expect(errno(() => td.region({ nrPages: 0 }))).toBe('EINVAL');
    expect(errno(() => td.region({ gpa: FIRMWARE_GPA + 1 }))).toBe('EINVAL');
    expect(errno(() => td.region({ gpa: 2 ** 47 }))).toBe('EINVAL');
    expect(errno(() => td.region({}, 2))).toBe('EINVAL');
    expect(errno(() => td.region({ sourceAddr: 0x1000 }))).toBe('EFAULT');
    td.region();
    expect(errno(() => td.region({ nrPages: 1 }))).toBe('EIO');
  });

  it('nobody reads or writes the registers', () => {
    td.launch(FATAL);
    expect(errno(() => td.vcpu.getRegs())).toBe('EINVAL');
    expect(errno(() => td.vcpu.setRegs({} as never))).toBe('EINVAL');
    expect(errno(() => td.vcpu.getXsave())).toBe('EINVAL');
  });
});

describe('a TD', () => {
  it('reports a fatal error with its registers', () => {
    td.launch(FATAL);
    const { exit } = td.vcpu.run();
    expect(exit).toMatchObject({ reason: 'system-event', type: 7 });
    expect((exit as unknown as { data: bigint[] }).data[12]).toBe(0xbadn);
  });

  it('gets private pages when it accepts them: mirror and secure EPT agree', () => {
    td.launch([...ACCEPT, ...STORE, ...FATAL]);
    td.vcpu.run();
    expect(td.sept(RAM)).toBe(SEPT_PRESENT);
    const { tdpMmuRoots } = td.vm.state.mmu;
    expect(tdpMmuRoots.filter((root) => (root.role & ROLE_IS_MIRROR) !== 0)).toHaveLength(1);
    const page = td.kvm.processor.tdx.pamt.type.findIndex(
      (type, pfn) => type === 3 && td.kvm.machine.memory.u8[pfn * 4096 + 0x34] === 7,
    );
    expect(page).toBeGreaterThan(0);
    expect([...td.kvm.processor.tdx.readAsHost(page * 4096 + 0x34, 1)]).toEqual([0]);
  });

  it('is killed for touching what it has not accepted, when it wanted no #VE for that', () => {
    td.launch(STORE);
    expect(td.vcpu.run()).toMatchObject({ ret: -1, errno: 'EIO' });
    expect(td.sept(RAM)).toBe(SEPT_PENDING);
    expect(errno(() => td.vcpu.run())).toBe('EIO');
  });

  it('asks for conversion with MapGPA, and loses the page to it', () => {
    td.launch([...ACCEPT, ...STORE, ...MAP_SHARED, ...STORE]);
    const { exit } = td.vcpu.run();
    expect(exit).toMatchObject({ reason: 'hypercall', nr: 12, args: [BigInt(RAM), 1n, 0n, 0n, 0n, 0n] });
    td.setPrivate(RAM, 0x1000, false);
    expect(td.sept(RAM)).toBe(SEPT_FREE);
    expect(td.vcpu.run()).toMatchObject({
      errno: 'EFAULT',
      exit: { reason: 'memory-fault', isPrivate: true, gpa: RAM },
    });
    expect(td.vm.state.log.entries).toEqual([]);
  });

  it('a conversion to private leaves other private memory alone', () => {
    td.launch([...ACCEPT, ...STORE, ...MAP_SHARED, ...FATAL]);
    td.vcpu.run();
    td.setPrivate(RAM + 0x1000, 0x1000, false);
    td.setPrivate(RAM + 0x1000, 0x1000, true);
    expect(td.sept(RAM)).toBe(SEPT_PRESENT);
  });

  it('goes with all its pages and its key', () => {
    const free = td.kvm.machine.pages.freeFrames;
    td.launch([...ACCEPT, ...STORE, ...FATAL]);
    td.vcpu.run();
    td.vm.close();
    const { tdx } = td.kvm.processor;
    expect([tdx.tds.size, tdx.vcpus.size, tdx.pamt.type.some((type) => type !== 0)]).toEqual([0, 0, false]);
    expect(tdx.hkids[33]).toBe(0);
    expect(td.vm.state.log.entries).toEqual([]);
    // What is left is the files' own: guest_memfd and the process keep theirs.
    expect(free - td.kvm.machine.pages.freeFrames).toBeLessThan(16);
  });

  it('tells what it sees of CPUID', () => {
    td.initVm();
    td.createVcpu();
    const data: K.TdxCpuid = { cpuid: [] };
    td.vcpu.memoryEncryptOp({ id: K.KVM_TDX_GET_CPUID, data });
    expect(data.cpuid.find((e) => e.leaf === 0x80000008)!.eax >>> 16).toBe(48);
    expect(data.cpuid.length).toBeGreaterThan(8);
  });
});

it('the exit of a private fault tells the page, and not where in it', () => {
  td.launch(STORE);
  td.vcpu.run();
  const vp = td.vm.state.vcpus[0]!.tdx!;
  expect([T.tdxDetail(vp.enterRet), vp.enterArgs[2 * R8]]).toEqual([EXIT_REASON_EPT_VIOLATION, RAM]);
});
