/** HLT, the interrupt flag, PUSHF and POPF, PAUSE, MONITOR, caches and the TLB (@sdm volume 2; @apm 15.9, 15.13). */
import {
  CR0_PE,
  EFER_SVME,
  RAX,
  RCX,
  RFLAGS_AC,
  RFLAGS_IF,
  RFLAGS_IOPL,
  RFLAGS_IOPL_SHIFT,
  RFLAGS_RF,
  RFLAGS_VIF,
  RFLAGS_VIP,
  RFLAGS_VM,
} from '../../arch/registers.ts';
import {
  INTERCEPT_CLGI,
  INTERCEPT_HLT,
  INTERCEPT_INVD,
  INTERCEPT_INVLPG,
  INTERCEPT_INVLPGA,
  INTERCEPT_MONITOR,
  INTERCEPT_MWAIT,
  INTERCEPT_PAUSE,
  INTERCEPT_POPF,
  INTERCEPT_PUSHF,
  INTERCEPT_RSM,
  INTERCEPT_SKINIT,
  INTERCEPT_STGI,
  INTERCEPT_VMLOAD,
  INTERCEPT_VMMCALL,
  INTERCEPT_VMRUN,
  INTERCEPT_VMSAVE,
  INTERCEPT_WBINVD,
  SVM_EXIT_CLGI,
  SVM_EXIT_HLT,
  SVM_EXIT_INTR,
  SVM_EXIT_INVD,
  SVM_EXIT_INVLPG,
  SVM_EXIT_INVLPGA,
  SVM_EXIT_MONITOR,
  SVM_EXIT_MWAIT,
  SVM_EXIT_PAUSE,
  SVM_EXIT_POPF,
  SVM_EXIT_PUSHF,
  SVM_EXIT_RSM,
  SVM_EXIT_SKINIT,
  SVM_EXIT_STGI,
  SVM_EXIT_VMGEXIT,
  SVM_EXIT_VMLOAD,
  SVM_EXIT_VMMCALL,
  SVM_EXIT_VMRUN,
  SVM_EXIT_VMSAVE,
  SVM_EXIT_WBINVD,
} from '../../arch/vmcb.ts';
import { SECONDARY_EXEC_PAUSE_LOOP_EXITING } from '../../arch/vmx-controls.ts';
import { effectiveAddress, recordAddressSize, recordHasRep, recordLength, recordSegment } from '../decode/record.ts';
import { ACCESS_READ, SCRATCH, SHADOW_STI, STATUS_OK } from '../state.ts';
import {
  SYS_CLGI,
  SYS_INVLPGA,
  SYS_SKINIT,
  SYS_STGI,
  SYS_VMLOAD,
  SYS_VMMCALL,
  SYS_VMRUN,
  SYS_VMSAVE,
} from '../system-ops.ts';
import type { Core } from './core.ts';
import { popFlags } from './iret.ts';
import { currentContext } from './linear-memory.ts';
import { gprHi, gprLo, linear, operandAddress } from './operands.ts';
import { translate } from './translation.ts';
import {
  flagsForbidden,
  hasVirtualIf,
  iopl,
  popVirtualIf,
  setVirtualIf,
  virtualFlagsImage,
  virtualFlagsRefused,
} from './virtual-8086.ts';
import { W_CR0, W_EFER, W_RFLAGS } from './words.ts';

export function hlt(core: Core, length: number): number {
  if (core.cpl() !== 0) return core.gp(0);
  if ((core.intercept3 & INTERCEPT_HLT) !== 0) {
    // Nobody else can move RIP on of a guest with encrypted state.
    if (core.encryptedState) core.reload(length);
    return core.exit(SVM_EXIT_HLT);
  }
  // Nothing but the physical interrupt that ends the budget wakes it, so that comes at once.
  core.reload(length);
  return core.exit(SVM_EXIT_INTR);
}

function maySetInterruptFlag(core: Core): boolean {
  if (!core.protectedMode()) return true;
  return core.cpl() <= (core.i32[W_RFLAGS]! & RFLAGS_IOPL) >>> RFLAGS_IOPL_SHIFT;
}

export function cli(core: Core): number {
  if (!maySetInterruptFlag(core)) return hasVirtualIf(core) ? setVirtualIf(core, false) : core.gp(0);
  core.i32[W_RFLAGS] = core.i32[W_RFLAGS]! & ~RFLAGS_IF;
  return STATUS_OK;
}

/** STI; interrupts stay off for one more instruction when they were off. */
export function sti(core: Core, length: number): number {
  if (!maySetInterruptFlag(core)) return hasVirtualIf(core) ? setVirtualIf(core, true) : core.gp(0);
  const flags = core.i32[W_RFLAGS]!;
  if ((flags & RFLAGS_IF) === 0) core.shadow(SHADOW_STI);
  core.i32[W_RFLAGS] = flags | RFLAGS_IF;
  return core.reload(length);
}

