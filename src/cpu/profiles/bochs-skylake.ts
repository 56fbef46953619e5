/**
 * Bochs 3.0 emulating a `corei7_skylake_x`, with two deviations from the manual corrected: the machine on which kvm-intel's scenarios
 * were recorded.
 */
import type { HardwareProfile } from '../profile.ts';
import { intelCpuid, SKYLAKE_CPUID, skylake } from './skylake.ts';

export const bochsSkylake: HardwareProfile = {
  ...skylake,
  name: 'bochs-skylake',
  maxPhyAddr: 40,
  tlbFlushedAtEntry: true,
  walkCaches: false,
  maskMoveReachesAll: true,
  readsHighWordFirst: true,
  pcid: false,
  cpuid: intelCpuid({ ...SKYLAKE_CPUID, maxPhyAddr: 40, brand: 'Intel(R) Core(TM) i7-7800X CPU @ 3.50GHz' }),
};
