/** The kvmmmu trace events (@kvm mmutrace.h). Every caller tests `vm.trace.enabled` first: building the fields costs. */
import { PFERR_FETCH, PFERR_FLAGS, PFERR_PRESENT, PFERR_RSVD, PFERR_USER, PFERR_WRITE } from '../../arch/error-code.ts';
import { flag, formatFlags, hex64 } from '../../arch/flags.ts';
import { hex } from '../../arch/halves.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import type { PageFault } from './fault.ts';
import { RET_PF_FIXED, RET_PF_SPURIOUS } from './ret-pf.ts';
import { shadowPageText } from './role.ts';
import type { ShadowPage } from './shadow-page.ts';
import { isExecutable, isWritable, mmioSpteGeneration } from './spte.ts';

/** The bits that these events name; the kernel writes F for a fetch and shows the others as a number. */
const TRACED_BITS = PFERR_PRESENT | PFERR_WRITE | PFERR_USER | PFERR_RSVD | PFERR_FETCH;
const TRACED_FLAGS = PFERR_FLAGS.filter((f) => (f.lo & TRACED_BITS) !== 0).map((f) =>
  f.lo === PFERR_FETCH ? flag('F', f.bit, f.meaning) : f,
);

function pferrText(lo: number, hi: number): string {
  return formatFlags(TRACED_FLAGS, lo, hi, '');
}

function pageText(sp: ShadowPage): string {
  const tdp = sp.tdpMmuPage;
  return shadowPageText(sp.role, sp.gfn, tdp ? 0 : sp.mmuValidGen, tdp ? sp.tdpMmuRootCount : sp.rootCount, sp.unsync);
}

/** @kvm mmutrace.h kvm_mmu_get_page */
export function traceGetPage(vm: VmState, sp: ShadowPage, created: boolean): void {
  vm.trace.emit('kvm_mmu_get_page', { text: `${pageText(sp)} ${created ? 'new' : 'existing'}` });
}

/** @kvm mmutrace.h kvm_mmu_prepare_zap_page */
export function tracePrepareZapPage(vm: VmState, sp: ShadowPage): void {
  vm.trace.emit('kvm_mmu_prepare_zap_page', { text: pageText(sp) });
}

/** @kvm mmutrace.h kvm_mmu_sync_page */
export function traceSyncPage(vm: VmState, sp: ShadowPage): void {
  vm.trace.emit('kvm_mmu_sync_page', { text: pageText(sp) });
}

/** @kvm mmutrace.h kvm_mmu_unsync_page */
export function traceUnsyncPage(vm: VmState, sp: ShadowPage): void {
  vm.trace.emit('kvm_mmu_unsync_page', { text: pageText(sp) });
}

/** @kvm mmutrace.h kvm_mmu_zap_all_fast */
export function traceZapAllFast(vm: VmState): void {
  vm.trace.emit('kvm_mmu_zap_all_fast', {
    text: `kvm-mmu-valid-gen ${vm.mmu.mmuValidGen} used_pages ${vm.mmu.nUsedMmuPages.toString(16)}`,
  });
}

/** @kvm mmutrace.h kvm_tdp_mmu_spte_changed */
export function traceSpteChanged(
  vm: VmState,
  asId: number,
  gfn: number,
  level: number,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
): void {
  const fields = { as_id: asId, gfn: hex(gfn), level, old: hex64(oldLo, oldHi), new: hex64(newLo, newHi) };
  vm.trace.emit('kvm_tdp_mmu_spte_changed', fields);
}

/** @kvm mmutrace.h kvm_mmu_set_spte */
export function traceSetSpte(vm: VmState, level: number, gfn: number, lo: number, hi: number): void {
  const m = vm.mmu.masks;
  const readable = (m.presentLo | m.presentHi) !== 0 || (lo & 1) !== 0;
  const user = m.user === 0 ? '' : (lo & m.user) !== 0 ? 'u' : '-';
  const perm = `${readable ? 'r' : '-'}${isWritable(lo) ? 'w' : '-'}${isExecutable(m, lo, hi) ? 'x' : '-'}${user}`;
  vm.trace.emit('kvm_mmu_set_spte', { gfn: hex(gfn), spte: hex64(lo, hi), perm, level });
}

