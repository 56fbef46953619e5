/** A write to a table that is shadowed: its shadow entries go, or the whole page when it seems no table any more (@kvm mmu.c kvm_mmu_track_write). */
import { CR4_PAE } from '../../../arch/registers.ts';
import { readGuestAtomic } from '../../guest-memory.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { gpaToGfn } from '../gpa.ts';
import { isObsoleteSp } from '../obsolete.ts';
import { ROLE_HAS_4_BYTE_GPTE, ROLE_QUADRANT_MASK, ROLE_QUADRANT_SHIFT, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isShadowPresent } from '../spte.ts';
import { spHasGptes, sptepOf, sptepToSp } from './translation.ts';
import { ShadowWalk } from './walk.ts';
import { mmuPageZapPte, prepareZapPage, remoteFlushOrZap } from './zap-page.ts';

/** Writes without a walk in between after which a page is taken for something else than a table. */
const FLOOD = 3;

const bytes8 = new Uint8Array(8);

/** Whether the entry that was written is anything but zero; a half of a PAE entry counts as the whole. @kvm mmu.c mmu_pte_write_fetch_gpte */
function writtenEntryIsSet(vcpu: VcpuState, gpa: number, bytes: number): boolean {
  if (bytes !== 4 && bytes !== 8) return false;
  if (readGuestAtomic(vcpu, gpa, bytes8, 0, bytes) < 0) return false;
  for (let i = 0; i < bytes; i++) if (bytes8[i] !== 0) return true;
  return false;
}

/** Tables of the lowest level do not count: they can become unsync. @kvm mmu.c detect_write_flooding */
function detectWriteFlooding(sp: ShadowPage): boolean {
  if (roleLevel(sp.role) === 1) return false;
  sp.writeFloodingCount++;
  return sp.writeFloodingCount >= FLOOD;
}

/** Not how one writes entries; but setting bits in the first byte of one is. @kvm mmu.c detect_write_misaligned */
function detectWriteMisaligned(sp: ShadowPage, gpa: number, bytes: number): boolean {
  const offset = gpa % 4096;
  const size = (sp.role & ROLE_HAS_4_BYTE_GPTE) !== 0 ? 4 : 8;
  if ((offset & (size - 1)) === 0 && bytes === 1) return false;
  return bytes < 4 || ((offset ^ (offset + bytes - 1)) & ~(size - 1)) !== 0;
}

/** Index of the first entry that shadows what is at `gpa`; -1 when the page shadows another part of the table. @kvm mmu.c get_written_sptes */
function writtenIndex(sp: ShadowPage, gpa: number): number {
  let offset = gpa % 4096;
  if ((sp.role & ROLE_HAS_4_BYTE_GPTE) === 0) return offset >> 3;
  offset <<= 1;
  // An entry that maps 4 MiB has two shadow entries of 2 MiB each.
  if (roleLevel(sp.role) === 2) offset = (offset & ~7) << 1;
  const quadrant = (sp.role & ROLE_QUADRANT_MASK) >> ROLE_QUADRANT_SHIFT;
  return offset >> 12 === quadrant ? (offset & 4095) >> 3 : -1;
}

/** How many entries shadow one of the guest's. @kvm mmu.c get_written_sptes */
function writtenCount(sp: ShadowPage): number {
  return (sp.role & ROLE_HAS_4_BYTE_GPTE) !== 0 && roleLevel(sp.role) === 2 ? 2 : 1;
}

/** The emulator wrote `bytes` at `gpa`. @kvm mmu.c kvm_mmu_track_write */
export function mmuTrackWrite(vcpu: VcpuState, gpa: number, bytes: number): void {
  const vm = vcpu.vm;
  if (vm.mmu.indirectShadowPages === 0) return;
  const gfn = gpaToGfn(gpa);
  const invalid: ShadowPage[] = [];
  let at = gpa;
  let count = bytes;
  let flush = false;
  vm.locks.acquire(LOCK_MMU_WRITE);
  if ((vcpu.cr4 & CR4_PAE) !== 0 && count === 4) {
    at -= at % 8;
    count = 8;
  }
  const isSet = writtenEntryIsSet(vcpu, at, count);
  vm.stats.mmu_pte_write++;
  for (let sp = vm.mmu.pageHash.bucket(gfn); sp !== null; sp = sp.hashNext) {
    if (sp.gfn !== gfn || !spHasGptes(sp) || isObsoleteSp(vm, sp)) continue;
    if (detectWriteMisaligned(sp, at, count) || detectWriteFlooding(sp)) {
      prepareZapPage(vm, sp, invalid);
      vm.stats.mmu_flooded++;
      continue;
    }
    const index = writtenIndex(sp, at);
    if (index < 0) continue;
    for (let i = index; i < index + writtenCount(sp); i++) {
      const sptep = sptepOf(sp, i);
      const wasPresent = isShadowPresent(vm.memory.i32[sptep]!);
      mmuPageZapPte(vm, sp, sptep, null);
      if (isSet && roleLevel(sp.role) !== 1) vm.stats.mmu_pde_zapped++;
      if (wasPresent) flush = true;
    }
  }
  remoteFlushOrZap(vm, invalid, flush);
  vm.locks.release(LOCK_MMU_WRITE);
}

/** The tables on the way to the address are used as tables. @kvm mmu.c shadow_page_table_clear_flood */
export function clearFlood(vcpu: VcpuState, addrLo: number, addrHi: number): void {
  const walk = new ShadowWalk(vcpu.vm);
  if (!walk.start(vcpu.mmu.mmu, addrLo, addrHi)) return;
  do sptepToSp(vcpu.vm, walk.sptep).writeFloodingCount = 0;
  while (walk.next());
}
