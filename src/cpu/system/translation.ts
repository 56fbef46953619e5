/**
 * From linear to host physical addresses: a look into the TLB, else a walk, and what becomes of a walk that failed. Also the alignment
 * that an access may have to have.
 */
import { AC_VECTOR, PF_VECTOR, VC_VECTOR } from '../../arch/exceptions.ts';
import { SVM_EXIT_NPF, SVM_EXIT_PAGE_NOT_VALIDATED } from '../../arch/vmcb.ts';
import { TAG_CODE, TAG_READ, TAG_WRITE } from '../mmu/tlb.ts';
import { WALK_NESTED_FAULT, WALK_NOT_VALIDATED, WALK_OK } from '../mmu/walk-result.ts';
import { ACCESS_FETCH, ACCESS_READ, CR2_AT, FAULT_ADDRESS, MMU_ALIGNED_USER, REFUSED_PAGE_AT } from '../state.ts';
import type { Core } from './core.ts';

/**
 * Host physical address of the byte at linear address `va`, for `access` in MMU context `index`; -1 with `status` set and FAULT_* or
 * EXIT_* filled. Fills the TLB. HOT
 */
export function translate(core: Core, vaLo: number, vaHi: number, access: number, index: number): number {
  if (index === MMU_ALIGNED_USER && access !== ACCESS_FETCH) return translate(core, vaLo, vaHi, access, 1);
  const tlb = core.tlb;
  const tag = access === ACCESS_READ ? TAG_READ : access === ACCESS_FETCH ? TAG_CODE : TAG_WRITE;
  const hit = tlb.lookup(index, vaLo, vaHi, tag);
  if (hit !== -1) return hit;
  if (!core.canonical(vaHi)) {
    core.status = core.gp(0);
    return -1;
  }
  const walker = core.walker;
  const result = walker.walk(vaLo, vaHi, access, index === MMU_ALIGNED_USER ? 1 : index);
  if (result !== WALK_OK) {
    walkFailed(core, result, vaLo, vaHi);
    return -1;
  }
  core.i32[REFUSED_PAGE_AT >> 2] = 0;
  const pfn = walker.pfn;
  if (walker.rmp?.foreign === true) return core.snp!.readForeign(pfn, vaLo & 0xfff);
  if (core.reaching && (pfn === core.apic.accessPfn || (access !== ACCESS_READ && core.memory.watch[pfn] !== 0)))
    return -2;
  if (pfn === core.apic.accessPfn) return core.apic.access(core, vaLo & 0xfff, access);
  let tags = walker.readable ? TAG_READ : 0;
  if (access === ACCESS_FETCH) {
    tags |= TAG_CODE;
  } else if (access === ACCESS_READ) {
    if (walker.writable && !tlb.mayHaveCode(pfn)) tags |= TAG_WRITE;
  } else if (core.memory.watch[pfn] !== 0) {
    core.code.invalidateCode(pfn);
  } else if (walker.writable) {
    tags |= TAG_WRITE;
  }
  if (core.breakpoints.watching && core.breakpoints.inPage(vaLo, vaHi)) tags &= TAG_CODE;
  if (index === MMU_ALIGNED_USER) tags = TAG_CODE;
  tlb.insert(index, vaLo, vaHi, pfn, tags, walker.flags);
  return pfn * 4096 + (vaLo & 0xfff);
}

/**
 * Whether `size` bytes at `va` lie as alignment checks want them; if not, #AC is in `status`. After the translation, whose faults come
 * first (@sdm 6.9, 6.15 interrupt 17; @apm 8.2.17).
 */
export function aligned(core: Core, vaLo: number, size: number): boolean {
  // 10 bytes are an x87 number, which is aligned as 8.
  const to = size === 10 ? 8 : size;
  if ((vaLo & (to - 1)) === 0 || (to & (to - 1)) !== 0) return true;
  core.status = core.raiseError(AC_VECTOR, 0);
  return false;
}

/** Turns a walk's failure into FAULT_* or EXIT_*. HOT */
export function walkFailed(core: Core, result: number, vaLo: number, vaHi: number): void {
  const walker = core.walker;
  if (result === WALK_NOT_VALIDATED) {
    core.i32[CR2_AT >> 2] = vaLo;
    core.i32[(CR2_AT >> 2) + 1] = vaHi;
    core.status = core.raiseError(VC_VECTOR, SVM_EXIT_PAGE_NOT_VALIDATED);
    return;
  }
  if (result === WALK_NESTED_FAULT) {
    core.i32[REFUSED_PAGE_AT >> 2] = (vaLo & ~0xfff) | 1;
    const gfn = walker.gfn;
    core.linearLo = vaLo;
    core.linearHi = vaHi;
    core.status = core.exit(
      SVM_EXIT_NPF,
      walker.error,
      walker.errorHi,
      (gfn << 12) | walker.gpaOffset,
      gfn < 0x100000 ? 0 : Math.floor(gfn / 0x100000),
    );
    return;
  }
  const i32 = core.i32;
  i32[FAULT_ADDRESS >> 2] = vaLo;
  i32[(FAULT_ADDRESS >> 2) + 1] = vaHi;
  core.status = core.raiseError(PF_VECTOR, walker.error);
}
