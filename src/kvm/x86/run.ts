/** KVM_RUN: the loop of entries and exits (@kvm x86.c kvm_arch_vcpu_ioctl_run, vcpu_run, vcpu_enter_guest). */
import { DR_AT } from '../../cpu/state.ts';
import { EAGAIN, EINTR, EINVAL, EIO } from '../../host/errno.ts';
import { dirtyRingCheckRequest } from '../dirty/dirty-ring.ts';
import {
  KVM_EXIT_INTERNAL_ERROR,
  KVM_EXIT_INTR,
  KVM_EXIT_IRQ_WINDOW_OPEN,
  KVM_EXIT_SHUTDOWN,
  KVM_EXIT_UNKNOWN,
  KVM_INTERNAL_ERROR_EMULATION,
  KVM_RUN_X86_GUEST_MODE,
  KVM_RUN_X86_SMM,
} from '../kvm-run.ts';
import { mmuFreeObsoleteRoots, mmuLoadPgd, mmuReload } from '../mmu/roots.ts';
import { mmuSyncPrevRoots, mmuSyncRoots } from '../mmu/shadow/roots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import * as S from '../vcpu-state.ts';
import { checkAsyncPfCompletion } from './async-pf-ready.ts';
import { getCr8, setCr8 } from './control-registers.ts';
import { vcpuReset } from './create.ts';
import { KVM_DEBUGREG_WONT_EXIT, updateDr7, updateDr0123 } from './debug-registers.ts';
import { queueExceptionVmexit } from './exceptions.ts';
import {
  acceptApicEvents,
  checkAndInjectEvents,
  readyForInterruptInjection,
  takeNmiRequest,
  vcpuHasEvents,
} from './inject-events.ts';
import { lapicHwEnabled, lapicMaxIrr } from './lapic.ts';
import { checkNestedEvents } from './nested-ops.ts';
import { guestTimeUpdate } from './pv-clock.ts';
import { IDLE_TIMERS } from './scheduling.ts';
import { takeSmiRequest } from './smm.ts';
import { traceUserspaceExit } from './trace-exit.ts';
import { runTimers, skipToTimer } from './virtual-time.ts';

/** Instructions after which the guest is left even if nothing happens, so that timers and signals are looked at. */
const QUANTUM = 10_000_000;

