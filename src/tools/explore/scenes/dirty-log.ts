/** Userspace takes the dirty log while vCPUs write. */
import { dirtyLogStages } from '../../../kvm/actors/dirty-log.ts';
import { memslotReplaceStages } from '../../../kvm/actors/memslot-update.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../../kvm/memslots/memslot.ts';
import { getDirtyLog, setFlags, withStage } from '../kernel-actors.ts';
import { type SceneSpec, scene, vcpu, write } from '../scene.ts';

const twice = vcpu([write(0x100), write(0x100)], { before: [write(0x100)] });
const base: SceneSpec = {
  name: 'dirty-log',
  title: 'a vCPU writes a page while userspace takes the dirty log',
  claim: 'kvm_get_dirty_log_protect: a write is in the copy that userspace gets, or in the bitmap afterwards',
  slots: [{ id: 0, gfn: 0x100, pages: 1, flags: KVM_MEM_LOG_DIRTY_PAGES }],
  actors: [twice, getDirtyLog(0)],
  expect: 'safe',
};
const bad = { guardOf: base.name, expect: { violates: 'a page that the guest wrote' } } as const;
const noProtect = withStage(dirtyLogStages, 'write-protect', {
  run({ vm }) {
    vm.locks.release(1 << 4);
    return 0;
  },
});
const noFlush = withStage(withStage(dirtyLogStages, 'flush', { run: () => 0 }), 'flushed', { ready: () => true });
const begins: SceneSpec = {
  ...base,
  name: 'dirty-log-begins',
  title: 'dirty logging begins while a vCPU writes',
  claim: 'kvm_mmu_slot_apply_flags: when KVM_SET_USER_MEMORY_REGION returns, no write goes unseen',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [twice, setFlags(0, KVM_MEM_LOG_DIRTY_PAGES)],
};
const noCommitFlush = withStage(withStage(memslotReplaceStages, 'flush', { run: () => 0 }), 'flushed', {
  ready: () => true,
});

export const dirtyLog = [
  scene(base),
  scene({
    ...base,
    ...bad,
    name: 'dirty-log-not-protected',
    title: 'the same without write protection',
    actors: [twice, getDirtyLog(0, noProtect)],
  }),
  scene({
    ...base,
    ...bad,
    expect: { violates: 'with nobody at work' },
    name: 'dirty-log-not-flushed',
    title: 'the same without the flush',
    actors: [twice, getDirtyLog(0, noFlush)],
  }),
  scene({
    ...base,
    name: 'dirty-log-two-vcpus',
    title: 'two vCPUs write a page while userspace takes the dirty log',
    actors: [...base.actors, vcpu([write(0x100)])],
  }),
  scene(begins),
  scene({
    ...begins,
    name: 'dirty-log-begins-not-flushed',
    title: 'the same without the flush',
    actors: [twice, setFlags(0, KVM_MEM_LOG_DIRTY_PAGES, noCommitFlush)],
    guardOf: begins.name,
    expect: { violates: 'with nobody at work' },
  }),
];
