/** VMX root operation: VM entries and exits (@sdm 25, 26, 28, 29). vmcs-instructions.ts has the rest of its instructions. */

import { DR6_BS } from '../../arch/debug-registers.ts';
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { numberOf } from '../../arch/halves.ts';
import { ptePfn } from '../../arch/paging.ts';
import { RFLAGS_IF, RFLAGS_TF, RFLAGS_VM } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import {
  BREAKPOINT_HITS_AT,
  BUDGET_AT,
  DR_AT,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  INT_SHADOW_AT,
  SHADOW_STACK,
  STATUS_BUDGET,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  STATUS_OK,
  TSC_OFFSET_AT,
} from '../state.ts';
import type { Engine } from '../svm/vmrun.ts';
import type { Core } from '../system/core.ts';
import type { Events } from '../system/events.ts';
import { W_RFLAGS, W_RIP } from '../system/words.ts';
import { type VmxCapabilities, vmxCapabilities } from './capabilities.ts';
import { checkControls } from './entry-checks.ts';
import { ExitReport } from './exits.ts';
import { CHECKS_PASSED, checkGuest, checkRest } from './guest-state-checks.ts';
import { exitVmx } from './instruction-exits.ts';
import { CLEAR, VmcsInstructions } from './vmcs-instructions.ts';
import { loadGuest, storeGuest } from './vmcs-state.ts';

/** VM-instruction errors (@sdm 32.4). */
const VMXERR_VMLAUNCH_NONCLEAR_VMCS = 4;
const VMXERR_VMRESUME_NONLAUNCHED_VMCS = 5;

/** An enabled breakpoint was met: bit 12 of the pending debug exceptions. */
const PENDING_DBG_ENABLED = 1 << 12;
const W_DR6 = (DR_AT >> 2) + 12;

const LAUNCHED = 1;
/** Every load and store of a descriptor-table register, as SVM's intercepts. */
const DESCRIPTOR_TABLES =
  V.INTERCEPT_STORE_IDTR |
  V.INTERCEPT_STORE_GDTR |
  V.INTERCEPT_STORE_LDTR |
  V.INTERCEPT_STORE_TR |
  V.INTERCEPT_LOAD_IDTR |
  V.INTERCEPT_LOAD_GDTR |
  V.INTERCEPT_LOAD_LDTR |
  V.INTERCEPT_LOAD_TR;

/** What of VMX is not in memory. */
export interface VmxState {
  readonly on: boolean;
  readonly current: number;
  readonly vpid: number;
  readonly eptRoot: number;
  readonly accessPfn: number;
}

export class Vmx extends VmcsInstructions {
  readonly capabilities: VmxCapabilities;
  private readonly events: Events;
  private readonly engine: Engine;
  private readonly report = new ExitReport();
  /** What the TLB's translations belong to beside the VPID. */
  private eptRoot = -1;
  private accessPfn = -1;
  private windows = 0;
  /** An exit follows every instruction. */
  private trapFlag = false;
  /** Debug exceptions that wait for the next entry. */
  private pendingDebug = 0;

  constructor(core: Core, events: Events, engine: Engine) {
    super(core);
    this.events = events;
    this.engine = engine;
    this.capabilities = vmxCapabilities(core.profile);
  }

  capture(): VmxState {
    const { on, current, vpid, eptRoot, accessPfn } = this;
    return { on, current, vpid, eptRoot, accessPfn };
  }

  restore(state: VmxState): void {
    this.on = state.on;
    this.current = state.current;
    this.vpid = state.vpid;
    this.eptRoot = state.eptRoot;
    this.accessPfn = state.accessPfn;
  }

