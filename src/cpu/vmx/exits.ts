/**
 * What a VM exit writes into the VMCS: reason, qualification, interruption and IDT-vectoring information, instruction length and the
 * RFLAGS image (@sdm 29.2, 29.3.3). The core leaves a guest with SVM's exit codes; here they become VMX's.
 */
import { DB_VECTOR, DF_VECTOR, hasErrorCode, PF_VECTOR } from '../../arch/exceptions.ts';
import { RFLAGS_RF } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import { recordLength } from '../decode/record.ts';
import { EPT_ERROR_MISCONFIG, EPT_ERROR_PML_FULL } from '../mmu/ept-walker.ts';
import { DR_AT, EXIT_CODE_AT, EXIT_INFO1_AT, EXIT_INFO2_AT, INSNS_AT } from '../state.ts';
import type { Core } from '../system/core.ts';
import { EXIT_VMX, EXIT_VMX_SOFTWARE } from './instruction-exits.ts';
import { describeInstruction, describeStringIo } from './instruction-info.ts';

/** Exits of instructions that need nothing but their reason. */
const REASONS: ReadonlyMap<number, number> = new Map([
  [V.SVM_EXIT_INTR, R.EXIT_REASON_EXTERNAL_INTERRUPT],
  [V.SVM_EXIT_SHUTDOWN, R.EXIT_REASON_TRIPLE_FAULT],
  [V.SVM_EXIT_IDTR_READ, R.EXIT_REASON_GDTR_IDTR],
  [V.SVM_EXIT_IDTR_WRITE, R.EXIT_REASON_GDTR_IDTR],
  [V.SVM_EXIT_GDTR_READ, R.EXIT_REASON_GDTR_IDTR],
  [V.SVM_EXIT_GDTR_WRITE, R.EXIT_REASON_GDTR_IDTR],
  [V.SVM_EXIT_LDTR_READ, R.EXIT_REASON_LDTR_TR],
  [V.SVM_EXIT_LDTR_WRITE, R.EXIT_REASON_LDTR_TR],
  [V.SVM_EXIT_TR_READ, R.EXIT_REASON_LDTR_TR],
  [V.SVM_EXIT_TR_WRITE, R.EXIT_REASON_LDTR_TR],
  [V.SVM_EXIT_RDTSC, R.EXIT_REASON_RDTSC],
  [V.SVM_EXIT_RDTSCP, R.EXIT_REASON_RDTSCP],
  [V.SVM_EXIT_RDPMC, R.EXIT_REASON_RDPMC],
  [V.SVM_EXIT_CPUID, R.EXIT_REASON_CPUID],
  [V.SVM_EXIT_INVD, R.EXIT_REASON_INVD],
  [V.SVM_EXIT_WBINVD, R.EXIT_REASON_WBINVD],
  [V.SVM_EXIT_PAUSE, R.EXIT_REASON_PAUSE_INSTRUCTION],
  [V.SVM_EXIT_HLT, R.EXIT_REASON_HLT],
  [V.SVM_EXIT_MONITOR, R.EXIT_REASON_MONITOR_INSTRUCTION],
  [V.SVM_EXIT_MWAIT, R.EXIT_REASON_MWAIT_INSTRUCTION],
  [V.SVM_EXIT_XSETBV, R.EXIT_REASON_XSETBV],
  [V.SVM_EXIT_INVLPG, R.EXIT_REASON_INVLPG],
]);

/** Exits that happen when an instruction is over. */
const BETWEEN_INSTRUCTIONS: ReadonlySet<number> = new Set([
  R.EXIT_REASON_INTERRUPT_WINDOW,
  R.EXIT_REASON_NMI_WINDOW,
  R.EXIT_REASON_TPR_BELOW_THRESHOLD,
  R.EXIT_REASON_MONITOR_TRAP_FLAG,
]);

/** Bits of DR6 that an intercepted #DB reports. */
const PENDING_DEBUG = 0xe00f;

/** Sources of a task switch, bits 31:30 of its qualification. */
const TASK_SWITCH_IRET = 1 << 30;
const TASK_SWITCH_JMP = 2 << 30;
const TASK_SWITCH_GATE = 3 << 30;

