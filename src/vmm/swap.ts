/** A guest whose memory is partly on a swap device: the host's side of it, and the account of what that cost the guest. */
import type { Kvm } from '../kvm/api/kvm.ts';
import type { Board } from './board.ts';

export interface SwapOptions {
  /** Bytes of the guest's memory that may be in the host's at a time. */
  readonly residentBytes: number;
  /** Nanoseconds of virtual time that a page takes to come back. */
  readonly latency: number;
}

/** What became of pages that were not there, of all vCPUs together. */
export interface SwapAccount {
  /** Pages that went to the device, and reads of it. */
  readonly pagedOut: number;
  readonly reads: number;
  /** Reads that somebody slept for: a vCPU that could do nothing else, or KVM on its behalf. */
  readonly waits: number;
  /** Faults that did not wait; of them those that the guest was told of, and those that halted it. */
  readonly asyncFaults: number;
  readonly toldNotPresent: number;
  readonly halts: number;
  /** Faults on a page that was being waited for. */
  readonly repeated: number;
  /** Pages that came for them, and interrupts that said so; `wakeups` said "all". */
  readonly ready: number;
  readonly toldReady: number;
  readonly wakeups: number;
}

/** Before anything is in the guest's memory. */
export function limitMemory(kvm: Kvm, options: SwapOptions): void {
  kvm.mm.limitMemory(options.residentBytes);
}

/** Once there is a VM, by whose time reads go. */
export function startSwap(board: Board, options: SwapOptions): void {
  board.kvm.mm.swapTakesTime(board.vm, options.latency);
}

export function swapAccount(board: Board): SwapAccount {
  const { limit, swap } = board.kvm.mm;
  const counts = board.vcpus.map((vcpu) => vcpu.state.x86.asyncPf.counts);
  const sum = (name: keyof (typeof counts)[number]): number => counts.reduce((total, c) => total + c[name], 0);
  return {
    pagedOut: limit?.pagedOut ?? 0,
    reads: swap.io?.begun ?? 0,
    waits: swap.io?.sleeps ?? 0,
    asyncFaults: sum('begun'),
    toldNotPresent: sum('told'),
    halts: sum('halted'),
    repeated: sum('repeated'),
    ready: sum('ready'),
    toldReady: sum('toldReady'),
    wakeups: sum('wakeups'),
  };
}

/** For people. */
export function swapLines(a: SwapAccount): string[] {
  return [
    `swap: ${a.pagedOut} pages out, ${a.reads} reads, ${a.waits} of them waited for`,
    `asynchronous page faults: ${a.asyncFaults}, the guest told of ${a.toldNotPresent}, ${a.halts} halts, ${a.repeated} repeated; ` +
      `${a.ready} pages ready, told of ${a.toldReady}, ${a.wakeups} wake-ups of all`,
  ];
}
