/**
 * Virtual-8086 mode: how it is entered and left, and its extensions under CR4.VME and CR4.PVI, a virtual interrupt flag and interrupts
 * that stay in the program (@sdm 20.2, 20.3; @apm 8.10, 8.11).
 */
import {
  CR4_PVI,
  CR4_VME,
  CS,
  DS,
  ES,
  FS,
  GS,
  RFLAGS_AC,
  RFLAGS_IF,
  RFLAGS_IOPL,
  RFLAGS_IOPL_SHIFT,
  RFLAGS_NT,
  RFLAGS_RF,
  RFLAGS_TF,
  RFLAGS_VIF,
  RFLAGS_VIP,
  SS,
  TR,
} from '../../arch/registers.ts';
import { STATUS_OK, STATUS_RELOAD } from '../state.ts';
import type { Core } from './core.ts';
import { currentContext, IMPLICIT, readAt } from './linear-memory.ts';
import { cacheNull, cacheReal } from './segments.ts';
import type { Stack } from './stack.ts';
import { W_CPL, W_CR4, W_GPR, W_RFLAGS } from './words.ts';

/** Attributes of every segment: data that can be written, accessed, present, for ring 3. */
const ATTRIBUTES = 0xf3;
const IO_MAP_BASE = 102;
const REDIRECTION_BYTES = 32;
const RSP_WORD = W_GPR + 4 * 2;
/** The order in which IRET pops, and an interrupt pushes from the last to the first. */
const DATA = [ES, DS, FS, GS];

export function iopl(core: Core): number {
  return (core.i32[W_RFLAGS]! & RFLAGS_IOPL) >>> RFLAGS_IOPL_SHIFT;
}

/** CLI and STI of a program that IOPL forbids them change VIF instead: with CR4.VME here, with CR4.PVI in ring 3 of protected mode. */
export function hasVirtualIf(core: Core): boolean {
  if (iopl(core) === 3) return false;
  const bit = core.virtual8086() ? CR4_VME : CR4_PVI;
  return core.protectedMode() && core.cpl() === 3 && (core.i32[W_CR4]! & bit) !== 0;
}

/** CLI (`on` false) or STI on VIF: a STATUS. */
export function setVirtualIf(core: Core, on: boolean): number {
  const flags = core.i32[W_RFLAGS]!;
  if (on && (flags & RFLAGS_VIP) !== 0) return core.gp(0);
  core.i32[W_RFLAGS] = on ? flags | RFLAGS_VIF : flags & ~RFLAGS_VIF;
  return STATUS_OK;
}

/** Whether PUSHF, POPF and IRET with operand size `size` are #GP: IOPL is below 3, and VME does not stand in. */
export function flagsForbidden(core: Core, size: number): boolean {
  if (!core.virtual8086() || iopl(core) === 3) return false;
  return size !== 2 || (core.i32[W_CR4]! & CR4_VME) === 0;
}

/** The 16 bits that PUSHF and INT n push while IOPL is below 3: IF is VIF, IOPL is 3. */
export function virtualFlagsImage(flags: number): number {
  return (flags & ~RFLAGS_IF) | ((flags & RFLAGS_VIF) !== 0 ? RFLAGS_IF : 0) | RFLAGS_IOPL;
}

/** What POPF and IRET may not pop under VME: TF, or interrupts on while one is pending. */
export function virtualFlagsRefused(core: Core, image: number): boolean {
  return (image & RFLAGS_TF) !== 0 || ((image & RFLAGS_IF) !== 0 && (core.i32[W_RFLAGS]! & RFLAGS_VIP) !== 0);
}

/** VIF as a popped image has IF. */
export function popVirtualIf(core: Core, image: number): void {
  const flags = core.i32[W_RFLAGS]! & ~RFLAGS_VIF;
  core.i32[W_RFLAGS] = flags | ((image & RFLAGS_IF) !== 0 ? RFLAGS_VIF : 0);
}

/** Not for the program: INT n goes through the interrupt descriptor table. */
export const THROUGH_IDT = -1;

