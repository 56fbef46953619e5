/** What real kernels do that looks wrong, and in part is. */
import { migratePage, setAttributes } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const smi: SceneSpec = {
  name: 'smi-on-protected',
  title: 'KVM_SMI on a VM with private memory: a vCPU in SMM reads a page that nobody has touched, and writes it',
  claim: 'kvm_arch_vcpu_memslots_id: a vCPU in SMM uses the slots of the address space that its page tables are for',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true, host: 'absent' }],
  actors: [vcpu([read(0x100), write(0x100)], { smm: true })],
  expect: { violates: 'no entry maps a frame' },
  judgement:
    'A bug that takes the host down (BUG in handle_changed_spte). The VM has one address space of slots, SMM names a second, which is empty, and ' +
    "the vCPU's remembered slot, told apart by generation alone, is the first space's. Invalidations of that slot pass by the page tables of SMM. " +
    'SNP and SEV-ES guests have no SMM that KVM could enter; TDX refuses SMIs. Refusing KVM_SMI, or KVM_CAP_X86_SMM, would do for this type too.',
};

export const oddCases = [
  scene(smi),
  scene({
    ...smi,
    name: 'smi-on-protected-page-moves',
    title: 'the same while the host moves a page that the vCPU has in its TLB',
    slots: [{ ...smi.slots[0]!, host: 'present' }],
    actors: [vcpu([write(0x100)], { smm: true, before: [write(0x100)] }), migratePage(0x100)],
    expect: { violates: 'no entry maps a frame' },
    judgement: `${smi.judgement} Here the vCPU goes on writing to a frame that the host has given to somebody else.`,
  }),
  scene({
    ...smi,
    name: 'smi-on-protected-converted',
    title: 'the same while the frame becomes private',
    slots: [{ ...smi.slots[0]!, host: 'present' }],
    actors: [vcpu([write(0x100)], { smm: true, before: [write(0x100)] }), setAttributes(0x100, 1, 'private')],
    expect: { violates: 'a private gfn is not mapped' },
  }),
  scene({
    ...smi,
    name: 'smi-on-protected-two-slots',
    title: 'KVM_SMI on a VM with private memory whose slots have changed twice: nothing is there in SMM',
    slots: [...smi.slots, { id: 1, gfn: 0x300, pages: 1 }],
    expect: 'safe',
    judgement:
      'Intended by nobody, harmless: with another generation the remembered slot does not count, and all of SMM is MMIO.',
  }),
];
