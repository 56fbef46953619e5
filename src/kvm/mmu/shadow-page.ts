/** A page table that KVM built and what KVM knows of it (@kvm mmu_internal.h struct kvm_mmu_page). Pooled, never freed to JavaScript. */

export class ShadowPage {
  /** Frame of the 512 entries. */
  pfn = -1;
  /** See role.ts. */
  role = 0;
  /** First gfn that the page translates; where it shadows a table of the guest, that table's gfn. */
  gfn = 0;
  /** Entry of the parent that points here, as an index into the memory's int32 view; -1 for a root. TDP MMU only. */
  ptep = -1;
  tdpMmuPage = true;
  /** Of a mirror page: the frame of the page that it mirrors; -1 for none. @kvm mmu_internal.h external_spt */
  externalSpt = -1;
  /** Of a root: where in it, in 32-bit words, gfn 0 is; the entries for shared memory of a TD are in the upper half. */
  rootBias = 0;
  /** References to a TDP root: one a vCPU that uses it and one of the TDP MMU itself until the root is invalidated. */
  tdpMmuRootCount = 0;
  /** The root was invalidated and its zap is still to be done. */
  scheduledRootToZap = false;
  /** A huge page could be here but for the NX huge page workaround. */
  nxHugePageDisallowed = false;
  /** On the VM's list of pages that recovery from the NX workaround may zap. */
  possibleNxHugePage = false;
  /** The guest may write the table that is shadowed: entries are good until the guest flushes its TLB. */
  unsync = false;

  // Shadow MMU only.
  /** `VmMmu.mmuValidGen` when the page was made: another one now makes it obsolete. */
  mmuValidGen = 0;
  /** vCPU roots that are this page. */
  rootCount = 0;
  /** Entries that point here, as a list head of `PteLists`. */
  parentPtes = 0;
  /** Entries below which something is unsync: their number, and which, one bit each. */
  unsyncChildren = 0;
  unsyncChildBitmap: Uint32Array | null = null;
  /** What each entry shadows: gfn * 8 + ACC_*. Null where gfn and rights follow from the page itself. */
  shadowedTranslation: Float64Array | null = null;
  /** Emulated writes since a walk last came by. */
  writeFloodingCount = 0;
  /** Next page in the hash bucket. */
  hashNext: ShadowPage | null = null;
  /** Neighbours in the list of active pages. */
  newer: ShadowPage | null = null;
  older: ShadowPage | null = null;
}
