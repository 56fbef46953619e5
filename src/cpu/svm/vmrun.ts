/** VMRUN and #VMEXIT: entering a guest that a control block describes, and what comes back (@apm 15.5, 15.6, 15.21). */
import { PFERR_FETCH } from '../../arch/error-code.ts';
import {
  AC_VECTOR,
  BP_VECTOR,
  DE_VECTOR,
  GP_VECTOR,
  MF_VECTOR,
  NM_VECTOR,
  NP_VECTOR,
  OF_VECTOR,
  PF_VECTOR,
  SS_VECTOR,
  UD_VECTOR,
  XM_VECTOR,
} from '../../arch/exceptions.ts';
import { numberOf } from '../../arch/halves.ts';
import { ptePfn } from '../../arch/paging.ts';
import { CS, RFLAGS_IF, RFLAGS_RF } from '../../arch/registers.ts';
import {
  INTERCEPT_INVLPG,
  INTERCEPT_IOIO_PROT,
  INTERCEPT_IRET,
  INTERCEPT_VINTR,
  NESTED_CTL_SEV_ES_ENABLE,
  SVM_EVTINJ_TYPE_EXEPT,
  SVM_EVTINJ_TYPE_MASK,
  SVM_EVTINJ_TYPE_SOFT,
  SVM_EVTINJ_VEC_MASK,
  SVM_EXIT_ERR,
  SVM_EXIT_EXCP_BASE,
  SVM_EXIT_INTR,
  SVM_EXIT_IOIO,
  SVM_EXIT_NPF,
  SVM_EXIT_SHUTDOWN,
  SVM_EXIT_VINTR,
  TLB_CONTROL_DO_NOTHING,
  TLB_CONTROL_FLUSH_ASID_LOCAL,
  V_GIF_ENABLE_MASK,
  V_GIF_MASK,
  V_IGN_TPR_MASK,
  V_INTR_PRIO_SHIFT,
  V_IRQ_MASK,
  VMCB_ASID,
  VMCB_CLEAN,
  VMCB_CLEAN_INTERCEPTS,
  VMCB_CLEAN_NPT,
  VMCB_CLEAN_PERM_MAP,
  VMCB_EVENT_INJ,
  VMCB_EXIT_CODE,
  VMCB_INSN_LEN,
  VMCB_INT_CTL,
  VMCB_INT_VECTOR,
  VMCB_INTERCEPT_CR,
  VMCB_INTERCEPT_DR,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_INTERCEPT_WORD3,
  VMCB_INTERCEPT_WORD4,
  VMCB_INTERCEPT_WORD5,
  VMCB_IOPM_BASE,
  VMCB_MSRPM_BASE,
  VMCB_NESTED_CR3,
  VMCB_NESTED_CTL,
  VMCB_NEXT_RIP,
  VMCB_PAUSE_COUNT,
  VMCB_RFLAGS,
  VMCB_TLB_CTL,
} from '../../arch/vmcb.ts';
import { recordLength } from '../decode/record.ts';
import { STATE_CHANGED } from '../interpreter/state-switch.ts';
import { TAG_CODE } from '../mmu/tlb.ts';
import {
  BUDGET_AT,
  CR8_AT,
  EXIT_CODE_AT,
  EXIT_INFO1_AT,
  EXIT_INFO2_AT,
  INT_SHADOW_AT,
  PORT_ADDRESS_SIZE_AT,
  PORT_MAP_AT,
  QUICK_AT,
  QUICK_CR_READS,
  QUICK_CR8_WRITE,
  QUICK_EXCEPTIONS_AT,
  QUICK_FAST_CALLS,
  QUICK_INVLPG,
  QUICK_IRET,
  STATUS_BUDGET,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  STATUS_OK,
} from '../state.ts';
import type { Core } from '../system/core.ts';
import type { Events } from '../system/events.ts';
import { currentContext } from '../system/linear-memory.ts';
import { W_PKRU, W_RFLAGS, W_RIP } from '../system/words.ts';
import { consistent } from './consistency.ts';
import { EncryptedState } from './encrypted-state.ts';

