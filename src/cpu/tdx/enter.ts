/**
 * TDH.VP.ENTER: a TD's vCPU runs until something is the host's business (@tdx base spec, "TD Entry and Exit", "Virtualization
 * Exceptions"). What the module answers itself never leaves it.
 */
import {
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_WRITE,
} from '../../arch/ept-qualification.ts';
import { PFERR_FETCH, PFERR_PRESENT, PFERR_RSVD, PFERR_WRITE } from '../../arch/error-code.ts';
import { DF_VECTOR, GP_VECTOR, PF_VECTOR, UD_VECTOR, VE_VECTOR } from '../../arch/exceptions.ts';
import { R8, R9, RAX, RBX, RCX, RDX } from '../../arch/registers.ts';
import * as T from '../../arch/tdx.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import { CR2_AT, GPR, XCR0_AT } from '../state.ts';
import { guestCall } from './guest-calls.ts';
import type { ModuleState } from './module-state.ts';
import { SEPT_PENDING, septState, walkSept } from './secure-ept.ts';
import { CONTEXT_WORDS, loadContext, saveContext } from './switch.ts';
import { OP_RUNNABLE, TD_KEYS_CONFIGURED, type Td, type TdVcpu, VCPU_DISABLED, VCPU_READY } from './td.ts';
import { findTdCpuid } from './td-cpuid.ts';
import { TdWalker } from './td-walker.ts';

const { tdxStatus } = T;
const GPR_WORD = GPR >> 2;
/** The guest goes on. */
export const RESUME = -1;
/** Bits of the qualification that the host is told of an EPT violation: access and rights. */
const QUALIFICATION_TOLD = 0x7f;

/** Exits that are #VE: the guest asks the host, or leaves it be. */
const VE_REASONS: ReadonlySet<number> = new Set([
  R.EXIT_REASON_HLT,
  R.EXIT_REASON_IO_INSTRUCTION,
  R.EXIT_REASON_MSR_READ,
  R.EXIT_REASON_MSR_WRITE,
  R.EXIT_REASON_MONITOR_INSTRUCTION,
  R.EXIT_REASON_MWAIT_INSTRUCTION,
  R.EXIT_REASON_RDPMC,
  R.EXIT_REASON_WBINVD,
  R.EXIT_REASON_INVD,
  R.EXIT_REASON_VMCALL,
]);

const UD_REASONS: ReadonlySet<number> = new Set([
  R.EXIT_REASON_VMCLEAR,
  R.EXIT_REASON_VMLAUNCH,
  R.EXIT_REASON_VMPTRLD,
  R.EXIT_REASON_VMPTRST,
  R.EXIT_REASON_VMREAD,
  R.EXIT_REASON_VMRESUME,
  R.EXIT_REASON_VMWRITE,
  R.EXIT_REASON_VMOFF,
  R.EXIT_REASON_VMON,
  R.EXIT_REASON_INVEPT,
  R.EXIT_REASON_INVVPID,
]);

export class TdEntry {
  readonly module: ModuleState;
  private readonly i32: Int32Array;
  private readonly host = new Int32Array(CONTEXT_WORDS);
  private walker: TdWalker | null = null;
  /** First word of the VMCS of the vCPU that runs. */
  private block = 0;
  /** Who runs, and the host's registers of the leaf. */
  vp!: TdVcpu;
  td!: Td;
  private gprs!: Int32Array;

  constructor(module: ModuleState) {
    this.module = module;
    this.i32 = module.memory.i32;
  }

  /** A status with the exit reason in its lower half; `gprs` as ModuleState.vpEnter. */
  run(vp: TdVcpu, gprs: Int32Array): number {
    const { module } = this;
    const td = module.tds.get(vp.tdr)!;
    if (td.lifecycle !== TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_TD_KEYS_NOT_CONFIGURED, T.OPERAND_ID_TDR);
    if (td.opState !== OP_RUNNABLE) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
    if (td.fatal || vp.state !== VCPU_READY) return tdxStatus(T.TDX_VCPU_STATE_INCORRECT, T.OPERAND_ID_RCX);
    this.vp = vp;
    this.td = td;
    this.gprs = gprs;
    vp.associated = true;
    if (vp.epoch !== td.epoch) {
      module.core.tlb.flushAll();
      vp.epoch = td.epoch;
    }
    if (vp.inVmcall) this.takeAnswers();
    td.running[td.epoch & 1]!++;
    const status = this.inGuest();
    td.running[vp.epoch & 1]!--;
    return status;
  }

