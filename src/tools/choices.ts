/** Names that users choose from: hardware profiles and revisions of the fault path. An unknown one is answered with the known ones. */
import { hardwareProfile, hardwareProfileNames } from '../cpu/profiles/index.ts';
import { revisionByName } from '../kvm/mmu/revisions/index.ts';
import { InputError, UnsupportedError } from './input-error.ts';

/** The profile that guests run on when nobody says otherwise: like a server's processor. */
export const SILICON = 'silicon-epyc';

/** The name, when there is such a profile. @throws InputError, UnsupportedError */
export function checkHardware(name: string): string {
  if (name.startsWith('bochs-')) throw new UnsupportedError(`VMX and EPT (hardware ${name})`);
  if (!hardwareProfileNames().includes(name))
    throw new InputError(`--hardware ${name}: no such profile; known: ${hardwareProfileNames().join(', ')}`);
  if (hardwareProfile(name).vendor !== 'amd') throw new UnsupportedError(`VMX and EPT (hardware ${name})`);
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
