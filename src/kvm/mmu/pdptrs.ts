/** The four page-directory-pointer entries of a PAE guest, which the processor keeps in registers (@kvm regs.c load_pdptrs). */
import { PFERR_GUEST_PAGE_HI, PFERR_USER, PFERR_WRITE } from '../../arch/error-code.ts';
import { PAE_PDPTE_RSVD_LO, PT_PRESENT_MASK } from '../../arch/paging.ts';
import { X86Exception } from '../emulate/ops.ts';
import { readGuestPage } from '../guest-memory.ts';
import { vcpuMemslotsId } from '../memslots/memslots.ts';
import { makeRequest, REQ_LOAD_MMU_PGD, type VcpuState } from '../vcpu-state.ts';
import { MMU_ROOT_CURRENT, mmuFreeRoots } from './free-roots.ts';
import { gfnToGpa, gpaToGfn } from './gpa.ts';
import { translateGpa } from './translate-gpa.ts';

const buffer = new Uint8Array(32);
const words = new Int32Array(buffer.buffer);
const fault = new X86Exception();

/**
 * Reads them from the table that CR3 (halves) points to. False, and nothing changed, when one is invalid or the table is not there.
 * @kvm regs.c load_pdptrs
 */
export function loadPdptrs(vcpu: VcpuState, cr3Lo: number, cr3Hi: number): boolean {
  const mmu = vcpu.mmu.walkMmu;
  const gfn = (cr3Hi & 0xfffff) * 0x100000 + (cr3Lo >>> 12);
  const real = translateGpa(vcpu, mmu, gfnToGpa(gfn), PFERR_USER | PFERR_WRITE, PFERR_GUEST_PAGE_HI, fault);
  if (real < 0) return false;
  const realGfn = gpaToGfn(real);
  if (readGuestPage(vcpu.vm, vcpuMemslotsId(vcpu), realGfn, cr3Lo & 0xfe0, buffer, 0, 32) < 0) return false;
  const rsvdHi = vcpu.x86.reservedGpaBitsHi;
  for (let i = 0; i < 4; i++) {
    const lo = words[2 * i]!;
    if ((lo & PT_PRESENT_MASK) === 0) continue;
    if (((lo & PAE_PDPTE_RSVD_LO) | (words[2 * i + 1]! & rsvdHi)) !== 0) return false;
  }
  if (!vcpu.vm.vendor.tdpEnabled && words.some((word, i) => word !== mmu.pdptrs[i])) {
    mmuFreeRoots(vcpu.vm, mmu, MMU_ROOT_CURRENT);
  }
  mmu.pdptrs.set(words);
  makeRequest(vcpu, REQ_LOAD_MMU_PGD);
  return true;
}

/**
 * Brings the MMU's copy up to date. Under NPT the processor reads the entries from memory whenever it needs one, so KVM does too;
 * elsewhere what MOV to CR loaded stays (@kvm svm.c svm_cache_reg).
 */
export function refreshPdptrs(vcpu: VcpuState): void {
  const { vendor } = vcpu.vm;
  if (vendor.name === 'svm' && vendor.tdpEnabled) loadPdptrs(vcpu, vcpu.cr3Lo, vcpu.cr3Hi);
}