/** INT `vector` of `length` bytes in virtual-8086 mode: a STATUS, or THROUGH_IDT. */
export function interrupt8086(core: Core, vector: number, length: number): number {
  const ring3 = iopl(core) === 3;
  if ((core.i32[W_CR4]! & CR4_VME) === 0) return ring3 ? THROUGH_IDT : core.gp(0);
  const redirected = staysInProgram(core, vector);
  if (redirected < 0) return core.status;
  if (redirected === 0) return ring3 ? THROUGH_IDT : core.gp(0);
  core.nextRip(length);
  const ip = core.lo;
  const flags = core.flags();
  const { stack } = core;
  stack.current(currentContext(core));
  const image = ring3 ? flags : virtualFlagsImage(flags);
  if (!stack.push(2, image, 0) || !stack.push(2, core.selector(CS), 0) || !stack.push(2, ip, 0)) return core.status;
  if (!readAt(core, 0, 0, vector * 4, 4, currentContext(core))) return core.status;
  const target = core.lo;
  stack.commit();
  core.code.writeRflags(flags & ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_AC | RFLAGS_RF | (ring3 ? RFLAGS_IF : RFLAGS_VIF)));
  cacheReal(core, CS, target >>> 16);
  core.setRip(target & 0xffff, 0);
  core.updateMode();
  return STATUS_RELOAD;
}

/** The redirection map, the 32 bytes below the TSS's I/O map: 1 when its bit for `vector` is clear, 0 when set, -1 for a fault. */
function staysInProgram(core: Core, vector: number): number {
  const { i32 } = core;
  const tr = core.segment(TR);
  const limit = i32[tr + 2]! >>> 0;
  const refused = (): number => {
    core.status = core.gp(0);
    return -1;
  };
  if (limit < IO_MAP_BASE + 1) return refused();
  if (!readAt(core, i32[tr]!, i32[tr + 1]!, IO_MAP_BASE, 2, IMPLICIT)) return -1;
  const offset = (core.lo & 0xffff) - REDIRECTION_BYTES + (vector >>> 3);
  if (offset < 0 || offset > limit) return refused();
  if (!readAt(core, i32[tr]!, i32[tr + 1]!, offset, 1, IMPLICIT)) return -1;
  return ((core.lo >>> (vector & 7)) & 1) === 0 ? 1 : 0;
}

/** IRET of ring 0 to an image with VM set: the rest of the frame is popped from `stack`. A STATUS. */
export function enterVirtual8086(core: Core, stack: Stack, ip: number, cs: number, image: number): number {
  const popped: number[] = [];
  for (let i = 0; i < 2 + DATA.length; i++) {
    if (!stack.pop(4)) return core.status;
    popped.push(core.lo);
  }
  if (ip >>> 0 > 0xffff) return core.gp(0);
  const { i32 } = core;
  core.code.writeRflags((image & 0x3f7fd5) | 2);
  const load = (n: number, selector: number): void => {
    core.setSegment(n, selector, (selector & 0xffff) << 4, 0, 0xffff, ATTRIBUTES);
  };
  load(CS, cs);
  load(SS, popped[1]!);
  DATA.forEach((n, i) => {
    load(n, popped[2 + i]!);
  });
  i32[RSP_WORD] = popped[0]!;
  i32[RSP_WORD + 1] = 0;
  core.setRip(ip, 0);
  i32[W_CPL] = 3;
  core.updateMode();
  return STATUS_RELOAD;
}

/** An event leaves virtual-8086 mode: its data segments go onto ring 0's stack, in words of `size` bytes; false with `core.status`. */
export function pushDataSegments(core: Core, stack: Stack, size: number): boolean {
  for (let i = DATA.length - 1; i >= 0; i--) if (!stack.push(size, core.selector(DATA[i]!), 0)) return false;
  return true;
}

/** The handler begins without data segments. */
export function dropDataSegments(core: Core): void {
  for (const n of DATA) cacheNull(core, n, 0);
}