/** Bytes of the I/O permission map. */
const IOPM_SIZE = 0x3000;

/** What of a control block is kept from one VMRUN to the next. */
const CACHED = VMCB_CLEAN_INTERCEPTS | VMCB_CLEAN_PERM_MAP | VMCB_CLEAN_NPT;

/** Exceptions that are faults, and neither #DB nor #DF. */
const FAULTS =
  (1 << DE_VECTOR) |
  (1 << UD_VECTOR) |
  (1 << NM_VECTOR) |
  (1 << NP_VECTOR) |
  (1 << SS_VECTOR) |
  (1 << GP_VECTOR) |
  (1 << PF_VECTOR) |
  (1 << MF_VECTOR) |
  (1 << AC_VECTOR) |
  (1 << XM_VECTOR);

/** The part of the interpreter that runs a guest. */
export interface Engine {
  run(): number;
  /** See state-switch.ts. */
  resume(vmcbPa: number, intCtl: number): number;
}

/** Injects what an instruction raised on purpose, INT n, INT3 or INTO: the guest returns behind it, to nRIP (@apm 15.20). */
function fromInstruction(event: number): boolean {
  const type = event & SVM_EVTINJ_TYPE_MASK;
  if (type === SVM_EVTINJ_TYPE_SOFT) return true;
  const vector = event & SVM_EVTINJ_VEC_MASK;
  return type === SVM_EVTINJ_TYPE_EXEPT && (vector === BP_VECTOR || vector === OF_VECTOR);
}

export class Svm {
  private readonly core: Core;
  private readonly events: Events;
  private readonly engine: Engine;
  private readonly encrypted: EncryptedState;
  /** The address space whose translations the TLB holds. */
  asid = 0;
  /**
   * The control block whose controls, checked, are in force, -1 for none: those that its clean bits vouch for need not be looked at again
   * (@apm 15.15).
   */
  private cached = -1;

  constructor(core: Core, events: Events, engine: Engine) {
    this.core = core;
    this.events = events;
    this.engine = engine;
    this.encrypted = new EncryptedState(core);
  }

  /** VMRUN with the control block at physical address `vmcbPa`, until its #VMEXIT. HOT */
  vmrun(vmcbPa: number): void {
    const block = vmcbPa >>> 2;
    if ((this.core.i32[block + (VMCB_NESTED_CTL >> 2)]! & NESTED_CTL_SEV_ES_ENABLE) === 0) {
      this.run(vmcbPa, block);
      return;
    }
    const own = this.encrypted.enter(block);
    if (own === -1) {
      this.encrypted.refuse(block);
      return;
    }
    // All of them have their block at one address.
    this.forget();
    this.run(own << 2, own);
    this.encrypted.leave(block);
  }

  /** VMRUN with the control block at physical address `vmcbPa`, word `block`. HOT */
  private run(vmcbPa: number, block: number): void {
    const core = this.core;
    const i32 = core.i32;
    const known =
      vmcbPa === this.cached &&
      (i32[block + (VMCB_CLEAN >> 2)]! & CACHED) === CACHED &&
      i32[W_PKRU] === core.pkruInForce &&
      i32[block + (VMCB_EVENT_INJ >> 2)]! >= 0;
    if (known && this.resume(vmcbPa, block)) return;
    // Loaded before it is checked: what a refused block leaves in the processor, the next one replaces.
    const changed = core.code.loadGuest(vmcbPa);
    if (changed !== 0 || vmcbPa !== this.cached || !known) {
      this.cached = -1;
      if (!consistent(core, block)) {
        i32[block + (VMCB_EXIT_CODE >> 2)] = SVM_EXIT_ERR;
        i32[block + (VMCB_EXIT_CODE >> 2) + 1] = -1;
        return;
      }
      this.loadControls(block);
      core.updatePaging();
      core.updateMode();
      this.cached = vmcbPa;
    }
    core.intCtl = i32[block + (VMCB_INT_CTL >> 2)]!;
    core.breakpoints.update();
    this.controlTlb(block);
    this.events.reset();
    if (this.enter(block)) this.loop(block);
    this.storeExit(block);
  }

