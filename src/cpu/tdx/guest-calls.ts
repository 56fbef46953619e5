/** TDCALL: what the TD asks of the module (@tdx ABI, "Guest-Side (TDCALL) Interface Functions"). */
import { R8, R9, R10, RAX, RCX, RDX } from '../../arch/registers.ts';
import * as T from '../../arch/tdx.ts';
import { Sha384 } from '../sha384.ts';
import type { TdEntry } from './enter.ts';
import * as S from './secure-ept.ts';

const { tdxStatus } = T;
const OK = tdxStatus(T.TDX_SUCCESS);

/** Registers that TDG.VP.VMCALL can never pass: RAX, RCX, RSP; and RBP, as KVM has its TDs made. */
const NOT_PASSED = (1 << 0) | (1 << 1) | (1 << 4) | (1 << 5);

/** Bytes of TDREPORT_STRUCT, and where its parts are. */
const REPORT_SIZE = 1024;
const REPORT_TYPE_TDX = 0x81;
const REPORT_INFO_HASH = 80;
const REPORT_DATA = 128;
const REPORT_TDINFO = 512;
const REPORT_DATA_SIZE = 64;
const RTMRS = 4;

/** RAX says which; RESUME, or the status of a TD exit. Needs 64-bit mode at CPL 0, which the processor has seen to. */
export function guestCall(entry: TdEntry): number {
  const leaf = entry.gprHi(RAX) === 0 ? entry.gprLo(RAX) : -1;
  switch (leaf) {
    case T.TDG_VP_VMCALL: {
      const mask = entry.gprLo(RCX);
      if (entry.gprHi(RCX) !== 0 || (mask & NOT_PASSED) !== 0) {
        return answer(entry, tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX));
      }
      return entry.callExit(mask);
    }
    case T.TDG_VP_INFO:
      return info(entry);
    case T.TDG_VP_VEINFO_GET:
      return veInfo(entry);
    case T.TDG_MEM_PAGE_ACCEPT:
      return accept(entry);
    case T.TDG_MR_REPORT:
      return answer(entry, report(entry));
    case T.TDG_MR_RTMR_EXTEND:
      return answer(entry, extendRtmr(entry));
    default:
      return answer(entry, tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RAX));
  }
}

function answer(entry: TdEntry, status: number): number {
  entry.setGpr(RAX, T.tdxDetail(status), T.tdxCode(status) | 0);
  return entry.skip();
}

/** TDG.VP.INFO */
function info(entry: TdEntry): number {
  const { td, vp } = entry;
  entry.setGpr(RCX, td.gpaw, 0);
  entry.setGpr(RDX, td.attributesLo, td.attributesHi);
  entry.setGpr(R8, td.vcpus.length, td.maxVcpus);
  entry.setGpr(R9, vp.index, 0);
  entry.setGpr(R10, 0, 0);
  return answer(entry, OK);
}

/** TDG.VP.VEINFO.GET */
function veInfo(entry: TdEntry): number {
  const { ve } = entry.vp;
  if (!ve.valid) return answer(entry, tdxStatus(T.TDX_NO_VALID_VE_INFO));
  ve.valid = false;
  entry.setGpr(RCX, ve.reason, 0);
  entry.setGpr(RDX, ve.qualificationLo, ve.qualificationHi);
  entry.setGpr(R8, ve.glaLo, ve.glaHi);
  entry.setGpr(R9, ve.gpaLo, ve.gpaHi);
  entry.setGpr(R10, ve.length, ve.information);
  return answer(entry, OK);
}

