/** The processor's side of the interpreter's contract (`SystemPort`): translation and the instructions that emitters leave to it. */
import { BP_VECTOR, DB_VECTOR, GP_VECTOR, OF_VECTOR, SS_VECTOR } from '../../arch/exceptions.ts';
import { FS, GS, RFLAGS_OF, SS } from '../../arch/registers.ts';
import { INTERCEPT_ICEBP, INTERCEPT_INTN, SVM_EXIT_ICEBP, SVM_EXIT_SWINT } from '../../arch/vmcb.ts';
import {
  recordImmediate,
  recordImmediate2,
  recordImmediateHi,
  recordLength,
  recordOperandSize,
} from '../decode/record.ts';
import { pvalidate, rmpadjust } from '../snp/guest-instructions.ts';
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_SEG_AT,
  ACCESS_SIZE_AT,
  ACCESS_WRITE,
  FAULT_VECTOR,
  MMU_ALIGNED_USER,
  SCRATCH,
  STATUS_EXCEPTION,
  STATUS_OK,
  type SystemPort,
} from '../state.ts';
import * as op from '../system-ops.ts';
import { tdcall, vmxInstruction } from '../vmx/instruction-exits.ts';
import { clts, lmsw, movFromCr, movFromDr, movToCr, movToDr, smsw } from './control-registers.ts';
import type { Core } from './core.ts';
import { cpuid } from './cpuid.ts';
import {
  arpl,
  askSelector,
  loadSystemSegment,
  loadTable,
  storeSystemSegment,
  storeTable,
  verify,
} from './descriptor-tables.ts';
import type { Events } from './events.ts';
import { accessPkru, invpcid, xgetbv, xsetbv } from './extended-control.ts';
import { xrstor, xsave } from './extended-state.ts';
import { farReturn, farTransfer } from './far-transfer.ts';
import { syscall, sysenter, sysexit, sysret } from './fast-calls.ts';
import { iret } from './iret.ts';
import { currentContext, nextPageHigh, readAt } from './linear-memory.ts';
import { accessMsr, rdpid, rdpmc, rdpru, rdtsc } from './msrs.ts';
import { operandAddress } from './operands.ts';
import { inOut, stringInOut } from './ports.ts';
import {
  cli,
  flushLine,
  hlt,
  invalidateCaches,
  invlpg,
  monitor,
  pause,
  popf,
  pushf,
  rsm,
  setAlignmentCheck,
  sti,
  svmInstruction,
} from './processor-control.ts';
import {
  loadFar,
  movFromSegment,
  movToSegment,
  popSegment,
  pushSegment,
  readBase,
  swapgs,
  writeBase,
} from './segment-instructions.ts';
import { aligned, translate } from './translation.ts';
import { interrupt8086, THROUGH_IDT } from './virtual-8086.ts';

export class Port implements SystemPort {
  private readonly core: Core;
  private readonly events: Events;

  constructor(core: Core, events: Events) {
    this.core = core;
    this.events = events;
  }

  /** HOT */
  translate(vaLo: number, vaHi: number, access: number): number {
    const { core } = this;
    const context = currentContext(core);
    let at = 0;
    if (access === ACCESS_RMW && core.profile.rmwFaultsAsRead) at = translate(core, vaLo, vaHi, ACCESS_READ, context);
    if (at !== -1) at = translate(core, vaLo, vaHi, access, context);
    if (access === ACCESS_FETCH) return at;
    if (at === -1) this.stackFault();
    else if (context === MMU_ALIGNED_USER && !aligned(core, vaLo, core.i32[ACCESS_SIZE_AT >> 2]!)) return -1;
    else if (core.breakpoints.watching) {
      core.breakpoints.accessed(vaLo, vaHi, core.i32[ACCESS_SIZE_AT >> 2]!, access);
    }
    return at;
  }

