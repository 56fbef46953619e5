/** A vCPU's state inside KVM (@kvm kvm_host.h struct kvm_vcpu, struct kvm_vcpu_arch). */
import { RIP } from '../arch/registers.ts';
import type { DirtyRing } from './dirty/dirty-ring.ts';
import { KvmRun } from './kvm-run.ts';
import { VcpuMmu } from './mmu/vcpu-mmu.ts';
import { VcpuStats } from './stats.ts';
import { VcpuSvm } from './svm/vcpu-svm.ts';
import type { VmState } from './vm-state.ts';
import type { VcpuTdx } from './vmx/tdx/vm-tdx.ts';
import { VcpuVmx } from './vmx/vcpu-vmx.ts';
import { VcpuX86 } from './x86/vcpu-x86.ts';

/** vCPU requests (@kvm kvm_host.h KVM_REQ_*): bits of `requests`. */
export const REQ_TLB_FLUSH = 1 << 0;
export const REQ_UNHALT = 1 << 2;
export const REQ_TRIPLE_FAULT = 1 << 3;
export const REQ_MMU_SYNC = 1 << 4;
export const REQ_CLOCK_UPDATE = 1 << 5;
export const REQ_LOAD_MMU_PGD = 1 << 6;
export const REQ_EVENT = 1 << 7;
export const REQ_APF_HALT = 1 << 8;
export const REQ_NMI = 1 << 9;
export const REQ_MMU_FREE_OBSOLETE_ROOTS = 1 << 10;
export const REQ_TLB_FLUSH_CURRENT = 1 << 11;
export const REQ_TLB_FLUSH_GUEST = 1 << 12;
export const REQ_APF_READY = 1 << 13;
export const REQ_DIRTY_RING_SOFT_FULL = 1 << 14;
export const REQ_VM_DEAD = 1 << 15;
export const REQ_SMI = 1 << 16;
export const REQ_APICV_UPDATE = 1 << 17;
export const REQ_UPDATE_CPU_DIRTY_LOGGING = 1 << 18;
export const REQ_APIC_PAGE_RELOAD = 1 << 19;
export const REQ_GET_NESTED_STATE_PAGES = 1 << 20;
export const REQ_UPDATE_PROTECTED_GUEST_STATE = 1 << 21;

export const MP_STATE_RUNNABLE = 0;
export const MP_STATE_UNINITIALIZED = 1;
export const MP_STATE_INIT_RECEIVED = 2;
export const MP_STATE_HALTED = 3;
export const MP_STATE_SIPI_RECEIVED = 4;

export class VcpuState {
  readonly stats = new VcpuStats();
  readonly run = new KvmRun();
  /**
   * General registers and RIP (index RIP), halves: low at 2n. They are the processor's own while it holds the vCPU's other registers too,
   * and `ownRegs` while it does not (guest-context.ts): hold on to no reference.
   */
  regs: Int32Array;
  readonly ownRegs = new Int32Array(2 * (RIP + 1));
  requests = 0;
  /** Runs the guest on a processor of its own right now, and sees no request before it leaves it (@kvm kvm_host.h IN_GUEST_MODE). */
  inGuest = false;
  mpState = MP_STATE_RUNNABLE;

  // Control registers as KVM caches them; CR0, CR4 and EFER fit the low half.
  cr0 = 0;
  cr2Lo = 0;
  cr2Hi = 0;
  cr3Lo = 0;
  cr3Hi = 0;
  cr4 = 0;
  cr8 = 0;
  efer = 0;
  pkru = 0;
  xcr0 = 1;
  /** MSR_IA32_APICBASE, below 2^53. */
  apicBase = 0xfee00900;
  /** Guest physical address width from its CPUID (36 when CPUID does not say). */
  maxPhyAddr = 36;
  /** In guest mode: running L2. */
  guestMode = false;
  /** In system management mode. */
  smm = false;

  /** KVM_RUN ends with EINTR instead of waiting when the vCPU halts (its thread has others to run). */
  haltReturns = false;
  /** KVM_RUN ends with EINTR once the vCPU has woken another one, or spins. */
  handsOver = false;
  /** A signal was sent to the vCPU's thread and not taken yet. */
  signal = false;
  /** Stand-ins for a timer's signal: counts of `stats.exits` and of the processor's retired instructions at which one arrives. */
  signalAtExit = Number.POSITIVE_INFINITY;
  signalAtInstruction = Number.POSITIVE_INFINITY;

  dirtyRing: DirtyRing | null = null;
  readonly mmu: VcpuMmu;
  readonly x86: VcpuX86;
  readonly svm: VcpuSvm;
  readonly vmx: VcpuVmx;
  /** Of a TD's vCPU; null for all others. */
  tdx: VcpuTdx | null = null;
  readonly vm: VmState;
  readonly id: number;

  constructor(vm: VmState, id: number) {
    this.vm = vm;
    this.id = id;
    this.regs = this.ownRegs;
    this.mmu = new VcpuMmu();
    this.x86 = new VcpuX86();
    this.svm = new VcpuSvm();
    this.vmx = new VcpuVmx();
  }

  /** A signal that does not wait for an instruction. HOT */
  get signalPendingNow(): boolean {
    return this.signal || this.stats.exits >= this.signalAtExit;
  }

  /** KVM_RUN returns to userspace with EINTR before it enters the guest again. @kvm signal.h signal_pending */
  get signalPending(): boolean {
    if (this.signalPendingNow) return true;
    const at = this.signalAtInstruction;
    return at !== Number.POSITIVE_INFINITY && this.vm.processor.insns >= at;
  }
}

/** @kvm kvm_host.h kvm_make_request */
export function makeRequest(vcpu: VcpuState, request: number): void {
  vcpu.requests |= request;
}

/** @kvm kvm_host.h kvm_check_request: true, and clears it, when the request was made. */
export function checkRequest(vcpu: VcpuState, request: number): boolean {
  if ((vcpu.requests & request) === 0) return false;
  vcpu.requests &= ~request;
  return true;
}
