/**
 * CPUID in a TD: the host configures the values of some leaves when it makes the TD, and the module answers with them; what it does not
 * virtualize is #VE, for the host to answer (@tdx ABI, "CPUID Virtualization"). Which leaves can be configured follows from the
 * processor: those it has.
 * @partial a leaf is configurable as a whole, where the module has a mask for each register
 */
import { TD_PARAMS_CPUID } from '../../arch/tdx.ts';
import type { HardwareProfile } from '../profile.ts';
import type { Td, TdCpuid } from './td.ts';

/** Says that one is in a TD: "IntelTDX    ". */
const CPUID_TDX = 0x21;
/** In a field id: the leaf has no subleaves. */
const SUBLEAF_NA = 0x1fe;
const HAS_SUBLEAVES: ReadonlySet<number> = new Set([4, 7, 0xd, 0x14, 0x1f]);

/** Leaf and subleaf (-1: none) of each value in TD_PARAMS, in order. */
export function cpuidConfigLeaves(
  profile: HardwareProfile,
): readonly { readonly leaf: number; readonly subleaf: number }[] {
  return profile.cpuid.map(({ leaf, index }) => ({ leaf, subleaf: HAS_SUBLEAVES.has(leaf) ? index : -1 }));
}

/** The registers at position `n` of TD_PARAMS. */
function valueAt(params: DataView, n: number): readonly [number, number, number, number] {
  const at = TD_PARAMS_CPUID + 16 * n;
  const word = (i: number): number => params.getUint32(at + 4 * i, true);
  return [word(0), word(1), word(2), word(3)];
}

/** Guest address widths are the module's to say, so the host must leave them 0. */
export function cpuidConfigurable(profile: HardwareProfile, params: DataView): boolean {
  const at = cpuidConfigLeaves(profile).findIndex(({ leaf }) => leaf === 0x80000008);
  return at < 0 || (valueAt(params, at)[0] & 0xff0000) === 0;
}

/** What the TD will see. */
export function virtualCpuid(profile: HardwareProfile, params: DataView): TdCpuid[] {
  const values = cpuidConfigLeaves(profile).map(({ leaf, subleaf }, n): TdCpuid => {
    const [eax, ebx, ecx, edx] = valueAt(params, n);
    return { leaf, subleaf, eax, ebx, ecx, edx };
  });
  return [...values, { leaf: CPUID_TDX, subleaf: 0, eax: 0, ebx: 0x65746e49, ecx: 0x20202020, edx: 0x5844546c }];
}

/** The virtualized value, or null: #VE. */
export function findTdCpuid(td: Td, leaf: number, subleaf: number): TdCpuid | null {
  return td.cpuid.find((e) => e.leaf === leaf && (e.subleaf < 0 || e.subleaf === subleaf)) ?? null;
}

/** A CPUID_VALUES field by its lower half (leaf, subleaf, which two registers): [lower, upper] of the value, or null. */
export function readTdCpuid(td: Td, field: number): [number, number] | null {
  const leaf = ((field >>> 9) & 0x7f) + (((field >>> 16) & 1) !== 0 ? 0x80000000 : 0);
  const subleaf = (field & SUBLEAF_NA) === SUBLEAF_NA ? -1 : (field >>> 1) & 0x7f;
  const entry = td.cpuid.find((e) => e.leaf === leaf && e.subleaf === subleaf);
  if (entry === undefined) return null;
  return (field & 1) === 0 ? [entry.eax, entry.ebx] : [entry.ecx, entry.edx];
}