  /** VMRUN of a guest that nothing has happened to since its #VMEXIT; false when there is more to do than that. HOT */
  private resume(vmcbPa: number, block: number): boolean {
    const core = this.core;
    const i32 = core.i32;
    const control = i32[block + (VMCB_INT_CTL >> 2)]!;
    if ((control & V_IRQ_MASK) !== 0 || this.flushWanted(block)) return false;
    core.intCtl = control;
    core.breakpoints.update();
    this.events.reset();
    const status = this.engine.resume(vmcbPa, control);
    if (status === STATE_CHANGED) {
      this.cached = -1;
      return false;
    }
    if (status !== STATUS_EXIT) {
      if (this.goOn(status)) this.loop(block);
      this.storeExit(block);
      return true;
    }
    if (core.event !== 0 || core.intCtl !== control) this.storeExit(block);
    else this.storeCause(block);
    return true;
  }

  /** Another processor's state was put in: nothing is known of a control block. */
  forget(): void {
    this.cached = -1;
  }

  /** HOT */
  private loadControls(block: number): void {
    const core = this.core;
    const i32 = core.i32;
    core.interceptCr = i32[block + (VMCB_INTERCEPT_CR >> 2)]!;
    core.interceptDr = i32[block + (VMCB_INTERCEPT_DR >> 2)]!;
    core.interceptExceptions = i32[block + (VMCB_INTERCEPT_EXCEPTIONS >> 2)]!;
    core.intercept3 = i32[block + (VMCB_INTERCEPT_WORD3 >> 2)]!;
    core.intercept4 = i32[block + (VMCB_INTERCEPT_WORD4 >> 2)]!;
    core.intercept5 = i32[block + (VMCB_INTERCEPT_WORD5 >> 2)]!;
    this.allowQuick();
    core.pauseCount = i32[block + (VMCB_PAUSE_COUNT >> 2)]! >>> 16;
    const iopm = block + (VMCB_IOPM_BASE >> 2);
    const msrpm = block + (VMCB_MSRPM_BASE >> 2);
    core.iopmBase = numberOf(i32[iopm]! & ~0xfff, i32[iopm + 1]!);
    core.iopmHighBase = core.iopmBase + 0x1000;
    const mapped = (core.intercept3 & INTERCEPT_IOIO_PROT) !== 0 && core.iopmBase + IOPM_SIZE <= core.u8.length;
    // A guest with encrypted state gets #VC instead of the exit.
    i32[PORT_MAP_AT >> 2] = mapped && !core.encryptedState ? core.iopmBase : 0;
    i32[PORT_ADDRESS_SIZE_AT >> 2] = core.profile.ioAddressSize ? 1 : 0;
    core.msrpmBase = numberOf(i32[msrpm]! & ~0xfff, i32[msrpm + 1]!);
    const walker = core.walker;
    walker.nested = (i32[block + (VMCB_NESTED_CTL >> 2)]! & 1) !== 0;
    if (walker.nested) {
      const ncr3 = block + (VMCB_NESTED_CR3 >> 2);
      walker.nestedWalker.rootPfn = ptePfn(i32[ncr3]!, i32[ncr3 + 1]!);
    }
  }

  /** Whether `controlTlb` has anything to do. HOT */
  private flushWanted(block: number): boolean {
    const i32 = this.core.i32;
    const control = i32[block + (VMCB_TLB_CTL >> 2)]! & 0xff;
    const sameSpace = i32[block + (VMCB_ASID >> 2)]! === this.asid && !this.core.profile.tlbFlushedAtEntry;
    return !sameSpace || control !== TLB_CONTROL_DO_NOTHING;
  }

