/** Dirty rings: each vCPU notes what it writes, userspace takes it out and gives the entries back. */
import { dirtyRingResetStages } from '../../../kvm/actors/dirty-ring-reset.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../../kvm/memslots/memslot.ts';
import { inTurn, migratePage, withStage } from '../kernel-actors.ts';
import { reapRings } from '../kernel-actors-ring.ts';
import { type SceneSpec, scene, vcpu, write } from '../scene.ts';

const twice = vcpu([write(0x100), write(0x100)], { before: [write(0x100)] });
const base: SceneSpec = {
  name: 'dirty-ring',
  title: 'a vCPU writes a page while userspace reaps its dirty ring',
  claim: 'kvm_vm_ioctl_reset_dirty_pages: after it a write to a page whose entry was given back makes a new entry',
  vm: { dirtyRing: {} },
  slots: [{ id: 0, gfn: 0x100, pages: 2, flags: KVM_MEM_LOG_DIRTY_PAGES }],
  actors: [twice, reapRings(0)],
  expect: 'safe',
};
const noProtect = withStage(dirtyRingResetStages, 'write-protect', { run: () => -2 });
const noFlush = withStage(withStage(dirtyRingResetStages, 'flush', { run: () => 0 }), 'flushed', { ready: () => true });
const full: SceneSpec = {
  ...base,
  name: 'dirty-ring-full',
  title: 'a vCPU writes more pages than its ring may hold, until userspace makes room',
  claim: 'kvm_dirty_ring_check_request: a vCPU whose ring is nearly full is not entered',
  vm: { dirtyRing: { entries: 2, reserved: 1 } },
  slots: [{ ...base.slots[0]!, pages: 3 }],
  actors: [vcpu([write(0x100), write(0x101), write(0x102)]), inTurn(reapRings(0), reapRings(0))],
};

export const dirtyRings = [
  scene(base),
  scene({
    ...base,
    name: 'dirty-ring-not-protected',
    title: 'the same without write protection',
    actors: [twice, reapRings(0, noProtect)],
    guardOf: base.name,
    expect: { violates: 'a page that the guest wrote' },
  }),
  scene({
    ...base,
    name: 'dirty-ring-not-flushed',
    title: 'the same without the flush',
    actors: [twice, reapRings(0, noFlush)],
    guardOf: base.name,
    expect: { violates: 'with nobody at work' },
  }),
  scene({
    ...base,
    name: 'dirty-ring-two-vcpus',
    title: 'two vCPUs write the page, each with its ring, while userspace reaps both',
    actors: [twice, vcpu([write(0x100)]), reapRings(0)],
  }),
  scene({
    ...base,
    name: 'dirty-ring-page-moves',
    title: 'the same with one vCPU while the host moves the page',
    actors: [twice, reapRings(0), migratePage(0x100)],
  }),
  scene(full),
  scene({
    ...full,
    name: 'dirty-ring-overflows',
    title: 'the same when the vCPU is entered all the same',
    vm: { dirtyRing: { entries: 2, reserved: 1, stops: false } },
    guardOf: full.name,
    expect: { violates: "KVM's own checks hold" },
  }),
];