/** What one exit reports; one object a processor, filled in place. */
export class ExitReport {
  reason = 0;
  qualificationLo = 0;
  qualificationHi = 0;
  intrInfo = 0;
  intrError = 0;
  length = 0;
  info = 0;
  rflags = 0;

  private clear(): void {
    this.qualificationLo = 0;
    this.qualificationHi = 0;
    this.intrInfo = 0;
    this.intrError = 0;
    this.length = 0;
    this.info = 0;
  }

  /** Takes EXIT_*, and what the core was doing, into the fields. HOT */
  fill(core: Core): void {
    const i32 = core.i32;
    const code = i32[EXIT_CODE_AT >> 2]!;
    const info1 = i32[EXIT_INFO1_AT >> 2]!;
    this.clear();
    const delivering = core.event < 0;
    const flags = core.flags();
    this.rflags = delivering && core.eventResumes ? flags | RFLAGS_RF : flags;
    if (delivering) this.length = softwareLength(core);
    if (code === V.SVM_EXIT_NPF) this.secondLevel(info1, delivering, flags);
    else if (code >= EXIT_VMX_SOFTWARE) this.softwareException(core, code - EXIT_VMX_SOFTWARE, flags);
    else if (code >= EXIT_VMX) {
      this.reason = code - EXIT_VMX;
      this.qualificationLo = info1;
      this.qualificationHi = i32[(EXIT_INFO1_AT >> 2) + 1]!;
      if (this.reason === R.EXIT_REASON_APIC_ACCESS) {
        if (!delivering) this.rflags = flags | RFLAGS_RF;
      } else if (!BETWEEN_INSTRUCTIONS.has(this.reason)) this.instruction(core, flags);
    } else if (code >= V.SVM_EXIT_EXCP_BASE && code < V.SVM_EXIT_INTR) {
      this.exception(core, code - V.SVM_EXIT_EXCP_BASE, info1, flags);
    } else if (code === V.SVM_EXIT_TASK_SWITCH) this.taskSwitch(core, info1, delivering, flags);
    else if (code === V.SVM_EXIT_MSR) {
      this.reason = info1 !== 0 ? R.EXIT_REASON_MSR_WRITE : R.EXIT_REASON_MSR_READ;
      this.instruction(core, flags);
    } else this.plain(core, code, flags);
  }

  private plain(core: Core, code: number, flags: number): void {
    const reason = REASONS.get(code);
    if (reason === undefined) throw new Error(`no VM exit stands for exit code ${code}`);
    this.reason = reason;
    if (code === V.SVM_EXIT_INTR || code === V.SVM_EXIT_SHUTDOWN) return;
    if (code === V.SVM_EXIT_INVLPG) {
      this.qualificationLo = core.addressLo;
      this.qualificationHi = core.addressHi;
    }
    this.instruction(core, flags);
  }

  /** An exit of the running instruction, which has not begun. */
  private instruction(core: Core, flags: number): void {
    this.length = recordLength(core.u8, core.record);
    this.rflags = flags & ~RFLAGS_RF;
    const described = describeInstruction(core, this.reason);
    if (described !== null) {
      this.info = described.info;
      this.qualificationLo = described.displacementLo;
      this.qualificationHi = described.displacementHi;
    } else if (this.reason === R.EXIT_REASON_IO_INSTRUCTION && (this.qualificationLo & C.VMX_IO_STRING) !== 0) {
      this.info = describeStringIo(core);
    }
  }

  private secondLevel(error: number, delivering: boolean, flags: number): void {
    if (!delivering) this.rflags = flags | RFLAGS_RF;
    if ((error & EPT_ERROR_MISCONFIG) !== 0) this.reason = R.EXIT_REASON_EPT_MISCONFIG;
    else if ((error & EPT_ERROR_PML_FULL) !== 0) this.reason = R.EXIT_REASON_PML_FULL;
    else {
      this.reason = R.EXIT_REASON_EPT_VIOLATION;
      this.qualificationLo = error;
    }
  }

