/**
 * Exceptions and interrupts on their way into the guest: intercepts, double and triple faults, CR2, and the event that EXITINTINFO
 * reports when a #VMEXIT cuts a delivery short (@sdm 6.15; @apm 8.2, 15.7.2, 15.12, 15.20).
 */
import {
  BP_VECTOR,
  DB_VECTOR,
  DF_VECTOR,
  exceptionClass,
  hasErrorCode,
  NMI_VECTOR,
  OF_VECTOR,
  PF_VECTOR,
} from '../../arch/exceptions.ts';
import { CS } from '../../arch/registers.ts';
import {
  SVM_EVTINJ_TYPE_EXEPT,
  SVM_EVTINJ_TYPE_INTR,
  SVM_EVTINJ_TYPE_MASK,
  SVM_EVTINJ_TYPE_NMI,
  SVM_EVTINJ_TYPE_SOFT,
  SVM_EVTINJ_VALID,
  SVM_EVTINJ_VALID_ERR,
  SVM_EVTINJ_VEC_MASK,
  SVM_EXIT_EXCP_BASE,
  SVM_EXIT_SHUTDOWN,
} from '../../arch/vmcb.ts';
import { INTR_TYPE_SOFT_EXCEPTION } from '../../arch/vmx-controls.ts';
import {
  BUDGET_AT,
  CODE_MODE_AT,
  CR2_AT,
  FAULT_ADDRESS,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  INSNS_AT,
  INT_SHADOW_AT,
  STATUS_EXCEPTION,
  STATUS_OK,
  STATUS_RELOAD,
} from '../state.ts';
import { exitSoftwareException, softwareEventType } from '../vmx/instruction-exits.ts';
import type { Core } from './core.ts';
import { deliver, GuestEvent } from './delivery.ts';
import { W_RIP } from './words.ts';

export class Events {
  private readonly core: Core;
  private readonly event = new GuestEvent();
  /** Vector of the exception whose delivery is under way, -1 when there is none. */
  private previous = -1;
  /** The exception that the delivery began with, its error code (-1: none) and FAULT_ADDRESS. */
  private first = 0;
  private firstError = -1;
  private firstAddressLo = 0;
  private firstAddressHi = 0;

  constructor(core: Core) {
    this.core = core;
  }

  /** A triple fault: what is known of the guest now is all that will be, since KVM resets it. */
  private died(last: number): void {
    const { core, first } = this;
    const i32 = core.i32;
    const mode = i32[CODE_MODE_AT >> 2]!;
    const ripLo = i32[W_RIP]!;
    const ripHi = mode === 2 ? i32[W_RIP + 1]! : 0;
    const linearLo = mode === 2 ? ripLo : (ripLo + i32[core.segment(CS)]!) | 0;
    const at = core.canonical(ripHi) ? core.walker.peekCode(linearLo, ripHi, core.cpl() === 3 ? 1 : 0) : -1;
    const code = at === -1 ? null : core.u8.slice(at, Math.min(at + 32, at - (at % 4096) + 4096));
    core.shutdown = {
      mode,
      ripLo,
      ripHi,
      vectors: [first, this.previous === first ? DF_VECTOR : this.previous, last].filter(
        (v, i, all) => v !== all[i - 1],
      ),
      error: this.firstError,
      addressLo: first === PF_VECTOR ? this.firstAddressLo : 0,
      addressHi: first === PF_VECTOR ? this.firstAddressHi : 0,
      code,
    };
  }

  /** Forgets an unfinished delivery: at VMRUN and #VMEXIT. */
  reset(): void {
    this.previous = -1;
    this.core.event = 0;
    this.core.eventError = 0;
  }

  /** Takes the exception in FAULT_* to its handler: STATUS_OK, or STATUS_EXIT. HOT */
  exception(): number {
    const core = this.core;
    const i32 = core.i32;
    for (;;) {
      let vector = i32[FAULT_VECTOR >> 2]!;
      let hasError = i32[FAULT_HAS_ERROR >> 2] !== 0;
      let error = i32[FAULT_ERROR >> 2]!;
      const addressLo = i32[FAULT_ADDRESS >> 2]!;
      const addressHi = i32[(FAULT_ADDRESS >> 2) + 1]!;
      if (vector === PF_VECTOR ? this.pageFaultExits(error) : ((core.interceptExceptions >>> vector) & 1) !== 0) {
        const page = vector === PF_VECTOR;
        const status = core.exit(
          SVM_EXIT_EXCP_BASE + vector,
          hasError ? error : 0,
          0,
          page ? addressLo : 0,
          page ? addressHi : 0,
        );
        // With encrypted state the guest gets #VC instead.
        if (status === STATUS_EXCEPTION) continue;
        return status;
      }
      if (vector === PF_VECTOR) {
        i32[CR2_AT >> 2] = addressLo;
        i32[(CR2_AT >> 2) + 1] = addressHi;
      }
      if (this.previous < 0) {
        this.first = vector;
        this.firstError = hasError ? error : -1;
        this.firstAddressLo = addressLo;
        this.firstAddressHi = addressHi;
      } else {
        const combined = combine(this.previous, vector);
        if (combined === -1) {
          this.died(vector);
          return core.exit(SVM_EXIT_SHUTDOWN);
        }
        if (combined === DF_VECTOR && vector !== DF_VECTOR) {
          vector = DF_VECTOR;
          hasError = true;
          error = 0;
          if (((core.interceptExceptions >>> DF_VECTOR) & 1) !== 0) return core.exit(SVM_EXIT_EXCP_BASE + DF_VECTOR);
        }
      }
      const valid = hasError && core.protectedMode();
      const info = vector | SVM_EVTINJ_TYPE_EXEPT | SVM_EVTINJ_VALID | (valid ? SVM_EVTINJ_VALID_ERR : 0);
      // VMX names the event that is being delivered, SVM the one that it all began with.
      if (core.event >= 0 || core.vmx) {
        core.event = info;
        core.eventError = valid ? error : 0;
      }
      this.previous = vector;
      const event = this.event;
      event.info = info;
      event.vector = vector;
      event.software = false;
      event.hasError = hasError;
      event.error = error;
      event.ripLo = i32[W_RIP]!;
      event.ripHi = i32[W_RIP + 1]!;
      event.resumeFlag = vector !== DB_VECTOR && vector !== BP_VECTOR && vector !== OF_VECTOR;
      core.eventResumes = event.resumeFlag;
      const status = deliver(core, event);
      if (status === STATUS_OK) return this.between();
      if (status !== STATUS_EXCEPTION) return status;
    }
  }

