/** guest_memfd's pages change hands, and faults that the reverse map caused (@kvm sev.c sev_gmem_prepare, sev_handle_rmp_fault). */
import { hex64 } from '../../../arch/flags.ts';
import { PG_LEVEL_2M, PG_LEVEL_4K } from '../../../arch/paging.ts';
import { EINVAL } from '../../../host/errno.ts';
import { memIsPrivate } from '../../attributes.ts';
import { GmemPfn } from '../../guest-memfd/gmem-pfn.ts';
import { gmemGetPfn } from '../../guest-memfd/guest-memfd.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import { gfnToMemslot, kvmSlotCanBePrivate } from '../../memslots/memslots.ts';
import { gpaHalvesToGfn } from '../../mmu/gpa.ts';
import { flushRemoteTlbs } from '../../mmu/tlb-flush.ts';
import {
  forGfnRanges,
  mmuInvalidateBegin,
  mmuInvalidateEnd,
  mmuInvalidateRangeAdd,
  mmuUnmapGfnRange,
} from '../../notifier.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_X86_SNP_VM } from '../../vm-type.ts';
import { rmpAssigned, rmpLevel, rmpMakePrivate, rmpMakeShared, rmpSmash } from './snp-host.ts';

const FRAMES_2M = 512;

function rangeShared(vm: VmState, start: number): boolean {
  for (let pfn = start; pfn < start + FRAMES_2M; pfn++) if (rmpAssigned(vm, pfn)) return false;
  return true;
}

/** @kvm sev.c sev_gmem_prepare: 0 or -EINVAL. */
export function sevGmemPrepare(vm: VmState, pfn: number, gfn: number, maxOrder: number): number {
  if (vm.type !== KVM_X86_SNP_VM || rmpAssigned(vm, pfn)) return 0;
  const inside = pfn % FRAMES_2M;
  const large = maxOrder >= 9 && rangeShared(vm, pfn - inside);
  const first = large ? pfn - inside : pfn;
  const r = rmpMakePrivate(vm, first, large ? gfn - (gfn % FRAMES_2M) : gfn, large, vm.sev!.asid, false);
  if (r === 0) return 0;
  const where = `GFN ${gfn.toString(16)} PFN ${pfn.toString(16)} level ${large ? 2 : 1}`;
  vm.log.prWarnRatelimited('sev_gmem_prepare', `SEV: Failed to update RMP entry: ${where} error ${r}`);
  return -EINVAL;
}

/** @kvm sev.c sev_gmem_invalidate */
export function sevGmemInvalidate(vm: VmState, start: number, end: number): void {
  if (vm.processor.snp!.rmp === null) return;
  for (let pfn = start; pfn < end; ) {
    let step = 1;
    if (rmpAssigned(vm, pfn)) {
      const large = rmpLevel(vm, pfn) === 2;
      const whole = large && pfn % FRAMES_2M === 0 && end >= pfn + FRAMES_2M;
      if (large && !whole) vm.log.warnOnOnce(rmpSmash(vm, pfn) !== 0, 'sev_gmem_invalidate', 'PSMASH failed');
      const r = rmpMakeShared(vm, pfn, whole);
      vm.log.warnOnOnce(r !== 0, 'sev_gmem_invalidate', `RMP entry of frame ${pfn.toString(16)} cannot be changed`);
      if (r === 0 && whole) step = FRAMES_2M;
    }
    pfn += step;
  }
}

/** @kvm sev.c sev_private_max_mapping_level */
export function sevPrivateMaxMappingLevel(vm: VmState, pfn: number): number {
  if (vm.type !== KVM_X86_SNP_VM) return 0;
  return rmpAssigned(vm, pfn) && rmpLevel(vm, pfn) === 2 ? PG_LEVEL_2M : PG_LEVEL_4K;
}

/** @kvm mmu.c kvm_zap_gfn_range */
function zapGfnRange(vm: VmState, start: number, end: number): void {
  vm.locks.acquire(LOCK_MMU_WRITE);
  mmuInvalidateBegin(vm);
  mmuInvalidateRangeAdd(vm, start, end);
  let flush = false;
  forGfnRanges(vm, start, end, (range) => {
    if (mmuUnmapGfnRange(vm, range)) flush = true;
  });
  if (flush) flushRemoteTlbs(vm);
  mmuInvalidateEnd(vm);
  vm.locks.release(LOCK_MMU_WRITE);
}

const found = new GmemPfn();

/** A nested fault with RMP in its code is over: where a large entry was in the way it is split. @kvm sev.c sev_handle_rmp_fault */
export function sevHandleRmpFault(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
): void {
  const { vm } = vcpu;
  const gfn = gpaHalvesToGfn(addrLo, addrHi);
  const warn = (what: string): void =>
    vm.log.prWarnRatelimited('sev_handle_rmp_fault', `SEV: Unexpected RMP fault${what} GPA ${hex64(addrLo, addrHi)}`);
  const slot = gfnToMemslot(vm, gfn);
  let unexpected = '';
  if (!memIsPrivate(vm, gfn)) unexpected = ' for non-private';
  else if (slot === null || !kvmSlotCanBePrivate(slot)) unexpected = ', non-private slot for';
  else if (gmemGetPfn(vm, slot, gfn, found) !== 0) unexpected = ', no backing page for private';
  else if (!rmpAssigned(vm, found.pfn)) unexpected = ', no assigned RMP entry found for';
  if (unexpected !== '') {
    warn(unexpected);
    return;
  }
  const { pfn } = found;
  const level = rmpLevel(vm, pfn);
  let r = 0;
  if (level !== PG_LEVEL_4K) {
    r = rmpSmash(vm, pfn);
    if (r !== 0) warn(': unable to split the RMP entry of');
    zapGfnRange(vm, gfn, gfn + FRAMES_2M);
  }
  if (!vm.trace.enabled) return;
  const code = hex64(errorLo, errorHi);
  vm.trace.emit('kvm_rmp_fault', {
    text: `vcpu ${vcpu.id} gpa ${hex64(addrLo, addrHi)} pfn 0x${pfn.toString(16)} error_code ${code} rmp_level ${level} psmash_ret ${r}`,
  });
}
