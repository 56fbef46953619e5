import { describe, expect, it } from 'vitest';
import { benchCpu } from './cpu.ts';
import { CPU_PARTS, GuestMarks } from './cpu-guest.ts';

describe('the benchmark of the processor', () => {
  it('runs every part of both guests in both engines, with the same results', { timeout: 120_000 }, async () => {
    const result = await benchCpu({ milliseconds: 1, repeat: 1, bits: [64, 32], only: ['interpreter', 'compiled'] });
    expect(result.guests.map((g) => g.bits)).toEqual([64, 32]);
    for (const { parts } of result.guests) {
      expect(parts.map((p) => p.name)).toEqual(CPU_PARTS.map((p) => p.name));
      for (const part of parts) {
        expect(part.agree, part.name).toBe(true);
        expect(part.nanoseconds.interpreter, part.name).toBeGreaterThan(0);
        expect(part.nanoseconds.compiled, part.name).toBeGreaterThan(0);
        expect(Object.keys(part.ratios)).toEqual(['compiledToInterpreter']);
      }
    }
  });

  it('leaves out parts and emulators that nobody asked for', async () => {
    const result = await benchCpu({
      milliseconds: 1,
      repeat: 1,
      bits: [64],
      only: ['compiled'],
      parts: ['port write'],
    });
    expect(result.guests[0]!.parts.map((p) => p.name)).toEqual(['port write']);
    expect(result.emulators.map((e) => e.name)).toEqual(['compiled']);
  });

  it('reads the marks of a guest', () => {
    const marks = new GuestMarks();
    for (const c of 'A.0000002aC.deadbeef!') marks.byte(c.charCodeAt(0));
    expect(marks.runs.map((r) => r?.checksum)).toEqual(['0000002a', undefined, 'deadbeef']);
    expect(marks.complete).toBe(true);
  });
});
