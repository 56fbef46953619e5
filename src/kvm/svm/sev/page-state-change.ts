/** Page-state changes that the guest asks for: userspace sets the attributes (@kvm sev.c snp_begin_psc, snp_begin_psc_msr). */
import {
  GHCB_MSR_PSC_RESP,
  PSC_ERROR_GENERIC_HI,
  PSC_ERROR_INVALID_ENTRY,
  PSC_ERROR_INVALID_HEADER,
  PSC_ERROR_INVALID_HI,
  PSC_MAX_ENTRIES,
  PSC_PRIVATE,
  PSC_SHARED,
} from '../../../arch/ghcb.ts';
import { hiOf, loOf } from '../../../arch/halves.ts';
import { VMCB_GHCB } from '../../../arch/vmcb.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../../kvm-para.ts';
import { KVM_EXIT_HYPERCALL } from '../../kvm-run.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { vmcbWrite64 } from '../vmcb-access.ts';
import { setExitInfo2 } from './ghcb.ts';

const MAP_GPA_PAGE_2M = 1;
const MAP_GPA_ENCRYPTED = 1 << 4;
const HEADER_BYTES = 8;
const ENTRY_BYTES = 8;

function mayExit(vcpu: VcpuState): boolean {
  return (vcpu.vm.x86.hypercallExitEnabled & (1 << KVM_HC_MAP_GPA_RANGE)) !== 0;
}

/** The exit to userspace for `pages` pages from `gfn` on. */
function exitForRange(vcpu: VcpuState, gfn: number, pages: number, toPrivate: boolean, large: boolean): void {
  const { run } = vcpu;
  run.exitReason = KVM_EXIT_HYPERCALL;
  run.hypercall.nr = KVM_HC_MAP_GPA_RANGE;
  run.hypercall.setArg(0, loOf(gfn * 4096), hiOf(gfn * 4096));
  run.hypercall.setArg(1, pages, 0);
  run.hypercall.setArg(2, (toPrivate ? MAP_GPA_ENCRYPTED : 0) | (large ? MAP_GPA_PAGE_2M : 0), 0);
  run.hypercall.flags = 0;
  run.hypercall.setRet(0, 0);
}

function refused(vcpu: VcpuState): boolean {
  return (vcpu.run.hypercall.retLo | vcpu.run.hypercall.retHi) !== 0;
}

/** One page by the MSR protocol: 1 to go on, 0 to userspace. @kvm sev.c snp_begin_psc_msr */
export function beginPscMsr(vcpu: VcpuState, lo: number, hi: number): number {
  const operation = (hi >>> 20) & 15;
  const gfn = (hi & 0xfffff) * 0x100000 + (lo >>> 12);
  if ((operation !== PSC_PRIVATE && operation !== PSC_SHARED) || !mayExit(vcpu)) {
    vmcbWrite64(vcpu.svm, VMCB_GHCB, GHCB_MSR_PSC_RESP, 1 << 31);
    return 1;
  }
  exitForRange(vcpu, gfn, 1, operation === PSC_PRIVATE, false);
  vcpu.x86.completeUserspaceIo = completePscMsr;
  return 0;
}

/** @kvm sev.c snp_complete_psc_msr */
function completePscMsr(vcpu: VcpuState): number {
  vmcbWrite64(vcpu.svm, VMCB_GHCB, GHCB_MSR_PSC_RESP, refused(vcpu) ? 1 << 31 : 0);
  return 1;
}

/** @kvm sev.c snp_complete_psc */
function complete(vcpu: VcpuState, errorLo: number, errorHi: number): number {
  vcpu.svm.sev!.psc.count = 0;
  setExitInfo2(vcpu, errorLo, errorHi);
  return 1;
}

/** First word of entry `index`: bits 11:0 the pages done, then the frame; the second word ends in operation (55:52) and size (56). */
function entryWord(vcpu: VcpuState, index: number): number {
  return (vcpu.svm.sev!.scratchAt + HEADER_BYTES + ENTRY_BYTES * index) >>> 2;
}