  /**
   * VMLAUNCH or VMRESUME of the current VMCS, until its VM exit: C.VM_SUCCEED with the exit in the VMCS (a failed load of the guest's state
   * among them), or the failure of the instruction. HOT
   */
  enter(launch: boolean): number {
    if (!this.on || this.current === -1) return C.VM_FAIL_INVALID;
    const core = this.core;
    const i32 = core.i32;
    const block = this.current >>> 2;
    const state = i32[block + (F.VMCS_LAUNCH_STATE >> 2)]!;
    if (launch && state !== CLEAR) return this.fail(VMXERR_VMLAUNCH_NONCLEAR_VMCS);
    if (!launch && state !== LAUNCHED) return this.fail(VMXERR_VMRESUME_NONLAUNCHED_VMCS);
    const known = core.code.vmcs.known(this.current) !== 0 && this.settled(block);
    if (!known || i32[block + (F.VMCS_VM_ENTRY_INTR_INFO_FIELD >> 2)]! < 0) {
      const error = checkControls(core, this.capabilities, block);
      if (error !== 0) return this.fail(error);
    }
    this.loadControls(block);
    const ept = (core.secondaryControls & C.SECONDARY_EXEC_ENABLE_EPT) !== 0;
    const unrestricted = (core.secondaryControls & C.SECONDARY_EXEC_UNRESTRICTED_GUEST) !== 0;
    const failure = known ? checkRest(core, block) : checkGuest(core, block, unrestricted);
    if (failure !== CHECKS_PASSED) {
      core.vmx = false;
      i32[block + (F.VMCS_VM_EXIT_REASON >> 2)] = R.EXIT_REASON_INVALID_STATE | R.VMX_EXIT_REASONS_FAILED_VMENTRY;
      i32[block + (F.VMCS_EXIT_QUALIFICATION >> 2)] = failure;
      i32[block + (F.VMCS_EXIT_QUALIFICATION >> 2) + 1] = 0;
      return C.VM_SUCCEED;
    }
    if (!known && (i32[block + (F.VMCS_GUEST_RFLAGS >> 2)]! & RFLAGS_VM) === 0) core.code.vmcs.remember(this.current);
    i32[block + (F.VMCS_LAUNCH_STATE >> 2)] = LAUNCHED;
    loadGuest(core, block, ept);
    this.loadPaging(block, ept);
    this.events.reset();
    this.pendingDebug = 0;
    i32[BREAKPOINT_HITS_AT >> 2] = 0;
    if (this.inject(block)) this.loop();
    this.exit(block, ept);
    return C.VM_SUCCEED;
  }

  /** What is checked depends on nothing but the fields that were checked: no virtual-8086 mode, no priority in memory. HOT */
  private settled(block: number): boolean {
    const i32 = this.core.i32;
    if ((i32[block + (F.VMCS_GUEST_RFLAGS >> 2)]! & RFLAGS_VM) !== 0) return false;
    if ((i32[block + (F.VMCS_CPU_BASED_VM_EXEC_CONTROL >> 2)]! & C.CPU_BASED_TPR_SHADOW) === 0) return true;
    return i32[block + (F.VMCS_TPR_THRESHOLD >> 2)] === 0;
  }