  /** HOT */
  reach(vaLo: number, vaHi: number, access: number): number {
    const { core } = this;
    const context = currentContext(core);
    if (context === MMU_ALIGNED_USER || core.breakpoints.watching) return -2;
    if (access === ACCESS_RMW && core.profile.rmwFaultsAsRead) return -2;
    const before = core.code.invalidations;
    core.reaching = true;
    const at = translate(core, vaLo, vaHi, access, context);
    core.reaching = false;
    if (at === -1) this.stackFault();
    // A page table held code: the region may be no more.
    return core.code.invalidations === before ? at : -2;
  }

  /** A non-canonical address in SS is #SS where the others are #GP. */
  private stackFault(): void {
    const { core } = this;
    const i32 = core.i32;
    if (core.status !== STATUS_EXCEPTION || i32[ACCESS_SEG_AT >> 2] !== SS) return;
    if (i32[FAULT_VECTOR >> 2] === GP_VECTOR) i32[FAULT_VECTOR >> 2] = SS_VECTOR;
  }

  breakpoint(): number {
    return this.core.breakpoints.onInstruction();
  }

  lastStatus(): number {
    return this.core.status;
  }

  private failed(): number {
    this.stackFault();
    return this.core.status;
  }

  readCross(vaLo: number, vaHi: number, size: number, access: number): number {
    const core = this.core;
    const context = currentContext(core);
    if (access === ACCESS_RMW && core.profile.rmwFaultsAsRead) {
      const status = this.readCross(vaLo, vaHi, size, ACCESS_READ);
      if (status !== STATUS_OK) return status;
    }
    const first = 4096 - (vaLo & 0xfff);
    const low = translate(core, vaLo, vaHi, access, context);
    if (low === -1) return this.failed();
    const nextLo = (vaLo + first) | 0;
    const high = translate(core, nextLo, nextPageHigh(core, nextLo, vaHi), access, context);
    if (high === -1) return this.failed();
    if (context === MMU_ALIGNED_USER && !aligned(core, vaLo, size)) return core.status;
    if (core.breakpoints.watching) core.breakpoints.accessed(vaLo, vaHi, size, access);
    const u8 = core.u8;
    for (let i = 0; i < size; i++) u8[SCRATCH + i] = u8[i < first ? low + i : high + i - first]!;
    return STATUS_OK;
  }

  writeCross(vaLo: number, vaHi: number, size: number): number {
    const core = this.core;
    const context = currentContext(core);
    const first = 4096 - (vaLo & 0xfff);
    const low = translate(core, vaLo, vaHi, ACCESS_WRITE, context);
    if (low === -1) return this.failed();
    const nextLo = (vaLo + first) | 0;
    const high = translate(core, nextLo, nextPageHigh(core, nextLo, vaHi), ACCESS_WRITE, context);
    if (high === -1) return this.failed();
    if (context === MMU_ALIGNED_USER && !aligned(core, vaLo, size)) return core.status;
    if (core.breakpoints.watching) core.breakpoints.accessed(vaLo, vaHi, size, ACCESS_WRITE);
    const u8 = core.u8;
    for (let i = 0; i < size; i++) u8[i < first ? low + i : high + i - first] = u8[SCRATCH + i]!;
    return STATUS_OK;
  }

  system(number: number, record: number): number {
    const core = this.core;
    core.record = record;
    // Guests that exit much, exit here.
    if (number >= op.SYS_IN && number <= op.SYS_OUT_DX) {
      return inOut(core, record, number < op.SYS_OUT, ((number - op.SYS_IN) & 1) !== 0);
    }
    return this.execute(number, record);
  }

  /** Far JMP or CALL through a pointer in memory. */
  private farMemory(record: number, call: boolean, size: number, length: number): number {
    const core = this.core;
    if (!operandAddress(core, record, size + 2, false)) return core.status;
    const lo = core.addressLo;
    const hi = core.addressHi;
    const context = currentContext(core);
    if (!readAt(core, lo, hi, 0, size, context)) return core.status;
    const offsetLo = core.lo;
    const offsetHi = core.hi;
    if (!readAt(core, lo, hi, size, 2, context)) return core.status;
    return farTransfer(core, call, core.lo & 0xffff, offsetLo, offsetHi, size, length);
  }

