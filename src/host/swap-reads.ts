/**
 * Reads from a swap device that take time. A fault begins the read and, where it may, goes to do something else; when the data is there,
 * whoever waits looks again and finds the page (@kvm memory.c do_swap_page, page_io.c swap_read_folio).
 */

/** The time that I/O takes place in. */
export interface IoClock {
  /** Nanoseconds since the machine started. */
  now(): number;
  createTimer(fire: (at: number) => void): { set(at: number | null): void };
  /** A task sleeps: time passes until `woken`; false when it never will be. */
  sleep(woken: () => boolean): boolean;
}

interface SwapRead {
  done: boolean;
}

export class SwapReads {
  /** Reads begun, and sleeps for one: what a task that could do nothing else waited for. */
  begun = 0;
  sleeps = 0;
  /** Nanoseconds from the beginning of a read to its data. */
  readonly latency: number;
  private readonly clock: IoClock;
  /** By slot; a read whose data is there stays until the page is mapped: the swap cache. */
  private readonly reads = new Map<number, SwapRead>();

  constructor(clock: IoClock, latency: number) {
    this.clock = clock;
    this.latency = latency;
  }

  /** True when the data of `slot` is there; if not, its read is under way on return. `wake` is called once when it ends. */
  ready(slot: number, wake: () => void): boolean {
    const under = this.reads.get(slot);
    if (under !== undefined) return under.done;
    const read: SwapRead = { done: this.latency === 0 };
    this.reads.set(slot, read);
    this.begun++;
    if (read.done) return true;
    const timer = this.clock.createTimer(() => {
      read.done = true;
      wake();
    });
    timer.set(this.clock.now() + this.latency);
    return false;
  }

  /** The task sleeps until the read of `slot` ends. */
  wait(slot: number): void {
    const read = this.reads.get(slot);
    if (read === undefined || read.done) return;
    this.sleeps++;
    if (!this.clock.sleep(() => read.done)) throw new Error(`the read of swap slot ${slot} does not end`);
  }

  /** The slot has gone, or its page is mapped. */
  forget(slot: number): void {
    this.reads.delete(slot);
  }
}
