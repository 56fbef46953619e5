/** Entries that are stored under the read lock without a look at what is there. */

import { mapInstall } from '../../../kvm/mmu/tdp-mmu/map.ts';
import { writeSpte } from '../../../kvm/mmu/tdp-mmu/write-spte.ts';
import { edited, type SceneSpec, type SteppedMap, scene, vcpu, write } from '../scene.ts';
import { twoVcpus } from './two-vcpus.ts';

/** The entry is as the walk saw it, whatever others have made of it since. */
const install: SteppedMap['install'] = (v, fault) => {
  const { faultIter: iter } = v.vm.mmu;
  writeSpte(v.vm.memory.i32, iter.sptep, iter.oldLo, iter.oldHi);
  return mapInstall(v, fault);
};
const base: SceneSpec = {
  ...twoVcpus[0]!,
  name: 'two-vcpus-plain-stores',
  title: 'two vCPUs fault on neighbours and store entries without comparing',
  actors: [vcpu([write(0x100)]), vcpu([write(0x101)])],
  revision: edited('linux-6.12', 'with plain stores', (stages) =>
    stages.map((s) => (s.name === 'map' ? { ...s, install } : s)),
  ),
  guardOf: twoVcpus[0]!.name,
  expect: { violates: 'the counts of mapped pages' },
};

export const plainStores = [scene(base)];