export function pushf(core: Core, size: number): number {
  if (flagsForbidden(core, size)) return core.gp(0);
  if ((core.intercept3 & INTERCEPT_PUSHF) !== 0) return core.exit(SVM_EXIT_PUSHF);
  const stack = core.stack;
  stack.current(currentContext(core));
  const flags = core.flags() & ~(RFLAGS_VM | RFLAGS_RF);
  const virtual = core.virtual8086() && iopl(core) !== 3;
  if (!stack.push(size, virtual ? virtualFlagsImage(flags) : flags, 0)) return core.status;
  stack.commit();
  return STATUS_OK;
}

export function popf(core: Core, size: number, length: number): number {
  if (flagsForbidden(core, size)) return core.gp(0);
  if ((core.intercept3 & INTERCEPT_POPF) !== 0) return core.exit(SVM_EXIT_POPF);
  const stack = core.stack;
  stack.current(currentContext(core));
  if (!stack.pop(size)) return core.status;
  const virtual = core.virtual8086() && iopl(core) !== 3;
  if (virtual && virtualFlagsRefused(core, core.lo)) return core.gp(0);
  stack.commit();
  const cpl = core.protectedMode() ? core.cpl() : 0;
  const image = core.lo & ~(RFLAGS_RF | RFLAGS_VIF | RFLAGS_VIP);
  popFlags(core, image, size, cpl, size === 2 ? 0 : RFLAGS_RF);
  if (virtual) popVirtualIf(core, image);
  return core.reload(length);
}

/** CLAC (`on` false) and STAC. */
export function setAlignmentCheck(core: Core, on: boolean): number {
  if (!core.profile.smap || core.cpl() !== 0) return core.ud();
  const flags = core.i32[W_RFLAGS]!;
  core.i32[W_RFLAGS] = on ? flags | RFLAGS_AC : flags & ~RFLAGS_AC;
  core.updateMmuIndex();
  return STATUS_OK;
}

export function pause(core: Core): number {
  if ((core.intercept3 & INTERCEPT_PAUSE) === 0) return STATUS_OK;
  // PAUSE-loop exiting is for the guest's kernel (@sdm 28.1.3).
  if (core.vmx && core.cpl() !== 0 && (core.secondaryControls & SECONDARY_EXEC_PAUSE_LOOP_EXITING) !== 0)
    return STATUS_OK;
  if (core.pauseCount > 0) {
    core.pauseCount--;
    return STATUS_OK;
  }
  if (core.encryptedState) core.reload(recordLength(core.u8, core.record));
  return core.exit(SVM_EXIT_PAUSE);
}

const MWAIT_INTERRUPT_BREAK = 1;

/** MONITOR translates the byte at rAX, as a load of it would; false with `core.status`. */
function reachMonitored(core: Core, record: number): boolean {
  const size = recordAddressSize(core.u8, record);
  const lo = size === 2 ? gprLo(core, RAX) & 0xffff : gprLo(core, RAX);
  const segment = recordSegment(core.u8, record);
  if (!linear(core, segment, lo, size === 8 ? gprHi(core, RAX) : 0, 1, false)) return false;
  return translate(core, core.addressLo, core.addressHi, ACCESS_READ, currentContext(core)) !== -1;
}

/** MONITOR (`wait` false) and MWAIT: without an intercept MWAIT does not wait. */
export function monitor(core: Core, record: number, wait: boolean): number {
  if (core.cpl() !== 0) return core.ud();
  const intercept = wait ? INTERCEPT_MWAIT : INTERCEPT_MONITOR;
  if ((core.intercept4 & intercept) !== 0) return core.exit(wait ? SVM_EXIT_MWAIT : SVM_EXIT_MONITOR);
  // MWAIT's hint that an interrupt is to end it even when it is masked.
  const extensions = wait ? MWAIT_INTERRUPT_BREAK : 0;
  if ((gprLo(core, RCX) & ~extensions) !== 0) return core.gp(0);
  return wait || reachMonitored(core, record) ? STATUS_OK : core.status;
}

/** Linear address of the record's memory operand without segment checks, into `core.addressLo` and `core.addressHi`. */
function plainAddress(core: Core, record: number): void {
  effectiveAddress(core.i32, core.u8, record);
  const i32 = core.i32;
  const lo = i32[SCRATCH >> 2]!;
  const hi = i32[(SCRATCH >> 2) + 1]!;
  const n = recordSegment(core.u8, record);
  const word = core.segment(n);
  if (core.mode64() && n < 4) {
    core.addressLo = lo;
    core.addressHi = hi;
    return;
  }
  const sum = (lo >>> 0) + (i32[word]! >>> 0);
  core.addressLo = sum | 0;
  core.addressHi = core.mode64() ? (hi + i32[word + 1]! + (sum >= 0x1_0000_0000 ? 1 : 0)) | 0 : 0;
}

