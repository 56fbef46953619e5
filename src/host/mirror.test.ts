/**
 * The contract with whoever mirrors page tables: between start and end of an announced range anything may change in it, and nothing
 * changes that was not announced. A mirror that drops what is announced never shows a frame that the process no longer has.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AddressSpace, MemoryKind } from './address-space.ts';
import { FOLL_WRITE } from './gup.ts';
import { HostMachine } from './machine.ts';
import type { Advice } from './madvise.ts';
import type { MmuNotifier } from './mmu-notifier.ts';
import { PROT_READ, PROT_WRITE } from './vma.ts';

const PAGES = 1024;
const SIZE = PAGES * 4096;
const MIB = 1024 * 1024;

/** What a hypervisor keeps: which frame each page has, and whether writes go to it. */
class Mirror implements MmuNotifier {
  readonly entries = new Map<number, { pfn: number; writable: boolean }>();
  private depth = 0;

  invalidateRangeStart(start: number, end: number): void {
    this.depth++;
    for (const hva of this.entries.keys()) if (hva >= start && hva < end) this.entries.delete(hva);
  }
  invalidateRangeEnd(): void {
    this.depth--;
  }
  clearFlushYoung(): boolean {
    return false;
  }
  clearYoung(): boolean {
    return false;
  }
  testYoung(): boolean {
    return false;
  }
  release(): void {
    this.entries.clear();
  }
  get balanced(): boolean {
    return this.depth === 0;
  }
}

interface Step {
  readonly what: 'read' | 'write' | 'mirror' | 'protect' | 'unmap' | 'map' | 'fork' | 'truncate' | Advice;
  readonly page: number;
  readonly count: number;
  readonly flag: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  what: fc.constantFrom<Step['what']>(
    ...(['read', 'write', 'mirror', 'mirror', 'write', 'protect', 'unmap', 'map', 'fork', 'truncate'] as const),
    ...([
      'dontneed',
      'free',
      'remove',
      'populate_read',
      'populate_write',
      'pageout',
      'soft_offline',
      'hugepage',
      'collapse',
    ] as const),
  ),
  // Few pages, so that operations meet; both 2 MiB ranges, and now and then anywhere.
  page: fc.oneof({ weight: 4, arbitrary: fc.nat(3) }, fc.integer({ min: 510, max: 514 }), fc.nat(PAGES - 1)),
  count: fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 1, max: 4 }) }, fc.integer({ min: 1, max: PAGES })),
  flag: fc.boolean(),
});

const out = { pfn: 0, writable: false };

/** One operation, with the model of the bytes kept beside: `model` holds the first byte of each page, absent is zero. */
function apply(
  mm: AddressSpace,
  base: number,
  kind: MemoryKind,
  s: Step,
  mirror: Mirror,
  model: Map<number, number>,
): void {
  const hva = base + s.page * 4096;
  const count = Math.min(s.count, PAGES - s.page);
  const length = count * 4096;
  const forget = (from: number, to: number): void => {
    for (let p = from; p < to; p++) model.delete(p);
  };
  switch (s.what) {
    case 'read': {
      const byte = new Uint8Array(1);
      if (mm.read(hva, byte) === 0) expect(byte[0]).toBe(model.get(s.page) ?? 0);
      return;
    }
    case 'write':
      if (mm.write(hva, Uint8Array.of(s.count & 0xff)) === 0) model.set(s.page, s.count & 0xff);
      return;
    case 'mirror':
      if (mm.getUserPages(hva, s.flag ? FOLL_WRITE : 0, out) === 0) mirror.entries.set(hva, { ...out });
      return;
    case 'protect':
      mm.mprotect(hva, length, s.flag ? PROT_READ : PROT_READ | PROT_WRITE);
      return;
    case 'unmap':
      mm.munmap(hva, length);
      if (kind !== 'memfd') forget(s.page, s.page + count);
      return;
    case 'map': {
      const file = mm.fileAt(base);
      if (kind === 'memfd' && file === null) return;
      mm.mmap({ size: length, kind, at: hva, ...(file === null ? {} : { file, offset: s.page * 4096 }) });
      if (kind !== 'memfd') forget(s.page, s.page + count);
      return;
    }
    case 'fork':
      mm.fork();
      return;
    case 'truncate': {
      const file = mm.fileAt(base);
      if (file === null) return;
      file.truncate(s.page * 4096);
      file.truncate(SIZE);
      if (kind === 'memfd') forget(s.page, PAGES);
      return;
    }
    case 'dontneed':
      mm.madvise(hva, length, s.what);
      if (kind !== 'memfd') forget(s.page, s.page + count);
      return;
    case 'remove':
      for (let p = s.page; p < s.page + count; p++) {
        if (mm.madvise(base + p * 4096, 4096, s.what) === 0) model.delete(p);
      }
      return;
    case 'free':
      // The contents may go at any page-out from here on: keep the model exact by writing again.
      if (mm.madvise(hva, 4096, s.what) === 0 && mm.write(hva, Uint8Array.of(1)) === 0) model.set(s.page, 1);
      return;
    default:
      mm.madvise(hva, length, s.what);
  }
}

/** What the mirror shows must be what the process has. */
function check(mm: AddressSpace, mirror: Mirror): void {
  expect(mirror.balanced).toBe(true);
  for (const [hva, entry] of mirror.entries) {
    const now = mm.userPageInatomic(hva, entry.writable);
    if (now !== entry.pfn)
      throw new Error(`mirror shows frame ${entry.pfn} at ${hva.toString(16)}, the process has ${now}`);
  }
}

describe('a mirror of the page tables', () => {
  for (const kind of ['anon', 'thp', 'memfd'] as const) {
    it(`is never stale, bytes stay, and no frame is lost: ${kind}`, () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
          const host = new HostMachine({ memoryBytes: 80 * MIB });
          host.zero.huge();
          const free = host.pages.freeFrames;
          const mm = host.createProcess();
          const base = mm.mmap({ size: SIZE, kind });
          const mirror = new Mirror();
          mm.registerNotifier(mirror);
          const model = new Map<number, number>();
          let offlined = 0;
          for (const s of steps) {
            const before = host.pages.flags.reduce((n, f) => n + ((f & 2) >> 1), 0);
            apply(mm, base, kind, s.what === 'soft_offline' ? { ...s, count: 1 } : s, mirror, model);
            offlined += host.pages.flags.reduce((n, f) => n + ((f & 2) >> 1), 0) - before;
            check(mm, mirror);
          }
          mm.exit();
          expect(mirror.entries.size).toBe(0);
          expect(host.swap.used).toBe(0);
          expect(host.pages.freeFrames).toBe(free - offlined);
        }),
        { numRuns: 100 },
      );
    });
  }
});