  /** What the host put into the registers that the guest had passed it. */
  private takeAnswers(): void {
    const { vp, gprs } = this;
    const mask = vp.gpr[2 * RCX]!;
    vp.inVmcall = false;
    for (let n = RDX; n < 16; n++) {
      if (((mask >>> n) & 1) === 0) continue;
      vp.gpr[2 * n] = gprs[2 * n]!;
      vp.gpr[2 * n + 1] = gprs[2 * n + 1]!;
    }
    vp.gpr[2 * RAX] = 0;
    vp.gpr[2 * RAX + 1] = 0;
  }

  /** Switches to the TD, runs it, and switches back. */
  private inGuest(): number {
    const { module, vp, td, i32 } = this;
    const { core, vmx } = module;
    const before = vmx.capture().current;
    const walker = core.walker;
    this.walker ??= new TdWalker(walker.eptWalker!, module.memory);
    this.walker.rootPfn = td.septRoot;
    this.walker.sharedRoot = vp.sharedRoot;
    const plain = walker.nestedWalker;
    saveContext(i32, this.host);
    loadContext(i32, vp.context);
    i32.set(vp.gpr, GPR_WORD);
    walker.nestedWalker = this.walker;
    walker.setPhysBits(td.gpaw);
    core.td = true;
    this.block = vp.tdvpx[0]! << 10;
    if (!vp.launched) vmx.vmclear(vp.tdvpx[0]! * 4096);
    vmx.vmptrld(vp.tdvpx[0]! * 4096);
    const status = this.loop();
    core.td = false;
    walker.setPhysBits(module.profile.maxPhyAddr);
    walker.nestedWalker = plain;
    vp.gpr.set(i32.subarray(GPR_WORD, GPR_WORD + 32));
    saveContext(i32, vp.context);
    loadContext(i32, this.host);
    i32.fill(0, GPR_WORD, GPR_WORD + 32);
    if (before >= 0) vmx.vmptrld(before);
    return status;
  }

  private loop(): number {
    const { vp, module } = this;
    for (;;) {
      if (module.vmx.enter(!vp.launched) !== C.VM_SUCCEED) throw new Error("the TDX module's own VMCS is not valid");
      vp.launched = true;
      const reason = this.read(F.VMCS_VM_EXIT_REASON);
      if (reason < 0) {
        this.td.fatal = true;
        return this.asyncExit(reason & 0xffff, T.TDX_NON_RECOVERABLE_TD);
      }
      this.keepEvent();
      const status = this.handle(reason);
      if (status !== RESUME) return status;
    }
  }

  /** Low half of a field. */
  read(field: number): number {
    return this.i32[this.block + (field >> 2)]!;
  }

  private write(field: number, value: number): void {
    this.i32[this.block + (field >> 2)] = value;
  }

  /** Live general register `n`, low half; and high. */
  gprLo(n: number): number {
    return this.i32[GPR_WORD + 2 * n]!;
  }

  gprHi(n: number): number {
    return this.i32[GPR_WORD + 2 * n + 1]!;
  }

  setGpr(n: number, lo: number, hi: number): void {
    this.i32[GPR_WORD + 2 * n] = lo;
    this.i32[GPR_WORD + 2 * n + 1] = hi;
  }

  /** An event whose delivery the exit cut short is delivered at the next entry. */
  private keepEvent(): void {
    const event = this.read(F.VMCS_IDT_VECTORING_INFO_FIELD);
    if (event >= 0) return;
    this.write(F.VMCS_VM_ENTRY_INTR_INFO_FIELD, event & ~C.INTR_INFO_UNBLOCK_NMI);
    this.write(F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE, this.read(F.VMCS_IDT_VECTORING_ERROR_CODE));
    this.write(F.VMCS_VM_ENTRY_INSTRUCTION_LEN, this.read(F.VMCS_VM_EXIT_INSTRUCTION_LEN));
  }

  private get delivering(): boolean {
    return this.read(F.VMCS_IDT_VECTORING_INFO_FIELD) < 0;
  }

  /** The next entry delivers an exception; `error` -1 for none. */
  inject(vector: number, error: number): number {
    const withError = error >= 0 ? C.INTR_INFO_DELIVER_CODE_MASK : 0;
    this.write(
      F.VMCS_VM_ENTRY_INTR_INFO_FIELD,
      vector | C.INTR_TYPE_HARD_EXCEPTION | C.INTR_INFO_VALID_MASK | withError,
    );
    this.write(F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE, Math.max(error, 0));
    return RESUME;
  }