/** What a vCPU must do besides entering the guest once: 0 or 1 as KVM_RUN answers, -1 to go on. HOT only when nothing is asked. */
export function serviceRequests(vcpu: VcpuState): number {
  const { vendor } = vcpu.vm;
  if (S.checkRequest(vcpu, S.REQ_VM_DEAD)) return -EIO;
  if (dirtyRingCheckRequest(vcpu)) return 0;
  if ((vcpu.requests & S.REQ_GET_NESTED_STATE_PAGES) !== 0) {
    // Asked again at every attempt, until the pages are there.
    if (!vendor.nested.getNestedStatePages(vcpu)) {
      vcpu.run.exitReason = KVM_EXIT_INTERNAL_ERROR;
      vcpu.run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
      vcpu.run.internal.ndata = 0;
      return 0;
    }
    vcpu.requests &= ~S.REQ_GET_NESTED_STATE_PAGES;
  }
  if (S.checkRequest(vcpu, S.REQ_MMU_FREE_OBSOLETE_ROOTS)) mmuFreeObsoleteRoots(vcpu);
  if (S.checkRequest(vcpu, S.REQ_CLOCK_UPDATE)) guestTimeUpdate(vcpu);
  if (S.checkRequest(vcpu, S.REQ_MMU_SYNC)) mmuSyncRoots(vcpu);
  if (S.checkRequest(vcpu, S.REQ_LOAD_MMU_PGD)) mmuLoadPgd(vcpu);
  if (S.checkRequest(vcpu, S.REQ_TLB_FLUSH)) {
    vcpu.stats.tlb_flush++;
    vendor.flushTlbAll(vcpu);
    vcpu.requests &= ~S.REQ_TLB_FLUSH_CURRENT;
  }
  if (S.checkRequest(vcpu, S.REQ_TLB_FLUSH_CURRENT)) {
    vcpu.stats.tlb_flush++;
    vendor.flushTlbCurrent(vcpu);
  }
  if (S.checkRequest(vcpu, S.REQ_TLB_FLUSH_GUEST)) {
    vcpu.stats.tlb_flush++;
    if (!vendor.tdpEnabled) {
      // What the guest flushes, the shadow tables must not hold either.
      mmuSyncRoots(vcpu);
      mmuSyncPrevRoots(vcpu);
    }
    vendor.flushTlbGuest(vcpu);
  }
  if ((vcpu.requests & S.REQ_TRIPLE_FAULT) !== 0 && vcpu.guestMode) vendor.nested.tripleFault(vcpu);
  if (S.checkRequest(vcpu, S.REQ_TRIPLE_FAULT)) {
    vcpu.run.exitReason = KVM_EXIT_SHUTDOWN;
    vcpu.x86.mmioNeeded = false;
    return 0;
  }
  if (S.checkRequest(vcpu, S.REQ_APF_HALT)) {
    vcpu.x86.apfHalted = true;
    return 1;
  }
  takeSmiRequest(vcpu);
  takeNmiRequest(vcpu);
  if (S.checkRequest(vcpu, S.REQ_APF_READY)) checkAsyncPfCompletion(vcpu);
  if (S.checkRequest(vcpu, S.REQ_UPDATE_CPU_DIRTY_LOGGING)) vendor.updateCpuDirtyLogging(vcpu);
  if (S.checkRequest(vcpu, S.REQ_APIC_PAGE_RELOAD)) vendor.setApicAccessPageAddr(vcpu);
  vcpu.requests &= ~S.REQ_APICV_UPDATE;
  if (S.checkRequest(vcpu, S.REQ_UPDATE_PROTECTED_GUEST_STATE)) {
    vcpuReset(vcpu, true);
    if (vcpu.mpState !== S.MP_STATE_RUNNABLE) return 1;
  }
  return -1;
}

/** Userspace waits for the moment it can give its interrupt. @kvm x86.c dm_request_for_irq_injection */
function dmWantsIrqWindow(vcpu: VcpuState): boolean {
  return vcpu.run.requestInterruptWindow && vcpu.vm.x86.pic === null;
}

/** DR0 to DR3 go into the processor while breakpoints are armed or the guest uses them without exits. */
function loadDebugRegisters(vcpu: VcpuState): void {
  const words = vcpu.vm.memory.i32;
  const { effDb } = vcpu.x86;
  for (let i = 0; i < 8; i++) words[(DR_AT >> 2) + i] = effDb[i]!;
}

/** The guest may have written them: KVM's copies follow. */
function saveDebugRegisters(vcpu: VcpuState): void {
  const words = vcpu.vm.memory.i32;
  const { db } = vcpu.x86;
  for (let i = 0; i < 8; i++) db[i] = words[(DR_AT >> 2) + i]!;
  vcpu.vm.vendor.syncDirtyDebugRegs(vcpu);
  updateDr0123(vcpu);
  updateDr7(vcpu);
}

/** Events that are due are programmed; true asks for an exit right after the entry. @kvm x86.c vcpu_enter_guest */
function injectEvents(vcpu: VcpuState, wantsWindow: boolean): boolean {
  vcpu.stats.req_event++;
  acceptApicEvents(vcpu);
  if (vcpu.mpState === S.MP_STATE_INIT_RECEIVED) return false;
  const immediate = checkAndInjectEvents(vcpu);
  if (wantsWindow) vcpu.vm.vendor.enableIrqWindow(vcpu);
  const apic = vcpu.x86.lapic;
  if (apic !== null && lapicHwEnabled(vcpu)) {
    vcpu.vm.vendor.updateCr8Intercept(vcpu, getCr8(vcpu), lapicMaxIrr(apic));
  }
  return immediate;
}

