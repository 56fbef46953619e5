/**
 * KVM's own walk of a guest's page tables: 32-bit, PAE, 4 and 5 levels (@kvm paging_tmpl.h walk_addr_generic). It reads the tables
 * through the slots and the host's mappings, sets A and D as the processor would, and answers a gpa or a page fault.
 */
import {
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../arch/ept-qualification.ts';
import {
  PFERR_FETCH,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { PF_VECTOR } from '../../arch/exceptions.ts';
import { numberOf } from '../../arch/halves.ts';
import {
  EPT_ACCESSED_MASK,
  EPT_DIRTY_MASK,
  EPT_RWX_MASK,
  PT_ACCESSED_MASK,
  PT_DIRTY_MASK,
  PT_PAGE_SIZE_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_NX_HI,
  PT64_PKEY_HI,
  PT64_PKEY_HI_SHIFT,
  ptePfn,
} from '../../arch/paging.ts';
import { markPageDirty } from '../dirty/mark-dirty.ts';
import { X86Exception } from '../emulate/ops.ts';
import { gfnToHvaMemslotProt } from '../memslots/hva.ts';
import { isVisibleMemslot, memslotIsReadonly, vcpuGfnToMemslot } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { gfnToGpa, gpaToGfn } from './gpa.ts';
import type { GuestWalker } from './guest-walker.ts';
import type { Mmu } from './mmu-context.ts';
import {
  tracePagetableWalk,
  tracePagingElement,
  traceSetAccessedBit,
  traceSetDirtyBit,
  traceWalkerError,
} from './mmutrace.ts';
import { refreshPdptrs } from './pdptrs.ts';
import { permissionFault } from './permission.ts';
import { ACC_WRITE_MASK, roleLevel } from './role.ts';
import { isCr0Pg, isCr4Pae, isCr4Pse, isCr4Smep, isEferNx } from './role-bits.ts';
import { eptAccess } from './shadow/gpte.ts';
import { pagesPerLevel } from './tdp-iter.ts';
import { translateGpa } from './translate-gpa.ts';

/** @kvm kvm_types.h INVALID_GPA */
export const INVALID_GPA = -1;

const PKEY_MASK = PT64_PKEY_HI >>> PT64_PKEY_HI_SHIFT;

/** Index of the address in its table of `level`, with 9 bits a level. */
function index64(lo: number, hi: number, level: number): number {
  if (level === 1) return (lo >>> 12) & 511;
  if (level === 2) return (lo >>> 21) & 511;
  if (level === 3) return ((lo >>> 30) | (hi << 2)) & 511;
  return (hi >>> (level === 4 ? 7 : 16)) & 511;
}

/** Whether the walk ends at this entry (@kvm paging_tmpl.h is_last_gpte). */
function isLastGpte(mmu: Mmu, wide: boolean, level: number, lo: number): boolean {
  if (level === 1) return true;
  if (!wide && !isCr4Pse(mmu)) return false;
  return (lo & PT_PAGE_SIZE_MASK) !== 0;
}

/** The gfn that a leaf maps for the address (@kvm paging_tmpl.h gpte_to_gfn_lvl, pse36_gfn_delta). */
function leafGfn(wide: boolean, level: number, lo: number, hi: number, addrLo: number, addrHi: number): number {
  if (wide) {
    const n = pagesPerLevel(level);
    const frame = ptePfn(lo, hi);
    const page = (addrHi & 0xfffff) * 0x100000 + (addrLo >>> 12);
    return frame - (frame % n) + (page % n);
  }
  if (level === 1) return lo >>> 12;
  const pse36 = (lo & (0xf << 13)) << 7;
  return ((lo & 0xffc00000) >>> 12) + ((addrLo >>> 12) & 1023) + pse36;
}

/** Sets A in every entry of the walk, and D in the leaf for a write. 0, 1 to walk again, -1 for a fault. */
function updateAccessedDirtyBits(
  vcpu: VcpuState,
  mmu: Mmu,
  walker: GuestWalker,
  wide: boolean,
  write: boolean,
  addrLo: number,
  addrHi: number,
): number {
  const vm = vcpu.vm;
  const accessed = mmu.ept ? EPT_ACCESSED_MASK : PT_ACCESSED_MASK;
  const dirty = mmu.ept ? EPT_DIRTY_MASK : PT_DIRTY_MASK;
  for (let level = walker.maxLevel; level >= walker.level; level--) {
    const i = level - 1;
    const old = walker.ptes[2 * i]!;
    const entryGpa = gfnToGpa(walker.tableGfn[i]!) + walker.offset[i]!;
    let lo = old;
    if ((lo & accessed) === 0) {
      if (vm.trace.enabled) traceSetAccessedBit(vm, entryGpa);
      lo |= accessed;
    }
    if (level === walker.level && write && (lo & dirty) === 0) {
      if (vm.trace.enabled) traceSetDirtyBit(vm, entryGpa);
      const { nestedTables } = mmu;
      if (nestedTables?.writeLogDirty !== undefined && !nestedTables.writeLogDirty(vcpu, addrLo, addrHi)) return -1;
      lo |= dirty;
    }
    if (lo === old) continue;
    // Tables in read-only slots keep their bits: ROM works if they are set in it.
    if (walker.pteWritable[i] === 0) continue;
    const hva = walker.hva[i]!;
    const pfn = vm.mm.userPage(hva, true);
    if (pfn < 0) return -1;
    const at = (pfn << 10) | ((hva % 4096) >> 2);
    const i32 = vm.memory.i32;
    if (i32[at] !== old || (wide && i32[at + 1] !== walker.ptes[2 * i + 1])) return 1;
    vm.memory.noteWrite(pfn);
    i32[at] = lo;
    markPageDirty(vcpu, walker.tableGfn[i]!);
    walker.ptes[2 * i] = lo;
  }
  return 0;
}

/** Fills the walker's fault. */
function walkError(
  vcpu: VcpuState,
  mmu: Mmu,
  walker: GuestWalker,
  lo: number,
  hi: number,
  code: number,
  access: number,
): boolean {
  const { fault } = walker;
  let errorCode = code | (access & (PFERR_WRITE | PFERR_USER));
  if ((access & PFERR_FETCH) !== 0 && (isEferNx(mmu) || isCr4Smep(mmu))) errorCode |= PFERR_FETCH;
  fault.vector = PF_VECTOR;
  fault.errorCodeValid = true;
  fault.errorCode = errorCode;
  fault.addressLo = lo;
  fault.addressHi = hi;
  fault.nestedPageFault = mmu !== vcpu.mmu.walkMmu;
  fault.asyncPageFault = false;
  fault.fromHardware = false;
  if (vcpu.vm.trace.enabled) traceWalkerError(vcpu.vm, errorCode);
  return false;
}

/** ACC_* of the ANDed bits of a walk. @kvm paging_tmpl.h gpte_access */
function gpteRights(lo: number, hi: number, nxHi: number): number {
  return (lo & (PT_PRESENT_MASK | PT_WRITABLE_MASK | PT_USER_MASK)) ^ ((hi & nxHi) !== 0 ? 1 : 0);
}

/** Where R, W and X are in the exit qualification. */
const EPT_PROT_SHIFT = 3;

/** What L1 is told of a violation of its EPT: the access, the rights of the walk, and what the walk was for. */
function eptViolation(rights: number, accessLo: number, accessHi: number): number {
  return (
    ((accessLo & PFERR_WRITE) !== 0 ? EPT_VIOLATION_WRITE : 0) |
    ((accessLo & PFERR_USER) !== 0 ? EPT_VIOLATION_READ : 0) |
    ((accessLo & PFERR_FETCH) !== 0 ? EPT_VIOLATION_FETCH : 0) |
    EPT_VIOLATION_GVA_IS_VALID |
    ((accessHi & PFERR_GUEST_PAGE_HI) !== 0 ? 0 : EPT_VIOLATION_GVA_TRANSLATED) |
    ((rights & EPT_RWX_MASK) << EPT_PROT_SHIFT)
  );
}

/** Where a table's entry is in the host; -1 when no visible slot or no mapping has it. */
function entryHva(vcpu: VcpuState, walker: GuestWalker, level: number, gfn: number): number {
  const i = level - 1;
  const slot = vcpuGfnToMemslot(vcpu, gfn);
  if (slot === null || !isVisibleMemslot(slot)) return -1;
  const hva = gfnToHvaMemslotProt(slot, gfn);
  if (hva < 0) return -1;
  walker.pteWritable[i] = memslotIsReadonly(slot) ? 0 : 1;
  walker.hva[i] = hva + walker.offset[i]!;
  return walker.hva[i]!;
}

/** Walks once; true when the walker holds a translation, false when it holds a fault (@kvm paging_tmpl.h walk_addr_generic). */
export function walkAddr(
  walker: GuestWalker,
  vcpu: VcpuState,
  mmu: Mmu,
  addrLo: number,
  addrHi: number,
  accessLo: number,
  accessHi: number,
): boolean {
  const vm = vcpu.vm;
  if (vm.trace.enabled) tracePagetableWalk(vm, addrLo, addrHi, accessLo);
  for (;;) {
    const again = walkOnce(walker, vcpu, mmu, addrLo, addrHi, accessLo, accessHi);
    if (again !== WALK_AGAIN) return again === WALK_DONE;
  }
}

/** Root of L1's nested tables, or one of their PDPTEs. */
const tableRoot = new Int32Array(2);
/** For who does not ask why a walk failed. */
const walkFault = new X86Exception();

const WALK_DONE = 1;
const WALK_FAULT = 0;
const WALK_AGAIN = 2;

function walkOnce(
  walker: GuestWalker,
  vcpu: VcpuState,
  mmu: Mmu,
  addrLo: number,
  addrHi: number,
  accessLo: number,
  accessHi: number,
): number {
  const vm = vcpu.vm;
  const wide = isCr4Pae(mmu);
  const nxHi = wide && !mmu.ept ? PT64_NX_HI : 0;
  let level = roleLevel(mmu.cpuRole);
  const { nestedTables } = mmu;
  let lo = vcpu.cr3Lo;
  let hi = wide ? vcpu.cr3Hi : 0;
  if (nestedTables !== null) {
    nestedTables.guestPgd(vcpu, tableRoot);
    lo = tableRoot[0]!;
    hi = wide ? tableRoot[1]! : 0;
  }
  const { ept } = mmu;
  const present = ept ? EPT_RWX_MASK : PT_PRESENT_MASK;
  let rightsLo = -1;
  let rightsHi = -1;
  const error = (code: number): number => {
    walkError(vcpu, mmu, walker, addrLo, addrHi, code, accessLo);
    if (ept) walker.fault.exitQualification = eptViolation(rightsLo, accessLo, accessHi);
    return WALK_FAULT;
  };
  if (level === 3) {
    const n = (addrLo >>> 30) & 3;
    if (nestedTables !== null) {
      nestedTables.pdptr(vcpu, n, tableRoot);
      lo = tableRoot[0]!;
      hi = tableRoot[1]!;
    } else {
      refreshPdptrs(vcpu);
      lo = mmu.pdptrs[2 * n]!;
      hi = mmu.pdptrs[2 * n + 1]!;
    }
    if (vm.trace.enabled) tracePagingElement(vm, lo, hi, level);
    if ((lo & PT_PRESENT_MASK) === 0) return error(0);
    level--;
  }
  walker.maxLevel = level;
  for (; ; level--) {
    const i = level - 1;
    walker.level = level;
    const tableGpa = gfnToGpa(wide ? ptePfn(lo, hi) : lo >>> 12);
    // A and D may have to be set in the table, so L1's tables are asked for a write.
    const realGpa = translateGpa(vcpu, mmu, tableGpa, PFERR_WRITE | PFERR_USER, PFERR_GUEST_PAGE_HI, walker.fault);
    if (realGpa < 0) return WALK_FAULT;
    walker.tableGfn[i] = gpaToGfn(tableGpa);
    walker.offset[i] = wide
      ? index64(addrLo, addrHi, level) * 8
      : (level === 1 ? (addrLo >>> 12) & 1023 : addrLo >>> 22) * 4;
    const hva = entryHva(vcpu, walker, level, gpaToGfn(realGpa));
    if (hva < 0) return error(0);
    const pfn = vm.mm.userPage(hva, false);
    if (pfn < 0) return error(0);
    const at = (pfn << 10) | (walker.offset[i]! >> 2);
    lo = vm.memory.i32[at]!;
    hi = wide ? vm.memory.i32[at + 1]! : 0;
    if (vm.trace.enabled) tracePagingElement(vm, lo, hi, level);
    walker.ptAccess[i] = ept ? eptAccess(rightsLo) : gpteRights(rightsLo, rightsHi ^ nxHi, nxHi);
    // NX is inverted so that rights of all levels can be ANDed.
    rightsLo &= lo;
    rightsHi &= hi ^ nxHi;
    if ((lo & present) === 0) return error(0);
    if (mmu.guestRsvd.isSet(lo, hi, level)) return error(PFERR_RSVD | PFERR_PRESENT);
    walker.ptes[2 * i] = lo;
    walker.ptes[2 * i + 1] = hi;
    if (isLastGpte(mmu, wide, level, lo)) break;
  }
  walker.pteAccess = ept ? eptAccess(rightsLo) : gpteRights(rightsLo, rightsHi ^ nxHi, nxHi);
  const pkey = wide && !ept ? (hi >>> PT64_PKEY_HI_SHIFT) & PKEY_MASK : 0;
  const code = permissionFault(vcpu, mmu, walker.pteAccess, pkey, accessLo, accessHi);
  if (code !== 0) return error(code);
  const leafGpa = gfnToGpa(leafGfn(wide, level, lo, hi, addrLo, addrHi));
  const realLeaf = translateGpa(vcpu, mmu, leafGpa, accessLo, accessHi | PFERR_GUEST_FINAL_HI, walker.fault);
  if (realLeaf < 0) return WALK_FAULT;
  walker.gfn = gpaToGfn(realLeaf);
  const write = (accessLo & PFERR_WRITE) !== 0;
  // L1 may have left these bits out of its EPT.
  if (!mmu.guestAd) return WALK_DONE;
  const dirty = (lo & (ept ? EPT_DIRTY_MASK : PT_DIRTY_MASK)) !== 0;
  let done = (rightsLo & (ept ? EPT_ACCESSED_MASK : PT_ACCESSED_MASK)) !== 0;
  if (write) done = done && dirty;
  else if (!dirty) walker.pteAccess &= ~ACC_WRITE_MASK;
  if (!done) {
    const ret = updateAccessedDirtyBits(vcpu, mmu, walker, wide, write, addrLo, addrHi);
    if (ret < 0) return error(0);
    if (ret > 0) return WALK_AGAIN;
  }
  return WALK_DONE;
}

/**
 * The gpa of a guest linear address, or INVALID_GPA with `fault` filled. Without paging the address is the gpa.
 * @param accessLo W, U, FETCH @param accessHi IMPLICIT_ACCESS
 * @kvm x86.c kvm_mmu_gva_to_gpa_read and its likes, paging_tmpl.h gva_to_gpa, mmu.c nonpaging_gva_to_gpa
 */
export function gvaToGpa(
  vcpu: VcpuState,
  lo: number,
  hi: number,
  accessLo: number,
  accessHi: number,
  fault: X86Exception | null,
): number {
  const mmu = vcpu.mmu.walkMmu;
  if (!isCr0Pg(mmu)) {
    const to = fault ?? walkFault;
    to.errorCode = 0;
    return translateGpa(vcpu, mmu, numberOf(lo, hi), accessLo, accessHi | PFERR_GUEST_FINAL_HI, to);
  }
  const walker = vcpu.mmu.walker;
  if (walkAddr(walker, vcpu, mmu, lo, hi, accessLo, accessHi)) return gfnToGpa(walker.gfn) + (lo & 0xfff);
  if (fault !== null) copyException(fault, walker.fault);
  return INVALID_GPA;
}

/**
 * An L2 gpa (halves) through L1's nested tables, which the vCPU's current MMU shadows: an L1 gpa, or INVALID_GPA with `fault` filled.
 * @kvm x86.c translate_nested_gpa
 */
export function nestedGpaToGpa(
  vcpu: VcpuState,
  lo: number,
  hi: number,
  accessLo: number,
  accessHi: number,
  fault: X86Exception,
): number {
  const walker = vcpu.mmu.nestedWalker;
  if (walkAddr(walker, vcpu, vcpu.mmu.mmu, lo, hi, accessLo, accessHi)) return gfnToGpa(walker.gfn) + (lo & 0xfff);
  copyException(fault, walker.fault);
  return INVALID_GPA;
}

function copyException(to: X86Exception, from: X86Exception): void {
  to.vector = from.vector;
  to.errorCodeValid = from.errorCodeValid;
  to.errorCode = from.errorCode;
  to.addressLo = from.addressLo;
  to.addressHi = from.addressHi;
  to.nestedPageFault = from.nestedPageFault;
  to.asyncPageFault = from.asyncPageFault;
  to.exitQualification = from.exitQualification;
  to.fromHardware = from.fromHardware;
}
