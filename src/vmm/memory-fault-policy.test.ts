import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryFaultPolicy } from './memory-fault-policy.ts';
import { PageRanges } from './page-ranges.ts';

const fault = { gpa: 0x5000, size: 0x1000, isPrivate: true };

describe('memory faults', () => {
  it('convert makes the attribute follow the access', () => {
    const policy = new MemoryFaultPolicy('convert');
    expect(policy.answer(fault, new PageRanges(), true, 0)).toEqual({
      action: 'convert',
      gpa: 0x5000,
      size: 0x1000,
      toPrivate: true,
    });
  });

  it('a private page that cannot be served as such becomes shared', () => {
    const pages = new PageRanges();
    pages.set(0x5000, 0x6000, true);
    expect(new MemoryFaultPolicy('convert').answer(fault, pages, true, 0)).toMatchObject({
      action: 'convert',
      toPrivate: false,
    });
  });

  it('a fault that comes back without progress ends the run', () => {
    const policy = new MemoryFaultPolicy('convert');
    const pages = new PageRanges();
    expect(policy.answer(fault, pages, true, 0).action).toBe('convert');
    expect(policy.answer(fault, pages, true, 0).action).toBe('convert');
    expect(policy.answer(fault, pages, true, 0)).toEqual({
      action: 'stop',
      reason: 'private access to gpa 0x5000 (size 0x1000) came back 2 times after conversion',
    });
    expect(policy.answer(fault, pages, true, 1).action).toBe('convert');
  });

  it('stop, and VMs without private memory, end the run at once', () => {
    expect(new MemoryFaultPolicy('stop').answer(fault, new PageRanges(), true, 0).action).toBe('stop');
    expect(new MemoryFaultPolicy('convert').answer(fault, new PageRanges(), false, 0).action).toBe('stop');
  });
});

describe('page ranges', () => {
  it('behave like a set of pages', () => {
    const step = fc.tuple(fc.nat(30), fc.nat(30), fc.boolean());
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const ranges = new PageRanges();
        const set = new Set<number>();
        for (const [a, b, present] of steps) {
          const [start, end] = [Math.min(a, b), Math.max(a, b)];
          ranges.set(start, end, present);
          for (let p = start; p < end; p++) present ? set.add(p) : set.delete(p);
        }
        for (let p = 0; p < 32; p++) expect(ranges.has(p)).toBe(set.has(p));
        const all = ranges.all();
        for (let i = 1; i < all.length; i++) expect(all[i]!.start).toBeGreaterThan(all[i - 1]!.end);
      }),
      { numRuns: 1000 },
    );
  });
});
