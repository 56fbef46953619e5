/** A vCPU's view of one kind of paging: roots, roles, permissions (@kvm kvm_host.h struct kvm_mmu). */
import type { X86Exception } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
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

/**
 * L1's tables for L2's physical addresses, which the vendor's control block for L2 points to (@kvm kvm_host.h struct kvm_mmu
 * get_guest_pgd, get_pdptr, inject_page_fault).
 */
export interface NestedTables {
  /** Physical address of the root, halves into `out`. */
  guestPgd(vcpu: VcpuState, out: Int32Array): void;
  /** PDPTE number `index`, halves into `out`. */
  pdptr(vcpu: VcpuState, index: number, out: Int32Array): void;
  /** A page becomes dirty in the tables: L1's log of them takes the gpa. False when it is full. @kvm kvm_host.h write_log_dirty */
  writeLogDirty?(vcpu: VcpuState, gpaLo: number, gpaHi: number): boolean;
  /** A walk of the tables failed: L1 gets an exit. */
  injectPageFault(vcpu: VcpuState, fault: X86Exception): void;
}

export class Mmu {
  readonly root = new RootInfo();
  /** Frame of the mirror root, for private memory of a TD. @kvm kvm_host.h mirror_root_hpa */
  mirrorRoot = INVALID_ROOT;
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
  /** The tables have EPT's format, not the processor's own; such tables may be without accessed and dirty bits. */
  ept = false;
  guestAd = true;
  /** Reserved bits of the guest's entries. */
  readonly guestRsvd = new RsvdBits();
  /** PDPTEs of a PAE guest, halves. */
  readonly pdptrs = new Int32Array(8);
  /** Tables that are not the vCPU's own; null where CR3 points to them. */
  nestedTables: NestedTables | null = null;
  /** Which of the vCPU's three it is. */
  readonly name: 'root' | 'guest' | 'nested';

  constructor(name: 'root' | 'guest' | 'nested') {
    this.name = name;
  }
}
