/** XGETBV, XSETBV, RDPKRU, WRPKRU and INVPCID (@sdm volume 2). */
import { CR4_OSXSAVE, CR4_PCIDE, CR4_PKE, RAX, RCX, RDX } from '../../arch/registers.ts';
import {
  INTERCEPT_INVLPG,
  INTERCEPT_INVPCID,
  INTERCEPT_XSETBV,
  SVM_EXIT_INVPCID,
  SVM_EXIT_XSETBV,
} from '../../arch/vmcb.ts';
import { SECONDARY_EXEC_ENABLE_INVPCID } from '../../arch/vmx-controls.ts';
import { EXIT_REASON_INVPCID } from '../../arch/vmx-exit-reasons.ts';
import { recordReg } from '../decode/record.ts';
import { PKRU_AT, STATUS_OK, XCR0_AT } from '../state.ts';
import { exitVmx } from '../vmx/instruction-exits.ts';
import type { Core } from './core.ts';
import { stateInUse, XSTATE_AVX, XSTATE_SSE, XSTATE_X87 } from './extended-state.ts';
import { currentContext, readAt } from './linear-memory.ts';
import { gprHi, gprLo, operandAddress, setGpr } from './operands.ts';
import { W_CR4 } from './words.ts';

const DESCRIPTOR_BYTES = 16;

/** XGETBV: XCR0, and with index 1 those of its components that are in use. */
export function xgetbv(core: Core): number {
  if ((core.i32[W_CR4]! & CR4_OSXSAVE) === 0) return core.ud();
  const index = gprLo(core, RCX);
  if (index !== 0 && (index !== 1 || !core.hasXgetbv1)) return core.gp(0);
  const xcr0 = core.i32[XCR0_AT >> 2]!;
  setGpr(core, RAX, 4, index === 0 ? xcr0 : xcr0 & stateInUse(core), 0);
  setGpr(core, RDX, 4, core.i32[(XCR0_AT >> 2) + 1]!, 0);
  return STATUS_OK;
}

export function xsetbv(core: Core): number {
  if ((core.i32[W_CR4]! & CR4_OSXSAVE) === 0) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  if ((core.intercept4 & INTERCEPT_XSETBV) !== 0) return core.exit(SVM_EXIT_XSETBV);
  const value = gprLo(core, RAX);
  const avxAlone = (value & XSTATE_AVX) !== 0 && (value & XSTATE_SSE) === 0;
  if (gprLo(core, RCX) !== 0 || gprLo(core, RDX) !== 0) return core.gp(0);
  if ((value & XSTATE_X87) === 0 || avxAlone || (value & ~core.xcr0Known) !== 0) return core.gp(0);
  core.i32[XCR0_AT >> 2] = value;
  core.i32[(XCR0_AT >> 2) + 1] = 0;
  return STATUS_OK;
}

/** RDPKRU (`isWrite` false) and WRPKRU. */
export function accessPkru(core: Core, isWrite: boolean): number {
  if ((core.i32[W_CR4]! & CR4_PKE) === 0) return core.ud();
  if (gprLo(core, RCX) !== 0) return core.gp(0);
  if (!isWrite) {
    setGpr(core, RAX, 4, core.i32[PKRU_AT >> 2]!, 0);
    setGpr(core, RDX, 4, 0, 0);
    return STATUS_OK;
  }
  if (gprLo(core, RDX) !== 0) return core.gp(0);
  core.i32[PKRU_AT >> 2] = gprLo(core, RAX);
  core.updatePaging();
  return STATUS_OK;
}

/** What INVPCID's first operand asks for. */
const INVPCID_ADDRESS = 0;
const INVPCID_CONTEXT = 1;
const INVPCID_ALL = 2;
const INVPCID_ALL_NON_GLOBAL = 3;

/** INVPCID: its descriptor is read whatever the type is (@sdm volume 2; @apm volume 3). */
export function invpcid(core: Core, record: number, length: number): number {
  const { i32, tlb } = core;
  if (core.vmx && (core.secondaryControls & SECONDARY_EXEC_ENABLE_INVPCID) === 0) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  // VMX tells how the operands are addressed, and leaves their faults to whoever handles the exit (@sdm 26.1.1).
  if (core.vmx && (core.intercept3 & INTERCEPT_INVLPG) !== 0) return exitVmx(core, EXIT_REASON_INVPCID);
  const register = recordReg(core.u8, record);
  const wide = core.mode64();
  const type = gprLo(core, register);
  const typeHi = wide ? gprHi(core, register) : 0;
  if (!operandAddress(core, record, DESCRIPTOR_BYTES, false)) return core.status;
  const { addressLo, addressHi } = core;
  if ((core.intercept5 & INTERCEPT_INVPCID) !== 0) {
    return core.exit(SVM_EXIT_INVPCID, addressLo, addressHi, type, typeHi);
  }
  const context = currentContext(core);
  if (!readAt(core, addressLo, addressHi, 0, 8, context)) return core.status;
  const pcid = core.lo;
  const pcidHi = core.hi;
  if (!readAt(core, addressLo, addressHi, 8, 8, context)) return core.status;
  if (typeHi !== 0 || type >>> 0 > INVPCID_ALL_NON_GLOBAL || pcidHi !== 0 || (pcid & ~0xfff) !== 0) return core.gp(0);
  if (type === INVPCID_ALL) tlb.flushAll();
  else if (type === INVPCID_ALL_NON_GLOBAL) tlb.flushAllNonGlobal();
  else {
    if (pcid !== 0 && (i32[W_CR4]! & CR4_PCIDE) === 0) return core.gp(0);
    if (type === INVPCID_CONTEXT) tlb.invalidatePcid(pcid);
    else if (type === INVPCID_ADDRESS) {
      if (!core.canonicalBase(core.hi)) return core.gp(0);
      tlb.invalidatePcidAddress(pcid, core.lo, core.hi);
    }
  }
  return core.reload(length);
}
