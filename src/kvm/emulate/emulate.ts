/** The emulator as KVM uses it (@kvm kvm_emulate.h): prepare, decode, emulate; and what stands beside single instructions. */
import { deliverIntReal } from './control.ts';
import type { EmulateCtxt } from './ctxt.ts';
import { PAGE_TABLE, STRING, TWO_MEM_OP } from './opcode.ts';
import { X86EMUL_CONTINUE } from './ops.ts';
import { invalidateRegisters, writebackRegisters } from './registers.ts';

export * from './ctxt.ts';
export { x86DecodeInsn } from './decode.ts';
export { x86EmulateInsn } from './execute.ts';
export * from './intercepts.ts';
export * from './ops.ts';
export { regHi, regLo, regWrite } from './registers.ts';
export {
  emulatorTaskSwitch,
  TASK_SWITCH_CALL,
  TASK_SWITCH_GATE,
  TASK_SWITCH_IRET,
  TASK_SWITCH_JMP,
} from './task-switch.ts';

/** Forgets the previous instruction. @kvm emulate.c init_decode_cache */
export function initDecodeCache(ctxt: EmulateCtxt): void {
  ctxt.ripRelative = false;
  ctxt.rexPrefix = 0;
  ctxt.lockPrefix = 0;
  ctxt.repPrefix = 0;
  ctxt.regsValid = 0;
  ctxt.regsDirty = 0;
  ctxt.ioRead.pos = 0;
  ctxt.ioRead.end = 0;
  ctxt.memRead.end = 0;
}

/** Delivers interrupt `irq` through the real-mode vector table; rIP is in `ctxt.nextEip`. X86EMUL_*. @kvm emulate.c emulate_int_real */
export function emulateIntReal(ctxt: EmulateCtxt, irq: number): number {
  invalidateRegisters(ctxt);
  const rc = deliverIntReal(ctxt, irq);
  if (rc === X86EMUL_CONTINUE) writebackRegisters(ctxt);
  return rc;
}

/** True for the kind of instruction with which guests edit page tables. @kvm emulate.c x86_page_table_writing_insn */
export function x86PageTableWritingInsn(ctxt: EmulateCtxt): boolean {
  return (ctxt.d & PAGE_TABLE) !== 0;
}

/** True when the faulting gpa can only belong to the one memory operand. @kvm emulate.c emulator_can_use_gpa */
export function emulatorCanUseGpa(ctxt: EmulateCtxt): boolean {
  return (ctxt.repPrefix === 0 || (ctxt.d & STRING) === 0) && (ctxt.d & TWO_MEM_OP) === 0;
}

/** @kvm emulate.c emulator_invalidate_register_cache */
export function emulatorInvalidateRegisterCache(ctxt: EmulateCtxt): void {
  invalidateRegisters(ctxt);
}

/** @kvm emulate.c emulator_writeback_register_cache */
export function emulatorWritebackRegisterCache(ctxt: EmulateCtxt): void {
  writebackRegisters(ctxt);
}
