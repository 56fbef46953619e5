/** The last entry that a vCPU's tables have for an address, in either MMU (@kvm mmu.c get_sptes_lockless). */
import { numberOf } from '../../arch/halves.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { unaliasedGfn } from './direct-bits.ts';
import { gpaToGfn } from './gpa.ts';
import { ROLE_DIRECT } from './role.ts';
import { type LastSpte, shadowWalkToLastSpte } from './shadow/last-spte.ts';
import { walkToLastSpte } from './tdp-mmu/walk.ts';

/** The address is a gpa in a direct MMU. What comes back is overwritten by the next walk. @kvm mmu.c get_sptes_lockless. HOT */
export function lastSpteOf(vcpu: VcpuState, addrLo: number, addrHi: number): LastSpte {
  if (vcpu.vm.mmu.tdpMmuEnabled && (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0) {
    return walkToLastSpte(vcpu, unaliasedGfn(vcpu.vm, gpaToGfn(numberOf(addrLo, addrHi))));
  }
  return shadowWalkToLastSpte(vcpu, addrLo, addrHi);
}
