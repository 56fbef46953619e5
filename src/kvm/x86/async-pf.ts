/**
 * Asynchronous page faults: while the host gets a page, the guest does something else. A work item waits for the page; when it is
 * there, the fault is done again ahead of the guest (async-pf-ready.ts) and the guest is told (@kvm async_pf.c kvm_setup_async_pf,
 * x86.c kvm_arch_async_page_not_present).
 */
import { PFERR_PRIVATE_ACCESS_HI } from '../../arch/error-code.ts';
import { hex64 } from '../../arch/flags.ts';
import { CR0_PG } from '../../arch/registers.ts';
import { EAGAIN } from '../../host/errno.ts';
import { FOLL_WRITE } from '../../host/gup.ts';
import { X86Exception } from '../emulate/ops.ts';
import { readGuest, writeGuest } from '../guest-memory.ts';
import { gfnToHva } from '../memslots/hva.ts';
import { vcpuGfnToMemslot } from '../memslots/memslots.ts';
import type { PageFault } from '../mmu/fault.ts';
import { ROLE_DIRECT } from '../mmu/role.ts';
import { makeRequest, REQ_APF_HALT, REQ_APF_READY, type VcpuState } from '../vcpu-state.ts';
import {
  type AsyncPfWork,
  KVM_ASYNC_PF_DELIVERY_AS_INT,
  KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT,
  KVM_ASYNC_PF_ENABLED,
} from './async-pf-state.ts';
import { eventNeedsReinjection, injectPageFault, isExceptionPending } from './exceptions.ts';
import { lapicEnabled } from './lapic.ts';

const KVM_PV_REASON_PAGE_NOT_PRESENT = 1;
const KVM_X86_DISABLE_EXITS_HLT = 2;
/** Faults of a vCPU that can wait at a time. */
const ASYNC_PF_PER_VCPU = 64;
/** In the guest's area: the reason is at 0, the token of a ready page here. */
const TOKEN_OFFSET = 4;

/** Switched on, and delivered as an interrupt. @kvm x86.h kvm_pv_async_pf_enabled */
export function asyncPfEnabled(vcpu: VcpuState): boolean {
  const mask = KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT;
  return (vcpu.x86.apfEnLo & mask) === mask;
}

const word = new Uint8Array(4);

function putWord(vcpu: VcpuState, offset: number, value: number): boolean {
  const { areaGpa } = vcpu.x86.asyncPf;
  const missing = vcpu.vm.log.warnOnOnce(areaGpa < 0, 'kvm_write_guest_offset_cached', 'the area has no address');
  if (missing) return false;
  for (let i = 0; i < 4; i++) word[i] = value >>> (8 * i);
  return writeGuest(vcpu, areaGpa + offset, word, 0, 4) === 0;
}

/** The guest has taken the last token. @kvm x86.c apf_pageready_slot_free */
function slotFree(vcpu: VcpuState): boolean {
  const { areaGpa } = vcpu.x86.asyncPf;
  if (areaGpa < 0 || readGuest(vcpu, areaGpa + TOKEN_OFFSET, word, 0, 4) < 0) return false;
  return (word[0]! | word[1]! | word[2]! | word[3]!) === 0;
}

/** @kvm x86.c kvm_can_deliver_async_pf */
function canDeliver(vcpu: VcpuState): boolean {
  if (!asyncPfEnabled(vcpu)) return false;
  if (vcpu.x86.asyncPf.sendUserOnly && vcpu.vm.vendor.getCpl(vcpu) === 0) return false;
  // In L2 it would have to be an exit to L1, and L1 has to have asked for those.
  if (vcpu.guestMode) return (vcpu.x86.apfEnLo & KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT) !== 0;
  return (vcpu.cr0 & CR0_PG) !== 0;
}

/** The vCPU can do something else than to wait for the page. @kvm x86.c kvm_can_do_async_pf */
function canDoAsyncPf(vcpu: VcpuState): boolean {
  const x86 = vcpu.x86;
  if (x86.lapic === null || eventNeedsReinjection(vcpu) || isExceptionPending(vcpu)) return false;
  if ((vcpu.vm.x86.disabledExits & KVM_X86_DISABLE_EXITS_HLT) !== 0 && !canDeliver(vcpu)) return false;
  // With interrupts off nothing could end the artificial halt.
  return vcpu.vm.vendor.interruptAllowed(vcpu, false) !== 0;
}

