import { expect, it } from 'vitest';
import { PFERR_GUEST_RMP } from '../../../arch/error-code.ts';
import { Kvm } from '../../api/index.ts';
import { sevGmemPrepare, sevHandleRmpFault, sevPrivateMaxMappingLevel } from './gmem.ts';
import { KVM_SEV_INIT2 } from './launch.ts';
import { rmpMakePrivate } from './snp-host.ts';

const MIB = 1024 * 1024;

/** A VM with 4 MiB of private memory from 2 MiB on, whose first 2 MiB are one stretch of frames. */
function rig() {
  const kvm = new Kvm({ hardware: 'silicon-milan', hostMemory: 128 * MIB });
  const vm = kvm.createVm(4);
  vm.memoryEncryptOp({ id: KVM_SEV_INIT2, data: {} });
  const hva = kvm.mm.mmap({ size: 4 * MIB, kind: 'anon' });
  const guestMemfd = vm.createGuestMemfd({ size: 4 * MIB });
  const slot = { slot: 0, flags: 4, guestPhysAddr: 2 * MIB, memorySize: 4 * MIB, userspaceAddr: hva, guestMemfd };
  vm.setUserMemoryRegion2(slot);
  vm.setMemoryAttributes({ address: 2 * MIB, size: 4 * MIB, attributes: 8 });
  const pfn = kvm.machine.pages.allocHuge();
  kvm.machine.pages.splitHuge(pfn);
  for (let i = 0; i < 512; i++) guestMemfd.file.placePage(i, pfn + i);
  const trace: string[] = [];
  vm.onTrace((event) => {
    if (event.event === 'kvm_rmp_fault') trace.push(event.fields.text);
  });
  return { kvm, vm, guestMemfd, pfn, rmp: kvm.processor.snp!.rmp!, vcpu: vm.createVcpu(0), trace };
}

it('an RMP fault splits the large entry in its way and zaps the gfns around it, once', () => {
  const { vm, vcpu, pfn, rmp, guestMemfd, trace } = rig();
  expect(rmpMakePrivate(vm.state, pfn, 0x200, true, vm.state.sev!.asid, false)).toBe(0);
  for (let i = 0; i < 512; i++) guestMemfd.file.markPrepared(i);
  expect(sevPrivateMaxMappingLevel(vm.state, pfn)).toBe(2);
  const before = vm.state.mmuInvalidateSeq;
  for (let n = 0; n < 2; n++) sevHandleRmpFault(vcpu.state, 0x203000, 0, PFERR_GUEST_RMP | 7, 5);
  expect([rmp.large(pfn), rmp.large(pfn + 3), vm.state.mmuInvalidateSeq]).toEqual([false, false, before + 1]);
  expect(sevPrivateMaxMappingLevel(vm.state, pfn)).toBe(1);
  expect(trace.map((text) => text.match(/rmp_level \d/)?.[0])).toEqual(['rmp_level 2', 'rmp_level 1']);
});

it('an RMP fault on shared memory, or without a page, is warned about', () => {
  const { vm, vcpu } = rig();
  vm.setMemoryAttributes({ address: 2 * MIB, size: 4096, attributes: 0 });
  sevHandleRmpFault(vcpu.state, 0x200000, 0, PFERR_GUEST_RMP, 1);
  vm.setMemoryAttributes({ address: 0, size: 4096, attributes: 8 });
  sevHandleRmpFault(vcpu.state, 0, 0, PFERR_GUEST_RMP, 5);
  const log = vm.state.log.entries.map((e) => e.message).join('\n');
  expect(log).toContain('for non-private GPA 0x200000');
});

it('a page is made private once; a whole free stretch at once where the folio is large; a hole splits and gives back', () => {
  const { vm, pfn, rmp, guestMemfd } = rig();
  expect(sevGmemPrepare(vm.state, pfn + 5, 0x205, 9)).toBe(0);
  expect([rmp.large(pfn), rmp.gfn(pfn + 7), rmp.asid(pfn + 7)]).toEqual([true, 0x207, vm.state.sev!.asid]);
  expect(sevGmemPrepare(vm.state, pfn + 5, 0x999, 0)).toBe(0);
  expect(rmp.gfn(pfn + 5)).toBe(0x205);
  for (let i = 0; i < 512; i++) guestMemfd.file.markPrepared(i);
  guestMemfd.punchHole(4096, 4096);
  expect([rmp.assigned(pfn + 1), rmp.assigned(pfn + 2), rmp.large(pfn + 2)]).toEqual([false, true, false]);
});
