/** SEAMCALL leaves about a TD's private memory and its measurement (@tdx ABI: TDH.MEM.*, TDH.MR.*). */
import * as T from '../../arch/tdx.ts';
import { freeFrame, returnPage, takePage } from './manage.ts';
import type { ModuleState } from './module-state.ts';
import { PT_EPT, PT_NDA, PT_REG } from './pamt.ts';
import * as S from './secure-ept.ts';
import { OP_INITIALIZED, OP_RUNNABLE, OP_UNINITIALIZED, TD_KEYS_CONFIGURED, type Td } from './td.ts';

const { tdxStatus } = T;
const OK = tdxStatus(T.TDX_SUCCESS);
const RCX = T.OPERAND_ID_RCX;

/** What a leaf looked up for the guest address in RCX and the TD in RDX. */
interface Place {
  readonly td: Td;
  readonly gfn: number;
  readonly level: number;
  readonly word: number;
}

/** The TD at `tdr`, or why nothing can be done to its memory. */
function tdFor(module: ModuleState, tdr: number): Td | number {
  const td = module.tdAt(tdr);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RDX);
  if (td.lifecycle !== TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_TD_KEYS_NOT_CONFIGURED, T.OPERAND_ID_RDX);
  if (td.opState === OP_UNINITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  return td;
}

/** Puts the entry that was met into RCX (its lower 52 bits), and level and state into RDX. */
function report(module: ModuleState, args: T.SeamArgs, at: S.SeptEntry): void {
  const lo = module.memory.i32[at.word]!;
  const hi = module.memory.i32[at.word + 1]!;
  args.rcx = (hi & 0xfffff) * 0x1_0000_0000 + (lo >>> 0);
  args.rdx = at.level | (S.septState(hi) << 8);
}

/** Finds the entry that RCX (address and level) and RDX (TDR) name; a status when there is none. */
function locate(module: ModuleState, args: T.SeamArgs, minLevel: number, maxLevel: number): Place | number {
  const td = tdFor(module, args.rdx);
  if (typeof td === 'number') return td;
  const level = args.rcx % 8;
  const gfn = Math.floor(args.rcx / 4096);
  const aligned = gfn % 512 ** level === 0 && (args.rcx % 4096) - level === 0;
  if (level < minLevel || level > maxLevel || !aligned || gfn >= T.SHARED_GFN_48) {
    return tdxStatus(T.TDX_OPERAND_INVALID, RCX);
  }
  const at = S.walkSept(module.memory.i32, td.septRoot, gfn, level);
  if (at.level !== level) {
    report(module, args, at);
    return tdxStatus(T.TDX_EPT_WALK_FAILED, RCX);
  }
  return { td, gfn, level, word: at.word };
}

function stateIncorrect(module: ModuleState, args: T.SeamArgs, place: Place): number {
  report(module, args, place);
  return tdxStatus(T.TDX_EPT_ENTRY_STATE_INCORRECT, RCX);
}

function stateAt(module: ModuleState, place: Place): number {
  return S.septState(module.memory.i32[place.word + 1]!);
}

function pfnAt(module: ModuleState, place: Place): number {
  return S.septPfn(module.memory.i32[place.word]!, module.memory.i32[place.word + 1]!);
}

function put(module: ModuleState, place: Place, pfn: number, state: number, table = false): void {
  const suppressVe = (place.td.attributesLo & T.TD_ATTR_SEPT_VE_DISABLE) !== 0;
  S.writeSept(module.memory.i32, place.word, pfn, state, { table, level: place.level, suppressVe });
}

/** TDH.MEM.SEPT.ADD: RCX address and level of the entry that will lead to the table, RDX TDR, R8 page. */
export function memSeptAdd(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 1, 3);
  if (typeof place === 'number') return place;
  const pfn = module.frameAt(args.r8);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_R8);
  if (module.pamt.type[pfn] !== PT_NDA) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_R8);
  if (stateAt(module, place) !== S.SEPT_FREE) return stateIncorrect(module, args, place);
  takePage(module, place.td, pfn, PT_EPT);
  S.clearSept(module.memory.i32, pfn);
  put(module, place, pfn, S.SEPT_PRESENT, true);
  return OK;
}