  /** What generated code may do by itself: what no intercept is in the way of. */
  private allowQuick(): void {
    const { i32, interceptExceptions, interceptCr, intercept3 } = this.core;
    i32[QUICK_EXCEPTIONS_AT >> 2] = FAULTS & ~interceptExceptions;
    i32[QUICK_AT >> 2] =
      (~interceptCr & (QUICK_CR_READS | QUICK_CR8_WRITE)) |
      ((intercept3 & INTERCEPT_IRET) === 0 ? QUICK_IRET : 0) |
      ((intercept3 & INTERCEPT_INVLPG) === 0 ? QUICK_INVLPG : 0) |
      QUICK_FAST_CALLS;
  }

  /** Flushes what the control block, or the processor's own nature, asks to flush (@apm 15.16). HOT */
  private controlTlb(block: number): void {
    const core = this.core;
    const asid = core.i32[block + (VMCB_ASID >> 2)]!;
    const control = core.i32[block + (VMCB_TLB_CTL >> 2)]! & 0xff;
    if (core.profile.tlbFlushedAtEntry || asid !== this.asid) {
      core.tlb.flushAll();
      this.asid = asid;
    } else if (control === TLB_CONTROL_FLUSH_ASID_LOCAL) core.tlb.flushAllNonGlobal();
    else if (control !== TLB_CONTROL_DO_NOTHING) core.tlb.flushAll();
    core.selectPcid();
  }

  /** Injects what EVENTINJ holds; false when that ended in an exit. */
  private enter(block: number): boolean {
    const core = this.core;
    const i32 = core.i32;
    const at = block + (VMCB_EVENT_INJ >> 2);
    const event = i32[at]!;
    if (event >= 0) return true;
    let ripLo = i32[W_RIP]!;
    let ripHi = i32[W_RIP + 1]!;
    if (core.profile.nrips && fromInstruction(event)) {
      ripLo = i32[block + (VMCB_NEXT_RIP >> 2)]!;
      ripHi = i32[block + (VMCB_NEXT_RIP >> 2) + 1]!;
    }
    return this.events.inject(event, i32[at + 1]!, ripLo, ripHi) === STATUS_OK;
  }

  /** Runs the guest until it exits. HOT */
  private loop(block: number): void {
    const core = this.core;
    const i32 = core.i32;
    const budget = BUDGET_AT >> 2;
    for (;;) {
      let status: number;
      if ((core.intCtl & V_IRQ_MASK) === 0) status = this.engine.run();
      else {
        if (i32[budget]! <= 0) {
          core.exit(SVM_EXIT_INTR);
          return;
        }
        if (this.interruptWindow()) {
          if ((core.intercept3 & INTERCEPT_VINTR) !== 0) {
            core.exit(SVM_EXIT_VINTR);
            return;
          }
          core.intCtl &= ~V_IRQ_MASK;
          if (this.events.interrupt(i32[block + (VMCB_INT_VECTOR >> 2)]! & 0xff) !== STATUS_OK) return;
          continue;
        }
        // The window may open after any instruction.
        const saved = i32[budget]!;
        i32[budget] = 1;
        status = this.engine.run();
        i32[budget] = saved - 1 + i32[budget]!;
      }
      if (!this.goOn(status)) return;
    }
  }

  /** After a run of the engine: takes an exception to the guest; false when there is an exit. HOT */
  private goOn(status: number): boolean {
    if (status === STATUS_EXIT) return false;
    if (status === STATUS_EXCEPTION) {
      if (this.events.exception() !== STATUS_OK) return false;
    } else if (status !== STATUS_BUDGET) throw new Error(`the interpreter answered status ${status}`);
    if (this.core.i32[BUDGET_AT >> 2]! > 0) return true;
    this.core.exit(SVM_EXIT_INTR);
    return false;
  }

