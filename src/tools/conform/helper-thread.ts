/**
 * The recorder's helper thread: what a scenario has done `later`, while the operation that follows blocks. Time here passes when a task
 * falls asleep: if the helper's delay is over before the operation's timer fires, the helper acts, and the sleeper looks again.
 */
import type { UserfaultQueue } from '../../host/userfault-queue.ts';
import { OK, type OpResult } from './host-objects.ts';

export class HelperThread {
  private action: (() => OpResult) | null = null;
  /** After so many milliseconds. */
  private delay = 0;
  private result: OpResult = OK;
  /** When the timer of the operation under way fires, in milliseconds. */
  private timer = Number.POSITIVE_INFINITY;
  private interrupt: (() => void) | null = null;

  constructor(queue: UserfaultQueue) {
    queue.whileAsleep = (interruptible) => this.wait(interruptible);
  }

  later(delay: number, action: () => OpResult): OpResult {
    this.action = action;
    this.delay = delay;
    return OK;
  }

  /** Waits until it has acted: what came of it. */
  join(): OpResult {
    this.act();
    return this.result;
  }

  /** Runs an operation whose timer sends a signal, by calling `interrupt`, after so many milliseconds. */
  during<T>(timer: number, interrupt: () => void, run: () => T): T {
    this.timer = timer;
    this.interrupt = interrupt;
    try {
      return run();
    } finally {
      this.timer = Number.POSITIVE_INFINITY;
      this.interrupt = null;
    }
  }

  private wait(interruptible: boolean): boolean {
    if (this.action === null) return false;
    if (this.delay >= this.timer) {
      if (interruptible) return false;
      this.interrupt?.();
    }
    this.act();
    return true;
  }

  private act(): void {
    const { action } = this;
    this.action = null;
    if (action !== null) this.result = action();
  }
}