/** How long the guest may stay in, in instructions: to the next timer or limit; 0 when the limit's signal is due. HOT */
function entryBudget(vcpu: VcpuState): number {
  const { timers, idleTime } = vcpu.vm.x86;
  const { next } = timers;
  const at = vcpu.signalAtInstruction;
  if (next === Number.POSITIVE_INFINITY && at === Number.POSITIVE_INFINITY) return QUANTUM;
  const now = vcpu.vm.processor.insns;
  if (now >= at) return 0;
  const left = Math.min(at - now, next - now - idleTime);
  return left >= QUANTUM ? QUANTUM : Math.max(1, left) | 0;
}

/** One entry: 1 go on, 0 to userspace, negative -errno. @kvm x86.c vcpu_enter_guest. HOT */
function vcpuEnterGuest(vcpu: VcpuState): number {
  const x86 = vcpu.x86;
  const vendor = vcpu.vm.vendor;
  const wantsWindow = dmWantsIrqWindow(vcpu);
  if (vcpu.requests !== 0) {
    const r = serviceRequests(vcpu);
    if (r !== -1) return r;
  }
  let immediate = false;
  if (S.checkRequest(vcpu, S.REQ_EVENT) || wantsWindow) {
    immediate = injectEvents(vcpu, wantsWindow);
    if (vcpu.mpState === S.MP_STATE_INIT_RECEIVED) return 1;
  }
  const r = mmuReload(vcpu);
  const budget = entryBudget(vcpu);
  if (r !== 0 || vcpu.requests !== 0 || budget === 0 || vcpu.signalPendingNow) {
    if (immediate) S.makeRequest(vcpu, S.REQ_EVENT);
    vendor.cancelInjection(vcpu);
    return r !== 0 ? r : 1;
  }
  if (immediate) S.makeRequest(vcpu, S.REQ_EVENT);
  x86.quantum = budget;
  if (x86.tscIdleTime !== vcpu.vm.x86.idleTime) vendor.setTscOffset(vcpu);
  if (x86.switchDbRegs !== 0) loadDebugRegisters(vcpu);
  vendor.vcpuRun(vcpu, immediate);
  if ((x86.switchDbRegs & KVM_DEBUGREG_WONT_EXIT) !== 0) saveDebugRegisters(vcpu);
  vcpu.stats.exits++;
  return vendor.handleExit(vcpu);
}

/** Nothing to run: wait for an event. With nobody to make one, what is waited for is a signal. @kvm x86.c vcpu_block */
function vcpuBlock(vcpu: VcpuState): number {
  for (let n = 0; !vcpuHasEvents(vcpu); n++) {
    if (vcpu.haltReturns || n === IDLE_TIMERS || !skipToTimer(vcpu.vm)) {
      // Whoever else is on the machine may act meanwhile.
      if (vcpu.vm.mm.userfaults.whileAsleep?.(true) !== true) vcpu.signal = true;
      return 1;
    }
  }
  // An exit to L1 ends the halt as well.
  if (vcpu.guestMode) checkNestedEvents(vcpu);
  acceptApicEvents(vcpu);
  if (vcpu.mpState === S.MP_STATE_HALTED) {
    vcpu.x86.pvUnhalted = false;
    vcpu.mpState = S.MP_STATE_RUNNABLE;
  }
  if (vcpu.mpState === S.MP_STATE_RUNNABLE) vcpu.x86.apfHalted = false;
  return 1;
}

/** @kvm kvm_host.h kvm_handle_signal_exit */
function signalExit(vcpu: VcpuState): number {
  vcpu.run.exitReason = KVM_EXIT_INTR;
  vcpu.stats.signal_exits++;
  return -EINTR;
}

/** @kvm x86.c vcpu_run. HOT */
function vcpuRun(vcpu: VcpuState): number {
  vcpu.run.exitReason = KVM_EXIT_UNKNOWN;
  for (;;) {
    const running = vcpu.mpState === S.MP_STATE_RUNNABLE && !vcpu.x86.apfHalted;
    const r = running ? vcpuEnterGuest(vcpu) : vcpuBlock(vcpu);
    if (r <= 0) return r;
    runTimers(vcpu.vm);
    if (dmWantsIrqWindow(vcpu) && readyForInterruptInjection(vcpu)) {
      vcpu.run.exitReason = KVM_EXIT_IRQ_WINDOW_OPEN;
      vcpu.stats.request_irq_exits++;
      return 0;
    }
    if (vcpu.signalPending) return signalExit(vcpu);
  }
}