  /** Whether the virtual interrupt that V_IRQ asks for can be taken now (@apm 15.21.4). */
  private interruptWindow(): boolean {
    const core = this.core;
    const i32 = core.i32;
    const control = core.intCtl;
    if ((control & V_GIF_ENABLE_MASK) !== 0 && (control & V_GIF_MASK) === 0) return false;
    if ((i32[W_RFLAGS]! & RFLAGS_IF) === 0 || i32[INT_SHADOW_AT >> 2] !== 0) return false;
    const priority = (control >>> V_INTR_PRIO_SHIFT) & 15;
    return (control & V_IGN_TPR_MASK) !== 0 || priority > (i32[CR8_AT >> 2]! & 15);
  }

  /** #VMEXIT: stores the guest and why it stopped. HOT */
  private storeExit(block: number): void {
    const core = this.core;
    // Without a delivery in progress the event and its error code are zero.
    core.code.storeGuest(block << 2, core.intCtl, core.event, core.eventError);
    this.storeCause(block);
  }

  /** What tells of the instruction, and RFLAGS.RF as it is meant. HOT */
  private storeCause(block: number): void {
    const core = this.core;
    const i32 = core.i32;
    const code = i32[EXIT_CODE_AT >> 2]!;
    if ((i32[W_RFLAGS]! & RFLAGS_RF) !== 0) i32[block + (VMCB_RFLAGS >> 2)] = core.flags();
    if (core.profile.nrips) this.storeNextRip(block, code);
    if (core.profile.decodeAssists) this.storeInstruction(block, code);
  }

  /** nRIP of instruction intercepts, and of the traps INT3 and INTO; zero for all else (@apm 15.7.1). */
  private storeNextRip(block: number, code: number): void {
    const core = this.core;
    const at = block + (VMCB_NEXT_RIP >> 2);
    const instruction =
      code < SVM_EXIT_EXCP_BASE || (code > SVM_EXIT_VINTR && code < SVM_EXIT_NPF && code !== SVM_EXIT_SHUTDOWN);
    if (code === SVM_EXIT_IOIO) {
      core.i32[at] = core.i32[EXIT_INFO2_AT >> 2]!;
      core.i32[at + 1] = core.i32[(EXIT_INFO2_AT >> 2) + 1]!;
      return;
    }
    const trap = code === SVM_EXIT_EXCP_BASE + 3 || code === SVM_EXIT_EXCP_BASE + 4;
    if (instruction || trap) core.nextRip(recordLength(core.u8, core.record));
    else {
      core.lo = 0;
      core.hi = 0;
    }
    core.i32[at] = core.lo;
    core.i32[at + 1] = core.hi;
  }

  /** The instruction bytes at a data fault, as many as the TLB can still reach (@apm 15.8.4). */
  private storeInstruction(block: number, code: number): void {
    const core = this.core;
    const i32 = core.i32;
    const u8 = core.u8;
    const to = block * 4 + VMCB_INSN_LEN;
    u8[to] = 0;
    const page = code === SVM_EXIT_EXCP_BASE + 14;
    if (!page && code !== SVM_EXIT_NPF) return;
    if ((i32[EXIT_INFO1_AT >> 2]! & PFERR_FETCH) !== 0 || core.event < 0) return;
    const cs = core.segment(CS);
    const wide = core.mode64();
    const lo = wide ? i32[W_RIP]! : (i32[W_RIP]! + i32[cs]!) | 0;
    const hi = wide ? i32[W_RIP + 1]! : 0;
    const context = currentContext(core);
    let at = core.tlb.lookup(context, lo, hi, TAG_CODE);
    if (at === -1) return;
    if ((lo & 0xfff) <= 4096 - 15) {
      core.code.copyInstruction(to + 1, at);
      u8[to] = 15;
      return;
    }
    let count = 0;
    while (count < 15) {
      u8[to + 1 + count] = u8[at]!;
      count++;
      at++;
      if ((at & 0xfff) === 0) {
        const nextLo = (lo + count) | 0;
        at = core.tlb.lookup(context, nextLo, nextLo === 0 && wide ? (hi + 1) | 0 : hi, TAG_CODE);
        if (at === -1) break;
      }
    }
    u8[to] = count;
  }
}
