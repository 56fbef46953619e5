/** What a processor has, from its profile. */
import {
  CR4_DE,
  CR4_FSGSBASE,
  CR4_LA57,
  CR4_MCE,
  CR4_OSFXSR,
  CR4_OSXMMEXCPT,
  CR4_OSXSAVE,
  CR4_PAE,
  CR4_PCE,
  CR4_PCIDE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_PVI,
  CR4_SMAP,
  CR4_SMEP,
  CR4_TSD,
  CR4_UMIP,
  CR4_VME,
  CR4_VMXE,
} from '../../arch/registers.ts';
import type { HardwareProfile } from '../profile.ts';

/** CR4 bits that the processor of `profile` has. */
export function cr4Known(profile: HardwareProfile): number {
  let known =
    CR4_VME |
    CR4_PVI |
    CR4_TSD |
    CR4_DE |
    CR4_PSE |
    CR4_PAE |
    CR4_MCE |
    CR4_PGE |
    CR4_PCE |
    CR4_OSFXSR |
    CR4_OSXMMEXCPT;
  known |= CR4_OSXSAVE;
  if (profile.vendor === 'intel') known |= CR4_VMXE;
  if (profile.umip) known |= CR4_UMIP;
  if (profile.la57) known |= CR4_LA57;
  if (profile.fsgsbase) known |= CR4_FSGSBASE;
  if (profile.pcid) known |= CR4_PCIDE;
  if (profile.smep) known |= CR4_SMEP;
  if (profile.smap) known |= CR4_SMAP;
  if (profile.pku) known |= CR4_PKE;
  return known;
}

/** Bits of CPUID leaf 8000000A EDX. */
export const SVME_ADDRESS_CHECK = 28;

/** Whether bit `bit` of SVM's feature word is set. */
export function svmFeature(profile: HardwareProfile, bit: number): boolean {
  const leaf = profile.cpuid.find((entry) => entry.leaf === 0x8000000a);
  return leaf !== undefined && ((leaf.edx >>> bit) & 1) !== 0;
}

/** XCR0 bits that the processor has, low half. */
export function xcr0Known(profile: HardwareProfile): number {
  const leaf = profile.cpuid.find((entry) => entry.leaf === 0xd && entry.index === 0);
  return leaf === undefined ? 1 : leaf.eax | 0;
}

/** Bits of CPUID leaf 0xD, index 1, EAX. */
export const XSTATE_HAS_COMPACT = 1;
export const XSTATE_HAS_XGETBV1 = 2;
/** Whether bit `bit` of XSAVE's feature word is set. */
export function xstateFeature(profile: HardwareProfile, bit: number): boolean {
  const leaf = profile.cpuid.find((entry) => entry.leaf === 0xd && entry.index === 1);
  return leaf !== undefined && ((leaf.eax >>> bit) & 1) !== 0;
}
