/**
 * A Sapphire Rapids (family 6, model 143), as far as it is another machine than a Skylake-X for a guest that the interpreter runs: a TDX
 * module, 52 physical address bits, no L1 terminal fault. Its five levels of EPT are left out, so that TDs are 48 bits wide.
 */
import type { HardwareProfile } from '../profile.ts';
import { bits } from './cpuid-table.ts';
import { intelCpuid, SKYLAKE_CPUID, skylake } from './skylake.ts';

export const siliconSapphireRapids: HardwareProfile = {
  ...skylake,
  name: 'silicon-sapphire-rapids',
  maxPhyAddr: 52,
  vmx: { ...skylake.vmx, tdx: true },
  l1tf: false,
  cpuid: intelCpuid({
    ...SKYLAKE_CPUID,
    signature: 0x000806f8,
    maxPhyAddr: 52,
    brand: 'Intel(R) Xeon(R) Platinum 8480+',
    // PCID; INVPCID
    features: bits(17),
    features7b: bits(10),
    avx: true,
  }),
};
