/** Pages that hardware wants next to each other: permission maps. */
import { FRAMES_2M, type PageAllocator } from '../../host/page-allocator.ts';

const ATTEMPT = 64;

/** First frame of `count` zeroed neighbouring frames, or -1. The frames are freed one by one. */
export function allocContiguous(pages: PageAllocator, count: number): number {
  const got: number[] = [];
  let found = -1;
  while (found < 0 && got.length < ATTEMPT) {
    const pfn = pages.allocPage();
    if (pfn < 0) break;
    got.push(pfn);
    got.sort((a, b) => a - b);
    for (let i = 0; i + count <= got.length && found < 0; i++) {
      if (got[i + count - 1]! - got[i]! === count - 1) found = got[i]!;
    }
  }
  for (const pfn of got) if (found < 0 || pfn < found || pfn >= found + count) pages.freePage(pfn);
  return found >= 0 ? found : firstOfHuge(pages, count);
}

/** When the free small pages lie scattered: the first `count` frames of a huge folio, the rest given back. */
function firstOfHuge(pages: PageAllocator, count: number): number {
  const pfn = pages.allocHuge();
  if (pfn < 0) return -1;
  pages.splitHuge(pfn);
  freeContiguous(pages, pfn + count, FRAMES_2M - count);
  return pfn;
}

/** Gives `count` frames from `pfn` on back. */
export function freeContiguous(pages: PageAllocator, pfn: number, count: number): void {
  for (let i = 0; i < count; i++) pages.freePage(pfn + i);
}
