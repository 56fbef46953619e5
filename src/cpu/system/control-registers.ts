/** Moves to and from control and debug registers, CLTS, LMSW and SMSW (@sdm 2.5; @apm 3.1, 15.9, 15.11). */
import { DR6_BD, DR7_GD } from '../../arch/debug-registers.ts';
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { PAGING_PAE, PT64_FRAME_HI, rsvdPhysHi } from '../../arch/paging.ts';
import {
  CR0_CD,
  CR0_ET,
  CR0_KNOWN,
  CR0_MP,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR0_TS,
  CR4_DE,
  CR4_LA57,
  CR4_PAE,
  CR4_PCIDE,
  CR4_UMIP,
  CS,
  EFER_LMA,
  EFER_LME,
} from '../../arch/registers.ts';
import {
  INTERCEPT_SELECTIVE_CR0,
  SVM_EXIT_CR0_SEL_WRITE,
  SVM_EXIT_READ_CR0,
  SVM_EXIT_READ_DR0,
  SVM_EXIT_WRITE_CR0,
  SVM_EXIT_WRITE_DR0,
  VMCB_ATTR_L,
} from '../../arch/vmcb.ts';
import { EXIT_REASON_TPR_BELOW_THRESHOLD } from '../../arch/vmx-exit-reasons.ts';
import { recordReg, recordRm } from '../decode/record.ts';
import { loadPdptes } from '../mmu/load-pdptes.ts';
import { WALK_NESTED_FAULT, WALK_OK } from '../mmu/walk-result.ts';
import { CR0_AT, CR2_AT, CR3_AT, CR4_AT, CR8_AT, DR_AT, STATUS_OK } from '../state.ts';
import { exitClts, exitLmsw, exitMovCr, exitMovDr, exitVmx } from '../vmx/instruction-exits.ts';
import type { Core } from './core.ts';
import { gprHi, gprLo, readRm, setGpr, writeRm } from './operands.ts';
import { walkFailed } from './translation.ts';
import { W_CR0, W_CR3, W_CR4, W_EFER } from './words.ts';

/** EXITINFO1 of a control-register exit: with DecodeAssists bit 63 says MOV, and the register's number follows. */
function movInfo(core: Core, code: number, gpr: number): number {
  if (core.vmx) return exitMovCr(core, code & 15, code < SVM_EXIT_WRITE_CR0, gpr);
  return core.profile.decodeAssists ? core.exit(code, gpr, 1 << 31) : core.exit(code);
}

function addressOf(n: number): number {
  if (n === 0) return CR0_AT;
  if (n === 2) return CR2_AT;
  if (n === 3) return CR3_AT;
  if (n === 4) return CR4_AT;
  return n === 8 ? CR8_AT : -1;
}

/** CR0 as the guest reads it: the bits that the host owns come from the read shadow (VMX). */
function visibleCr0(core: Core): number {
  return (core.i32[W_CR0]! & ~core.cr0Mask) | (core.cr0Shadow & core.cr0Mask);
}

/** MOV r, CRn. */
export function movFromCr(core: Core, record: number): number {
  const n = recordReg(core.u8, record);
  const at = addressOf(n);
  if (at === -1) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  const rm = recordRm(core.u8, record);
  if (((core.interceptCr >>> n) & 1) !== 0) return movInfo(core, SVM_EXIT_READ_CR0 + n, rm);
  let lo = core.i32[at >> 2]!;
  if (n === 0) lo = visibleCr0(core);
  else if (n === 4) lo = (lo & ~core.cr4Mask) | (core.cr4Shadow & core.cr4Mask);
  setGpr(core, rm, core.mode64() ? 8 : 4, lo, core.i32[(at >> 2) + 1]!);
  return STATUS_OK;
}

/** MOV CRn, r in an instruction of `length` bytes. */
export function movToCr(core: Core, record: number, length: number): number {
  const n = recordReg(core.u8, record);
  if (addressOf(n) === -1) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  const rm = recordRm(core.u8, record);
  if (((core.interceptCr >>> (16 + n)) & 1) !== 0) return movInfo(core, SVM_EXIT_WRITE_CR0 + n, rm);
  const lo = gprLo(core, rm);
  const hi = core.mode64() ? gprHi(core, rm) : 0;
  const i32 = core.i32;
  switch (n) {
    case 0: {
      if (core.vmx && (((lo ^ core.cr0Shadow) & core.cr0Mask) | hi) !== 0) return exitMovCr(core, 0, false, rm);
      const status = writeCr0(core, (lo & ~core.cr0Mask) | (i32[W_CR0]! & core.cr0Mask), hi, rm);
      return status === STATUS_OK ? core.reload(length) : status;
    }
    case 2:
      i32[CR2_AT >> 2] = lo;
      i32[(CR2_AT >> 2) + 1] = hi;
      return STATUS_OK;
    case 3: {
      const status = writeCr3(core, lo, hi);
      return status === STATUS_OK ? core.reload(length) : status;
    }
    case 4: {
      if (core.vmx && (((lo ^ core.cr4Shadow) & core.cr4Mask) | hi) !== 0) return exitMovCr(core, 4, false, rm);
      const status = writeCr4(core, (lo & ~core.cr4Mask) | (i32[W_CR4]! & core.cr4Mask), hi);
      return status === STATUS_OK ? core.reload(length) : status;
    }
    default:
      if (hi !== 0 || (lo & ~15) !== 0) return core.gp(0);
      i32[CR8_AT >> 2] = lo;
      if (!core.apic.storeTpr(core, lo)) return STATUS_OK;
      core.reload(length);
      return exitVmx(core, EXIT_REASON_TPR_BELOW_THRESHOLD);
  }
}