/** @kvm mmutrace.h mark_mmio_spte */
export function traceMarkMmioSpte(vm: VmState, gfn: number, lo: number, hi: number): void {
  const fields = { gfn: hex(gfn), access: hex(lo & 7), gen: hex(mmioSpteGeneration(lo, hi)) };
  vm.trace.emit('mark_mmio_spte', fields);
}

/** @kvm mmutrace.h check_mmio_spte */
export function traceCheckMmioSpte(vm: VmState, lo: number, hi: number, kvmGen: number, spteGen: number): void {
  const fields = {
    spte: hex64(lo, hi),
    kvm_gen: hex(kvmGen),
    spte_gen: hex(spteGen),
    valid: kvmGen === spteGen ? 1 : 0,
  };
  vm.trace.emit('check_mmio_spte', fields);
}

/** @kvm mmutrace.h handle_mmio_page_fault */
export function traceHandleMmioPageFault(
  vm: VmState,
  addrLo: number,
  addrHi: number,
  gfn: number,
  access: number,
): void {
  vm.trace.emit('handle_mmio_page_fault', { addr: hex64(addrLo, addrHi), gfn: hex(gfn), access: hex(access) });
}

/** @kvm mmutrace.h fast_page_fault */
export function traceFastPageFault(
  vcpu: VcpuState,
  fault: PageFault,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
  ret: number,
): void {
  vcpu.vm.trace.emit('fast_page_fault', {
    vcpu: vcpu.id,
    gva: hex64(fault.addrLo, fault.addrHi),
    error_code: pferrText(fault.errorLo, fault.errorHi),
    old: hex64(oldLo, oldHi),
    new: hex64(newLo, newHi),
    spurious: ret === RET_PF_SPURIOUS ? 1 : 0,
    fixed: ret === RET_PF_FIXED ? 1 : 0,
  });
}

/** @kvm mmutrace.h kvm_mmu_spte_requested */
export function traceSpteRequested(vm: VmState, fault: PageFault): void {
  vm.trace.emit('kvm_mmu_spte_requested', { gfn: hex(fault.gfn), level: fault.goalLevel });
}

/** @kvm mmutrace.h kvm_mmu_split_huge_page */
export function traceSplitHugePage(
  vm: VmState,
  gfn: number,
  lo: number,
  hi: number,
  level: number,
  errno: number,
): void {
  vm.trace.emit('kvm_mmu_split_huge_page', { gfn: hex(gfn), spte: hex64(lo, hi), level, errno });
}

/** @kvm mmutrace.h kvm_mmu_pagetable_walk */
export function tracePagetableWalk(vm: VmState, addrLo: number, addrHi: number, pferr: number): void {
  const addr = hex64(addrLo, addrHi).slice(2);
  const text = `addr ${addr} pferr ${(pferr >>> 0).toString(16)} ${pferrText(pferr, 0)}`;
  vm.trace.emit('kvm_mmu_pagetable_walk', { text });
}

/** @kvm mmutrace.h kvm_mmu_paging_element */
export function tracePagingElement(vm: VmState, lo: number, hi: number, level: number): void {
  vm.trace.emit('kvm_mmu_paging_element', { text: `pte ${hex64(lo, hi).slice(2)} level ${level}` });
}

/** @kvm mmutrace.h kvm_mmu_set_accessed_bit */
export function traceSetAccessedBit(vm: VmState, gpa: number): void {
  vm.trace.emit('kvm_mmu_set_accessed_bit', { text: `gpa ${gpa.toString(16)}` });
}

/** @kvm mmutrace.h kvm_mmu_set_dirty_bit */
export function traceSetDirtyBit(vm: VmState, gpa: number): void {
  vm.trace.emit('kvm_mmu_set_dirty_bit', { text: `gpa ${gpa.toString(16)}` });
}

/** @kvm mmutrace.h kvm_mmu_walker_error */
export function traceWalkerError(vm: VmState, pferr: number): void {
  vm.trace.emit('kvm_mmu_walker_error', { text: `pferr ${(pferr >>> 0).toString(16)} ${pferrText(pferr, 0)}` });
}