  private exception(core: Core, vector: number, error: number, flags: number): void {
    const i32 = core.i32;
    this.reason = R.EXIT_REASON_EXCEPTION_NMI;
    this.intrInfo = vector | C.INTR_TYPE_HARD_EXCEPTION | C.INTR_INFO_VALID_MASK;
    if (hasErrorCode(vector) && core.protectedMode()) {
      this.intrInfo |= C.INTR_INFO_DELIVER_CODE_MASK;
      this.intrError = error;
    }
    if (core.unblockingFault === i32[INSNS_AT >> 2] && vector !== DF_VECTOR && core.event >= 0) {
      this.intrInfo |= C.INTR_INFO_UNBLOCK_NMI;
    }
    core.unblockingFault = Number.NaN;
    if (vector === PF_VECTOR) {
      this.qualificationLo = i32[EXIT_INFO2_AT >> 2]!;
      this.qualificationHi = i32[(EXIT_INFO2_AT >> 2) + 1]!;
    }
    if (vector === DB_VECTOR) this.qualificationLo = i32[(DR_AT >> 2) + 12]! & PENDING_DEBUG;
    else this.rflags = flags | RFLAGS_RF;
  }

  private softwareException(core: Core, vector: number, flags: number): void {
    this.reason = R.EXIT_REASON_EXCEPTION_NMI;
    const type = vector === DB_VECTOR ? C.INTR_TYPE_PRIV_SW_EXCEPTION : C.INTR_TYPE_SOFT_EXCEPTION;
    this.intrInfo = vector | type | C.INTR_INFO_VALID_MASK;
    this.instruction(core, flags);
    this.rflags = flags;
  }

  private taskSwitch(core: Core, selector: number, delivering: boolean, flags: number): void {
    this.reason = R.EXIT_REASON_TASK_SWITCH;
    this.qualificationLo = selector & 0xffff;
    if (delivering) {
      this.qualificationLo |= TASK_SWITCH_GATE;
      return;
    }
    const how = core.i32[(EXIT_INFO2_AT >> 2) + 1]!;
    if ((how & (1 << 4)) !== 0) this.qualificationLo |= TASK_SWITCH_IRET;
    else if ((how & (1 << 6)) !== 0) this.qualificationLo |= TASK_SWITCH_JMP;
    this.instruction(core, flags);
  }

  /** Writes the report into the VMCS at word `block`. HOT */
  store(core: Core, block: number): void {
    const i32 = core.i32;
    i32[block + (F.VMCS_VM_EXIT_REASON >> 2)] = this.reason;
    i32[block + (F.VMCS_EXIT_QUALIFICATION >> 2)] = this.qualificationLo;
    i32[block + (F.VMCS_EXIT_QUALIFICATION >> 2) + 1] = this.qualificationHi;
    i32[block + (F.VMCS_VM_EXIT_INTR_INFO >> 2)] = this.intrInfo;
    i32[block + (F.VMCS_VM_EXIT_INTR_ERROR_CODE >> 2)] = this.intrError;
    i32[block + (F.VMCS_VM_EXIT_INSTRUCTION_LEN >> 2)] = this.length;
    i32[block + (F.VMCS_VMX_INSTRUCTION_INFO >> 2)] = this.info;
    const vectoring = this.reason !== R.EXIT_REASON_TRIPLE_FAULT;
    i32[block + (F.VMCS_IDT_VECTORING_INFO_FIELD >> 2)] = vectoring ? core.event : 0;
    i32[block + (F.VMCS_IDT_VECTORING_ERROR_CODE >> 2)] = vectoring ? core.eventError : 0;
    if (this.reason === R.EXIT_REASON_EPT_VIOLATION || this.reason === R.EXIT_REASON_EPT_MISCONFIG) {
      const address = block + (F.VMCS_GUEST_PHYSICAL_ADDRESS >> 2);
      i32[address] = i32[EXIT_INFO2_AT >> 2]!;
      i32[address + 1] = i32[(EXIT_INFO2_AT >> 2) + 1]!;
      const linear = block + (F.VMCS_GUEST_LINEAR_ADDRESS >> 2);
      i32[linear] = core.linearLo;
      i32[linear + 1] = core.linearHi;
    }
  }
}

/** Length of the instruction whose software interrupt or exception is being delivered. */
function softwareLength(core: Core): number {
  const type = core.event & C.INTR_INFO_INTR_TYPE_MASK;
  return type >= C.INTR_TYPE_SOFT_INTR ? core.eventLength : 0;
}
