/** What a vCPU keeps for asynchronous page faults (async-pf.ts). */

/** Bits of MSR_KVM_ASYNC_PF_EN (@kvm uapi/asm/kvm_para.h KVM_ASYNC_PF_*). */
export const KVM_ASYNC_PF_ENABLED = 1 << 0;
export const KVM_ASYNC_PF_SEND_ALWAYS = 1 << 1;
export const KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT = 1 << 2;
export const KVM_ASYNC_PF_DELIVERY_AS_INT = 1 << 3;

/** A fault that waits for its page (@kvm kvm_host.h struct kvm_async_pf). */
export interface AsyncPfWork {
  /** Stands for no page: tells the guest that whatever it waits for is ready. */
  readonly wakeupAll: boolean;
  readonly hva: number;
  readonly gfn: number;
  readonly addrLo: number;
  readonly addrHi: number;
  readonly errorLo: number;
  readonly errorHi: number;
  readonly directMap: boolean;
  token: number;
  notPresentInjected: boolean;
}

/** How often what happened to a vCPU's asynchronous faults. */
export class AsyncPfCounts {
  /** Faults whose page is waited for aside. */
  begun = 0;
  /** Of them, those that the guest was told of; the others halt it. */
  told = 0;
  /** Faults on a page that is waited for already. */
  repeated = 0;
  /** Times that the vCPU was halted although it had something to do. */
  halted = 0;
  /** Pages that came, and those of them that the guest was told of. */
  ready = 0;
  toldReady = 0;
  /** "All pages are ready", said to a guest that has just switched them on. */
  wakeups = 0;
}

/** A vCPU's faults that wait, and what it takes to tell its guest. */
export class AsyncPf {
  /** Address of the guest's area, -1 for none. */
  areaGpa = -1;
  /** Only faults at CPL 3 are announced. */
  sendUserOnly = false;
  pageReadyPending = false;
  nextId = 0;
  /** Waiting for the host, and ready for the guest, in order. */
  readonly waiting: AsyncPfWork[] = [];
  readonly done: AsyncPfWork[] = [];
  queued = 0;
  readonly gfns = new Set<number>();
  readonly counts = new AsyncPfCounts();
  /** Stops listening to the host. */
  stopListening: (() => void) | null = null;
}
