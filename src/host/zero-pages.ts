/** The two pages of zeros that every read of untouched anonymous memory shows. */
import type { PageAllocator } from './page-allocator.ts';

export class ZeroPages {
  /** The 4 KiB zero page. @kvm pgtable.h my_zero_pfn */
  readonly small: number;
  private readonly pages: PageAllocator;
  private hugeFolio = -1;

  constructor(pages: PageAllocator) {
    this.pages = pages;
    this.small = pages.allocPage();
  }

  /** The 2 MiB zero folio, made at its first use and kept; -1 when memory is full. @kvm huge_memory.c mm_get_huge_zero_folio */
  huge(): number {
    if (this.hugeFolio < 0) this.hugeFolio = this.pages.allocHuge();
    return this.hugeFolio;
  }

  /** True for the first frame of the 2 MiB zero folio. */
  isHuge(pfn: number): boolean {
    return pfn === this.hugeFolio;
  }

  capture(): number {
    return this.hugeFolio;
  }

  restore(hugeFolio: number): void {
    this.hugeFolio = hugeFolio;
  }
}
