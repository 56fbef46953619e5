/** Names that users choose from: hardware profiles and revisions of the fault path. An unknown one is answered with the known ones. */

import type { CpuVendor } from '../cpu/profile.ts';
import { hardwareProfile, hardwareProfileNames } from '../cpu/profiles/index.ts';
import { revisionByName } from '../kvm/mmu/revisions/index.ts';
import { InputError } from './input-error.ts';

/** The profile that guests run on when nobody says otherwise: like a server's processor. */
export const SILICON = 'silicon-epyc';
/** With SEV-SNP. */
export const SILICON_SNP = 'silicon-milan';
/** The same of Intel. */
export const SILICON_INTEL = 'silicon-skylake';

/** With the hardware that a VM type needs. */
const SILICON_FOR: Readonly<Record<string, string>> = { snp: SILICON_SNP, tdx: 'silicon-sapphire-rapids' };

/**
 * The profile that `--cpu` and `--hardware` choose together; without `--hardware` it has what VM type `vmType` needs.
 * @throws InputError when there is no such profile, or it is another vendor's
 */
export function hardwareFor(cpu: CpuVendor | undefined, name: string | undefined, vmType = 'default'): string {
  const special = SILICON_FOR[vmType];
  const fits = special !== undefined && (cpu === undefined || hardwareProfile(special).vendor === cpu);
  const usual = fits ? special : cpu === 'intel' ? SILICON_INTEL : SILICON;
  const chosen = checkHardware(name ?? usual);
  const { vendor } = hardwareProfile(chosen);
  if (cpu !== undefined && vendor !== cpu) {
    throw new InputError(`--cpu ${cpu}: hardware ${chosen} is ${vendor === 'amd' ? "AMD's" : "Intel's"}`);
  }
  return chosen;
}

/** The name, when there is such a profile. @throws InputError */
export function checkHardware(name: string): string {
  if (!hardwareProfileNames().includes(name))
    throw new InputError(`--hardware ${name}: no such profile; known: ${hardwareProfileNames().join(', ')}`);
  return name;
}

/** The name, when there is such a revision. @throws InputError */
export function checkRevision(name: string): string {
  try {
    return revisionByName(name).name;
  } catch (error) {
    if (error instanceof RangeError) throw new InputError(`--revision ${name}: ${error.message}`);
    throw error;
  }
}