/** TDH.MEM.SEPT.REMOVE: RCX address and level of the entry that leads to the table, RDX TDR. */
export function memSeptRemove(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 1, 3);
  if (typeof place === 'number') return place;
  const state = stateAt(module, place);
  if (!S.septIsTable(module.memory.i32[place.word]!, place.level) || state === S.SEPT_FREE) {
    return stateIncorrect(module, args, place);
  }
  if (state !== S.SEPT_BLOCKED) return tdxStatus(T.TDX_GPA_RANGE_NOT_BLOCKED, RCX);
  const pfn = pfnAt(module, place);
  if (!isTracked(module, place.td, pfn)) return tdxStatus(T.TDX_TLB_TRACKING_NOT_DONE, RCX);
  if (!S.septIsEmpty(module.memory.i32, pfn)) return tdxStatus(T.TDX_EPT_PAGE_NOT_FREE, RCX);
  S.freeSept(module.memory.i32, place.word);
  returnPage(module, place.td, pfn);
  return OK;
}

/** TDH.MEM.SEPT.RD: RCX address and level, RDX TDR; the entry in RCX, level and state in RDX. */
export function memSeptRd(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 0, 3);
  if (typeof place === 'number') return place;
  report(module, args, place);
  return OK;
}

/** TDH.MEM.PAGE.ADD: RCX address, RDX TDR, R8 page, R9 page to copy. Only before the measurement is finished, which it is part of. */
export function memPageAdd(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 0, 0);
  if (typeof place === 'number') return place;
  if (place.td.opState !== OP_INITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  const pfn = module.frameAt(args.r8);
  const source = module.frameAt(args.r9);
  if (pfn < 0 || source < 0) return tdxStatus(T.TDX_OPERAND_INVALID, pfn < 0 ? T.OPERAND_ID_R8 : 9);
  if (freeFrame(module, args.r8) < 0) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_R8);
  if (stateAt(module, place) !== S.SEPT_FREE) return stateIncorrect(module, args, place);
  const { u8 } = module.memory;
  const contents = u8.slice(source * 4096, (source + 1) * 4096);
  takePage(module, place.td, pfn, PT_REG);
  u8.set(contents, pfn * 4096);
  put(module, place, pfn, S.SEPT_PRESENT);
  place.td.measurement.update(extension('MEM.PAGE.ADD', place.gfn * 4096));
  return OK;
}

/** TDH.MEM.PAGE.AUG: RCX address, RDX TDR, R8 page. The page is pending until the TD accepts it. */
export function memPageAug(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 0, 0);
  if (typeof place === 'number') return place;
  if (place.td.opState !== OP_RUNNABLE) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  const pfn = module.frameAt(args.r8);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_R8);
  if (freeFrame(module, args.r8) < 0) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_R8);
  if (stateAt(module, place) !== S.SEPT_FREE) return stateIncorrect(module, args, place);
  takePage(module, place.td, pfn, PT_REG);
  put(module, place, pfn, S.SEPT_PENDING);
  return OK;
}

/** TDH.MEM.RANGE.BLOCK: RCX address and level, RDX TDR. No new translation is made; old ones stay until they are tracked. */
export function memRangeBlock(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 0, 3);
  if (typeof place === 'number') return place;
  const state = stateAt(module, place);
  if (state === S.SEPT_BLOCKED || state === S.SEPT_PENDING_BLOCKED) {
    report(module, args, place);
    return tdxStatus(T.TDX_GPA_RANGE_ALREADY_BLOCKED, RCX);
  }
  if (state === S.SEPT_FREE) return stateIncorrect(module, args, place);
  const pfn = pfnAt(module, place);
  const table = S.septIsTable(module.memory.i32[place.word]!, place.level);
  module.pamt.blockEpoch[pfn] = place.td.epoch;
  put(module, place, pfn, state === S.SEPT_PENDING ? S.SEPT_PENDING_BLOCKED : S.SEPT_BLOCKED, table);
  return OK;
}

/** TDH.MEM.RANGE.UNBLOCK: RCX address and level, RDX TDR. */
export function memRangeUnblock(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 0, 3);
  if (typeof place === 'number') return place;
  const state = stateAt(module, place);
  if (state !== S.SEPT_BLOCKED && state !== S.SEPT_PENDING_BLOCKED) {
    report(module, args, place);
    return tdxStatus(T.TDX_GPA_RANGE_NOT_BLOCKED, RCX);
  }
  const pfn = pfnAt(module, place);
  if (!isTracked(module, place.td, pfn)) return tdxStatus(T.TDX_TLB_TRACKING_NOT_DONE, T.OPERAND_ID_SEPT);
  const table = S.septIsTable(module.memory.i32[place.word]!, place.level);
  put(module, place, pfn, state === S.SEPT_BLOCKED ? S.SEPT_PRESENT : S.SEPT_PENDING, table);
  return OK;
}