/** Stores CR0 after its checks; `gpr` is the source register for the selective intercept's EXITINFO1. */
function writeCr0(core: Core, value: number, hi: number, gpr: number): number {
  const i32 = core.i32;
  const old = i32[W_CR0]!;
  if ((core.intercept3 & INTERCEPT_SELECTIVE_CR0) !== 0 && ((old ^ value) & ~(CR0_TS | CR0_MP)) !== 0) {
    return movInfo(core, SVM_EXIT_CR0_SEL_WRITE, gpr);
  }
  if (hi !== 0) return core.gp(0);
  const pg = (value & CR0_PG) !== 0;
  if ((pg && (value & CR0_PE) === 0) || ((value & CR0_NW) !== 0 && (value & CR0_CD) === 0)) return core.gp(0);
  const efer = i32[W_EFER]!;
  const cr4 = i32[W_CR4]!;
  if (pg && (old & CR0_PG) === 0 && (efer & EFER_LME) !== 0) {
    if ((cr4 & CR4_PAE) === 0 || (core.attributes(CS) & VMCB_ATTR_L) !== 0) return core.gp(0);
    i32[W_EFER] = efer | EFER_LMA;
  }
  if (!pg && (old & CR0_PG) !== 0) {
    if (core.mode64() || (cr4 & CR4_PCIDE) !== 0) return core.gp(0);
    i32[W_EFER] = efer & ~EFER_LMA;
  }
  i32[W_CR0] = (value & CR0_KNOWN) | CR0_ET;
  core.updatePaging();
  core.updateMode();
  return STATUS_OK;
}

/** After MOV to a control register in PAE paging whose directory pointers are in registers: loads them from CR3's table. */
function reloadPdptes(core: Core, cr3Lo: number): number {
  const walker = core.walker;
  if (!walker.pdpteRegisters || walker.mode !== PAGING_PAE) return STATUS_OK;
  const result = loadPdptes(walker, core.i32, cr3Lo);
  if (result === WALK_OK) return STATUS_OK;
  if (result !== WALK_NESTED_FAULT) return core.gp(0);
  walkFailed(core, result, 0, 0);
  return core.status;
}

function writeCr3(core: Core, lo: number, hi: number): number {
  const i32 = core.i32;
  const pcid = (i32[W_CR4]! & CR4_PCIDE) !== 0;
  const keep = pcid && hi < 0;
  const high = keep ? hi & 0x7fffffff : hi;
  if (core.walker.pdpteRegisters) {
    const status = reloadPdptes(core, lo);
    if (status !== STATUS_OK) return status;
  }
  if (core.longMode() && (high & (rsvdPhysHi(core.profile.maxPhyAddr) | ~PT64_FRAME_HI)) !== 0) return core.gp(0);
  i32[W_CR3] = lo;
  i32[W_CR3 + 1] = high;
  core.updatePaging();
  core.selectPcid();
  if (!keep) core.tlb.flushNonGlobal();
  return STATUS_OK;
}

function writeCr4(core: Core, value: number, hi: number): number {
  const i32 = core.i32;
  const old = i32[W_CR4]!;
  if (hi !== 0 || (value & ~core.cr4Known) !== 0) return core.gp(0);
  if (core.longMode() && ((value & CR4_PAE) === 0 || ((value ^ old) & CR4_LA57) !== 0)) return core.gp(0);
  if ((value & ~old & CR4_PCIDE) !== 0 && (!core.longMode() || (i32[W_CR3]! & 0xfff) !== 0)) return core.gp(0);
  if (core.walker.pdpteRegisters && value !== old) {
    const status = reloadPdptes(core, i32[W_CR3]!);
    if (status !== STATUS_OK) return status;
  }
  i32[W_CR4] = value;
  core.updatePaging();
  core.updateMode();
  return STATUS_OK;
}

export function clts(core: Core): number {
  if (core.cpl() !== 0) return core.gp(0);
  if (((core.interceptCr >>> 16) & 1) !== 0) return core.exit(SVM_EXIT_WRITE_CR0);
  if ((core.cr0Mask & CR0_TS) === 0) core.i32[W_CR0] = core.i32[W_CR0]! & ~CR0_TS;
  else if ((core.cr0Shadow & CR0_TS) !== 0) return exitClts(core);
  return STATUS_OK;
}

