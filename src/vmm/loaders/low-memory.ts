/** Where a loader puts tables of its own: conventional memory that the image leaves free. */
import { ImageError } from '../image-error.ts';
import type { Segment } from './boot-image.ts';

/** Where QEMU begins as well: guests that were made for it use what is below as they like. */
const FIRST = 0x9000;
const LAST = 0x9_f000;

/** Hands out page-aligned pieces of the first 636 KiB, from 36 KiB on, that no segment covers. */
export class LowMemory {
  private next = FIRST;
  private readonly file: string;
  private readonly segments: readonly Segment[];

  constructor(file: string, segments: readonly Segment[]) {
    this.file = file;
    this.segments = segments;
  }

  /** Address of `size` free bytes; throws ImageError when the image leaves no room. */
  take(size: number): number {
    for (let at = this.next; at + size <= LAST; at += 0x1000) {
      if (this.segments.some((s) => s.gpa < at + size && s.gpa + s.size > at)) continue;
      this.next = at + Math.ceil(size / 0x1000) * 0x1000;
      return at;
    }
    throw new ImageError(this.file, 'no room for boot tables below 640 KiB');
  }
}
