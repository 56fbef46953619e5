import { describe, expect, it } from 'vitest';
import { EAGAIN } from './errno.ts';
import { FOLL_NOWAIT, FOLL_WRITE } from './gup.ts';
import { HostMachine } from './machine.ts';
import type { IoClock } from './swap-reads.ts';

const PAGE = 4096;

/** A clock that stands still until somebody sleeps. */
class Clock implements IoClock {
  time = 0;
  private timers: { at: number; fire: (at: number) => void }[] = [];
  now(): number {
    return this.time;
  }
  createTimer(fire: (at: number) => void): { set(at: number | null): void } {
    return { set: (at) => void (at !== null && this.timers.push({ at, fire })) };
  }
  sleep(woken: () => boolean): boolean {
    while (!woken()) {
      const next = this.timers.shift();
      if (next === undefined) return false;
      this.time = next.at;
      next.fire(next.at);
    }
    return true;
  }
}

function makeProcess() {
  const host = new HostMachine({ memoryBytes: 64 << 20 });
  const mm = host.createProcess();
  const clock = new Clock();
  const hva = mm.mmap({ size: 1024 * PAGE, kind: 'anon' });
  return { host, mm, clock, hva };
}

const out = { pfn: -1, writable: false };

describe('reads from swap that take time', () => {
  it('are begun by a fault that must not sleep, told of when they end, and slept for by others', () => {
    const { mm, clock, hva } = makeProcess();
    mm.write(hva, Uint8Array.of(1, 2, 3));
    mm.write(hva + PAGE, Uint8Array.of(4));
    mm.swapTakesTime(clock, 500);
    mm.madvise(hva, 2 * PAGE, 'pageout');
    const woken: number[] = [];
    mm.userfaults.onWake((start) => woken.push(start));
    expect(mm.getUserPages(hva, FOLL_NOWAIT, out)).toBe(-EAGAIN);
    expect(mm.getUserPages(hva, FOLL_NOWAIT, out)).toBe(-EAGAIN);
    expect(mm.getUserPagesAside(hva + PAGE, FOLL_WRITE)).toBe(-EAGAIN);
    expect([mm.swap.io!.begun, clock.time]).toEqual([2, 0]);
    const bytes = new Uint8Array(4);
    expect(mm.read(hva + PAGE, bytes)).toBe(0);
    expect([...bytes, clock.time]).toEqual([4, 0, 0, 0, 500]);
    expect(woken).toEqual([hva, hva + PAGE]);
    // The other one is in the swap cache by now.
    expect(mm.getUserPages(hva, FOLL_NOWAIT, out)).toBe(0);
    expect([mm.swap.io!.sleeps, mm.swap.used]).toEqual([1, 0]);
  });

  it('of a page that has gone meanwhile say nothing of the next one in its place', () => {
    const { mm, clock, hva } = makeProcess();
    mm.write(hva, Uint8Array.of(1));
    mm.swapTakesTime(clock, 500);
    mm.madvise(hva, PAGE, 'pageout');
    expect(mm.getUserPages(hva, FOLL_NOWAIT, out)).toBe(-EAGAIN);
    mm.munmap(hva, PAGE);
    mm.write(hva + PAGE, Uint8Array.of(2));
    mm.madvise(hva + PAGE, PAGE, 'pageout');
    clock.time = 400;
    expect(mm.getUserPages(hva + PAGE, FOLL_NOWAIT, out)).toBe(-EAGAIN);
    clock.sleep(() => clock.time === 500);
    expect(mm.getUserPages(hva + PAGE, FOLL_NOWAIT, out)).toBe(-EAGAIN);
  });
});

describe('a limit to the memory of a process', () => {
  it('sends the pages that were not used to swap, and keeps what is in them', () => {
    const { mm, hva } = makeProcess();
    mm.limitMemory(256 * PAGE);
    for (let n = 0; n < 1024; n++) {
      mm.write(hva + n * PAGE + n, Uint8Array.of(n & 0xff, n >> 8));
      // The first page is used all the time.
      mm.write(hva + 8, Uint8Array.of(1));
    }
    expect(mm.residentPages()).toBeLessThanOrEqual(256);
    expect(mm.pageState(hva)).toEqual({ present: true, swapped: false });
    expect(mm.limit!.pagedOut).toBeGreaterThanOrEqual(768);
    const bytes = new Uint8Array(2);
    for (let n = 1; n < 1024; n++) {
      mm.read(hva + n * PAGE + n, bytes);
      expect(bytes[0]! + 256 * bytes[1]!).toBe(n);
    }
  });
});
