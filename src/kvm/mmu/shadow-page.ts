/** A page table that KVM built and what KVM knows of it (@kvm mmu_internal.h struct kvm_mmu_page). Pooled, never freed to JavaScript. */

export class ShadowPage {
  /** Frame of the 512 entries. */
  pfn = -1;
  /** See role.ts. */
  role = 0;
  /** First gfn that the page translates. */
  gfn = 0;
  /** Entry of the parent that points here, as an index into the memory's int32 view; -1 for a root. */
  ptep = -1;
  tdpMmuPage = true;
  /** References to a TDP root: one a vCPU that uses it and one of the TDP MMU itself until the root is invalidated. */
  tdpMmuRootCount = 0;
  /** The root was invalidated and its zap is still to be done. */
  scheduledRootToZap = false;
  /** A huge page could be here but for the NX huge page workaround. */
  nxHugePageDisallowed = false;
  /** On the VM's list of pages that recovery from the NX workaround may zap. */
  possibleNxHugePage = false;
  unsync = false;
}
