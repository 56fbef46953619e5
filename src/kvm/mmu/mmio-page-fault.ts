/** Reserved-bit faults: the hardware met an MMIO entry (@kvm mmu.c handle_mmio_page_fault). */
import { numberOf } from '../../arch/halves.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { vcpuCacheMmioInfo, vcpuMatchMmioGpa, vcpuMatchMmioGva } from './mmio-cache.ts';
import { checkMmioSpte } from './mmio-spte.ts';
import { mmuIsNested } from './mmu-is-nested.ts';
import { traceHandleMmioPageFault } from './mmutrace.ts';
import { RET_PF_EMULATE, RET_PF_INVALID, RET_PF_RETRY } from './ret-pf.ts';
import { isMmioSpte, mmioSpteAccess, mmioSpteGfn } from './spte.ts';
import { lastSpteOf } from './walk-to-last-spte.ts';

/** The vCPU's cache knows the address as MMIO (@kvm mmu.c mmio_info_in_cache). */
export function mmioInfoInCache(vcpu: VcpuState, addrLo: number, addrHi: number, direct: boolean): boolean {
  if (mmuIsNested(vcpu)) return false;
  return direct ? vcpuMatchMmioGpa(vcpu, numberOf(addrLo, addrHi)) : vcpuMatchMmioGva(vcpu, addrLo, addrHi);
}

/**
 * RET_PF_EMULATE for MMIO; RET_PF_INVALID when the entry is older than the slots; RET_PF_RETRY when the entry is not an MMIO one any more.
 * @kvm mmu.c handle_mmio_page_fault
 */
export function handleMmioPageFault(vcpu: VcpuState, addrLo: number, addrHi: number, direct: boolean): number {
  if (mmioInfoInCache(vcpu, addrLo, addrHi, direct)) return RET_PF_EMULATE;
  const vm = vcpu.vm;
  const m = vm.mmu.masks;
  const { oldLo: lo, oldHi: hi } = lastSpteOf(vcpu, addrLo, addrHi);
  if (!vm.mmu.enableMmioCaching || !isMmioSpte(m, lo, hi)) return RET_PF_RETRY;
  if (!checkMmioSpte(vcpu, lo, hi)) return RET_PF_INVALID;
  const gfn = mmioSpteGfn(m, lo, hi);
  const access = mmioSpteAccess(m, lo);
  const gvaLo = direct ? 0 : addrLo;
  const gvaHi = direct ? 0 : addrHi;
  if (vm.trace.enabled) traceHandleMmioPageFault(vm, gvaLo, gvaHi, gfn, access);
  vcpuCacheMmioInfo(vcpu, gvaLo, gvaHi, gfn, access);
  return RET_PF_EMULATE;
}