  /** The controls as the core knows them: its intercepts are SVM's. HOT */
  private loadControls(block: number): void {
    const core = this.core;
    const i32 = core.i32;
    const primary = i32[block + (F.VMCS_CPU_BASED_VM_EXEC_CONTROL >> 2)]!;
    const useSecondary = (primary & C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) !== 0;
    const secondary = useSecondary ? i32[block + (F.VMCS_SECONDARY_VM_EXEC_CONTROL >> 2)]! : 0;
    const on = (control: number, bits: number): number => ((primary & control) !== 0 ? bits : 0);
    core.vmx = true;
    core.secondaryControls = secondary;
    core.intCtl = 0;
    core.interceptCr =
      on(C.CPU_BASED_CR3_STORE_EXITING, 1 << 3) |
      on(C.CPU_BASED_CR3_LOAD_EXITING, 1 << 19) |
      on(C.CPU_BASED_CR8_STORE_EXITING, 1 << 8) |
      on(C.CPU_BASED_CR8_LOAD_EXITING, 1 << 24);
    core.interceptDr = on(C.CPU_BASED_MOV_DR_EXITING, 0x00ff_00ff);
    core.interceptExceptions = i32[block + (F.VMCS_EXCEPTION_BITMAP >> 2)]!;
    core.pfMask = i32[block + (F.VMCS_PAGE_FAULT_ERROR_CODE_MASK >> 2)]!;
    core.pfMatch = i32[block + (F.VMCS_PAGE_FAULT_ERROR_CODE_MATCH >> 2)]!;
    core.intercept3 =
      V.INTERCEPT_CPUID |
      V.INTERCEPT_INVD |
      V.INTERCEPT_MSR_PROT |
      V.INTERCEPT_TASK_SWITCH |
      V.INTERCEPT_SHUTDOWN |
      on(C.CPU_BASED_HLT_EXITING, V.INTERCEPT_HLT) |
      on(C.CPU_BASED_INVLPG_EXITING, V.INTERCEPT_INVLPG) |
      on(C.CPU_BASED_RDPMC_EXITING, V.INTERCEPT_RDPMC) |
      on(C.CPU_BASED_RDTSC_EXITING, V.INTERCEPT_RDTSC) |
      on(C.CPU_BASED_PAUSE_EXITING, V.INTERCEPT_PAUSE) |
      on(C.CPU_BASED_UNCOND_IO_EXITING | C.CPU_BASED_USE_IO_BITMAPS, V.INTERCEPT_IOIO_PROT) |
      ((secondary & C.SECONDARY_EXEC_DESC) !== 0 ? DESCRIPTOR_TABLES : 0);
    core.intercept4 =
      V.INTERCEPT_XSETBV |
      on(C.CPU_BASED_RDTSC_EXITING, V.INTERCEPT_RDTSCP) |
      on(C.CPU_BASED_MONITOR_EXITING, V.INTERCEPT_MONITOR) |
      on(C.CPU_BASED_MWAIT_EXITING, V.INTERCEPT_MWAIT) |
      ((secondary & C.SECONDARY_EXEC_WBINVD_EXITING) !== 0 ? V.INTERCEPT_WBINVD : 0);
    core.intercept5 = 0;
    core.pauseCount = 0;
    if ((secondary & C.SECONDARY_EXEC_PAUSE_LOOP_EXITING) !== 0 && (primary & C.CPU_BASED_PAUSE_EXITING) === 0) {
      // A loop spends its window in so many gaps; ticks are instructions, and every PAUSE counts as one of a loop.
      const gap = Math.max(i32[block + (F.VMCS_PLE_GAP >> 2)]!, 1);
      core.pauseCount = Math.floor(i32[block + (F.VMCS_PLE_WINDOW >> 2)]! / gap);
      core.intercept3 |= V.INTERCEPT_PAUSE;
    }
    const bitmap = block + (F.VMCS_MSR_BITMAP >> 2);
    const usesBitmap = (primary & C.CPU_BASED_USE_MSR_BITMAPS) !== 0;
    core.msrpmBase = usesBitmap ? numberOf(i32[bitmap]! & ~0xfff, i32[bitmap + 1]!) : -1;
    core.iopmBase = -1;
    if ((primary & C.CPU_BASED_USE_IO_BITMAPS) !== 0) {
      const a = block + (F.VMCS_IO_BITMAP_A >> 2);
      const b = block + (F.VMCS_IO_BITMAP_B >> 2);
      core.iopmBase = numberOf(i32[a]! & ~0xfff, i32[a + 1]!);
      core.iopmHighBase = numberOf(i32[b]! & ~0xfff, i32[b + 1]!);
    }
    core.cr0Mask = i32[block + (F.VMCS_CR0_GUEST_HOST_MASK >> 2)]!;
    core.cr0Shadow = i32[block + (F.VMCS_CR0_READ_SHADOW >> 2)]!;
    core.cr4Mask = i32[block + (F.VMCS_CR4_GUEST_HOST_MASK >> 2)]!;
    core.cr4Shadow = i32[block + (F.VMCS_CR4_READ_SHADOW >> 2)]!;
    this.windows = primary & (C.CPU_BASED_INTR_WINDOW_EXITING | C.CPU_BASED_NMI_WINDOW_EXITING);
    this.trapFlag = (primary & C.CPU_BASED_MONITOR_TRAP_FLAG) !== 0;
    const offset = TSC_OFFSET_AT >> 2;
    const uses = (primary & C.CPU_BASED_USE_TSC_OFFSETTING) !== 0;
    i32[offset] = uses ? i32[block + (F.VMCS_TSC_OFFSET >> 2)]! : 0;
    i32[offset + 1] = uses ? i32[block + (F.VMCS_TSC_OFFSET >> 2) + 1]! : 0;
    // What a #DB adds to DR6 is told by what is there; the guest cannot look.
    if ((primary & C.CPU_BASED_MOV_DR_EXITING) !== 0) i32[(DR_AT >> 2) + 12] = 0xffff0ff0 | 0;
  }