  /** The instruction that exited is done. */
  skip(): number {
    const length = this.read(F.VMCS_VM_EXIT_INSTRUCTION_LEN);
    const rip = (this.read(F.VMCS_GUEST_RIP) >>> 0) + length;
    this.write(F.VMCS_GUEST_RIP, rip | 0);
    if (rip >= 0x1_0000_0000) this.write(F.VMCS_GUEST_RIP + 4, this.read(F.VMCS_GUEST_RIP + 4) + 1);
    const blocking = C.GUEST_INTR_STATE_STI | C.GUEST_INTR_STATE_MOV_SS;
    const state = F.VMCS_GUEST_INTERRUPTIBILITY_INFO;
    this.write(state, this.read(state) & ~blocking);
    return RESUME;
  }

  private handle(reason: number): number {
    if (reason === R.EXIT_REASON_EPT_VIOLATION) return this.eptViolation();
    if (reason === R.EXIT_REASON_TDCALL) return guestCall(this);
    if (reason === R.EXIT_REASON_CPUID) return this.cpuid();
    if (reason === R.EXIT_REASON_EXTERNAL_INTERRUPT) return this.asyncExit(reason);
    if (reason === R.EXIT_REASON_XSETBV) return this.xsetbv();
    if (reason === R.EXIT_REASON_CR_ACCESS) return this.inject(GP_VECTOR, 0);
    if (VE_REASONS.has(reason)) return this.virtualizationException(reason);
    if (UD_REASONS.has(reason)) return this.inject(UD_VECTOR, -1);
    if (reason === R.EXIT_REASON_TRIPLE_FAULT) {
      this.vp.state = VCPU_DISABLED;
      return this.asyncExit(reason, T.TDX_NON_RECOVERABLE_VCPU);
    }
    if (reason === R.EXIT_REASON_EPT_MISCONFIG && this.isShared()) return this.asyncExit(reason);
    // Nothing else can happen to a TD and leave it sane.
    this.td.fatal = true;
    return this.asyncExit(reason, T.TDX_NON_RECOVERABLE_TD);
  }

