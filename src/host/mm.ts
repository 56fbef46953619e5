/** The memory of one process: what the operations on it share. */
import type { HostSignal } from './host-signal.ts';
import type { MemoryLimit } from './memory-limit.ts';
import { MmuNotifierList } from './mmu-notifier.ts';
import type { PageAllocator } from './page-allocator.ts';
import { HostPageTable } from './page-table.ts';
import type { PhysicalMemory } from './physical-memory.ts';
import type { SwapDevice } from './swap.ts';
import { UserfaultQueue } from './userfault-queue.ts';
import { VmaList } from './vma.ts';
import type { ZeroPages } from './zero-pages.ts';

/** What all processes of a machine share. */
export interface MmHost {
  readonly memory: PhysicalMemory;
  readonly pages: PageAllocator;
  readonly swap: SwapDevice;
  readonly zero: ZeroPages;
}

export class Mm {
  readonly memory: PhysicalMemory;
  readonly pages: PageAllocator;
  readonly swap: SwapDevice;
  readonly zero: ZeroPages;
  readonly vmas = new VmaList();
  readonly table = new HostPageTable();
  readonly notifiers = new MmuNotifierList();
  readonly userfaults = new UserfaultQueue();
  /** Signals the kernel sent to the process and nobody took yet. */
  readonly signals: HostSignal[] = [];

  /** What the process may keep in memory; null: all there is. */
  limit: MemoryLimit | null = null;

  constructor(host: MmHost) {
    this.memory = host.memory;
    this.pages = host.pages;
    this.swap = host.swap;
    this.zero = host.zero;
  }
}
