/** One input of the fault path, described: everything that its answer can depend on. Explain, series and range-diff all speak in these. */

/** Processor and paging hardware: AMD with nested paging, Intel with EPT, Intel with EPT but without its accessed/dirty bits. */
export const HARDWARE = ['npt', 'ept', 'ept-no-ad'] as const;
export type Hardware = (typeof HARDWARE)[number];

/** `sev` is a default VM with encrypted memory on hardware that reports ENC in #NPF; `snp` exists from Linux 6.11 on. */
export const VM_TYPES = ['default', 'sev', 'sw-protected', 'snp'] as const;
export type VmTypeName = (typeof VM_TYPES)[number];

/** Who translates: the TDP MMU, or page tables of the guest that KVM shadows. */
export const PAGINGS = ['tdp', 'shadow'] as const;
export type PagingName = (typeof PAGINGS)[number];

/** How the fault comes in: by hardware, redone when an asynchronous page is ready, or by KVM_PRE_FAULT_MEMORY. */
export const ENTRIES = ['fault', 'page-ready', 'pre-fault'] as const;
export type EntryName = (typeof ENTRIES)[number];

/**
 * What covers the gfn. `none-beyond`: no slot, and the gfn is beyond the host's physical width. `invalid`: being deleted or moved.
 * `apic`: KVM's APIC access page while APIC virtualization is active, `apic-inhibited` while it is not. `internal`: another slot of
 * KVM's own (TSS, identity map). `gmem`: read-write with guest_memfd; the other slots have none.
 */
export const SLOTS = [
  'none',
  'none-beyond',
  'rw',
  'ro',
  'invalid',
  'apic',
  'apic-inhibited',
  'internal',
  'gmem',
] as const;
export type SlotName = (typeof SLOTS)[number];

export const ATTRIBUTES = ['shared', 'private'] as const;
export type AttributeName = (typeof ATTRIBUTES)[number];

/** The last-level entry for the gfn before the fault. `write-protected` is what dirty logging leaves behind. */
export const SPTES = ['absent', 'present', 'write-protected', 'access-tracked', 'mmio', 'mmio-stale'] as const;
export type SpteName = (typeof SPTES)[number];

/**
 * The page behind the slot, in the host or in guest_memfd. `would-block`: it has to be read in first. `noslot-pfn`: the lookup answers
 * "no slot" although there is one, which only a bug elsewhere makes it do.
 */
export const BACKINGS = ['present', 'absent', 'poisoned', 'read-only', 'would-block', 'noslot-pfn'] as const;
export type BackingName = (typeof BACKINGS)[number];

/**
 * An MMU-notifier invalidation of the gfn's range. `in-progress`: begun and not ended for the whole fault. At a stage: just before the
 * stage of that name runs, `done` (begun and ended) or `in-progress` (begun, and not ended when the fault leaves).
 */
export type Invalidation =
  | { readonly kind: 'none' }
  | { readonly kind: 'in-progress' }
  | { readonly kind: 'done-at' | 'begun-at'; readonly stage: string };

export interface FaultInput {
  readonly hardware: Hardware;
  readonly vmType: VmTypeName;
  readonly paging: PagingName;
  /** The vCPU runs L2: the fault is one of a nested guest. */
  readonly nested: boolean;
  readonly mmioCaching: boolean;
  readonly entry: EntryName;
  /**
   * As the hardware reports it, see fault-codes.ts for those that it can produce (with EPT in the words of an error code, which the
   * revision may not put that way); of a page-ready fault, what the queued work says; 0 for
   * pre-fault.
   */
  readonly errorLo: number;
  readonly errorHi: number;
  readonly slot: SlotName;
  readonly attribute: AttributeName;
  readonly spte: SpteName;
  readonly backing: BackingName;
  readonly invalidation: Invalidation;
}

/** An ordinary first write to a shared page of a default VM: what the fields of an input are changed from. */
export const ordinaryFault: FaultInput = {
  hardware: 'npt',
  vmType: 'default',
  paging: 'tdp',
  nested: false,
  mmioCaching: true,
  entry: 'fault',
  errorLo: 0x6,
  errorHi: 0x1,
  slot: 'rw',
  attribute: 'shared',
  spte: 'absent',
  backing: 'present',
  invalidation: { kind: 'none' },
};
