/** What makes a combination no input: each rule in one line of words, and as a condition. */
import type { FaultInput } from './fault-input.ts';

/** The parts of an input that rules look at: all but the code and the invalidation's stage. */
export type InputState = Omit<FaultInput, 'errorLo' | 'errorHi' | 'invalidation'>;

export interface Constraint {
  readonly words: string;
  /** The combination is no input. */
  readonly excludes: (s: InputState) => boolean;
}

const isNone = (s: InputState): boolean => s.slot === 'none' || s.slot === 'none-beyond';
const isOwn = (s: InputState): boolean => s.slot === 'apic' || s.slot === 'apic-inhibited' || s.slot === 'internal';
const isMapped = (s: InputState): boolean =>
  s.spte === 'present' || s.spte === 'write-protected' || s.spte === 'access-tracked';
const isMmio = (s: InputState): boolean => s.spte === 'mmio' || s.spte === 'mmio-stale';
const hasPrivate = (s: InputState): boolean => s.vmType === 'sw-protected' || s.vmType === 'snp';

/** What depends on hardware and VM alone. */
export const contextConstraints: readonly Constraint[] = [
  {
    words: "SEV and SEV-SNP are AMD's",
    excludes: (s) => s.hardware !== 'npt' && (s.vmType === 'sev' || s.vmType === 'snp'),
  },
  { words: 'a SEV-SNP guest cannot run a guest of its own', excludes: (s) => s.vmType === 'snp' && s.nested },
  {
    words: 'without EPT, its accessed and dirty bits are nothing',
    excludes: (s) => s.paging === 'shadow' && s.hardware === 'ept-no-ad',
  },
  {
    words: 'only a default VM can have shadow paging',
    excludes: (s) => s.paging === 'shadow' && s.vmType !== 'default',
  },
];

/** What depends on the gfn and its state. */
export const stateConstraints: readonly Constraint[] = [
  {
    words: 'only a VM type with private memory has attributes and guest_memfd',
    excludes: (s) => !hasPrivate(s) && (s.attribute === 'private' || s.slot === 'gmem'),
  },
  { words: 'a VM with protected state has no read-only slots', excludes: (s) => s.vmType === 'snp' && s.slot === 'ro' },
  {
    words: "KVM's TSS and identity-map slots are made on Intel only",
    excludes: (s) => s.slot === 'internal' && s.hardware === 'npt',
  },
  {
    words: 'SEV inhibits APIC virtualization from the start: no APIC access page',
    excludes: (s) => (s.slot === 'apic' || s.slot === 'apic-inhibited') && (s.vmType === 'sev' || s.vmType === 'snp'),
  },
  {
    words: "under shadow paging, an address beyond the physical width is a reserved bit in the guest's own tables",
    excludes: (s) => s.paging === 'shadow' && s.slot === 'none-beyond',
  },
  {
    words: 'KVM_PRE_FAULT_MEMORY needs two-dimensional paging',
    excludes: (s) => s.paging === 'shadow' && s.entry === 'pre-fault',
  },
  { words: 'without a slot there is no page behind it', excludes: (s) => isNone(s) && s.backing !== 'present' },
  {
    words: "an invalid slot's page cannot be looked up",
    excludes: (s) => s.slot === 'invalid' && s.backing !== 'present',
  },
  {
    words:
      'private memory is guest_memfd\'s: never read-only, never read in first, and no lookup of it answers "no slot"',
    excludes: (s) =>
      s.slot === 'gmem' &&
      s.attribute === 'private' &&
      (s.backing === 'read-only' || s.backing === 'would-block' || s.backing === 'noslot-pfn'),
  },
  { words: "a present entry maps a slot's page", excludes: (s) => isNone(s) && isMapped(s) },
  {
    words: 'whoever unmaps, poisons or swaps out a page has removed the entry for it',
    excludes: (s) => isMapped(s) && (s.backing === 'absent' || s.backing === 'poisoned' || s.backing === 'would-block'),
  },
  {
    words: 'setting the private attribute removes what was mapped; only guest_memfd can be mapped then',
    excludes: (s) => isMapped(s) && s.attribute === 'private' && s.slot !== 'gmem',
  },
  {
    words: 'an APIC access page that is inhibited was unmapped',
    excludes: (s) => isMapped(s) && s.slot === 'apic-inhibited',
  },
  {
    words: 'what is read-only has no write access to lose',
    excludes: (s) => s.spte === 'write-protected' && (s.slot === 'ro' || s.backing === 'read-only'),
  },
  {
    words: "slots with guest_memfd and KVM's own have no dirty log",
    excludes: (s) => s.spte === 'write-protected' && (s.slot === 'gmem' || isOwn(s)),
  },
  { words: 'without MMIO caching there are no MMIO entries', excludes: (s) => isMmio(s) && !s.mmioCaching },
  {
    words: 'a gfn beyond the physical address width has no entry',
    excludes: (s) => s.slot === 'none-beyond' && s.spte !== 'absent',
  },
  {
    words:
      'a new slot makes every MMIO entry stale: a current one is where there is no slot, where L2 sees none, or after a lookup said so',
    excludes: (s) => s.spte === 'mmio' && !isNone(s) && s.backing !== 'noslot-pfn' && !(isOwn(s) && s.nested),
  },
];

/** Rules for the moment of an invalidation. */
export const NO_SLOT_NO_INVALIDATION = 'an invalidation does nothing where there is no slot';
export const IN_PROGRESS_UNMAPS = 'an invalidation that is in progress has removed a present entry';

/** Null, or why the input cannot be (whatever the code). */
export function inputImpossible(input: FaultInput): string | null {
  for (const rule of [...contextConstraints, ...stateConstraints]) if (rule.excludes(input)) return rule.words;
  const { kind } = input.invalidation;
  if (kind !== 'none' && isNone(input)) return NO_SLOT_NO_INVALIDATION;
  if (kind === 'in-progress' && isMapped(input)) return IN_PROGRESS_UNMAPS;
  return null;
}
