/**
 * VM exits of single instructions whose exit qualification says more than that they were executed, and what the controls of a VMCS
 * decide about them (@sdm 28.1.3, 29.2.1). Exit codes below EXIT_VMX are SVM's own (exits.ts turns them into VMX's).
 */
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { RFLAGS_VM } from '../../arch/registers.ts';
import { SVM_EVTINJ_TYPE_SOFT, SVM_IOIO_IN, SVM_IOIO_REP, SVM_IOIO_STR } from '../../arch/vmcb.ts';
import * as C from '../../arch/vmx-controls.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import { RECORD_BYTES, recordIsMemory } from '../decode/record.ts';
import type { Core } from '../system/core.ts';
import { W_RFLAGS } from '../system/words.ts';

/** Exit codes from here on are VMX's basic reasons plus this, with the qualification in EXIT_INFO1. */
export const EXIT_VMX = 0x10000;
/** A software exception (INT1, INT3, INTO) that the exception bitmap intercepts: plus its vector. */
export const EXIT_VMX_SOFTWARE = 0x20000;

/** Leaves the guest with a VMX reason and the low half of its qualification. */
export function exitVmx(core: Core, reason: number, qualification = 0, qualificationHi = 0): number {
  return core.exit(EXIT_VMX + reason, qualification, qualificationHi);
}

/** MOV to or from a control register. */
export function exitMovCr(core: Core, cr: number, from: boolean, gpr: number): number {
  return exitVmx(core, R.EXIT_REASON_CR_ACCESS, cr | (from ? C.CR_ACCESS_FROM_CR : 0) | (gpr << 8));
}

export function exitClts(core: Core): number {
  return exitVmx(core, R.EXIT_REASON_CR_ACCESS, C.CR_ACCESS_CLTS);
}

/** LMSW with source `value`, from a register or memory. */
export function exitLmsw(core: Core, record: number, value: number): number {
  const memory = recordIsMemory(core.u8, record) ? 1 << 6 : 0;
  return exitVmx(core, R.EXIT_REASON_CR_ACCESS, C.CR_ACCESS_LMSW | memory | (value << 16));
}

/** MOV to or from debug register `dr`. */
export function exitMovDr(core: Core, dr: number, from: boolean, gpr: number): number {
  return exitVmx(core, R.EXIT_REASON_DR_ACCESS, dr | (from ? 1 << 4 : 0) | (gpr << 8));
}

/** IN, OUT, INS and OUTS; `kind` in SVM_IOIO_*. */
export function exitIo(core: Core, port: number, size: number, kind: number, fromDx: boolean): number {
  const qualification =
    (size - 1) |
    ((kind & SVM_IOIO_IN) !== 0 ? C.VMX_IO_IN : 0) |
    ((kind & SVM_IOIO_STR) !== 0 ? C.VMX_IO_STRING : 0) |
    ((kind & SVM_IOIO_REP) !== 0 ? C.VMX_IO_REP : 0) |
    (fromDx ? 0 : C.VMX_IO_IMMEDIATE) |
    (port << 16);
  return exitVmx(core, R.EXIT_REASON_IO_INSTRUCTION, qualification);
}

/** The MSR bitmap: reads of the low and the high 8192, then writes of both; what it does not cover always exits (@sdm 26.6.9). */
export function msrBitmapExits(core: Core, msr: number, isWrite: boolean): boolean {
  if (core.msrpmBase < 0) return true;
  let offset = isWrite ? 0x800 : 0;
  if (msr >= 0xc0000000 && msr < 0xc0002000) offset += 0x400;
  else if (msr >= 0x2000) return true;
  const bit = msr & 0x1fff;
  return ((core.u8[core.msrpmBase + offset + (bit >>> 3)]! >>> (bit & 7)) & 1) !== 0;
}

/** RDTSCP and RDPID are #UD in a guest unless the control says that it may have them. */
export function rdtscpAllowed(core: Core): boolean {
  return !core.vmx || (core.secondaryControls & C.SECONDARY_EXEC_ENABLE_RDTSCP) !== 0;
}

/** Type of the event INT n, INT1, INT3 or INTO raises, as IDT-vectoring information has it. */
export function softwareEventType(vector: number, isException: boolean): number {
  if (!isException) return SVM_EVTINJ_TYPE_SOFT;
  return vector === DB_VECTOR ? C.INTR_TYPE_PRIV_SW_EXCEPTION : C.INTR_TYPE_SOFT_EXCEPTION;
}

/** INT1, INT3 or INTO whose exception is intercepted: the exit is on the instruction. */
export function exitSoftwareException(core: Core, vector: number): number {
  return core.exit(EXIT_VMX_SOFTWARE + vector);
}

/** The reason of the VMX instruction whose bytes are at `at`. */
function reasonOf(u8: Uint8Array, at: number): number {
  let operandSize = false;
  let rep = false;
  let i = at;
  while (u8[i] !== 0x0f) {
    if (u8[i] === 0x66) operandSize = true;
    if (u8[i] === 0xf3) rep = true;
    i++;
  }
  const [, opcode, next] = u8.subarray(i, i + 3) as unknown as [number, number, number];
  if (opcode === 0x78) return R.EXIT_REASON_VMREAD;
  if (opcode === 0x79) return R.EXIT_REASON_VMWRITE;
  if (opcode === 0x38) return u8[i + 2] === 0x80 ? R.EXIT_REASON_INVEPT : R.EXIT_REASON_INVVPID;
  if (opcode === 0xc7) {
    if ((next & 0x38) === 0x38) return R.EXIT_REASON_VMPTRST;
    return rep ? R.EXIT_REASON_VMON : operandSize ? R.EXIT_REASON_VMCLEAR : R.EXIT_REASON_VMPTRLD;
  }
  if (next === 0xc2) return R.EXIT_REASON_VMLAUNCH;
  if (next === 0xc3) return R.EXIT_REASON_VMRESUME;
  return next === 0xc4 ? R.EXIT_REASON_VMOFF : R.EXIT_REASON_VMFUNC;
}

/** VMCALL and the other VMX instructions: in a guest they exit whatever its privilege, elsewhere there is no VMX to be in. */
export function vmxInstruction(core: Core, isCall: boolean): number {
  if (!core.vmx) return core.ud();
  if (isCall) return exitVmx(core, R.EXIT_REASON_VMCALL);
  const { i32, u8 } = core;
  const reason = reasonOf(u8, core.record + RECORD_BYTES);
  // The VM functions that there are belong to nobody: with the control each of them exits (@sdm 27.5.6).
  if (reason === R.EXIT_REASON_VMFUNC) {
    return (core.secondaryControls & C.SECONDARY_EXEC_ENABLE_VMFUNC) !== 0 ? exitVmx(core, reason) : core.ud();
  }
  if (!core.protectedMode() || (i32[W_RFLAGS]! & RFLAGS_VM) !== 0) return core.ud();
  if (core.longMode() && !core.mode64()) return core.ud();
  return exitVmx(core, reason);
}

/** TDCALL exits to the TDX module, from 64-bit code of the highest privilege. */
export function tdcall(core: Core): number {
  if (!core.td || !core.mode64()) return core.ud();
  if (core.cpl() !== 0) return core.gp();
  return exitVmx(core, R.EXIT_REASON_TDCALL);
}
