/** PVALIDATE and RMPADJUST, which an SNP guest executes on its own pages (@apm 15.36.6, 15.36.7). */
import {
  PFERR_GUEST_ENC_HI,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_RMP,
  PFERR_GUEST_SIZEM_HI,
  PFERR_PRESENT,
  PFERR_USER,
} from '../../arch/error-code.ts';
import {
  RAX,
  RCX,
  RDX,
  RFLAGS_AF,
  RFLAGS_CF,
  RFLAGS_OF,
  RFLAGS_PF,
  RFLAGS_SF,
  RFLAGS_ZF,
} from '../../arch/registers.ts';
import {
  RMP_FAIL_INPUT,
  RMP_FAIL_PERMISSION,
  RMP_FAIL_SIZEMISMATCH,
  RMP_FRAMES_2M,
  RMP_SUCCESS,
} from '../../arch/rmp.ts';
import { WALK_NESTED_FAULT, WALK_NOT_VALIDATED, WALK_OK } from '../mmu/walk-result.ts';
import { ACCESS_READ, STATUS_OK } from '../state.ts';
import type { Core } from '../system/core.ts';
import { gprHi, gprLo, setGpr } from '../system/operands.ts';
import { walkFailed } from '../system/translation.ts';
import type { AccessCheck } from './access-check.ts';
import type { Rmp } from './rmp.ts';

/** EAX and the flags, as a comparison of it with zero sets them. */
function answer(core: Core, result: number, unchanged: boolean): number {
  setGpr(core, RAX, 4, result, 0);
  const odd = (0x6996 >>> ((result ^ (result >> 4)) & 15)) & 1;
  const flags = core.flags() & ~(RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF);
  core.code.writeRflags(
    flags | (unchanged ? RFLAGS_CF : 0) | (odd === 0 ? RFLAGS_PF : 0) | (result === 0 ? RFLAGS_ZF : 0),
  );
  return STATUS_OK;
}

/** Both are of VMM-aware kernels of SNP guests only; null when they may be executed, else the status of the exception. */
function refused(core: Core): number | null {
  if (core.walker.rmp === null || !core.walker.rmp.snp) return core.ud();
  return core.cpl() === 0 ? null : core.gp(0);
}

/** Frame of the page at rAX for a page of the size asked for, or -1 with `core.status` set: a #PF, a #NPF, or RMP_FAIL_* in EAX. */
function page(core: Core, large: boolean): number {
  const lo = gprLo(core, RAX);
  const hi = core.mode64() ? gprHi(core, RAX) : 0;
  if ((lo & (large ? 0x1fffff : 0xfff)) !== 0) {
    core.status = answer(core, RMP_FAIL_INPUT, false);
    return -1;
  }
  if (!core.canonical(hi)) {
    core.status = core.gp(0);
    return -1;
  }
  const { walker } = core;
  walker.validating = true;
  const result = walker.walk(lo, hi, ACCESS_READ, 0);
  walker.validating = false;
  if (result !== WALK_OK) walkFailed(core, result, lo, hi);
  else if (walker.encrypted) return walker.pfn;
  else core.status = answer(core, RMP_FAIL_INPUT, false);
  return -1;
}

/** #NPF because the instruction wants 4 KiB of a page of 2 MiB. */
function sizeMismatch(core: Core): number {
  const { walker } = core;
  walker.error = PFERR_PRESENT | PFERR_USER | PFERR_GUEST_RMP;
  walker.errorHi = PFERR_GUEST_FINAL_HI | PFERR_GUEST_ENC_HI | PFERR_GUEST_SIZEM_HI;
  walker.gpaOffset = 0;
  walkFailed(core, WALK_NESTED_FAULT, gprLo(core, RAX), gprHi(core, RAX));
  return core.status;
}

/** The sizes of instruction, nested tables and reverse map against each other: RMP_SUCCESS, RMP_FAIL_SIZEMISMATCH, or -1: #NPF. */
function sizes(core: Core, rmp: Rmp, pfn: number, large: boolean): number {
  if (!large) return rmp.large(pfn) ? -1 : RMP_SUCCESS;
  return core.walker.mappedLevel > 1 && rmp.large(pfn) ? RMP_SUCCESS : RMP_FAIL_SIZEMISMATCH;
}

/** PVALIDATE: rAX the page, ECX its size, EDX whether it is validated or not. */
export function pvalidate(core: Core): number {
  const no = refused(core);
  if (no !== null) return no;
  const rmp = core.snp!.rmp as Rmp;
  const check = core.walker.rmp as AccessCheck;
  const size = gprLo(core, RCX);
  const on = gprLo(core, RDX);
  if (size >>> 1 !== 0 || on >>> 1 !== 0) return answer(core, RMP_FAIL_INPUT, false);
  if (check.vmpl !== 0) return answer(core, RMP_FAIL_PERMISSION, false);
  const pfn = page(core, size === 1);
  if (pfn < 0) return core.status;
  const fit = sizes(core, rmp, pfn, size === 1);
  if (fit === -1) return sizeMismatch(core);
  if (fit !== RMP_SUCCESS) return answer(core, fit, false);
  const unchanged = rmp.validated(pfn) === (on === 1);
  if (!unchanged) {
    rmp.setValidated(pfn, on === 1);
    core.tlb.flushAll();
  }
  return answer(core, RMP_SUCCESS, unchanged);
}

/** RMPADJUST: rAX the page, RCX its size, RDX the level, its permissions and whether the page is a VMSA. */
export function rmpadjust(core: Core): number {
  const no = refused(core);
  if (no !== null) return no;
  const rmp = core.snp!.rmp as Rmp;
  const check = core.walker.rmp as AccessCheck;
  const size = gprLo(core, RCX);
  const attributes = gprLo(core, RDX);
  const level = attributes & 0xff;
  const mask = (attributes >>> 8) & 0xff;
  const vmsa = (attributes & 0x10000) !== 0;
  if (size >>> 1 !== 0 || level >= core.snp!.profile.vmpls) return answer(core, RMP_FAIL_INPUT, false);
  if (level <= check.vmpl || (vmsa && check.vmpl !== 0)) return answer(core, RMP_FAIL_PERMISSION, false);
  const pfn = page(core, size === 1);
  if (pfn < 0) return core.status;
  const fit = sizes(core, rmp, pfn, size === 1);
  if (fit === -1) return sizeMismatch(core);
  if (fit !== RMP_SUCCESS) return answer(core, fit, false);
  if (!rmp.validated(pfn)) {
    walkFailed(core, WALK_NOT_VALIDATED, gprLo(core, RAX), gprHi(core, RAX));
    return core.status;
  }
  if ((mask & ~rmp.permissions(pfn, check.vmpl)) !== 0) return answer(core, RMP_FAIL_PERMISSION, false);
  const first = size === 1 ? pfn - (pfn % RMP_FRAMES_2M) : pfn;
  for (let i = 0; i < (size === 1 ? RMP_FRAMES_2M : 1); i++) rmp.setPermissions(first + i, level, mask);
  if (check.vmpl === 0) rmp.setVmsa(pfn, vmsa);
  core.tlb.flushAll();
  return answer(core, RMP_SUCCESS, false);
}
