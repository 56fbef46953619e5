/** Capture and restore of a host: the books as copies, the contents of every frame that is in use and was ever touched. */
import type { AddressSpace } from './address-space.ts';
import type { BackingFile, BackingFileState } from './backing-file.ts';
import type { HostMachine } from './machine.ts';
import type { PageAllocatorState } from './page-allocator.ts';
import { FRAMES_1G, FRAMES_2M } from './page-allocator.ts';
import { HostGigabyte } from './page-table.ts';
import { PAGE_SIZE, PROCESSOR_FRAMES } from './physical-memory.ts';
import type { Vma } from './vma.ts';

interface ProcessState {
  readonly mm: AddressSpace;
  readonly vmas: readonly Vma[];
  readonly gigabytes: ReadonlyMap<number, HostGigabyte>;
}

export interface HostState {
  readonly allocator: PageAllocatorState;
  readonly hugeZero: number;
  readonly swap: readonly (Uint8Array | null)[];
  readonly processes: readonly ProcessState[];
  readonly files: ReadonlyMap<BackingFile, BackingFileState>;
  /** Contents by frame; frames in use that are not here are zero. */
  readonly frames: ReadonlyMap<number, Uint8Array>;
}

function copyGigabyte(g: HostGigabyte): HostGigabyte {
  const copy = new HostGigabyte();
  copy.leaf = g.leaf;
  copy.pmd.set(g.pmd);
  for (let i = 0; i < 512; i++) copy.tables[i] = g.tables[i]?.slice() ?? null;
  return copy;
}

function copyTables(gigabytes: ReadonlyMap<number, HostGigabyte>): Map<number, HostGigabyte> {
  return new Map([...gigabytes].map(([n, g]) => [n, copyGigabyte(g)]));
}

/** True when the frame holds nothing but zeros. */
function isZero(page: Int32Array): boolean {
  for (let i = 0; i < page.length; i++) if (page[i] !== 0) return false;
  return true;
}

export function captureHost(host: HostMachine): HostState {
  const frames = new Map<number, Uint8Array>();
  for (const pfn of framesInUse(host)) {
    const page = host.memory.i32.subarray(pfn << 10, (pfn + 1) << 10);
    if (!isZero(page)) frames.set(pfn, host.memory.u8.slice(pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE));
  }
  const files = new Map<BackingFile, BackingFileState>();
  for (const mm of host.processes) {
    for (const vma of mm.vmas.list) {
      if (vma.file !== null) files.set(vma.file, vma.file.capture());
    }
  }
  return {
    allocator: host.pages.capture(),
    hugeZero: host.zero.capture(),
    swap: host.swap.capture(),
    processes: host.processes.map((mm) => ({
      mm,
      vmas: mm.vmas.list.map((v) => v.copy(v.start, v.end)),
      gigabytes: copyTables(mm.table.gigabytes),
    })),
    files,
    frames,
  };
}

/** Every allocated frame; those of a folio are named by its first frame's reference count. */
function* framesInUse(host: HostMachine): Generator<number> {
  const { refs } = host.pages;
  for (let pfn = PROCESSOR_FRAMES; pfn < refs.length; ) {
    const size = refs[pfn] === 0 ? 1 : host.pages.folioFrames(pfn);
    if (refs[pfn] !== 0) for (let i = 0; i < size; i++) yield pfn + i;
    pfn += size === FRAMES_2M || size === FRAMES_1G ? size : 1;
  }
}

export function restoreHost(host: HostMachine, state: HostState): void {
  host.pages.restore(state.allocator);
  host.zero.restore(state.hugeZero);
  host.swap.restore(state.swap);
  for (const pfn of framesInUse(host)) {
    const saved = state.frames.get(pfn);
    host.memory.noteWrite(pfn);
    if (saved !== undefined) host.memory.u8.set(saved, pfn * PAGE_SIZE);
    else host.memory.u8.fill(0, pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
  }
  for (const [file, saved] of state.files) file.restore(saved);
  host.processes.length = 0;
  for (const p of state.processes) {
    host.processes.push(p.mm);
    p.mm.vmas.reset(p.vmas.map((v) => v.copy(v.start, v.end)));
    for (const vma of p.mm.vmas.list) vma.file?.mappings.set(vma, p.mm);
    p.mm.table.reset(copyTables(p.gigabytes));
  }
}