  /** Whether a #PF with this error code is intercepted: by its bit in the bitmap, the other way round where VMX's match fails. */
  private pageFaultExits(error: number): boolean {
    const core = this.core;
    const bit = ((core.interceptExceptions >>> PF_VECTOR) & 1) !== 0;
    return ((error & core.pfMask) === core.pfMatch) === bit;
  }

  /** INT n, INT3, INTO in an instruction of `length` bytes: a STATUS for `system`. */
  software(vector: number, length: number, isException: boolean): number {
    const core = this.core;
    if (isException && ((core.interceptExceptions >>> vector) & 1) !== 0) {
      // INT1 is over when its #DB is intercepted; INT3 and INTO say with nRIP where they end (@apm 15.12.2, 15.12.4).
      if (core.vmx) return exitSoftwareException(core, vector);
      if (vector === DB_VECTOR) core.reload(length);
      return core.exit(SVM_EXIT_EXCP_BASE + vector);
    }
    const type = core.vmx
      ? softwareEventType(vector, isException)
      : isException && !core.profile.int3AsInterrupt
        ? SVM_EVTINJ_TYPE_EXEPT
        : SVM_EVTINJ_TYPE_SOFT;
    core.event = vector | type | SVM_EVTINJ_VALID;
    core.eventError = 0;
    core.eventLength = length;
    core.eventResumes = false;
    const event = this.event;
    core.nextRip(length);
    event.info = 0;
    event.vector = vector;
    event.software = true;
    event.hasError = false;
    event.ripLo = core.lo;
    event.ripHi = core.hi;
    event.resumeFlag = false;
    const status = deliver(core, event);
    if (status !== STATUS_OK) return status;
    this.done();
    return STATUS_RELOAD;
  }

  /** A maskable interrupt `vector` that the control block's V_IRQ asks for: STATUS_OK or STATUS_EXIT. */
  interrupt(vector: number): number {
    return this.inject(
      vector | SVM_EVTINJ_TYPE_INTR | SVM_EVTINJ_VALID,
      0,
      this.core.i32[W_RIP]!,
      this.core.i32[W_RIP + 1]!,
    );
  }

  /** The event of EVENTINJ, returning to `rip` when it is a software interrupt: STATUS_OK or STATUS_EXIT. */
  inject(injection: number, error: number, ripLo: number, ripHi: number): number {
    const core = this.core;
    const event = this.event;
    const type = injection & SVM_EVTINJ_TYPE_MASK;
    event.info = 0;
    // An NMI is vector 2 whatever the field says (@apm 15.20).
    event.vector = type === SVM_EVTINJ_TYPE_NMI ? NMI_VECTOR : injection & SVM_EVTINJ_VEC_MASK;
    event.software = type === SVM_EVTINJ_TYPE_SOFT || type === INTR_TYPE_SOFT_EXCEPTION;
    event.hasError = (injection & SVM_EVTINJ_VALID_ERR) !== 0 && hasErrorCode(event.vector);
    event.error = error;
    event.ripLo = ripLo;
    event.ripHi = ripHi;
    event.resumeFlag = false;
    core.event = injection;
    core.eventError = error;
    core.eventResumes = false;
    this.previous = type === SVM_EVTINJ_TYPE_EXEPT ? event.vector : -1;
    this.first = event.vector;
    this.firstError = event.hasError ? error : -1;
    this.firstAddressLo = core.i32[CR2_AT >> 2]!;
    this.firstAddressHi = core.i32[(CR2_AT >> 2) + 1]!;
    const status = deliver(core, event);
    if (status === STATUS_OK) return this.between();
    return status === STATUS_EXCEPTION ? this.exception() : status;
  }

  /** An event between instructions took an instruction's worth of time: a guest that only faults does not stop the clock. */
  private between(): number {
    const i32 = this.core.i32;
    const insns = (i32[INSNS_AT >> 2]! + 1) | 0;
    i32[INSNS_AT >> 2] = insns;
    if (insns === 0) i32[(INSNS_AT >> 2) + 1]!++;
    i32[BUDGET_AT >> 2]!--;
    return this.done();
  }

  private done(): number {
    const core = this.core;
    core.event = 0;
    core.eventError = 0;
    this.previous = -1;
    core.i32[INT_SHADOW_AT >> 2] = 0;
    return STATUS_OK;
  }
}

/** What a second exception during the delivery of `first` becomes: its own vector, #DF, or -1 for shutdown (@sdm table 6-5). */
function combine(first: number, second: number): number {
  const next = exceptionClass(second);
  if (next === 'benign') return second;
  if (first === DF_VECTOR) return -1;
  const before = exceptionClass(first);
  if (before === 'page-fault' || (before === 'contributory' && next === 'contributory')) return DF_VECTOR;
  return second;
}
