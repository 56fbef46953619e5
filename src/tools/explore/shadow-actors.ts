/** Kernel-side and userspace actors that only scenes under shadow paging have. */
import { type ActorContext, RES_HOST, STAGE_NEXT } from '../../kvm/actors/actor.ts';
import { part } from './kvm-model/kernel-actor.ts';
import { RES_GUESTS } from './kvm-model/state.ts';
import type { KernelSpec } from './scene.ts';
import { ShadowState } from './shadow-model/state.ts';

/** Userspace writes an entry of a table of the guest, behind KVM's back. */
export function userWritesPte(table: number, index: number, value: number): KernelSpec {
  return {
    kind: 'kernel',
    name: 'userspace writes an entry',
    gfns: [],
    make(state) {
      if (!(state instanceof ShadowState)) throw new Error('only where KVM shadows the tables of the guest');
      const t = state.guest.tableOf(table);
      if (t < 0 || !state.guest.indices.includes(index))
        throw new Error(`gfn 0x${table.toString(16)} is no table of the guest that has an entry ${index}`);
      const write = {
        name: 'write to guest memory',
        kvmFunction: 'copy_to_user',
        takes: 0,
        reads: RES_HOST,
        writes: RES_HOST | RES_GUESTS,
        run() {
          state.changesGuest(() => state.guest.put(state.guest.tables[t]!.pfn, index, value), true);
          state.guest.noteUserspaceWrite(table, index);
          return STAGE_NEXT;
        },
      };
      const context: ActorContext = { locals: 0 };
      return [part([write], context)];
    },
  };
}
