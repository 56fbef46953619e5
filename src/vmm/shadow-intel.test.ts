import { describe, expect, it } from 'vitest';
import { runImage } from './run-image.ts';

const MIB = 1024 * 1024;

/** Real-mode code at 1000:0, as a flat image, on VMX without EPT. */
async function run(code: readonly number[]) {
  return await runImage({
    file: 'flat',
    image: Uint8Array.from(code),
    memoryBytes: 16 * MIB,
    hardware: 'silicon-skylake',
    params: { ept: false },
    maxInstructions: 1_000_000,
    timeoutMs: 20_000,
    onSerial: () => {},
  });
}

/** A word into the low part of memory, through ES = 0. */
const store = (at: number, word: number): number[] => [
  ...[0x26, 0xc7, 0x06, at & 0xff, at >> 8, word & 0xff, word >> 8], // mov word es:[at], word
];
const ES_ZERO = [0x31, 0xc0, 0x8e, 0xc0]; // xor ax, ax; mov es, ax

describe('VMX without EPT', () => {
  it('emulates real mode: software interrupts through the vector table', async () => {
    const setUp = [...ES_ZERO, ...store(0x84, 0x40), ...store(0x86, 0x1000), 0xcd, 0x21, 0xeb, 0xfe];
    const code = [...setUp, ...Array<number>(0x40 - setUp.length).fill(0x90), 0xb0, 0x10, 0xe6, 0xf4];
    const { end, vcpuStats } = await run(code);
    expect(end).toMatchObject({ kind: 'debug-exit', status: 33 });
    expect(vcpuStats['insn_emulation']).toBe(7);
  });

  it('gives real mode its external interrupts, and wakes it from HLT', async () => {
    const handler = 0x60;
    // The PIT, mode 2, 1193 a tick, on vector 8; unmasked; sti, hlt.
    const setUp = [
      ...ES_ZERO,
      ...store(0x20, handler),
      ...store(0x22, 0x1000),
      ...[0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xa9, 0xe6, 0x40, 0xb0, 0x04, 0xe6, 0x40],
      ...[0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, 0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21],
      ...[0xb0, 0xfe, 0xe6, 0x21, 0xfb, 0xf4, 0xeb, 0xfd],
    ];
    const code = [...setUp, ...Array<number>(handler - setUp.length).fill(0x90), 0xb0, 0x07, 0xe6, 0xf4];
    const { end, vcpuStats } = await run(code);
    expect(end).toMatchObject({ kind: 'debug-exit', status: 15 });
    expect(vcpuStats['halt_exits']).toBe(1);
  });
});