  /** HOT */
  private loadPaging(block: number, ept: boolean): void {
    const core = this.core;
    const i32 = core.i32;
    const walker = core.walker;
    walker.nested = ept;
    walker.pdpteRegisters = ept;
    let root = -1;
    if (ept) {
      const eptp = block + (F.VMCS_EPT_POINTER >> 2);
      root = ptePfn(i32[eptp]!, i32[eptp + 1]!);
      const second = walker.eptWalker!;
      second.rootPfn = root;
      second.levels = (i32[eptp]! & C.VMX_EPTP_PWL_MASK) === C.VMX_EPTP_PWL_5 ? 5 : 4;
      second.adEnabled = (i32[eptp]! & C.VMX_EPTP_AD_ENABLE_BIT) !== 0;
      second.pmlBase = -1;
      if ((core.secondaryControls & C.SECONDARY_EXEC_ENABLE_PML) !== 0) {
        const log = block + (F.VMCS_PML_ADDRESS >> 2);
        second.pmlBase = numberOf(i32[log]! & ~0xfff, i32[log + 1]!);
        second.pmlIndex = i32[block + (F.VMCS_GUEST_PML_INDEX >> 2)]! & 0xffff;
      }
    }
    const accessPfn = this.loadApic(block);
    core.updatePaging();
    core.updateMode();
    core.breakpoints.update();
    const tagged = (core.secondaryControls & C.SECONDARY_EXEC_ENABLE_VPID) !== 0;
    const id = tagged ? i32[block + (F.VMCS_VIRTUAL_PROCESSOR_ID >> 2)]! & 0xffff : 0;
    if (
      core.profile.tlbFlushedAtEntry ||
      id === 0 ||
      id !== this.vpid ||
      root !== this.eptRoot ||
      accessPfn !== this.accessPfn
    ) {
      core.tlb.flushAll();
    }
    core.selectPcid();
    this.vpid = id;
    this.eptRoot = root;
    this.accessPfn = accessPfn;
  }

  /** How accesses to the APIC are virtualized; answers with the frame of the APIC-access page. HOT */
  private loadApic(block: number): number {
    const core = this.core;
    const i32 = core.i32;
    const { apic } = core;
    apic.page = -1;
    apic.accessPfn = -1;
    if ((i32[block + (F.VMCS_CPU_BASED_VM_EXEC_CONTROL >> 2)]! & C.CPU_BASED_TPR_SHADOW) !== 0) {
      const page = block + (F.VMCS_VIRTUAL_APIC_PAGE_ADDR >> 2);
      apic.page = numberOf(i32[page]!, i32[page + 1]!);
      apic.tprThreshold = i32[block + (F.VMCS_TPR_THRESHOLD >> 2)]! & 15;
    }
    if ((core.secondaryControls & C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) !== 0) {
      const address = block + (F.VMCS_APIC_ACCESS_ADDR >> 2);
      apic.accessPfn = ptePfn(i32[address]!, i32[address + 1]!);
    }
    apic.loadTpr(core);
    return apic.accessPfn;
  }