function traceGetPage(
  vcpu: VcpuState,
  event: 'kvm_try_async_get_page' | 'kvm_async_pf_repeated_fault',
  fault: PageFault,
): void {
  const { trace } = vcpu.vm;
  if (!trace.enabled) return;
  trace.emit(event, { text: `gva = ${hex64(fault.addrLo, fault.addrHi)}, gfn = 0x${fault.gfn.toString(16)}` });
}

function traceToken(
  vcpu: VcpuState,
  event: 'kvm_async_pf_not_present' | 'kvm_async_pf_ready',
  work: AsyncPfWork,
): void {
  const { trace } = vcpu.vm;
  if (!trace.enabled) return;
  trace.emit(event, { text: `token ${hex64(work.token, 0)} gva ${hex64(work.addrLo, work.addrHi)}` });
}

/** Never 0: a zero token in the area means that there is none. @kvm mmu.c alloc_apf_token */
function allocToken(vcpu: VcpuState): number {
  const apf = vcpu.x86.asyncPf;
  if (apf.nextId << 12 === 0) apf.nextId = 1;
  return (apf.nextId++ << 12) | vcpu.id;
}

const fault = new X86Exception();

/** Tells the guest that a page is missing, or halts the vCPU. True when it was told. @kvm x86.c kvm_arch_async_page_not_present */
function pageNotPresent(vcpu: VcpuState, work: AsyncPfWork): boolean {
  traceToken(vcpu, 'kvm_async_pf_not_present', work);
  vcpu.x86.asyncPf.gfns.add(work.gfn);
  if (canDeliver(vcpu) && putWord(vcpu, 0, KVM_PV_REASON_PAGE_NOT_PRESENT)) {
    fault.errorCode = 0;
    fault.addressLo = work.token;
    fault.addressHi = 0;
    fault.asyncPageFault = true;
    injectPageFault(vcpu, fault);
    vcpu.x86.asyncPf.counts.told++;
    return true;
  }
  halt(vcpu);
  return false;
}

/** Nothing for the guest to do until its page comes. */
function halt(vcpu: VcpuState): void {
  vcpu.x86.asyncPf.counts.halted++;
  makeRequest(vcpu, REQ_APF_HALT);
}

/** A page is ready for the guest. @kvm x86.c kvm_arch_async_page_present_queued */
function pushDone(vcpu: VcpuState, work: AsyncPfWork): void {
  const { done } = vcpu.x86.asyncPf;
  done.push(work);
  if (done.length === 1) makeRequest(vcpu, REQ_APF_READY);
}

/** The worker: true when the page is there, or never will be. @kvm async_pf.c async_pf_execute */
function execute(vcpu: VcpuState, work: AsyncPfWork): boolean {
  const { mm, trace } = vcpu.vm;
  if (mm.getUserPagesAside(work.hva, FOLL_WRITE) === -EAGAIN) return false;
  pushDone(vcpu, work);
  if (trace.enabled) {
    trace.emit('kvm_async_pf_completed', {
      text: `gva ${hex64(work.addrLo, work.addrHi)} address 0x${work.hva.toString(16)}`,
    });
  }
  return true;
}

/** The host has provided a page: the workers that wait look again. */
export function retryWaiting(vcpu: VcpuState): void {
  const apf = vcpu.x86.asyncPf;
  for (const work of apf.waiting.splice(0)) if (!execute(vcpu, work)) apf.waiting.push(work);
  if (apf.waiting.length === 0) stopListening(vcpu);
}

function stopListening(vcpu: VcpuState): void {
  vcpu.x86.asyncPf.stopListening?.();
  vcpu.x86.asyncPf.stopListening = null;
}

