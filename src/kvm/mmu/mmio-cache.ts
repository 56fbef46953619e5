/** A vCPU's one-entry cache of the last MMIO page it met (@kvm x86.h vcpu_cache_mmio_info, vcpu_match_mmio_gva, vcpu_match_mmio_gpa). */
import { vcpuMemslotsId } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { gpaToGfn } from './gpa.ts';
import { mmuIsNested } from './mmu-is-nested.ts';

/** Either half of the gva that stands for every gva (@kvm x86.h MMIO_GVA_ANY). */
export const MMIO_GVA_ANY = -1;

const PAGE_MASK = ~0xfff;

/**
 * Remembers that `gfn` is MMIO; the gva (0 for none) in halves. Nothing is remembered while slots are being changed.
 * @kvm x86.h vcpu_cache_mmio_info
 */
export function vcpuCacheMmioInfo(vcpu: VcpuState, gvaLo: number, gvaHi: number, gfn: number, access: number): void {
  const slots = vcpu.vm.slots;
  const asId = vcpuMemslotsId(vcpu);
  if (slots.updateInProgress(asId)) return;
  const mmu = vcpu.mmu;
  const nested = mmuIsNested(vcpu);
  mmu.mmioGvaLo = nested ? 0 : gvaLo & PAGE_MASK;
  mmu.mmioGvaHi = nested ? 0 : gvaHi;
  mmu.mmioAccess = access;
  mmu.mmioGfn = gfn;
  mmu.mmioGen = slots.generation(asId);
}

/** @kvm x86.h vcpu_match_mmio_gen. HOT */
function matchGeneration(vcpu: VcpuState): boolean {
  const slots = vcpu.vm.slots;
  const asId = vcpuMemslotsId(vcpu);
  return vcpu.mmu.mmioGen === slots.generation(asId) && !slots.updateInProgress(asId);
}

/** @kvm x86.h vcpu_match_mmio_gva. HOT */
export function vcpuMatchMmioGva(vcpu: VcpuState, lo: number, hi: number): boolean {
  const mmu = vcpu.mmu;
  return (
    (mmu.mmioGvaLo | mmu.mmioGvaHi) !== 0 &&
    mmu.mmioGvaLo === (lo & PAGE_MASK) &&
    mmu.mmioGvaHi === hi &&
    matchGeneration(vcpu)
  );
}

/** @kvm x86.h vcpu_match_mmio_gpa. HOT */
export function vcpuMatchMmioGpa(vcpu: VcpuState, gpa: number): boolean {
  const gfn = vcpu.mmu.mmioGfn;
  return gfn !== 0 && gfn === gpaToGfn(gpa) && matchGeneration(vcpu);
}

/** Forgets the gva when it is (lo, hi)'s page; halves -1, -1 mean any. The gfn stays (@kvm x86.h vcpu_clear_mmio_info). */
export function vcpuClearMmioInfo(vcpu: VcpuState, lo: number, hi: number): void {
  const mmu = vcpu.mmu;
  const any = (lo & hi) === MMIO_GVA_ANY;
  if (!any && (mmu.mmioGvaLo !== (lo & PAGE_MASK) || mmu.mmioGvaHi !== hi)) return;
  mmu.mmioGvaLo = 0;
  mmu.mmioGvaHi = 0;
}
