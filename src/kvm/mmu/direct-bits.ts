/** The bit of a gfn that chooses between a TD's private and its shared memory, and the gfn without it. */
import type { VmState } from '../vm-state.ts';

/** The gfn as slots and attributes know it. @kvm mmu.h kvm_get_unaliased_gfn_hva; kvm_gfn_direct_bits */
export function unaliasedGfn(vm: VmState, gfn: number): number {
  const bits = vm.mmu.gfnDirectBits;
  return bits !== 0 && gfn >= bits ? gfn - bits : gfn;
}
