/** A Skylake-X as the manuals describe it. */
import type { HardwareProfile } from '../profile.ts';
import { skylake } from './skylake.ts';

export const siliconSkylake: HardwareProfile = { ...skylake, name: 'silicon-skylake' };
