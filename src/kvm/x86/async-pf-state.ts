/** What a vCPU keeps for asynchronous page faults (async-pf.ts). */
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
  /** Stops listening to the host. */
  stopListening: (() => void) | null = null;
}
