/** The last entry that the shadow tables have for an address (@kvm mmu.c get_walk, fast_pf_get_last_sptep). */
import type { VcpuState } from '../../vcpu-state.ts';
import { ShadowWalk } from './walk.ts';

/** Where such a walk ended. `level` is 0 when there was nothing to walk, and the entry then 0. */
export interface LastSpte {
  readonly sptep: number;
  readonly level: number;
  readonly oldLo: number;
  readonly oldHi: number;
}

const nothing: LastSpte = { sptep: 0, level: 0, oldLo: 0, oldHi: 0 };

/** Walks down without the lock. The address is a gpa in a direct MMU. */
export function shadowWalkToLastSpte(vcpu: VcpuState, addrLo: number, addrHi: number): LastSpte {
  const walk = new ShadowWalk(vcpu.vm);
  if (!walk.start(vcpu.mmu.mmu, addrLo, addrHi)) return nothing;
  let level: number;
  do level = walk.level;
  while (walk.next());
  walk.level = level;
  return walk;
}