  /** Injects the event of the entry; false when that ended in an exit. */
  private inject(block: number): boolean {
    const core = this.core;
    const i32 = core.i32;
    const at = block + (F.VMCS_VM_ENTRY_INTR_INFO_FIELD >> 2);
    const info = i32[at]!;
    if (info >= 0) return this.deliverPendingDebug(block);
    const type = info & C.INTR_INFO_INTR_TYPE_MASK;
    if (type === C.INTR_TYPE_OTHER_EVENT) {
      exitVmx(core, R.EXIT_REASON_MONITOR_TRAP_FLAG);
      return false;
    }
    const length = type >= C.INTR_TYPE_SOFT_INTR ? i32[block + (F.VMCS_VM_ENTRY_INSTRUCTION_LEN >> 2)]! : 0;
    core.eventLength = length;
    core.nextRip(length);
    const [lo, hi] = length === 0 ? [i32[W_RIP]!, i32[W_RIP + 1]!] : [core.lo, core.hi];
    const error = i32[block + (F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE >> 2)]!;
    const status = this.events.inject(info, (info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0 ? error : 0, lo, hi);
    if (status !== STATUS_OK) return false;
    if (type === C.INTR_TYPE_NMI_INTR) core.nmiBlocked = true;
    if (!this.trapFlag) return true;
    exitVmx(core, R.EXIT_REASON_MONITOR_TRAP_FLAG);
    return false;
  }

  /**
   * Debug exceptions that were pending when the guest was left: they trap before its first instruction, or behind it where a load of SS
   * holds them off (@sdm 28.7.3). False when that ended in an exit.
   */
  private deliverPendingDebug(block: number): boolean {
    const core = this.core;
    const i32 = core.i32;
    const pending = i32[block + (F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS >> 2)]!;
    if ((pending & (PENDING_DBG_ENABLED | DR6_BS)) === 0) return true;
    const traps = pending & (DR6_BS | 0xf);
    if (i32[INT_SHADOW_AT >> 2] === SHADOW_STACK) {
      i32[BREAKPOINT_HITS_AT >> 2] = traps;
      return true;
    }
    i32[W_DR6]! |= traps;
    i32[FAULT_VECTOR >> 2] = DB_VECTOR;
    i32[FAULT_HAS_ERROR >> 2] = 0;
    return this.events.exception() === STATUS_OK;
  }

  /** One instruction with the monitor trap flag on; false when the guest was left, as it is unless its time is up (@sdm 27.5.2). */
  private stepTrapped(): boolean {
    const core = this.core;
    const i32 = core.i32;
    const budget = BUDGET_AT >> 2;
    const saved = i32[budget]!;
    const dr6 = i32[W_DR6]!;
    i32[W_DR6] = dr6 & ~(DR6_BS | 0xf);
    i32[budget] = 1;
    const status = this.engine.run();
    const traps = i32[W_DR6]! & (DR6_BS | 0xf);
    const retired = i32[budget]! <= 0;
    i32[W_DR6]! |= dr6 & (DR6_BS | 0xf);
    i32[budget] = saved - 1 + i32[budget]!;
    if (status === STATUS_EXIT) return false;
    if (status === STATUS_EXCEPTION) {
      if (retired && i32[FAULT_VECTOR >> 2] === DB_VECTOR && traps !== 0) {
        // The trap waits until after the exit, and has left no trace.
        i32[W_DR6] = dr6;
        this.pendingDebug = traps | ((traps & 0xf) !== 0 ? PENDING_DBG_ENABLED : 0);
      } else if (this.events.exception() !== STATUS_OK) return false;
    }
    exitVmx(core, R.EXIT_REASON_MONITOR_TRAP_FLAG);
    return false;
  }

  /** Runs the guest until it exits. HOT */
  private loop(): void {
    const core = this.core;
    const i32 = core.i32;
    const budget = BUDGET_AT >> 2;
    for (;;) {
      let status: number;
      if (this.trapFlag && i32[budget]! > 0 && (this.windows === 0 || !this.windowOpen())) {
        this.stepTrapped();
        return;
      }
      if (this.windows === 0) status = this.engine.run();
      else {
        if (this.windowOpen()) return;
        if (i32[budget]! <= 0) {
          core.exit(V.SVM_EXIT_INTR);
          return;
        }
        // The window may open after any instruction.
        const saved = i32[budget]!;
        i32[budget] = 1;
        status = this.engine.run();
        i32[budget] = saved - 1 + i32[budget]!;
      }
      if (status === STATUS_EXIT) return;
      if (status === STATUS_EXCEPTION) {
        if (this.events.exception() !== STATUS_OK) return;
      } else if (status !== STATUS_BUDGET) throw new Error(`the interpreter answered status ${status}`);
      if (i32[budget]! <= 0) {
        core.exit(V.SVM_EXIT_INTR);
        return;
      }
    }
  }

  /** Leaves the guest when an NMI, or an interrupt, could be taken now and somebody waits for that. */
  private windowOpen(): boolean {
    const core = this.core;
    const i32 = core.i32;
    if (i32[INT_SHADOW_AT >> 2] !== 0) return false;
    if ((this.windows & C.CPU_BASED_NMI_WINDOW_EXITING) !== 0 && !core.nmiBlocked) {
      exitVmx(core, R.EXIT_REASON_NMI_WINDOW);
      return true;
    }
    if ((this.windows & C.CPU_BASED_INTR_WINDOW_EXITING) !== 0 && (i32[W_RFLAGS]! & RFLAGS_IF) !== 0) {
      exitVmx(core, R.EXIT_REASON_INTERRUPT_WINDOW);
      return true;
    }
    return false;
  }

  /** What an interrupt shadow still holds off, and what the trap flag came before (@sdm 29.3.4). HOT */
  private storePendingDebug(block: number, flags: number): void {
    const i32 = this.core.i32;
    const shadow = i32[INT_SHADOW_AT >> 2]!;
    let pending = this.pendingDebug;
    if (shadow !== 0) {
      const hits = i32[BREAKPOINT_HITS_AT >> 2]!;
      if ((shadow & SHADOW_STACK) !== 0 && hits !== 0) pending |= hits | PENDING_DBG_ENABLED;
      if ((flags & RFLAGS_TF) !== 0) pending |= DR6_BS;
    }
    i32[block + (F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS >> 2)] = pending;
    i32[block + (F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS >> 2) + 1] = 0;
  }

  /** VM exit: stores the guest and why it stopped. HOT */
  private exit(block: number, ept: boolean): void {
    const core = this.core;
    const report = this.report;
    report.fill(core);
    report.store(core, block);
    storeGuest(core, block, ept, report.rflags);
    const i32 = core.i32;
    const second = core.walker.eptWalker!;
    if (second.pmlBase !== -1) i32[block + (F.VMCS_GUEST_PML_INDEX >> 2)] = second.pmlIndex;
    this.storePendingDebug(block, report.rflags);
    const info = block + (F.VMCS_VM_ENTRY_INTR_INFO_FIELD >> 2);
    i32[info] = i32[info]! & ~C.INTR_INFO_VALID_MASK;
    const { reason } = report;
    if ((reason === R.EXIT_REASON_EPT_MISCONFIG || reason === R.EXIT_REASON_APIC_ACCESS) && core.event >= 0) {
      i32[block + (F.VMCS_VM_EXIT_INSTRUCTION_LEN >> 2)] = core.code.instructionLength();
    }
    core.vmx = false;
    core.apic.accessPfn = -1;
    core.apic.page = -1;
    core.cr0Mask = 0;
    core.cr4Mask = 0;
    core.walker.pdpteRegisters = false;
  }
}
