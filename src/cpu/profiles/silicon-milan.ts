/** An EPYC of the third generation (family 25, model 1): `silicon-epyc` with encrypted guests, up to SEV-SNP. */
import type { CpuidEntry, HardwareProfile, SnpProfile } from '../profile.ts';
import { bits, brand, row } from './cpuid-table.ts';
import { siliconEpyc } from './silicon-epyc.ts';

const SIGNATURE = 0x00a00f11;

const snp: SnpProfile = { cBit: 51, physAddrReduction: 5, vmpls: 4, maxAsid: 509, minAsidWithoutState: 100 };

const BRAND = brand('AMD EPYC 7763 64-Core Processor');

function ofMilan(e: CpuidEntry): CpuidEntry {
  const name = BRAND.find((b) => b.leaf === e.leaf);
  if (name !== undefined) return name;
  if (e.leaf === 1 || e.leaf === 0x80000001) return { ...e, eax: SIGNATURE };
  return e.leaf === 0x80000000 ? { ...e, eax: 0x8000001f } : e;
}

export const siliconMilan: HardwareProfile = {
  ...siliconEpyc,
  name: 'silicon-milan',
  snp,
  cpuid: [
    ...siliconEpyc.cpuid.map(ofMilan),
    // SME SEV PageFlushMsr SEV-ES SEV-SNP VMPL
    row(
      0x8000001f,
      0,
      bits(0, 1, 2, 3, 4, 5),
      snp.cBit | (snp.physAddrReduction << 6) | (snp.vmpls << 12),
      snp.maxAsid,
      snp.minAsidWithoutState,
    ),
  ],
};
