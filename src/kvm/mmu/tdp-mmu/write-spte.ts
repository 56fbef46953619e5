/** Stores of entries (@kvm tdp_iter.h kvm_tdp_mmu_write_spte). An entry is never half new and present at once. */
import { isShadowPresent } from '../spte.ts';

/** A walker that looks between the two stores sees a non-present entry. @kvm tdp_iter.h kvm_tdp_mmu_write_spte. HOT */
export function writeSpte(i32: Int32Array, sptep: number, lo: number, hi: number): void {
  if (isShadowPresent(lo)) {
    i32[sptep + 1] = hi;
    i32[sptep] = lo;
  } else {
    i32[sptep] = lo;
    i32[sptep + 1] = hi;
  }
}