export function invlpg(core: Core, record: number, length: number): number {
  if (core.cpl() !== 0) return core.gp(0);
  plainAddress(core, record);
  if ((core.intercept3 & INTERCEPT_INVLPG) !== 0) {
    if (!core.profile.decodeAssists) return core.exit(SVM_EXIT_INVLPG);
    return core.exit(SVM_EXIT_INVLPG, core.addressLo, core.addressHi);
  }
  if (core.canonicalBase(core.addressHi)) core.tlb.invlpg(core.addressLo, core.addressHi);
  return core.reload(length);
}

/** INVD and WBINVD: memory has no caches. */
export function invalidateCaches(core: Core, writeBack: boolean): number {
  if (core.cpl() !== 0) return core.gp(0);
  if (writeBack) {
    if ((core.intercept4 & INTERCEPT_WBINVD) !== 0) return core.exit(SVM_EXIT_WBINVD);
  } else if ((core.intercept3 & INTERCEPT_INVD) !== 0) return core.exit(SVM_EXIT_INVD);
  return STATUS_OK;
}

/** CLFLUSH and CLWB: a translation at most, where the profile says that they take one. */
export function flushLine(core: Core, record: number): number {
  if (!core.profile.cacheHintsFault) return STATUS_OK;
  if (!operandAddress(core, record, 1, false)) return core.status;
  const at = translate(core, core.addressLo, core.addressHi, ACCESS_READ, currentContext(core));
  return at === -1 ? core.status : STATUS_OK;
}

export function rsm(core: Core): number {
  if ((core.intercept3 & INTERCEPT_RSM) !== 0) return core.exit(SVM_EXIT_RSM);
  return core.ud();
}

/** Whether rAX can be the address of a control block: aligned to a page, within MAXPHYADDR. */
function legalBlock(core: Core): boolean {
  const hi = core.mode64() ? gprHi(core, RAX) : 0;
  return (gprLo(core, RAX) & 0xfff) === 0 && (hi & (core.walker.physHi | 0xfff00000)) === 0;
}

/**
 * The SVM instructions inside a guest: #UD without EFER.SVME, #GP outside CPL 0, then their intercepts. What no intercept takes is #UD,
 * as a processor without nested virtualization would have it.
 */
export function svmInstruction(core: Core, op: number): number {
  if (op === SYS_VMMCALL) {
    if (core.encryptedState && recordHasRep(core.u8, core.record)) {
      core.reload(recordLength(core.u8, core.record));
      return core.exit(SVM_EXIT_VMGEXIT);
    }
    return (core.intercept4 & INTERCEPT_VMMCALL) !== 0 ? core.exit(SVM_EXIT_VMMCALL) : core.ud();
  }
  if ((core.i32[W_EFER]! & EFER_SVME) === 0 || (core.i32[W_CR0]! & CR0_PE) === 0) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  const i4 = core.intercept4;
  const usesBlock = op === SYS_VMRUN || op === SYS_VMLOAD || op === SYS_VMSAVE;
  if (usesBlock && !core.interceptBeforeVmcbCheck && !legalBlock(core)) return core.gp(0);
  switch (op) {
    case SYS_VMRUN:
      return (i4 & INTERCEPT_VMRUN) !== 0 ? core.exit(SVM_EXIT_VMRUN) : core.ud();
    case SYS_VMLOAD:
      return (i4 & INTERCEPT_VMLOAD) !== 0 ? core.exit(SVM_EXIT_VMLOAD) : core.ud();
    case SYS_VMSAVE:
      return (i4 & INTERCEPT_VMSAVE) !== 0 ? core.exit(SVM_EXIT_VMSAVE) : core.ud();
    case SYS_STGI:
      return (i4 & INTERCEPT_STGI) !== 0 ? core.exit(SVM_EXIT_STGI) : core.setVirtualGif(true);
    case SYS_CLGI:
      return (i4 & INTERCEPT_CLGI) !== 0 ? core.exit(SVM_EXIT_CLGI) : core.setVirtualGif(false);
    case SYS_SKINIT:
      return (i4 & INTERCEPT_SKINIT) !== 0 ? core.exit(SVM_EXIT_SKINIT) : core.ud();
    case SYS_INVLPGA:
      if ((core.intercept3 & INTERCEPT_INVLPGA) !== 0) return core.exit(SVM_EXIT_INVLPGA);
      core.tlb.invalidateAddress(gprLo(core, RAX), core.mode64() ? gprHi(core, RAX) : 0);
      return STATUS_OK;
    default:
      return core.ud();
  }
}
