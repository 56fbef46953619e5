import { describe, expect, it } from 'vitest';
import { Kvm, KvmError, type Vm } from '../../api/index.ts';
import type { MemoryEncryptCommand } from '../../confidential.ts';
import {
  KVM_SEV_SNP_LAUNCH_FINISH as FINISH,
  KVM_SEV_INIT2,
  KVM_SEV_SNP_LAUNCH_START as START,
  KVM_SEV_SNP_LAUNCH_UPDATE as UPDATE,
} from './launch.ts';
import { firmwareOf, rmpMakePrivate } from './snp-host.ts';

const SNP = 4;
const NORMAL = 1;
const ZERO = 3;
const CPUID = 6;
const POLICY = 0x30000;
const MIB = 1024 * 1024;

const machine = (hardware = 'silicon-milan') => new Kvm({ hardware, hostMemory: 128 * MIB });

/** Name of the errno, and the firmware's status where it was asked; `ok` for none. */
function result(vm: Vm, id: number, data?: unknown): string {
  const command: MemoryEncryptCommand = { id, data };
  try {
    vm.memoryEncryptOp(command);
    return 'ok';
  } catch (error) {
    if (!(error instanceof KvmError)) throw error;
    return command.error === 0 || command.error === undefined ? error.errno : `${error.errno} ${command.error}`;
  }
}

/** A VM with 1 MiB of private memory, and the host address of its shared half. */
function launching(kvm = machine(), started = true) {
  const vm = kvm.createVm(SNP);
  expect(result(vm, KVM_SEV_INIT2, {})).toBe('ok');
  const hva = kvm.mm.mmap({ size: MIB, kind: 'anon' });
  const guestMemfd = vm.createGuestMemfd({ size: MIB });
  vm.setUserMemoryRegion2({ slot: 0, flags: 4, guestPhysAddr: 0, memorySize: MIB, userspaceAddr: hva, guestMemfd });
  vm.setMemoryAttributes({ address: 0, size: MIB / 2, attributes: 8 });
  if (started) expect(result(vm, START, { policy: POLICY })).toBe('ok');
  const page = (gfn: number, type = NORMAL) => ({ gfnStart: gfn, uaddr: hva + gfn * 4096, len: 4096, type });
  return { kvm, vm, hva, guestMemfd, page };
}

