/** The machine and its kernel: physical memory, the page allocator, and the processes on top. */
import { AddressSpace } from './address-space.ts';
import { captureHost, type HostState, restoreHost } from './capture.ts';
import type { MmHost } from './mm.ts';
import { PageAllocator } from './page-allocator.ts';
import { PhysicalMemory } from './physical-memory.ts';
import { SwapDevice } from './swap.ts';
import { ZeroPages } from './zero-pages.ts';

/** How large the machine is. */
export interface HostMachineOptions {
  /** Physical memory in bytes, a multiple of 64 KiB above 48 MiB and below 4 GiB; 512 MiB if absent. Untouched memory costs nothing. */
  readonly memoryBytes?: number;
}

/** The physical machine below KVM. */
export class HostMachine implements MmHost {
  readonly memory: PhysicalMemory;
  readonly pages: PageAllocator;
  readonly swap = new SwapDevice();
  readonly zero: ZeroPages;
  readonly processes: AddressSpace[] = [];

  constructor(options: HostMachineOptions = {}) {
    this.memory = new PhysicalMemory(options.memoryBytes ?? 512 * 1024 * 1024);
    this.pages = new PageAllocator(this.memory);
    this.zero = new ZeroPages(this.pages);
  }

  /** A new process with nothing mapped. */
  createProcess(): AddressSpace {
    const mm = new AddressSpace(this);
    this.processes.push(mm);
    return mm;
  }

  /** A copy of everything the machine's memory management holds, contents of frames in use included. */
  capture(): HostState {
    return captureHost(this);
  }

  /** Back to a captured state. Processes and files made since are forgotten; mirrors are not told. */
  restore(state: HostState): void {
    restoreHost(this, state);
  }
}
