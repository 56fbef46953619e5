/** IN, OUT, INS and OUTS (@sdm 18.5; @apm 15.10). There is no device on the processor's own bus: what nobody intercepts reads as ones. */
import { ES, RAX, RCX, RDI, RDX, RFLAGS_DF, RFLAGS_IOPL, RFLAGS_IOPL_SHIFT, RSI, TR } from '../../arch/registers.ts';
import { SYSTEM_TSS, SYSTEM_TSS_BUSY } from '../../arch/segment.ts';
import {
  INTERCEPT_IOIO_PROT,
  SVM_EXIT_IOIO,
  SVM_IOIO_ASIZE_SHIFT,
  SVM_IOIO_IN,
  SVM_IOIO_PORT_SHIFT,
  SVM_IOIO_REP,
  SVM_IOIO_SIZE_SHIFT,
  SVM_IOIO_STR,
  VMCB_ATTR_P,
} from '../../arch/vmcb.ts';
import {
  recordAddressSize,
  recordHasRep,
  recordImmediate,
  recordLength,
  recordOperandSize,
  recordSegment,
} from '../decode/record.ts';
import { STATUS_OK, STATUS_RELOAD } from '../state.ts';
import { exitIo } from '../vmx/instruction-exits.ts';
import type { Core } from './core.ts';
import { currentContext, IMPLICIT, read, readAt, write } from './linear-memory.ts';
import { gprHi, gprLo, linear, setGpr } from './operands.ts';
import { W_RFLAGS } from './words.ts';

/** Whether the program may use the ports: IOPL, else the bitmap of the TSS. STATUS_OK or #GP(0). */
function checkPermission(core: Core, port: number, size: number): number {
  if (!core.protectedMode()) return STATUS_OK;
  const iopl = (core.i32[W_RFLAGS]! & RFLAGS_IOPL) >>> RFLAGS_IOPL_SHIFT;
  if (core.cpl() <= iopl && !core.virtual8086()) return STATUS_OK;
  const tr = core.segment(TR);
  const i32 = core.i32;
  const attributes = i32[tr + 3]!;
  const type = attributes & 0x1f;
  const limit = i32[tr + 2]! >>> 0;
  const usable = type === SYSTEM_TSS || (type === SYSTEM_TSS_BUSY && !core.profile.busyTssHasNoIoMap);
  if (!usable || (attributes & VMCB_ATTR_P) === 0 || limit < 103) {
    return core.gp(0);
  }
  if (!readAt(core, i32[tr]!, i32[tr + 1]!, 102, 2, IMPLICIT)) return core.status;
  const offset = core.lo + (port >>> 3);
  if (offset + 1 > limit) return core.gp(0);
  if (!readAt(core, i32[tr]!, i32[tr + 1]!, offset, 2, IMPLICIT)) return core.status;
  return ((core.lo >>> (port & 7)) & ((1 << size) - 1)) === 0 ? STATUS_OK : core.gp(0);
}

/** Byte `n` of the permission map; the one behind its end, SVM's alone, follows the upper half. */
function mapByte(core: Core, n: number): number {
  return core.u8[n < 0x1000 ? core.iopmBase + n : core.iopmHighBase + n - 0x1000]!;
}

/** True when the control block's permission map has a bit set for any of the `size` ports from `port`; -1 stands for a map of ones. */
function mapIntercepts(core: Core, port: number, size: number): boolean {
  if ((core.intercept3 & INTERCEPT_IOIO_PROT) === 0) return false;
  if (core.iopmBase < 0) return true;
  const bits = mapByte(core, port >>> 3) | (mapByte(core, (port >>> 3) + 1) << 8);
  return ((bits >>> (port & 7)) & ((1 << size) - 1)) !== 0;
}

/** The #VMEXIT of a port access: EXITINFO1 describes it, EXITINFO2 is the next RIP. */
function exitPort(core: Core, record: number, port: number, size: number, kind: number, fromDx: boolean): number {
  if (core.vmx) return exitIo(core, port, size, kind, fromDx);
  let info = (port << SVM_IOIO_PORT_SHIFT) | (size << SVM_IOIO_SIZE_SHIFT) | kind;
  if (core.profile.ioAddressSize) {
    const addressSize = recordAddressSize(core.u8, record);
    info |= (addressSize === 2 ? 1 : addressSize === 4 ? 2 : 4) << SVM_IOIO_ASIZE_SHIFT;
    if (core.profile.decodeAssists && (kind & SVM_IOIO_STR) !== 0) info |= recordSegment(core.u8, record) << 10;
  }
  core.nextRip(recordLength(core.u8, record));
  return core.exit(SVM_EXIT_IOIO, info, 0, core.lo, core.hi);
}

/** IN and OUT; `fromDx`: the port is in DX, else the immediate. */
export function inOut(core: Core, record: number, isIn: boolean, fromDx: boolean): number {
  const port = (fromDx ? gprLo(core, RDX) : recordImmediate(core.i32, record) & 0xff) & 0xffff;
  const size = recordOperandSize(core.u8, record);
  const status = checkPermission(core, port, size);
  if (status !== STATUS_OK) return status;
  if (mapIntercepts(core, port, size)) return exitPort(core, record, port, size, isIn ? SVM_IOIO_IN : 0, fromDx);
  if (isIn) setGpr(core, RAX, size, -1, 0);
  return STATUS_OK;
}

/** One iteration of INS or OUTS: see SYS_INS. */
export function stringInOut(core: Core, record: number, isIn: boolean): number {
  const u8 = core.u8;
  const port = gprLo(core, RDX) & 0xffff;
  const size = recordOperandSize(u8, record);
  const rep = recordHasRep(u8, record);
  const addressSize = recordAddressSize(u8, record);
  let status = checkPermission(core, port, size);
  if (status !== STATUS_OK) return status;
  if (mapIntercepts(core, port, size)) {
    const kind = SVM_IOIO_STR | (isIn ? SVM_IOIO_IN : 0) | (rep ? SVM_IOIO_REP : 0);
    return exitPort(core, record, port, size, kind, true);
  }
  if (rep && isZero(core, RCX, addressSize)) return STATUS_OK;
  const index = isIn ? RDI : RSI;
  const lo = addressSize === 2 ? gprLo(core, index) & 0xffff : gprLo(core, index);
  const hi = addressSize === 8 ? gprHi(core, index) : 0;
  const n = isIn ? ES : recordSegment(u8, record);
  if (!linear(core, n, lo, hi, size, isIn)) return core.status;
  const context = currentContext(core);
  if (isIn) {
    if (!write(core, core.addressLo, core.addressHi, size, -1, -1, context)) return core.status;
  } else if (!read(core, core.addressLo, core.addressHi, size, context)) return core.status;
  add(core, index, addressSize, (core.i32[W_RFLAGS]! & RFLAGS_DF) !== 0 ? -size : size);
  if (!rep) return STATUS_OK;
  add(core, RCX, addressSize, -1);
  status = isZero(core, RCX, addressSize) ? STATUS_OK : STATUS_RELOAD;
  return status;
}

function isZero(core: Core, n: number, size: number): boolean {
  if (size === 2) return (gprLo(core, n) & 0xffff) === 0;
  return gprLo(core, n) === 0 && (size === 4 || gprHi(core, n) === 0);
}

/** Adds a small number to the low `size` bytes of register `n`. */
function add(core: Core, n: number, size: number, delta: number): void {
  const sum = (gprLo(core, n) >>> 0) + delta;
  setGpr(core, n, size, sum | 0, (gprHi(core, n) + Math.floor(sum / 0x1_0000_0000)) | 0);
}
