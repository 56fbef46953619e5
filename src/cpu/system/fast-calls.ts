/** SYSCALL, SYSRET, SYSENTER and SYSEXIT (@apm 6.1; @sdm volume 2). */
import {
  CR0_PE,
  CS,
  EFER_SCE,
  R8,
  RCX,
  RDX,
  RFLAGS_FIXED,
  RFLAGS_IF,
  RFLAGS_RF,
  RFLAGS_VM,
  RSP,
  SS,
} from '../../arch/registers.ts';
import {
  CSTAR_AT,
  LSTAR_AT,
  SFMASK_AT,
  STAR_AT,
  STATUS_RELOAD,
  STATUS_RELOAD_TF,
  SYSENTER_CS_AT,
  SYSENTER_EIP_AT,
  SYSENTER_ESP_AT,
} from '../state.ts';
import type { Core } from './core.ts';
import { W_CPL, W_CR0, W_EFER, W_GPR } from './words.ts';

/** Attributes of the flat segments that these instructions load without reading a table. */
export const CODE64 = 0xa9b;
const CODE32 = 0xc9b;
export const DATA = 0xc93;
export const USER = 3 << 5;
const R11 = R8 + 3;

function flat(core: Core, n: number, selector: number, attributes: number): void {
  core.setSegment(n, selector, 0, 0, -1, attributes);
}

/** Intel has SYSCALL and SYSRET in 64-bit code only (@sdm volume 2). */
function onlyIn64(core: Core): boolean {
  return core.profile.vendor === 'intel' && !core.mode64();
}

/** SYSCALL in an instruction of `length` bytes: a STATUS. */
export function syscall(core: Core, length: number): number {
  const i32 = core.i32;
  if ((i32[W_EFER]! & EFER_SCE) === 0 || !core.protectedMode() || onlyIn64(core)) return core.ud();
  const selector = i32[(STAR_AT >> 2) + 1]! & 0xffff;
  const flags = core.flags();
  core.nextRip(length);
  i32[W_GPR + RCX * 2] = core.lo;
  i32[W_GPR + RCX * 2 + 1] = core.hi;
  if (core.longMode()) {
    const from64 = core.mode64();
    i32[W_GPR + R11 * 2] = flags & ~RFLAGS_RF;
    i32[W_GPR + R11 * 2 + 1] = 0;
    flat(core, CS, selector & 0xfffc, CODE64);
    flat(core, SS, (selector + 8) & 0xffff, DATA);
    i32[W_CPL] = 0;
    const target = (from64 ? LSTAR_AT : CSTAR_AT) >> 2;
    core.setRip(i32[target]!, i32[target + 1]!);
    core.code.writeRflags((flags & ~i32[SFMASK_AT >> 2]! & ~RFLAGS_RF) | RFLAGS_FIXED);
  } else {
    flat(core, CS, selector & 0xfffc, CODE32);
    flat(core, SS, (selector + 8) & 0xffff, DATA);
    i32[W_CPL] = 0;
    core.setRip(i32[STAR_AT >> 2]!, 0);
    core.code.writeRflags(flags & ~(RFLAGS_IF | RFLAGS_RF | RFLAGS_VM));
  }
  core.updateMode();
  return STATUS_RELOAD_TF;
}

/** SYSRET; `wide` returns to 64-bit code: a STATUS. */
export function sysret(core: Core, wide: boolean): number {
  const i32 = core.i32;
  if ((i32[W_EFER]! & EFER_SCE) === 0 || onlyIn64(core)) return core.ud();
  if (!core.protectedMode() || core.cpl() !== 0) return core.gp(0);
  const selector = i32[(STAR_AT >> 2) + 1]! >>> 16;
  const long = core.longMode();
  const flags = core.flags();
  const ripLo = i32[W_GPR + RCX * 2]!;
  // Intel looks at the target while still in ring 0, AMD when it fetches there.
  const intel = core.profile.vendor === 'intel';
  if (intel && wide && !core.canonical(i32[W_GPR + RCX * 2 + 1]!)) return core.gp(0);
  if (long && wide) {
    flat(core, CS, ((selector + 16) & 0xffff) | 3, CODE64 | USER);
    core.setRip(ripLo, i32[W_GPR + RCX * 2 + 1]!);
  } else {
    flat(core, CS, selector | 3, CODE32 | USER);
    core.setRip(ripLo, 0);
  }
  flat(core, SS, ((selector + 8) & 0xffff) | 3, DATA | USER);
  i32[W_CPL] = 3;
  const kept = RFLAGS_RF | RFLAGS_VM;
  const image = long ? i32[W_GPR + R11 * 2]! & 0x3f7fd5 & ~kept : flags | RFLAGS_IF;
  core.code.writeRflags(image | RFLAGS_FIXED);
  core.updateMode();
  return STATUS_RELOAD_TF;
}

/** SYSENTER: a STATUS. AMD's is #UD in long mode (@apm 6.1.2). */
export function sysenter(core: Core): number {
  const i32 = core.i32;
  const long = core.longMode();
  if (long && core.profile.vendor === 'amd') return core.ud();
  const selector = i32[SYSENTER_CS_AT >> 2]! & 0xffff;
  if ((i32[W_CR0]! & CR0_PE) === 0 || (selector & 0xfffc) === 0) return core.gp(0);
  flat(core, CS, selector & 0xfffc, long ? CODE64 : CODE32);
  flat(core, SS, ((selector & 0xfffc) + 8) & 0xffff, DATA);
  i32[W_CPL] = 0;
  const esp = SYSENTER_ESP_AT >> 2;
  const eip = SYSENTER_EIP_AT >> 2;
  i32[W_GPR + RSP * 2] = i32[esp]!;
  i32[W_GPR + RSP * 2 + 1] = long ? i32[esp + 1]! : 0;
  core.setRip(i32[eip]!, long ? i32[eip + 1]! : 0);
  core.code.writeRflags(core.flags() & ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF));
  core.updateMode();
  return STATUS_RELOAD;
}

/** SYSEXIT; `wide` returns to 64-bit code: a STATUS. */
export function sysexit(core: Core, wide: boolean): number {
  const i32 = core.i32;
  const long = core.longMode();
  if (long && core.profile.vendor === 'amd') return core.ud();
  const selector = i32[SYSENTER_CS_AT >> 2]! & 0xffff;
  if ((selector & 0xfffc) === 0 || !core.protectedMode() || core.cpl() !== 0) return core.gp(0);
  const to64 = long && wide;
  if (to64 && (!core.canonical(i32[W_GPR + RDX * 2 + 1]!) || !core.canonical(i32[W_GPR + RCX * 2 + 1]!)))
    return core.gp(0);
  flat(core, CS, ((selector + (to64 ? 32 : 16)) & 0xffff) | 3, (to64 ? CODE64 : CODE32) | USER);
  flat(core, SS, ((selector + (to64 ? 40 : 24)) & 0xffff) | 3, DATA | USER);
  i32[W_CPL] = 3;
  i32[W_GPR + RSP * 2] = i32[W_GPR + RCX * 2]!;
  i32[W_GPR + RSP * 2 + 1] = to64 ? i32[W_GPR + RCX * 2 + 1]! : 0;
  core.setRip(i32[W_GPR + RDX * 2]!, to64 ? i32[W_GPR + RDX * 2 + 1]! : 0);
  core.updateMode();
  return STATUS_RELOAD;
}
