import { describe, expect, it } from 'vitest';
import { guestImage } from './guest-image.ts';
import { type RunImageOptions, runImage } from './run-image.ts';

const MIB = 1024 * 1024;
const memoryBytes = 40 * MIB;

async function run(options: Partial<RunImageOptions> = {}) {
  const text: number[] = [];
  const result = await runImage({
    file: 'apf.elf',
    image: guestImage('apf.elf'),
    memoryBytes,
    swap: { residentBytes: MIB, latency: 100_000 },
    timeoutMs: 60_000,
    onSerial: (byte) => text.push(byte),
    ...options,
  });
  return { ...result, text: String.fromCharCode(...text) };
}

describe('a guest larger than the memory it may keep', () => {
  it.each([
    ['nested paging', {}],
    ['EPT', { hardware: 'silicon-skylake' }],
    ['VMX without EPT', { hardware: 'silicon-skylake', params: { ept: false } }],
    ['shadow paging', { params: { npt: false } }],
  ] as const)('works on while its pages are away, under %s', async (_, options) => {
    const { end, text, swap } = await run(options);
    expect(text).toContain('every page was what it should be');
    expect(end.status).toBe(1);
    const a = swap!;
    expect(a.pagedOut).toBeGreaterThan(2000);
    expect(a.toldNotPresent).toBeGreaterThan(1000);
    // Halted where it may not be told, and on pages that are on their way.
    expect(a.halts).toBeGreaterThan(a.repeated);
    expect(a.repeated).toBeGreaterThan(10);
    expect(a.waits).toBeGreaterThan(0);
    expect([a.ready, a.toldReady, a.wakeups]).toEqual([a.asyncFaults, a.toldNotPresent, 2]);
    expect(a.asyncFaults).toBe(a.toldNotPresent + a.halts - a.repeated);
  });

  it('takes the same faults again, and none of them with all of its memory or a device that answers at once', async () => {
    expect(await run()).toEqual(await run());
    const whole = await runImage({ file: 'apf.elf', image: guestImage('apf.elf'), memoryBytes, onSerial: () => {} });
    expect([whole.end.status, whole.swap]).toEqual([1, null]);
    const { swap } = await run({ swap: { residentBytes: MIB, latency: 0 } });
    expect([swap!.waits, swap!.asyncFaults]).toEqual([0, 0]);
    expect(swap!.reads).toBeGreaterThan(1000);
  });
});
