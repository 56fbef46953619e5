import { describe, expect, it } from 'vitest';
import { FRAMES_1G, FRAMES_2M, PageAllocator } from './page-allocator.ts';
import { PAGE_SIZE, PhysicalMemory, PROCESSOR_FRAMES } from './physical-memory.ts';

const MIB = 1024 * 1024;

function allocator(mib: number): { memory: PhysicalMemory; pages: PageAllocator } {
  const memory = new PhysicalMemory(mib * MIB);
  return { memory, pages: new PageAllocator(memory) };
}

describe('page allocator', () => {
  it('hands out small pages upwards from the frames of the processor', () => {
    const { pages } = allocator(64);
    expect(pages.allocPage()).toBe(PROCESSOR_FRAMES);
    expect(pages.allocPage()).toBe(PROCESSOR_FRAMES + 1);
  });

  it('answers -1 when memory is full, and works again after a free', () => {
    const { pages } = allocator(50);
    const all: number[] = [];
    for (let pfn = pages.allocPage(); pfn >= 0; pfn = pages.allocPage()) all.push(pfn);
    expect(all).toHaveLength(FRAMES_2M);
    expect(new Set(all).size).toBe(FRAMES_2M);
    pages.freePage(all[7]!);
    expect(pages.allocPage()).toBe(all[7]);
    expect(pages.allocPage()).toBe(-1);
  });

  it('zeroes a page that was used before, and tells the processor of the write', () => {
    const { memory, pages } = allocator(64);
    const written: number[] = [];
    memory.setWatchedWrite((pfn) => written.push(pfn));
    const pfn = pages.allocPage();
    memory.u8[pfn * PAGE_SIZE + 5] = 1;
    memory.watch[pfn] = 1;
    pages.freePage(pfn);
    expect(pages.allocPage()).toBe(pfn);
    expect(memory.u8[pfn * PAGE_SIZE + 5]).toBe(0);
    expect(written).toEqual([pfn]);
  });

  it('takes huge folios from the other end, aligned, and splits and joins them', () => {
    const { pages } = allocator(64);
    const before = pages.freeFrames;
    const head = pages.allocHuge();
    expect(head % FRAMES_2M).toBe(0);
    expect(head).toBeGreaterThan(PROCESSOR_FRAMES + 3 * FRAMES_2M);
    pages.splitHuge(head);
    for (let i = 0; i < FRAMES_2M; i++) pages.put(head + i, 1);
    expect(pages.freeFrames).toBe(before);
    let count = 0;
    while (pages.allocHuge() >= 0) count++;
    expect(count).toBe(before / FRAMES_2M);
  });

  it('keeps a gigabyte whole while it can', () => {
    const { pages } = allocator(2304);
    for (let i = 0; i < 64; i++) {
      pages.allocPage();
      pages.allocHuge();
    }
    expect(pages.allocGigantic()).toBe(FRAMES_1G);
    expect(pages.allocGigantic()).toBe(-1);
    pages.put(FRAMES_1G, 3);
    expect(pages.allocGigantic()).toBe(FRAMES_1G);
  });

  it('never hands out a poisoned frame again', () => {
    const { pages } = allocator(50);
    const pfn = pages.allocPage();
    pages.poison(pfn);
    pages.freePage(pfn);
    const rest: number[] = [];
    for (let p = pages.allocPage(); p >= 0; p = pages.allocPage()) rest.push(p);
    expect(rest).toHaveLength(FRAMES_2M - 1);
    expect(rest).not.toContain(pfn);
  });

  it('refuses to free twice', () => {
    const { pages } = allocator(50);
    const pfn = pages.allocPage();
    pages.freePage(pfn);
    expect(() => pages.freePage(pfn)).toThrow(/twice/);
  });
});