/** LMSW of `value` changes a bit that the host owns; PE only when it would be set (@sdm 28.1.3). */
function lmswExits(core: Core, value: number): boolean {
  const changed = (value ^ core.cr0Shadow) & core.cr0Mask;
  return (changed & 0xe) !== 0 || (changed & value & CR0_PE) !== 0;
}

/** LMSW: CR0 bits 3:0; PE can be set and not cleared. */
export function lmsw(core: Core, record: number, length: number): number {
  if (core.cpl() !== 0) return core.gp(0);
  if (((core.interceptCr >>> 16) & 1) !== 0) return core.exit(SVM_EXIT_WRITE_CR0);
  if (!readRm(core, record, 2)) return core.status;
  const old = core.i32[W_CR0]!;
  if (core.vmx && lmswExits(core, core.lo & 0xf)) return exitLmsw(core, record, core.lo & 0xffff);
  const guests = 0xe & ~core.cr0Mask;
  const value = (old & ~guests) | (core.lo & (guests | (CR0_PE & ~core.cr0Mask)));
  const selective = core.profile.lmswSelective || ((old ^ value) & ~(CR0_TS | CR0_MP)) !== 0;
  if ((core.intercept3 & INTERCEPT_SELECTIVE_CR0) !== 0 && selective) {
    return core.exit(SVM_EXIT_CR0_SEL_WRITE);
  }
  core.i32[W_CR0] = value;
  core.updateMode();
  return core.reload(length);
}

/** SMSW; `size` is that of a register destination. */
export function smsw(core: Core, record: number, size: number): number {
  if (core.cpl() !== 0 && (core.i32[W_CR4]! & CR4_UMIP) !== 0) return core.gp(0);
  if ((core.interceptCr & 1) !== 0) return core.exit(SVM_EXIT_READ_CR0);
  return writeRm(core, record, 2, size, visibleCr0(core), 0) ? STATUS_OK : core.status;
}

/** Debug register that `n` names, or -1: DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
function debugRegister(core: Core, n: number): number {
  if (n > 7) return -1;
  if (n !== 4 && n !== 5) return n;
  return (core.i32[W_CR4]! & CR4_DE) !== 0 ? -1 : n + 2;
}

const W_DR = DR_AT >> 2;

/** What both directions check; STATUS_OK when the access may happen. */
function checkDebug(core: Core, record: number, n: number, intercepted: boolean, code: number): number {
  if (n === -1) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  if (intercepted && core.vmx) {
    return exitMovDr(core, recordReg(core.u8, record), code === SVM_EXIT_READ_DR0, recordRm(core.u8, record));
  }
  if (intercepted) return core.exit(code + n);
  if ((core.i32[W_DR + 14]! & DR7_GD) !== 0) {
    core.i32[W_DR + 12] = core.i32[W_DR + 12]! | DR6_BD;
    core.i32[W_DR + 14] = core.i32[W_DR + 14]! & ~DR7_GD;
    return core.raise(DB_VECTOR);
  }
  return STATUS_OK;
}

/** SVM's intercepts of DR4 and DR5 are their own, and come before #UD. */
function svmDebugExits(core: Core, named: number, first: number): boolean {
  if (core.vmx || (named !== 4 && named !== 5) || core.cpl() !== 0) return false;
  return ((core.interceptDr >>> (first + named)) & 1) !== 0;
}

/** MOV r, DRn. */
export function movFromDr(core: Core, record: number): number {
  const named = recordReg(core.u8, record);
  if (svmDebugExits(core, named, 0)) return core.exit(SVM_EXIT_READ_DR0 + named);
  const n = debugRegister(core, named);
  const status = checkDebug(core, record, n, ((core.interceptDr >>> n) & 1) !== 0, SVM_EXIT_READ_DR0);
  if (status !== STATUS_OK) return status;
  setGpr(core, recordRm(core.u8, record), core.mode64() ? 8 : 4, core.i32[W_DR + n * 2]!, core.i32[W_DR + n * 2 + 1]!);
  return STATUS_OK;
}

/** MOV DRn, r. */
export function movToDr(core: Core, record: number): number {
  const named = recordReg(core.u8, record);
  if (svmDebugExits(core, named, 16)) return core.exit(SVM_EXIT_WRITE_DR0 + named);
  const n = debugRegister(core, named);
  const status = checkDebug(core, record, n, ((core.interceptDr >>> (16 + n)) & 1) !== 0, SVM_EXIT_WRITE_DR0);
  if (status !== STATUS_OK) return status;
  const rm = recordRm(core.u8, record);
  const lo = gprLo(core, rm);
  const hi = core.mode64() ? gprHi(core, rm) : 0;
  if (n >= 6 && hi !== 0) return core.gp(0);
  core.i32[W_DR + n * 2] = n === 6 ? (lo & 0x1e00f) | 0xffff0ff0 : n === 7 ? (lo & 0xffff2bff) | 0x400 : lo;
  core.i32[W_DR + n * 2 + 1] = hi;
  core.breakpoints.update();
  return STATUS_OK;
}