/** @kvm sev.c __snp_complete_one_psc */
function completeBatch(vcpu: VcpuState): void {
  const { psc, scratchAt } = vcpu.svm.sev!;
  const { i32, u8 } = vcpu.vm.memory;
  let { index } = psc;
  for (; psc.count > 0; psc.count--, index++) {
    const word = entryWord(vcpu, index);
    const large = (i32[word + 1]! & (1 << 24)) !== 0;
    i32[word] = (i32[word]! & ~0xfff) | (large ? 512 : 1);
  }
  u8[scratchAt] = index;
  u8[scratchAt + 1] = index >> 8;
}

/** @kvm sev.c snp_complete_one_psc */
function completeOne(vcpu: VcpuState): number {
  if (refused(vcpu)) return complete(vcpu, 0, PSC_ERROR_GENERIC_HI);
  completeBatch(vcpu);
  return beginPsc(vcpu);
}

/** The list in the scratch area, as far as neighbours can be done together: 1 to go on, 0 to userspace. @kvm sev.c snp_begin_psc */
export function beginPsc(vcpu: VcpuState): number {
  const { psc, scratchAt, scratchBytes } = vcpu.svm.sev!;
  const { i32, u8 } = vcpu.vm.memory;
  if (!mayExit(vcpu)) return complete(vcpu, 0, PSC_ERROR_GENERIC_HI);
  const most = Math.floor((scratchBytes - HEADER_BYTES) / ENTRY_BYTES);
  if (most > PSC_MAX_ENTRIES) return complete(vcpu, 0, PSC_ERROR_GENERIC_HI);
  for (;;) {
    const last = u8[scratchAt + 2]! | (u8[scratchAt + 3]! << 8);
    let index = u8[scratchAt]! | (u8[scratchAt + 1]! << 8);
    if (last >= most) return complete(vcpu, PSC_ERROR_INVALID_HEADER, PSC_ERROR_INVALID_HI);
    let gfn = 0;
    let pages = 0;
    let large = false;
    let operation = 0;
    let wasLarge = false;
    for (; index <= last; index++) {
      const lo = i32[entryWord(vcpu, index)]!;
      const hi = i32[entryWord(vcpu, index) + 1]!;
      const done = lo & 0xfff;
      gfn = (hi & 0xfffff) * 0x100000 + (lo >>> 12);
      operation = (hi >>> 20) & 15;
      large = (hi & (1 << 24)) !== 0;
      wasLarge = large;
      pages = large ? 512 : 1;
      if (done > pages || gfn % pages !== 0) return complete(vcpu, PSC_ERROR_INVALID_ENTRY, PSC_ERROR_INVALID_HI);
      if (done > 0) {
        pages -= done;
        gfn += done;
        large = false;
      }
      if (pages > 0) break;
      u8[scratchAt] = index + 1;
      u8[scratchAt + 1] = (index + 1) >> 8;
    }
    if (index > last) return complete(vcpu, 0, 0);
    psc.index = index;
    psc.large = large;
    psc.count = 1;
    for (index++; index <= last; index++) {
      const lo = i32[entryWord(vcpu, index)]!;
      const hi = i32[entryWord(vcpu, index) + 1]!;
      const next = (hi & 0xfffff) * 0x100000 + (lo >>> 12);
      if (((hi >>> 20) & 15) !== operation || next !== gfn + pages || (lo & 0xfff) !== 0) break;
      if (((hi & (1 << 24)) !== 0) !== large) break;
      psc.count++;
      pages += large ? 512 : 1;
    }
    if (operation === PSC_PRIVATE || operation === PSC_SHARED) {
      exitForRange(vcpu, gfn, pages, operation === PSC_PRIVATE, wasLarge);
      vcpu.x86.completeUserspaceIo = completeOne;
      return 0;
    }
    // Hints to split or to join are taken and do nothing.
    completeBatch(vcpu);
  }
}