/** Every vCPU that ran when the page was blocked has left the TD since. Nobody runs before the measurement is finished. */
function isTracked(module: ModuleState, td: Td, pfn: number): boolean {
  if (td.opState !== OP_RUNNABLE) return true;
  const blocked = module.pamt.blockEpoch[pfn]!;
  return td.epoch > blocked + 1 || (td.epoch === blocked + 1 && td.running[blocked & 1] === 0);
}

/** TDH.MEM.TRACK: RCX TDR. The next epoch begins, unless vCPUs still run in the one before this. */
export function memTrack(module: ModuleState, args: T.SeamArgs): number {
  const td = tdFor(module, args.rcx);
  if (typeof td === 'number') return td;
  if (td.running[(td.epoch - 1) & 1] !== 0) {
    return tdxStatus(T.TDX_PREVIOUS_TLB_EPOCH_BUSY, T.OPERAND_ID_TD_EPOCH);
  }
  td.epoch++;
  return OK;
}

/** TDH.MEM.PAGE.REMOVE: RCX address, RDX TDR. The page was blocked, and no TLB can hold it. */
export function memPageRemove(module: ModuleState, args: T.SeamArgs): number {
  const place = locate(module, args, 0, 0);
  if (typeof place === 'number') return place;
  const state = stateAt(module, place);
  if (state === S.SEPT_FREE) return stateIncorrect(module, args, place);
  if (state !== S.SEPT_BLOCKED && state !== S.SEPT_PENDING_BLOCKED) {
    report(module, args, place);
    return tdxStatus(T.TDX_GPA_RANGE_NOT_BLOCKED, RCX);
  }
  const pfn = pfnAt(module, place);
  if (!isTracked(module, place.td, pfn)) return tdxStatus(T.TDX_TLB_TRACKING_NOT_DONE, RCX);
  S.freeSept(module.memory.i32, place.word);
  returnPage(module, place.td, pfn);
  args.rcx = pfn * 4096;
  return OK;
}

/** The 128 bytes that stand for an event in the measurement: its name, and the address from byte 16 on. */
function extension(name: string, gpa: number): Uint8Array {
  const bytes = new Uint8Array(128);
  for (let i = 0; i < name.length; i++) bytes[i] = name.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  view.setUint32(16, gpa % 0x1_0000_0000, true);
  view.setUint32(20, Math.floor(gpa / 0x1_0000_0000), true);
  return bytes;
}

/** TDH.MR.EXTEND: RCX address of a chunk of 256 bytes of an added page, RDX TDR. */
export function mrExtend(module: ModuleState, args: T.SeamArgs): number {
  const td = tdFor(module, args.rdx);
  if (typeof td === 'number') return td;
  const gpa = args.rcx;
  const gfn = Math.floor(gpa / 4096);
  if (gpa % T.TDX_EXTENDMR_CHUNKSIZE !== 0 || gfn >= T.SHARED_GFN_48) return tdxStatus(T.TDX_OPERAND_INVALID, RCX);
  if (td.opState !== OP_INITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  const at = S.walkSept(module.memory.i32, td.septRoot, gfn, 0);
  const hi = module.memory.i32[at.word + 1]!;
  if (at.level !== 0) {
    report(module, args, at);
    return tdxStatus(T.TDX_EPT_WALK_FAILED, RCX);
  }
  if (S.septState(hi) !== S.SEPT_PRESENT) {
    report(module, args, at);
    return tdxStatus(T.TDX_EPT_ENTRY_STATE_INCORRECT, RCX);
  }
  const from = S.septPfn(module.memory.i32[at.word]!, hi) * 4096 + (gpa % 4096);
  td.measurement.update(extension('MR.EXTEND', gpa));
  td.measurement.update(module.memory.u8.subarray(from, from + T.TDX_EXTENDMR_CHUNKSIZE));
  return OK;
}

/** TDH.MR.FINALIZE: RCX TDR. The TD can run, and nothing is added to its measurement any more. */
export function mrFinalize(module: ModuleState, args: T.SeamArgs): number {
  const td = tdFor(module, args.rcx);
  if (typeof td === 'number') return td;
  if (td.opState !== OP_INITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  td.mrtd = td.measurement.digest();
  td.opState = OP_RUNNABLE;
  return OK;
}
