/** XGETBV, XSETBV, RDPKRU, WRPKRU and INVPCID (@sdm volume 2). */
import { CR4_OSXSAVE, CR4_PKE, RAX, RCX, RDX } from '../../arch/registers.ts';
import { INTERCEPT_XSETBV, SVM_EXIT_XSETBV } from '../../arch/vmcb.ts';
import { PKRU_AT, STATUS_OK, XCR0_AT } from '../state.ts';
import type { Core } from './core.ts';
import { stateInUse, XSTATE_AVX, XSTATE_SSE, XSTATE_X87 } from './extended-state.ts';
import { gprLo, setGpr } from './operands.ts';
import { W_CR4 } from './words.ts';

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

/** INVPCID: no profile has it. */
export function invpcid(core: Core): number {
  return core.ud();
}