describe('SNP guests', () => {
  it('are there on hardware that has them, without shadow paging', () => {
    expect(machine().checkExtension(235) & (1 << SNP)).not.toBe(0);
    for (const kvm of [machine('silicon-epyc'), machine('silicon-skylake')]) {
      expect(kvm.checkExtension(235) & (1 << SNP)).toBe(0);
      expect(() => kvm.createVm(SNP)).toThrow(/EINVAL/);
      expect(result(kvm.createVm(0), KVM_SEV_INIT2, {})).toBe('ENOTTY');
    }
    expect(result(machine().createVm(0), KVM_SEV_INIT2, {})).toBe('EINVAL');
    expect(result(machine().createVm(1), START, { policy: POLICY })).toBe('ENOTTY');
  });

  it('start in the order of the steps', () => {
    const kvm = machine();
    const vm = kvm.createVm(SNP);
    expect(result(vm, START, { policy: POLICY })).toBe('ENOTTY');
    expect(result(vm, UPDATE, {})).toBe('EINVAL');
    expect(result(vm, FINISH, {})).toBe('ENOTTY');
    expect(result(vm, KVM_SEV_INIT2, { flags: 1 })).toBe('EINVAL');
    expect(result(vm, KVM_SEV_INIT2, { vmsaFeatures: 1 })).toBe('EINVAL');
    expect(result(vm, KVM_SEV_INIT2, { ghcbVersion: 3 })).toBe('EINVAL');
    expect(result(vm, KVM_SEV_INIT2)).toBe('EFAULT');
    const late = kvm.createVm(SNP);
    late.createVcpu(0);
    expect(result(late, KVM_SEV_INIT2, {})).toBe('EINVAL');
    expect(result(vm, KVM_SEV_INIT2, {})).toBe('ok');
    expect(result(vm, KVM_SEV_INIT2, {})).toBe('EPERM');
    expect(result(vm, 99, {})).toBe('EPERM');
    expect(result(vm, 103, {})).toBe('EINVAL');
    expect(result(vm, FINISH, {})).toBe('EINVAL');
    for (const policy of [0x10000, 0x20000, POLICY | (1 << 20), POLICY | (1 << 18), POLICY + 2 ** 40]) {
      expect(result(vm, START, { policy }), policy.toString(16)).toBe('EINVAL');
    }
    expect(result(vm, START, { policy: POLICY })).toBe('ok');
    expect(result(vm, START, { policy: POLICY })).toBe('EINVAL');
  });

  it('take pages of private memory, once', () => {
    const { vm, hva, page } = launching();
    expect(result(vm, UPDATE, { ...page(1), len: 100 })).toBe('EINVAL');
    expect(result(vm, UPDATE, page(1, 2))).toBe('EINVAL');
    expect(result(vm, UPDATE, page(0x1000))).toBe('EINVAL');
    const two = { gfnStart: 1, uaddr: hva + 4096, len: 8192, type: NORMAL };
    expect(result(vm, UPDATE, two)).toBe('ok');
    expect(two).toMatchObject({ gfnStart: 3, uaddr: hva + 3 * 4096, len: 0 });
    // Here already, shared, and unreadable: kvm_gmem_populate's errors all are EIO.
    expect(result(vm, UPDATE, page(2))).toBe('EIO');
    expect(result(vm, UPDATE, page(0xf0))).toBe('EIO');
    expect(result(vm, UPDATE, { ...page(4), uaddr: 4096 })).toBe('EIO');
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: 0x200000, memorySize: 4096, userspaceAddr: hva });
    expect(result(vm, UPDATE, { gfnStart: 0x200, uaddr: hva, len: 4096, type: NORMAL })).toBe('EINVAL');
  });

  it("hear the firmware's status", () => {
    const { vm, page, kvm, hva } = launching();
    const table = new Uint8Array(4096);
    const words = new Uint32Array(table.buffer);
    // A leaf that the processor does not have: the page comes back without it.
    words.set([1], 0);
    words.set([0x8000ffff, 0, 0, 0, 0, 0, 5], 4);
    kvm.mm.write(hva + 4096, table);
    expect(result(vm, UPDATE, page(1, CPUID))).toBe('EIO 22');
    const back = new Uint8Array(4096);
    kvm.mm.read(hva + 4096, back);
    expect(new Uint32Array(back.buffer)[10]).toBe(0);
    expect(result(vm, UPDATE, page(1, CPUID))).toBe('ok');
    expect(result(vm, FINISH, { idBlock: new Uint8Array(96) })).toBe('EIO 11');
    expect(result(vm, FINISH, {})).toBe('ok');
    expect(result(vm, UPDATE, page(3))).toBe('EIO 2');
    expect(result(vm, FINISH, {})).toBe('EIO 2');
  });

  it('are measured: PAGE_INFO by PAGE_INFO', () => {
    const digest = (fill: (l: ReturnType<typeof launching>) => void): string => {
      const l = launching();
      fill(l);
      return Buffer.from(firmwareOf(l.vm.state).measurement(l.vm.state.sev!.context)!).toString('hex');
    };
    // SHA-384 over a PAGE_INFO of zeros, contents 0, length 0x70, type 3, address 0x1000: computed elsewhere.
    const zero = digest(({ vm, page }) => result(vm, UPDATE, page(1, ZERO)));
    expect(zero).toBe(
      '4bd4147976a1e7554c1c778a781affc1c672f1965a727ba16084989b7e356044a28bbe585a2f75dac9356fa5ab78f061',
    );
    const other = digest(({ vm, page }) => result(vm, UPDATE, page(2, ZERO)));
    const normal = digest(({ vm, page }) => result(vm, UPDATE, page(1)));
    expect(new Set([zero, other, normal]).size).toBe(3);
    expect(digest(({ vm, page }) => result(vm, UPDATE, page(1, ZERO)))).toBe(zero);
  });

  it('own their pages: not the host, and RMPUPDATE of an immutable page fails', () => {
    const { vm, page, kvm, guestMemfd } = launching();
    expect(result(vm, UPDATE, page(1))).toBe('ok');
    const pfn = guestMemfd.file.peekPage(1);
    const snp = kvm.processor.snp!;
    expect(snp.rmp!.validated(pfn)).toBe(true);
    expect(snp.hostWriteFault(pfn)).not.toBe(0);
    const context = vm.state.sev!.context;
    expect(rmpMakePrivate(vm.state, context, 5, false, 1, false)).toBe(-14);
    expect(vm.state.log.entries.some((e) => e.message.includes('RMPUPDATE failed'))).toBe(true);
    // A hole gives the page back.
    guestMemfd.punchHole(0, MIB);
    expect(snp.rmp!.assigned(pfn)).toBe(false);
    vm.close();
    expect(snp.rmp!.assigned(context)).toBe(false);
  });

  it('keep their registers: KVM_GET_REGS is EINVAL after the launch, and a vCPU without a launch cannot be entered', () => {
    const { vm, page } = launching();
    const vcpu = vm.createVcpu(0);
    expect(vcpu.run().exit).toMatchObject({ reason: 'fail-entry' });
    vcpu.getRegs();
    expect(result(vm, UPDATE, page(1))).toBe('ok');
    expect(result(vm, FINISH, {})).toBe('ok');
    expect(() => vcpu.getRegs()).toThrow(/EINVAL/);
    expect(() => vcpu.setSregs({} as never)).toThrow(/EINVAL/);
  });

  it('are as many as there are ASIDs for them', () => {
    const kvm = machine();
    for (let n = 1; n < 100; n++) expect(result(kvm.createVm(SNP), KVM_SEV_INIT2, {})).toBe('ok');
    expect(result(kvm.createVm(SNP), KVM_SEV_INIT2, {})).toBe('EBUSY');
  });
});
