/** What an entry of the guest's own tables says, for who shadows it (@kvm paging_tmpl.h gpte_access, protect_clean_gpte). */
import {
  EPT_ACCESSED_MASK,
  EPT_DIRTY_MASK,
  EPT_EXECUTABLE_MASK,
  EPT_READABLE_MASK,
  EPT_RWX_MASK,
  EPT_WRITABLE_MASK,
  PT_ACCESSED_MASK,
  PT_DIRTY_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  ptePfn,
} from '../../../arch/paging.ts';
import { readGuestAtomic } from '../../guest-memory.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { Mmu } from '../mmu-context.ts';
import { ACC_EXEC_MASK, ACC_USER_MASK, ACC_WRITE_MASK } from '../role.ts';
import { isCr4Pae } from '../role-bits.ts';

/** ACC_* of an EPT entry: to read is what a user may do. @kvm paging_tmpl.h gpte_access */
export function eptAccess(lo: number): number {
  return (
    (lo & EPT_WRITABLE_MASK) |
    ((lo & EPT_EXECUTABLE_MASK) !== 0 ? ACC_EXEC_MASK : 0) |
    ((lo & EPT_READABLE_MASK) !== 0 ? ACC_USER_MASK : 0)
  );
}

/** ACC_* of one entry. P is set in it, so NX takes the execute right away. @kvm paging_tmpl.h gpte_access */
export function gpteAccess(mmu: Mmu, lo: number, hi: number): number {
  if (mmu.ept) return eptAccess(lo);
  return (lo & (PT_PRESENT_MASK | PT_WRITABLE_MASK | PT_USER_MASK)) ^ (hi >>> 31);
}

/** A clean page is mapped read-only, so that the first write is seen and D set. @kvm paging_tmpl.h protect_clean_gpte */
export function protectCleanGpte(mmu: Mmu, access: number, lo: number): number {
  if (!mmu.guestAd) return access;
  return (lo & (mmu.ept ? EPT_DIRTY_MASK : PT_DIRTY_MASK)) === 0 ? access & ~ACC_WRITE_MASK : access;
}

/** @kvm paging_tmpl.h gpte_to_gfn */
export function gpteToGfn(wide: boolean, lo: number, hi: number): number {
  return wide ? ptePfn(lo, hi) : lo >>> 12;
}

/** The entry must not be mapped ahead of its use: not present, never used, or invalid. @kvm paging_tmpl.h prefetch_invalid_gpte */
export function gpteCannotBePrefetched(vcpu: VcpuState, lo: number, hi: number): boolean {
  const { mmu } = vcpu.mmu;
  if ((lo & (mmu.ept ? EPT_RWX_MASK : PT_PRESENT_MASK)) === 0) return true;
  if (mmu.guestAd && (lo & (mmu.ept ? EPT_ACCESSED_MASK : PT_ACCESSED_MASK)) === 0) return true;
  return mmu.guestRsvd.isSet(lo, hi, 1);
}

const bytes = new Uint8Array(8);
const words = new Int32Array(bytes.buffer);

/** The entry at `gpa`, in halves; the high one is 0 where entries have 4 bytes. */
export const gpte = { lo: 0, hi: 0 };

/** Reads the entry at `gpa` into `gpte`. False when it cannot be read now. */
export function readGpte(vcpu: VcpuState, gpa: number): boolean {
  const wide = isCr4Pae(vcpu.mmu.mmu);
  if (readGuestAtomic(vcpu, gpa, bytes, 0, wide ? 8 : 4) < 0) return false;
  gpte.lo = words[0]!;
  gpte.hi = wide ? words[1]! : 0;
  return true;
}
