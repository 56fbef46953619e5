/** CPUID, when no hypervisor answers it: the profile's table (@apm appendix D; @sdm volume 2 CPUID). */
import { CR4_OSXSAVE, RAX, RBX, RCX, RDX } from '../../arch/registers.ts';
import { INTERCEPT_CPUID, SVM_EXIT_CPUID } from '../../arch/vmcb.ts';
import type { CpuidEntry, HardwareProfile } from '../profile.ts';
import { STATUS_OK } from '../state.ts';
import type { Core } from './core.ts';
import { gprLo, setGpr } from './operands.ts';
import { W_CR4 } from './words.ts';

const CPUID_1_ECX_OSXSAVE = 1 << 27;

/** The entry that answers `leaf` and `index`: a leaf without indexes answers all of them. */
function findCpuid(profile: HardwareProfile, leaf: number, index: number): CpuidEntry | undefined {
  let first: CpuidEntry | undefined;
  for (const entry of profile.cpuid) {
    if (entry.leaf !== leaf) continue;
    if (entry.index === index) return entry;
    first ??= entry;
  }
  // Only leaves with a single row ignore the index.
  if (first === undefined || first.index !== 0) return undefined;
  return profile.cpuid.some((entry) => entry.leaf === leaf && entry.index !== 0) ? undefined : first;
}

/** CPUID. */
export function cpuid(core: Core): number {
  if ((core.intercept3 & INTERCEPT_CPUID) !== 0) return core.exit(SVM_EXIT_CPUID);
  const leaf = gprLo(core, RAX) >>> 0;
  const entry = findCpuid(core.profile, leaf, gprLo(core, RCX) >>> 0);
  let ecx = entry?.ecx ?? 0;
  if (leaf === 1 && (core.i32[W_CR4]! & CR4_OSXSAVE) !== 0) ecx |= CPUID_1_ECX_OSXSAVE;
  setGpr(core, RAX, 4, (entry?.eax ?? 0) | 0, 0);
  setGpr(core, RBX, 4, (entry?.ebx ?? 0) | 0, 0);
  setGpr(core, RCX, 4, ecx | 0, 0);
  setGpr(core, RDX, 4, (entry?.edx ?? 0) | 0, 0);
  return STATUS_OK;
}