/** What kvm_run says at every return to userspace. @kvm x86.c post_kvm_run_save */
function postRunSave(vcpu: VcpuState): void {
  const run = vcpu.run;
  run.ifFlag = vcpu.vm.vendor.getIfFlag(vcpu);
  run.cr8 = getCr8(vcpu);
  run.apicBase = vcpu.apicBase;
  run.readyForInterruptInjection = vcpu.vm.x86.pic !== null || readyForInterruptInjection(vcpu);
  if (vcpu.smm) run.flags |= KVM_RUN_X86_SMM;
  if (vcpu.guestMode) run.flags |= KVM_RUN_X86_GUEST_MODE;
}

function waitForSipi(vcpu: VcpuState): number {
  if (!vcpuHasEvents(vcpu)) return signalExit(vcpu);
  acceptApicEvents(vcpu);
  return vcpu.signalPending ? signalExit(vcpu) : -EAGAIN;
}

/** @kvm x86.c kvm_arch_vcpu_ioctl_run between loading and saving the vCPU */
function runLoaded(vcpu: VcpuState, immediateExit: boolean): number {
  if (vcpu.mpState === S.MP_STATE_UNINITIALIZED) return immediateExit ? -EINTR : waitForSipi(vcpu);
  // Userspace's word on the task priority counts while it has the APIC.
  if (vcpu.x86.lapic === null && setCr8(vcpu, vcpu.run.cr8) !== 0) return -EINVAL;
  const { exception: ex } = vcpu.x86;
  if (vcpu.x86.exceptionFromUserspace && vcpu.guestMode) {
    if (vcpu.vm.vendor.nested.isExceptionVmexit(vcpu, ex.vector, ex.errorCode)) {
      const { vector, hasErrorCode, errorCode, hasPayload, payloadLo, payloadHi } = ex;
      queueExceptionVmexit(vcpu, vector, hasErrorCode, errorCode, hasPayload, payloadLo, payloadHi);
      ex.injected = false;
      ex.pending = false;
    }
  }
  vcpu.x86.exceptionFromUserspace = false;
  const complete = vcpu.x86.completeUserspaceIo;
  if (complete !== null) {
    vcpu.x86.completeUserspaceIo = null;
    const r = complete(vcpu);
    if (r <= 0) return r;
  } else {
    vcpu.vm.log.warnOnOnce(
      vcpu.x86.pioCount !== 0,
      'kvm_arch_vcpu_ioctl_run',
      'port I/O in flight without a completion',
    );
    vcpu.vm.log.warnOnOnce(vcpu.x86.mmioNeeded, 'kvm_arch_vcpu_ioctl_run', 'MMIO in flight without a completion');
  }
  if (immediateExit) return -EINTR;
  const ready = vcpu.vm.vendor.vcpuPreRun?.(vcpu) ?? 1;
  if (ready <= 0) return ready;
  vcpu.x86.hasRun = true;
  return vcpuRun(vcpu);
}

/** ioctl(KVM_RUN): 0 with an exit in kvm_run, or -EINTR, -EFAULT, -EIO, -EAGAIN, -ENOMEM. @kvm x86.c kvm_arch_vcpu_ioctl_run */
export function vcpuIoctlRun(vcpu: VcpuState): number {
  const immediateExit = vcpu.run.immediateExit;
  vcpu.vm.vendor.vcpuLoad(vcpu);
  vcpu.run.flags = 0;
  const r = runLoaded(vcpu, immediateExit);
  vcpu.stats.fpu_reload++;
  vcpu.stats.host_state_reload++;
  postRunSave(vcpu);
  if (vcpu.vm.trace.enabled) traceUserspaceExit(vcpu, r);
  return r;
}
