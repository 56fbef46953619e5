/**
 * An Ice Lake-SP (family 6, model 106) as the manuals describe it: on top of the Skylake-X, linear addresses of 57 bits and physical
 * ones of 52, five levels of EPT, UMIP and RDPID.
 */
import type { HardwareProfile } from '../profile.ts';
import { bits } from './cpuid-table.ts';
import { intelCpuid, skylake } from './skylake.ts';

export const siliconIcelake: HardwareProfile = {
  ...skylake,
  name: 'silicon-icelake',
  maxPhyAddr: 52,
  l1tf: false,
  la57: true,
  umip: true,
  vmx: { ...skylake.vmx, eptFiveLevel: true },
  cpuid: intelCpuid({
    signature: 0x000606a6,
    maxPhyAddr: 52,
    linearBits: 57,
    brand: 'Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz',
    // PCID
    features: bits(17),
    // INVPCID
    features7b: bits(10),
    // UMIP LA57 RDPID
    features7c: bits(2, 16, 22),
    // WBNOINVD
    features8: bits(9),
    avx: true,
  }),
};