/** @kvm mmu.c kvm_arch_setup_async_pf, async_pf.c kvm_setup_async_pf */
function setupAsyncPf(vcpu: VcpuState, pf: PageFault): boolean {
  const apf = vcpu.x86.asyncPf;
  const token = allocToken(vcpu);
  const hva = gfnToHva(vcpuGfnToMemslot(vcpu, pf.gfn), pf.gfn, true);
  if (apf.queued >= ASYNC_PF_PER_VCPU || hva < 0) return false;
  const work: AsyncPfWork = {
    wakeupAll: false,
    hva,
    gfn: pf.gfn,
    addrLo: pf.addrLo,
    addrHi: pf.addrHi,
    errorLo: pf.errorLo,
    errorHi: pf.errorHi,
    directMap: (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0,
    token,
    notPresentInjected: false,
  };
  apf.queued++;
  apf.counts.begun++;
  work.notPresentInjected = pageNotPresent(vcpu, work);
  if (execute(vcpu, work)) return true;
  apf.waiting.push(work);
  apf.stopListening ??= vcpu.vm.mm.userfaults.onWake(() => retryWaiting(vcpu));
  return true;
}

/** The page would take time: true when the vCPU is to go on without it (retry), false when it must wait. */
export function tryAsyncPf(vcpu: VcpuState, pf: PageFault): boolean {
  if (pf.prefetch || !canDoAsyncPf(vcpu)) return false;
  traceGetPage(vcpu, 'kvm_try_async_get_page', pf);
  if (vcpu.x86.asyncPf.gfns.has(pf.gfn)) {
    traceGetPage(vcpu, 'kvm_async_pf_repeated_fault', pf);
    vcpu.x86.asyncPf.counts.repeated++;
    halt(vcpu);
    return true;
  }
  return setupAsyncPf(vcpu, pf);
}

/** What a page-ready item did for the guest: tells it, and ends its halt. @kvm x86.c kvm_arch_async_page_present */
export function pagePresent(vcpu: VcpuState, work: AsyncPfWork): boolean {
  const apf = vcpu.x86.asyncPf;
  if (work.wakeupAll) {
    work.token = -1;
    apf.counts.wakeups++;
  } else {
    apf.gfns.delete(work.gfn);
    apf.counts.ready++;
  }
  traceToken(vcpu, 'kvm_async_pf_ready', work);
  const tell =
    (work.wakeupAll || work.notPresentInjected) && asyncPfEnabled(vcpu) && putWord(vcpu, TOKEN_OFFSET, work.token);
  if (tell) {
    apf.pageReadyPending = true;
    if (!work.wakeupAll) apf.counts.toldReady++;
  }
  return tell;
}

/** The next ready page may be announced. @kvm x86.c kvm_arch_can_dequeue_async_page_present */
export function canDequeueReady(vcpu: VcpuState): boolean {
  if (!asyncPfEnabled(vcpu)) return true;
  const apic = vcpu.x86.lapic;
  return apic !== null && lapicEnabled(apic) && slotFree(vcpu);
}

/** @kvm async_pf.c kvm_async_pf_wakeup_all */
export function wakeAllAsyncPf(vcpu: VcpuState): void {
  const apf = vcpu.x86.asyncPf;
  if (apf.done.length > 0) return;
  pushDone(vcpu, {
    wakeupAll: true,
    hva: -1,
    gfn: -1,
    addrLo: 0,
    addrHi: 0,
    errorLo: 0,
    errorHi: 0,
    directMap: true,
    token: 0,
    notPresentInjected: false,
  });
  apf.queued++;
}

/**
 * Forgets all that wait and all that are ready. A worker under way is waited for, as long as somebody may provide its page.
 * @kvm async_pf.c kvm_clear_async_pf_completion_queue
 */
export function clearAsyncPf(vcpu: VcpuState): void {
  const apf = vcpu.x86.asyncPf;
  const { userfaults } = vcpu.vm.mm;
  while (apf.waiting.length > 0 && userfaults.whileAsleep?.(false) === true);
  apf.waiting.length = 0;
  apf.done.length = 0;
  apf.queued = 0;
  apf.gfns.clear();
  stopListening(vcpu);
}

/** A private page is never waited for this way. */
export function isPrivateWork(work: AsyncPfWork): boolean {
  return (work.errorHi & PFERR_PRIVATE_ACCESS_HI) !== 0;
}