  private isShared(): boolean {
    return (this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS + 4) & 0x8000) !== 0;
  }

  /** The TD stops, the host is told why and sees none of its registers. */
  asyncExit(reason: number, code = T.TDX_SUCCESS, extended = 0): number {
    const { gprs } = this;
    gprs.fill(0);
    const violation = reason === R.EXIT_REASON_EPT_VIOLATION || reason === R.EXIT_REASON_EPT_MISCONFIG;
    if (violation) {
      gprs[2 * RCX] = this.read(F.VMCS_EXIT_QUALIFICATION) & QUALIFICATION_TOLD;
      gprs[2 * RDX] = extended;
      // Where in the page is the TD's own business.
      gprs[2 * R8] = this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS) & ~0xfff;
      gprs[2 * R8 + 1] = this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS + 4);
    }
    gprs[2 * R9] = this.read(F.VMCS_VM_EXIT_INTR_INFO);
    return tdxStatus(code, reason);
  }

  /** TDG.MEM.PAGE.ACCEPT of a page that is not there: as if it had been touched. */
  acceptViolation(gpaLo: number, gpaHi: number): number {
    this.write(F.VMCS_GUEST_PHYSICAL_ADDRESS, gpaLo);
    this.write(F.VMCS_GUEST_PHYSICAL_ADDRESS + 4, gpaHi);
    this.write(F.VMCS_EXIT_QUALIFICATION, EPT_VIOLATION_WRITE);
    return this.asyncExit(R.EXIT_REASON_EPT_VIOLATION, T.TDX_SUCCESS, T.EXT_EXIT_QUAL_ACCEPT);
  }

  /** TDG.VP.VMCALL: the host sees the registers that `mask` names. */
  callExit(mask: number): number {
    const { gprs, vp } = this;
    gprs.fill(0);
    for (let n = RDX; n < 16; n++) {
      if (((mask >>> n) & 1) === 0) continue;
      gprs[2 * n] = this.gprLo(n);
      gprs[2 * n + 1] = this.gprHi(n);
    }
    gprs[2 * RCX] = mask;
    vp.inVmcall = true;
    this.skip();
    return tdxStatus(T.TDX_SUCCESS, R.EXIT_REASON_TDCALL);
  }

  private eptViolation(): number {
    const qualification = this.read(F.VMCS_EXIT_QUALIFICATION);
    const hi = this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS + 4);
    const gfn = (hi >>> 0) * 0x100000 + (this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS) >>> 12);
    const reason = R.EXIT_REASON_EPT_VIOLATION;
    if (this.isShared()) {
      const valid = (qualification & EPT_VIOLATION_GVA_IS_VALID) !== 0;
      const table = valid && (qualification & EPT_VIOLATION_GVA_TRANSLATED) === 0;
      if (table || (qualification & EPT_VIOLATION_FETCH) !== 0) return this.sharedFetch(qualification);
      if (this.walker!.suppressesVe(gfn) || this.delivering) return this.asyncExit(reason);
      return this.virtualizationException(reason);
    }
    const at = walkSept(this.i32, this.td.septRoot, gfn, 0);
    if (septState(this.i32[at.word + 1]!) !== SEPT_PENDING) return this.asyncExit(reason);
    const veDisabled = (this.td.attributesLo & T.TD_ATTR_SEPT_VE_DISABLE) !== 0;
    if (veDisabled || this.delivering) return this.asyncExit(reason, T.TDX_SUCCESS, T.EXT_EXIT_QUAL_PENDING);
    return this.virtualizationException(reason);
  }

  /** Code and page tables must be private: anything else is a reserved bit in a translation. */
  private sharedFetch(qualification: number): number {
    this.i32[CR2_AT >> 2] = this.read(F.VMCS_GUEST_LINEAR_ADDRESS);
    this.i32[(CR2_AT >> 2) + 1] = this.read(F.VMCS_GUEST_LINEAR_ADDRESS + 4);
    const access = (qualification & EPT_VIOLATION_FETCH) !== 0 ? PFERR_FETCH : 0;
    const write = access === 0 && (qualification & EPT_VIOLATION_WRITE) !== 0 ? PFERR_WRITE : 0;
    return this.inject(PF_VECTOR, PFERR_PRESENT | PFERR_RSVD | access | write);
  }

  /** #VE, or #DF while the guest has not taken the last one's information. */
  private virtualizationException(reason: number): number {
    const { ve } = this.vp;
    if (ve.valid) return this.inject(DF_VECTOR, 0);
    const violation = reason === R.EXIT_REASON_EPT_VIOLATION;
    ve.valid = true;
    ve.reason = reason;
    ve.qualificationLo = this.read(F.VMCS_EXIT_QUALIFICATION);
    ve.qualificationHi = this.read(F.VMCS_EXIT_QUALIFICATION + 4);
    ve.glaLo = violation ? this.read(F.VMCS_GUEST_LINEAR_ADDRESS) : 0;
    ve.glaHi = violation ? this.read(F.VMCS_GUEST_LINEAR_ADDRESS + 4) : 0;
    ve.gpaLo = violation ? this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS) : 0;
    ve.gpaHi = violation ? this.read(F.VMCS_GUEST_PHYSICAL_ADDRESS + 4) : 0;
    ve.length = violation ? this.module.core.code.instructionLength() : this.read(F.VMCS_VM_EXIT_INSTRUCTION_LEN);
    ve.information = 0;
    return this.inject(VE_VECTOR, -1);
  }

  private cpuid(): number {
    const leaf = this.gprLo(RAX) >>> 0;
    const entry = findTdCpuid(this.td, leaf, this.gprLo(RCX) >>> 0);
    if (entry === null) return this.virtualizationException(R.EXIT_REASON_CPUID);
    const apicId = leaf === 1 ? (this.vp.apicId & 0xff) << 24 : 0;
    this.setGpr(RAX, entry.eax | 0, 0);
    this.setGpr(RBX, leaf === 1 ? (entry.ebx & 0xffffff) | apicId : entry.ebx | 0, 0);
    this.setGpr(RCX, entry.ecx | 0, 0);
    this.setGpr(RDX, entry.edx | 0, 0);
    return this.skip();
  }

  /** XCR0 within what the TD was made with; x87 always, AVX only with SSE. */
  private xsetbv(): number {
    const value = this.gprLo(RAX);
    const bad =
      this.gprLo(RCX) !== 0 ||
      this.gprLo(RDX) !== 0 ||
      (value & 1) === 0 ||
      (value & 6) === 4 ||
      (value & ~(this.td.xfamLo & this.module.core.xcr0Known)) !== 0;
    if (bad) return this.inject(GP_VECTOR, 0);
    this.i32[XCR0_AT >> 2] = value;
    return this.skip();
  }
}
