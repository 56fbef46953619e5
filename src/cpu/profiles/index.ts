/** The hardware profiles by name. */
import type { HardwareProfile } from '../profile.ts';
import { bochsSkylake } from './bochs-skylake.ts';
import { qemuTcgEpyc } from './qemu-tcg-epyc.ts';
import { siliconEpyc } from './silicon-epyc.ts';
import { siliconGenoa } from './silicon-genoa.ts';
import { siliconIcelake } from './silicon-icelake.ts';
import { siliconMilan } from './silicon-milan.ts';
import { siliconSapphireRapids } from './silicon-sapphire-rapids.ts';
import { siliconSkylake } from './silicon-skylake.ts';

export const profiles: readonly HardwareProfile[] = [
  qemuTcgEpyc,
  siliconEpyc,
  siliconMilan,
  siliconGenoa,
  bochsSkylake,
  siliconSkylake,
  siliconIcelake,
  siliconSapphireRapids,
];

/**
 * The profile called `name`.
 * @throws RangeError naming the profiles that there are
 */
export function hardwareProfile(name: string): HardwareProfile {
  const found = profiles.find((profile) => profile.name === name);
  if (found === undefined) {
    throw new RangeError(`no hardware profile ${name}: there are ${hardwareProfileNames().join(', ')}`);
  }
  return found;
}

/** Names that `hardwareProfile` knows. */
export function hardwareProfileNames(): string[] {
  return profiles.map((profile) => profile.name);
}
