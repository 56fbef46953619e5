/** Control registers and XCR0 as the guest and the emulator set them (@kvm regs.c, x86.c). Setters answer 0, or 1 for #GP. */
import {
  CR0_CD,
  CR0_ET,
  CR0_KNOWN,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PCIDE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LME,
} from '../../arch/registers.ts';
import { loadPdptrs } from '../mmu/pdptrs.ts';
import { initMmu, mmuResetContext } from '../mmu/roles.ts';
import { mmuInvalidatePcid, mmuNewPgd, mmuUnload } from '../mmu/roots.ts';
import {
  makeRequest,
  REQ_APF_READY,
  REQ_TLB_FLUSH_CURRENT,
  REQ_TLB_FLUSH_GUEST,
  type VcpuState,
} from '../vcpu-state.ts';
import { asyncPfEnabled } from './async-pf.ts';
import { loadXcr0 } from './guest-context.ts';
import { lapicGetCr8, lapicSetTpr } from './lapic.ts';
import { is64BitMode, isLongMode, isPae, isPaePaging, isPaging } from './registers.ts';

const CR0_PDPTR_BITS = CR0_CD | CR0_NW | CR0_PG;
const CR4_PDPTR_BITS = CR4_PGE | CR4_PSE | CR4_PAE | CR4_SMEP;
/** Bits that change what kind of page tables the MMU builds (@kvm mmu.h KVM_MMU_CR0_ROLE_BITS, KVM_MMU_CR4_ROLE_BITS). */
const MMU_CR0_ROLE_BITS = CR0_PG | CR0_WP;
const MMU_CR4_ROLE_BITS = CR4_PSE | CR4_PAE | CR4_LA57 | CR4_SMEP | CR4_SMAP | CR4_PKE;
const CR3_NOFLUSH_HI = 1 << 31;
const CR3_PCID_MASK = 0xfff;

/** @kvm regs.c kvm_is_valid_cr0 */
export function isValidCr0(lo: number, hi: number): boolean {
  if (hi !== 0) return false;
  if ((lo & CR0_NW) !== 0 && (lo & CR0_CD) === 0) return false;
  return (lo & CR0_PG) === 0 || (lo & CR0_PE) !== 0;
}

/** @kvm x86.c __kvm_is_valid_cr4 */
export function isValidCr4(vcpu: VcpuState, lo: number, hi: number): boolean {
  return hi === 0 && (lo & vcpu.x86.cr4GuestRsvdBits) === 0;
}

/** @kvm cpuid.h kvm_vcpu_is_legal_cr3 */
export function isLegalCr3(vcpu: VcpuState, hi: number): boolean {
  return (hi & vcpu.x86.reservedGpaBitsHi) === 0;
}

/** @kvm regs.c kvm_post_set_cr0 */
function postSetCr0(vcpu: VcpuState, old: number, cr0: number): void {
  const changed = old ^ cr0;
  if (changed === CR0_WP) {
    if ((cr0 & CR0_PG) === 0) return;
    if (vcpu.vm.vendor.tdpEnabled) {
      initMmu(vcpu);
      return;
    }
  }
  if ((changed & CR0_PG) !== 0) {
    if ((cr0 & CR0_PG) === 0) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
    else if (asyncPfEnabled(vcpu)) makeRequest(vcpu, REQ_APF_READY);
  }
  if ((changed & MMU_CR0_ROLE_BITS) !== 0) mmuResetContext(vcpu);
}

/** @kvm regs.c kvm_set_cr0 */
export function setCr0(vcpu: VcpuState, lo: number, hi: number): number {
  const old = vcpu.cr0;
  if (!isValidCr0(lo, hi)) return 1;
  const cr0 = (lo | CR0_ET) & CR0_KNOWN;
  if ((vcpu.efer & EFER_LME) !== 0 && !isPaging(vcpu) && (cr0 & CR0_PG) !== 0) {
    if (!isPae(vcpu) || vcpu.vm.vendor.csL(vcpu)) return 1;
  }
  if (
    (vcpu.efer & EFER_LME) === 0 &&
    (cr0 & CR0_PG) !== 0 &&
    isPae(vcpu) &&
    ((cr0 ^ old) & CR0_PDPTR_BITS) !== 0 &&
    !loadPdptrs(vcpu, vcpu.cr3Lo, vcpu.cr3Hi)
  ) {
    return 1;
  }
  if (vcpu.vm.vendor.isValidCr0?.(vcpu, cr0) === false) return 1;
  if ((cr0 & CR0_PG) === 0 && (is64BitMode(vcpu) || (vcpu.cr4 & CR4_PCIDE) !== 0)) return 1;
  vcpu.vm.vendor.setCr0(vcpu, cr0);
  postSetCr0(vcpu, old, cr0);
  return 0;
}

