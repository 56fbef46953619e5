import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../input-error.ts';
import { parseScenario } from './validate.ts';

const text = readFileSync(new URL('../../../conformance/npt/mmio-cache-evict.json', import.meta.url), 'utf8');

describe('scenario files', () => {
  it('accepts a recorded scenario', () => {
    expect(parseScenario('x.json', text).name).toBe('mmio-cache-evict');
  });

  const broken: readonly (readonly [string, (s: Record<string, unknown>) => void, string])[] = [
    ['no steps', (s) => delete s['steps'], 'steps: expected an array, found nothing'],
    [
      'an unknown operation',
      (s) => ((s['steps'] as { do: { op: string } }[])[0]!.do.op = 'toString'),
      'steps[0].do.op: expected an operation',
    ],
    [
      'a size that is no number',
      (s) => ((s['mems'] as { size: string }[])[0]!.size = 'large'),
      'mems[0].size: expected an integer',
    ],
    [
      'a slot of no object',
      (s) => ((s['slots'] as { mem: number }[])[0]!.mem = 7),
      'slots[0].mem: expected the id of one of `mems`, found 7',
    ],
    [
      'a step on no object',
      (s) =>
        (s['steps'] as unknown[]).push({
          do: { op: 'peek', mem: 3, off: 0, len: 4 },
          expect: { ret: 0, errno: null, trace: [] },
        }),
      'steps[5].do.mem: expected the id of one of `mems`, found 3',
    ],
    [
      'an image beyond its object',
      (s) => ((s['memory'] as { off: string }[])[0]!.off = '0x1fffff'),
      'memory[0].off: expected an image that fits in the 2097152 bytes of its object',
    ],
    [
      'odd hex',
      (s) => ((s['memory'] as { hex: string }[])[0]!.hex = 'abc'),
      'memory[0].hex: expected bytes in bare hex',
    ],
  ];
  it.each(broken)('names the broken key: %s', (_name, breakIt, message) => {
    const s = JSON.parse(text) as Record<string, unknown>;
    breakIt(s);
    expect(() => parseScenario('dir/x.json', JSON.stringify(s))).toThrow(`dir/x.json: ${message}`);
  });

  it('says when a file is not JSON, on one line', () => {
    expect(() => parseScenario('x.json', text.slice(0, 500))).toThrow(/^x\.json: is not JSON \(.*\)$/);
  });

  it('answers any change to a file with a scenario or one line', () => {
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.nat(40), fc.string({ maxLength: 5 }), (at, length, insert) => {
        try {
          parseScenario('x.json', text.slice(0, at) + insert + text.slice(at + length));
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
          expect((error as Error).message).not.toContain('\n');
        }
      }),
    );
  });
});
