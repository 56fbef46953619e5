/** Recovery of NX huge pages as an actor of scenes. */
import { NxRecovery, nxRecoveryStages } from '../../kvm/actors/nx-recovery.ts';
import { part } from './kvm-model/kernel-actor.ts';
import type { KernelSpec } from './scene.ts';

/** The worker's turn: huge pages that were split for execute rights come back. */
export function recoverNxPages(stages = nxRecoveryStages): KernelSpec {
  return {
    kind: 'kernel',
    name: 'recover NX huge pages',
    gfns: [],
    make: ({ vm }) => [part(stages, new NxRecovery(vm))],
  };
}