/** TDG.MEM.PAGE.ACCEPT: RCX address and level. A pending page becomes zeros and the TD's; one that is not there is a TD exit. */
function accept(entry: TdEntry): number {
  const { td, module } = entry;
  const { memory } = module;
  const lo = entry.gprLo(RCX);
  const hi = entry.gprHi(RCX);
  const level = lo & 7;
  const gfn = (hi >>> 0) * 0x100000 + (lo >>> 12);
  const invalid = (lo & 0xff8) !== 0 || level > 1 || gfn >= T.SHARED_GFN_48 || gfn % 512 ** level !== 0;
  if (invalid) return answer(entry, tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX));
  const at = S.walkSept(memory.i32, td.septRoot, gfn, level);
  const entryLo = memory.i32[at.word]!;
  const entryHi = memory.i32[at.word + 1]!;
  const state = S.septState(entryHi);
  if (at.level !== level || state === S.SEPT_FREE || state === S.SEPT_BLOCKED || state === S.SEPT_PENDING_BLOCKED) {
    return entry.acceptViolation(lo & ~0xfff, hi);
  }
  if (S.septIsTable(entryLo, level)) return answer(entry, tdxStatus(T.TDX_PAGE_SIZE_MISMATCH, T.OPERAND_ID_RCX));
  if (state === S.SEPT_PRESENT) return answer(entry, tdxStatus(T.TDX_PAGE_ALREADY_ACCEPTED, T.OPERAND_ID_RCX));
  const pfn = S.septPfn(entryLo, entryHi);
  memory.noteWrite(pfn);
  memory.u8.fill(0, pfn * 4096, (pfn + 1) * 4096);
  S.writeSept(memory.i32, at.word, pfn, S.SEPT_PRESENT, { table: false, level, suppressVe: true });
  return answer(entry, OK);
}

/** Physical address of `size` bytes of accepted private memory at the guest address in register `n`, or -1. */
function privateBytes(entry: TdEntry, n: number, size: number): number {
  const lo = entry.gprLo(n);
  const gfn = (entry.gprHi(n) >>> 0) * 0x100000 + (lo >>> 12);
  if ((lo & (size - 1)) !== 0 || gfn >= T.SHARED_GFN_48) return -1;
  const { i32 } = entry.module.memory;
  const at = S.walkSept(i32, entry.td.septRoot, gfn, 0);
  if (at.level !== 0 || S.septState(i32[at.word + 1]!) !== S.SEPT_PRESENT) return -1;
  return S.septPfn(i32[at.word]!, i32[at.word + 1]!) * 4096 + (lo & 0xfff);
}

/**
 * TDG.MR.REPORT: RCX where the report goes, RDX 64 bytes to put into it, R8 0.
 * @partial no message authentication code and no description of the platform: nobody is there to verify them
 */
function report(entry: TdEntry): number {
  const { td, module } = entry;
  const to = privateBytes(entry, RCX, REPORT_SIZE);
  const from = privateBytes(entry, RDX, REPORT_DATA_SIZE);
  if (to < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  if (from < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RDX);
  if (entry.gprLo(R8) !== 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_R8);
  const bytes = new Uint8Array(REPORT_SIZE);
  bytes[0] = REPORT_TYPE_TDX;
  bytes.set(module.memory.u8.subarray(from, from + REPORT_DATA_SIZE), REPORT_DATA);
  const view = new DataView(bytes.buffer);
  view.setInt32(REPORT_TDINFO, td.attributesLo, true);
  view.setInt32(REPORT_TDINFO + 4, td.attributesHi, true);
  view.setInt32(REPORT_TDINFO + 8, td.xfamLo, true);
  view.setInt32(REPORT_TDINFO + 12, td.xfamHi, true);
  [td.mrtd!, td.mrConfigId, td.mrOwner, td.mrOwnerConfig, ...td.rtmr].forEach((register, i) => {
    bytes.set(register, REPORT_TDINFO + 16 + 48 * i);
  });
  const hash = new Sha384();
  hash.update(bytes.subarray(REPORT_TDINFO));
  bytes.set(hash.digest(), REPORT_INFO_HASH);
  module.memory.noteWrite(Math.floor(to / 4096));
  module.memory.u8.set(bytes, to);
  return OK;
}

/** TDG.MR.RTMR.EXTEND: RCX 48 bytes, RDX which register. */
function extendRtmr(entry: TdEntry): number {
  const from = privateBytes(entry, RCX, 64);
  const n = entry.gprLo(RDX) >>> 0;
  if (from < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  if (entry.gprHi(RDX) !== 0 || n >= RTMRS) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RDX);
  const hash = new Sha384();
  hash.update(entry.td.rtmr[n]!);
  hash.update(entry.module.memory.u8.subarray(from, from + 48));
  entry.td.rtmr[n] = hash.digest();
  return OK;
}
