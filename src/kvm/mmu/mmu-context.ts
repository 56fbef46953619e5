/** A vCPU's view of one kind of paging: roots, roles, permissions (@kvm kvm_host.h struct kvm_mmu). */
import { RsvdBits } from './rsvd-bits.ts';

export const NUM_PREV_ROOTS = 3;
export const INVALID_ROOT = -1;

/** A root that was in use before and may be again. */
export class RootInfo {
  /** Frame of the root table, -1 when there is none. */
  pfn = INVALID_ROOT;
  /** Guest CR3 (or nested CR3) that it stands for, -1 when unknown. */
  pgd = -1;
}

export class Mmu {
  readonly root = new RootInfo();
  readonly prevRoots = [new RootInfo(), new RootInfo(), new RootInfo()];
  /** Frames of tables that have no shadow page: the PDPTEs of a PAE root, and tables above them; -1 for none. */
  paeRoot = -1;
  pml4Root = -1;
  pml5Root = -1;
  /** Role of root shadow pages; see role.ts. */
  rootRole = 0;
  /** Role of the vCPU's own paging: base word and extension. */
  cpuRole = 0;
  cpuRoleExt = 0;
  /** Rights that fault, by error code: @kvm kvm_host.h struct kvm_mmu.permissions. */
  readonly permissions = new Uint8Array(16);
  pkruMask = 0;
  /** Reserved bits of the guest's entries. */
  readonly guestRsvd = new RsvdBits();
  /** PDPTEs of a PAE guest, halves. */
  readonly pdptrs = new Int32Array(8);
  /** Where this MMU finds its PDPTEs and CR3: the vCPU's own, or the nested control block's. */
  readonly name: 'root' | 'guest' | 'nested';

  constructor(name: 'root' | 'guest' | 'nested') {
    this.name = name;
  }
}
