import { expect, test } from 'vitest';
import { HrTimer, TimerQueue } from './virtual-time.ts';

test('timers fire in the order of their time, those of the same tick in the order of arming', () => {
  const queue = new TimerQueue();
  const fired: string[] = [];
  const timer = (name: string): HrTimer => new HrTimer((at) => fired.push(`${name}@${at}`));
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(timer) as [HrTimer, HrTimer, HrTimer, HrTimer];
  queue.start(a, 30);
  queue.start(b, 10);
  queue.start(c, 10);
  queue.start(d, 5);
  queue.start(d, 20);
  queue.cancel(c);
  queue.cancel(c);
  queue.start(c, 10);
  expect(queue.next).toBe(10);
  while (queue.next !== Number.POSITIVE_INFINITY) queue.fireFirst();
  expect(fired).toEqual(['b@10', 'c@10', 'd@20', 'a@30']);
  expect(a.expires).toBe(-1);
});

test('a timer may arm itself again', () => {
  const queue = new TimerQueue();
  let n = 0;
  const periodic: HrTimer = new HrTimer((at) => {
    if (++n < 3) queue.start(periodic, at + 7);
  });
  queue.start(periodic, 7);
  while (queue.next !== Number.POSITIVE_INFINITY) queue.fireFirst();
  expect(n).toBe(3);
});
