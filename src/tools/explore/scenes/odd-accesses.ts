/** Accesses that go another way than one thinks: to private memory by its shared backing, and to tables that are nowhere. */
import { deleteSlot, setAttributes } from '../kernel-actors.ts';
import { emulated, read, type SceneSpec, scene, vcpu, walk, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'private-read-by-emulator',
  title: 'the emulator reads an operand in a private frame',
  claim: '__kvm_read_guest_page: guest memory is read through the address of the process',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  private: [[0x100, 1]],
  actors: [vcpu([emulated(read(0x100))])],
  alsoForbids: ['private-emulation'],
  expect: { violates: 'no access to a private gfn is emulated' },
  judgement:
    'Known, and harmless to the host: emulator, page walker and KVM itself read and write the shared memory behind the slot, not the private. The ' +
    'guest sees other bytes than it wrote. The type is for development only. SNP and TDX guests are not emulated: their memory is encrypted.',
};

export const oddAccesses = [
  scene(base),
  scene({
    ...base,
    name: 'converted-while-emulated',
    title: 'a frame becomes private while the emulator writes to it',
    private: [],
    actors: [vcpu([write(0x100), emulated(write(0x100))]), setAttributes(0x100, 1, 'private')],
    judgement: `${base.judgement} The ioctl does not wait for accesses by address that are under way.`,
  }),
  scene({
    ...base,
    name: 'tables-in-a-hole',
    title: "the slot of the guest's own page tables goes: every access faults, and none can be emulated, for ever",
    claim: 'kvm_mmu_page_fault: what cannot be mapped is emulated',
    vm: {},
    slots: [{ id: 0, gfn: 0x100, pages: 1 }],
    private: [],
    actors: [vcpu([walk(0x100), walk(0x100)]), deleteSlot(0)],
    alsoForbids: [],
    expect: 'livelock',
    judgement:
      'Harmless: KVM_RUN does not return before a signal comes, whose EINTR ends it, or until the slot is back. The emulator cannot fetch through ' +
      'the missing table, and the #PF that it injects needs the table to be delivered. An SNP or TDX guest leaves with a memory fault instead.',
  }),
];