  private farPointer(record: number, call: boolean, size: number, length: number): number {
    const core = this.core;
    const selector = recordImmediate2(core.i32, record) & 0xffff;
    const offset = recordImmediate(core.i32, record);
    return farTransfer(core, call, selector, offset, recordImmediateHi(core.i32, record), size, length);
  }

  private interrupt(vector: number, length: number): number {
    const core = this.core;
    if ((core.intercept3 & INTERCEPT_INTN) !== 0) return core.exit(SVM_EXIT_SWINT, vector);
    if (core.virtual8086()) {
      const status = interrupt8086(core, vector, length);
      if (status !== THROUGH_IDT) return status;
    }
    return this.events.software(vector, length, false);
  }

  private icebp(length: number): number {
    const core = this.core;
    if ((core.intercept4 & INTERCEPT_ICEBP) !== 0) return core.exit(SVM_EXIT_ICEBP);
    return this.events.software(DB_VECTOR, length, true);
  }

  private execute(number: number, record: number): number {
    const core = this.core;
    const u8 = core.u8;
    const length = recordLength(u8, record);
    const size = recordOperandSize(u8, record);
    switch (number) {
      case op.SYS_MOV_FROM_CR:
        return movFromCr(core, record);
      case op.SYS_MOV_TO_CR:
        return movToCr(core, record, length);
      case op.SYS_MOV_FROM_DR:
        return movFromDr(core, record);
      case op.SYS_MOV_TO_DR:
        return movToDr(core, record);
      case op.SYS_MOV_FROM_SREG:
        return movFromSegment(core, record, size);
      case op.SYS_MOV_TO_SREG:
        return movToSegment(core, record, length);
      case op.SYS_PUSH_SREG:
        return pushSegment(core, record, size);
      case op.SYS_POP_SREG:
        return popSegment(core, record, size, length);
      case op.SYS_LOAD_FAR:
        return loadFar(core, record, size, length);
      case op.SYS_LGDT:
        return loadTable(core, record, false, size);
      case op.SYS_LIDT:
        return loadTable(core, record, true, size);
      case op.SYS_SGDT:
        return storeTable(core, record, false);
      case op.SYS_SIDT:
        return storeTable(core, record, true);
      case op.SYS_LLDT:
        return loadSystemSegment(core, record, false);
      case op.SYS_LTR:
        return loadSystemSegment(core, record, true);
      case op.SYS_SLDT:
        return storeSystemSegment(core, record, false, size);
      case op.SYS_STR:
        return storeSystemSegment(core, record, true, size);
      case op.SYS_LMSW:
        return lmsw(core, record, length);
      case op.SYS_SMSW:
        return smsw(core, record, size);
      case op.SYS_CLTS:
        return clts(core);
      case op.SYS_VERR:
        return verify(core, record, false);
      case op.SYS_VERW:
        return verify(core, record, true);
      case op.SYS_LAR:
        return askSelector(core, record, false, size);
      case op.SYS_LSL:
        return askSelector(core, record, true, size);
      case op.SYS_ARPL:
        return arpl(core, record);
      case op.SYS_JMP_FAR_PTR:
        return this.farPointer(record, false, size, length);
      case op.SYS_JMP_FAR_MEM:
        return this.farMemory(record, false, size, length);
      case op.SYS_CALL_FAR_PTR:
        return this.farPointer(record, true, size, length);
      case op.SYS_CALL_FAR_MEM:
        return this.farMemory(record, true, size, length);
      case op.SYS_RET_FAR:
        return farReturn(core, size, recordImmediate(core.i32, record) & 0xffff);
      case op.SYS_INT:
        return this.interrupt(recordImmediate(core.i32, record) & 0xff, length);
      case op.SYS_INT3:
        return this.events.software(BP_VECTOR, length, true);
      case op.SYS_INT1:
        return this.icebp(length);
      case op.SYS_INTO:
        if ((core.flags() & RFLAGS_OF) === 0) return STATUS_OK;
        return this.events.software(OF_VECTOR, length, true);
      case op.SYS_IRET:
        return iret(core, size);
      case op.SYS_SYSCALL:
        return syscall(core, length);
      case op.SYS_SYSRET:
        return sysret(core, size === 8);
      case op.SYS_SYSENTER:
        return sysenter(core);
      case op.SYS_SYSEXIT:
        return sysexit(core, size === 8);
      case op.SYS_RSM:
        return rsm(core);
      case op.SYS_CPUID:
        return cpuid(core);
      case op.SYS_RDMSR:
        return accessMsr(core, false);
      case op.SYS_WRMSR:
        return accessMsr(core, true);
      case op.SYS_RDTSC:
        return rdtsc(core, false);
      case op.SYS_RDTSCP:
        return rdtsc(core, true);
      case op.SYS_RDPID:
        return rdpid(core, record);
      case op.SYS_RDPMC:
        return rdpmc(core);
      case op.SYS_RDPRU:
        return rdpru(core);
      case op.SYS_SWAPGS:
        return swapgs(core);
      case op.SYS_RDFSBASE:
        return readBase(core, record, FS, size);
      case op.SYS_RDGSBASE:
        return readBase(core, record, GS, size);
      case op.SYS_WRFSBASE:
        return writeBase(core, record, FS, size);
      case op.SYS_WRGSBASE:
        return writeBase(core, record, GS, size);
      case op.SYS_INS:
        return stringInOut(core, record, true);
      case op.SYS_OUTS:
        return stringInOut(core, record, false);
      case op.SYS_HLT:
        return hlt(core, length);
      case op.SYS_CLI:
        return cli(core);
      case op.SYS_STI:
        return sti(core, length);
      case op.SYS_PUSHF:
        return pushf(core, size);
      case op.SYS_POPF:
        return popf(core, size, length);
      case op.SYS_CLAC:
        return setAlignmentCheck(core, false);
      case op.SYS_STAC:
        return setAlignmentCheck(core, true);
      case op.SYS_PAUSE:
        return pause(core);
      case op.SYS_MONITOR:
        return monitor(core, record, false);
      case op.SYS_MWAIT:
        return monitor(core, record, true);
      case op.SYS_INVLPG:
        return invlpg(core, record, length);
      case op.SYS_INVPCID:
        return invpcid(core, record, length);
      case op.SYS_INVD:
        return invalidateCaches(core, false);
      case op.SYS_WBINVD:
      case op.SYS_WBNOINVD:
        return invalidateCaches(core, true);
      case op.SYS_CLFLUSH:
      case op.SYS_CLFLUSHOPT:
      case op.SYS_CLWB:
        return flushLine(core, record);
      case op.SYS_XGETBV:
        return xgetbv(core);
      case op.SYS_XSETBV:
        return xsetbv(core);
      case op.SYS_XSAVE:
        return xsave(core, record, 'plain');
      case op.SYS_XSAVEOPT:
        return xsave(core, record, 'optimized');
      case op.SYS_XSAVEC:
        return xsave(core, record, 'compact');
      case op.SYS_XRSTOR:
        return xrstor(core, record);
      case op.SYS_RDPKRU:
        return accessPkru(core, false);
      case op.SYS_WRPKRU:
        return accessPkru(core, true);
      case op.SYS_VMRUN:
      case op.SYS_VMLOAD:
      case op.SYS_VMSAVE:
      case op.SYS_STGI:
      case op.SYS_CLGI:
      case op.SYS_SKINIT:
      case op.SYS_INVLPGA:
      case op.SYS_VMMCALL:
        return svmInstruction(core, number);
      case op.SYS_VMCALL:
      case op.SYS_VMX:
        return vmxInstruction(core, number === op.SYS_VMCALL);
      case op.SYS_TDCALL:
        return tdcall(core);
      case op.SYS_PVALIDATE:
        return pvalidate(core);
      case op.SYS_RMPADJUST:
        return rmpadjust(core);
      default:
        // XSAVES: no profile has it.
        return core.ud();
    }
  }
}
