/**
 * userfaultfd: pages that somebody in user space provides. Tasks that sleep on one are told of by messages; providing the page wakes
 * them.
 *
 * @kvm fs/userfaultfd.c
 */

export const UFFD_EVENT_PAGEFAULT = 0x12;
/** The access that faulted is a write. */
export const UFFD_PAGEFAULT_FLAG_WRITE = 1;

/** A message as read from the descriptor. */
export interface UserfaultMessage {
  readonly event: number;
  readonly flags: number;
  /** The page of the access. */
  readonly address: number;
}

interface Waiter extends UserfaultMessage {
  read: boolean;
}

/** Called when faults in [start, end) may be tried again. */
export type FaultWake = (start: number, end: number) => void;

/** True when somebody acted, and the sleeper may look again. A sleeper that is not `interruptible` ignores signals. */
export type WhileAsleep = (interruptible: boolean) => boolean;

export class UserfaultQueue {
  private waiters: Waiter[] = [];
  private listeners: readonly FaultWake[] = [];
  /** Called when a task falls asleep and the machine has nothing else to do. */
  whileAsleep: WhileAsleep | null = null;

  /** A task goes to sleep on the page at `address`; a task that asks again for the same is the same task. */
  sleep(address: number, write: boolean): void {
    const flags = write ? UFFD_PAGEFAULT_FLAG_WRITE : 0;
    if (this.waiters.some((w) => w.address === address && w.flags === flags)) return;
    this.waiters.push({ event: UFFD_EVENT_PAGEFAULT, flags, address, read: false });
  }

  /** A signal took the sleeper away: its message, if nobody read it yet, disappears. */
  cancel(address: number, write: boolean): void {
    const flags = write ? UFFD_PAGEFAULT_FLAG_WRITE : 0;
    this.waiters = this.waiters.filter((w) => w.address !== address || w.flags !== flags);
  }

  /** Reads the messages nobody read yet. */
  read(): UserfaultMessage[] {
    const unread = this.waiters.filter((w) => !w.read);
    for (const w of unread) w.read = true;
    return unread.map(({ event, flags, address }) => ({ event, flags, address }));
  }

  /** Wakes whoever sleeps on a page of [start, end). */
  wake(start: number, end: number): void {
    this.waiters = this.waiters.filter((w) => w.address < start || w.address >= end);
    for (const listener of this.listeners) listener(start, end);
  }

  /** Hears of every wake-up; returns what stops it. */
  onWake(listener: FaultWake): () => void {
    this.listeners = [...this.listeners, listener];
    return () => {
      this.listeners = this.listeners.filter((l) => l !== listener);
    };
  }
}