/** @kvm regs.c kvm_set_cr3 */
export function setCr3(vcpu: VcpuState, lo: number, hi: number): number {
  let skipFlush = false;
  let high = hi;
  let pcid = 0;
  if ((vcpu.cr4 & CR4_PCIDE) !== 0) {
    skipFlush = (hi & CR3_NOFLUSH_HI) !== 0;
    high = hi & ~CR3_NOFLUSH_HI;
    pcid = lo & CR3_PCID_MASK;
  }
  if (lo !== vcpu.cr3Lo || high !== vcpu.cr3Hi || isPaePaging(vcpu)) {
    if (!isLegalCr3(vcpu, high)) return 1;
    if (isPaePaging(vcpu) && !loadPdptrs(vcpu, lo, high)) return 1;
    if (lo !== vcpu.cr3Lo || high !== vcpu.cr3Hi) mmuNewPgd(vcpu, lo, high);
    vcpu.cr3Lo = lo;
    vcpu.cr3Hi = high;
  }
  if (!skipFlush) invalidatePcid(vcpu, pcid);
  return 0;
}

/** @kvm x86.c kvm_invalidate_pcid */
function invalidatePcid(vcpu: VcpuState, pcid: number): void {
  if (vcpu.vm.vendor.tdpEnabled) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  else mmuInvalidatePcid(vcpu, pcid);
}

/** @kvm regs.c kvm_post_set_cr4 */
function postSetCr4(vcpu: VcpuState, old: number, cr4: number): void {
  const changed = old ^ cr4;
  if ((changed & MMU_CR4_ROLE_BITS) !== 0) mmuResetContext(vcpu);
  const pcideOn = (cr4 & CR4_PCIDE) !== 0 && (old & CR4_PCIDE) === 0;
  const pcideOff = (cr4 & CR4_PCIDE) === 0 && (old & CR4_PCIDE) !== 0;
  if (!vcpu.vm.vendor.tdpEnabled && pcideOn) mmuUnload(vcpu);
  if ((changed & CR4_PGE) !== 0 || pcideOff) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  else if ((changed & CR4_PAE) !== 0 || ((cr4 & CR4_SMEP) !== 0 && (old & CR4_SMEP) === 0)) {
    makeRequest(vcpu, REQ_TLB_FLUSH_CURRENT);
  }
}

/** @kvm regs.c kvm_set_cr4 */
export function setCr4(vcpu: VcpuState, lo: number, hi: number): number {
  const old = vcpu.cr4;
  if (!isValidCr4(vcpu, lo, hi) || vcpu.vm.vendor.isValidCr4?.(vcpu, lo) === false) return 1;
  if (isLongMode(vcpu)) {
    if ((lo & CR4_PAE) === 0 || ((lo ^ old) & CR4_LA57) !== 0) return 1;
  } else if (
    isPaging(vcpu) &&
    (lo & CR4_PAE) !== 0 &&
    ((lo ^ old) & CR4_PDPTR_BITS) !== 0 &&
    !loadPdptrs(vcpu, vcpu.cr3Lo, vcpu.cr3Hi)
  ) {
    return 1;
  }
  if ((lo & CR4_PCIDE) !== 0 && (old & CR4_PCIDE) === 0) {
    if ((vcpu.cr3Lo & CR3_PCID_MASK) !== 0 || !isLongMode(vcpu)) return 1;
  }
  vcpu.vm.vendor.setCr4(vcpu, lo);
  postSetCr4(vcpu, old, lo);
  return 0;
}

/** @kvm regs.c kvm_get_cr8. HOT */
export function getCr8(vcpu: VcpuState): number {
  return vcpu.x86.lapic !== null ? lapicGetCr8(vcpu.x86.lapic) : vcpu.cr8;
}

/** @kvm regs.c kvm_set_cr8 */
export function setCr8(vcpu: VcpuState, value: number): number {
  if ((value & ~0xf) !== 0) return 1;
  if (vcpu.x86.lapic !== null) lapicSetTpr(vcpu.x86.lapic, value);
  else vcpu.cr8 = value;
  return 0;
}

const XFEATURE_FP = 1;
const XFEATURE_SSE = 2;
const XFEATURE_YMM = 4;

/** @kvm x86.c __kvm_set_xcr */
export function setXcr(vcpu: VcpuState, index: number, lo: number, hi: number): number {
  if (index !== 0 || hi !== 0 || (lo & XFEATURE_FP) === 0) return 1;
  if ((lo & XFEATURE_YMM) !== 0 && (lo & XFEATURE_SSE) === 0) return 1;
  if ((lo & ~(vcpu.x86.guestSupportedXcr0 | XFEATURE_FP)) !== 0) return 1;
  vcpu.xcr0 = lo;
  vcpu.x86.xcr0Dirty = true;
  loadXcr0(vcpu);
  return 0;
}
