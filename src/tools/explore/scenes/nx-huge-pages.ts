/** The NX huge page workaround: huge pages are split to be executed, and come back. */
import { nxRecoveryStages } from '../../../kvm/actors/nx-recovery.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../../../kvm/locks.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../../kvm/memslots/memslot.ts';
import { recoverNxHugePages } from '../../../kvm/mmu/nx-recovery.ts';
import { deleteSlot, inTurn, invalidateRange, withStage } from '../kernel-actors.ts';
import { recoverNxPages } from '../kernel-actors-nx.ts';
import { fetch, read, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'nx-page-recovered',
  title: 'a huge page that was split to be executed comes back while vCPUs execute and read it',
  claim: 'kvm_recover_nx_huge_pages: what was executable is unreachable before a huge page can follow it',
  vm: { params: { nxHugePages: true, nxHugePagesRecoveryRatio: 1 } },
  slots: [{ id: 0, gfn: 0x200, pages: 512, host: 'huge' }],
  actors: [vcpu([fetch(0x200)], { before: [fetch(0x200)] }), vcpu([read(0x201)]), recoverNxPages()],
  expect: 'safe',
};
const noFlush = withStage(withStage(nxRecoveryStages, 'flush', { run: () => 0 }), 'flushed', { ready: () => true });
/** As if the worker had the lock for write. */
const shared = withStage(
  withStage(nxRecoveryStages, 'zap', {
    takes: LOCK_MMU_READ,
    run(recovery) {
      const { locks } = recovery.vm;
      locks.acquire(LOCK_MMU_READ);
      locks.held = LOCK_MMU_WRITE;
      recovery.flush = recoverNxHugePages(recovery.vm, recovery.count, recovery.invalid);
      locks.held = LOCK_MMU_READ;
      return 0;
    },
  }),
  'flushed',
  {
    run({ vm }) {
      vm.locks.release(LOCK_MMU_READ);
      vm.locks.srcuReadUnlock();
      return 0;
    },
  },
);

const KVM_X86_QUIRK_SLOT_ZAP_ALL = 1 << 7;

export const nxHugePages = [
  scene(base),
  scene({
    ...base,
    name: 'nx-page-not-flushed',
    title: 'the same without the flush',
    actors: [base.actors[0]!, base.actors[1]!, recoverNxPages(noFlush)],
    guardOf: base.name,
    expect: { violates: 'with nobody at work' },
  }),
  scene({
    ...base,
    name: 'nx-page-recovered-unlocked',
    title: 'the same with mmu_lock for read only',
    actors: [vcpu([fetch(0x201)], { before: [fetch(0x200)] }), recoverNxPages(shared)],
    guardOf: base.name,
    expect: { violates: 'the counts of mapped pages' },
  }),
  scene({
    ...base,
    name: 'nx-page-split-in-use',
    title:
      'a huge page is split for one vCPU that executes it while another one writes it, and the worker takes it back',
    actors: [vcpu([write(0x201), write(0x201)], { before: [write(0x201)] }), vcpu([fetch(0x200)]), recoverNxPages()],
  }),
  scene({
    ...base,
    name: 'nx-page-invalidated',
    title: 'a huge page that was split is invalidated while the worker takes its table',
    actors: [vcpu([fetch(0x200)], { before: [fetch(0x200)] }), recoverNxPages(), invalidateRange(0x200, 512)],
  }),
  scene({
    ...base,
    name: 'nx-page-of-no-slot',
    title:
      'the slot of a page that was split goes, alone, while another slot is dirty logged; then the worker takes its turn',
    claim: 'kvm_recover_nx_huge_pages: every page table on its list is of a gfn that has a slot',
    vm: { ...base.vm, quirks: KVM_X86_QUIRK_SLOT_ZAP_ALL },
    slots: [...base.slots, { id: 1, gfn: 0x800, pages: 1, flags: KVM_MEM_LOG_DIRTY_PAGES }],
    actors: [vcpu([fetch(0x200)], { before: [fetch(0x200)] }), inTurn(deleteSlot(0), recoverNxPages())],
    expect: { violates: "KVM's own checks hold" },
    judgement:
      'A bug, harmless unless panic_on_warn: only the leaves of the slot go, its page tables stay on the list, and the worker finds no slot ' +
      'for their gfn (WARN_ON_ONCE). It zaps them all the same. SNP and TDX VMs lose slots the same way.',
  }),
];
