import { describe, expect, it } from 'vitest';
import type { AddressSpace } from './address-space.ts';
import { EAGAIN, EBUSY, EEXIST, EFAULT, EHWPOISON, ENOMEM } from './errno.ts';
import { FOLL_NOWAIT, FOLL_WRITE } from './gup.ts';
import { HostMachine } from './machine.ts';
import type { MmuNotifier } from './mmu-notifier.ts';
import { PROT_READ, PROT_WRITE } from './vma.ts';

const RW = PROT_READ | PROT_WRITE;

/** Writes down what a mirror of the page tables hears. */
class Listener implements MmuNotifier {
  readonly heard: string[] = [];
  young = false;
  private readonly base: number;

  constructor(base: number) {
    this.base = base;
  }

  private note(what: string, start: number, end: number): void {
    this.heard.push(`${what} ${(start - this.base).toString(16)}+${(end - start).toString(16)}`);
  }

  invalidateRangeStart(start: number, end: number): void {
    this.note('start', start, end);
  }
  invalidateRangeEnd(start: number, end: number): void {
    this.note('end', start, end);
  }
  clearFlushYoung(): boolean {
    return false;
  }
  clearYoung(start: number, end: number): boolean {
    this.note('age', start, end);
    return this.young;
  }
  testYoung(): boolean {
    return false;
  }
  release(): void {
    this.heard.push('release');
  }
  /** Ranges in order of their starts, forgotten once read. */
  ranges(): string[] {
    const starts = this.heard.filter((h) => h.startsWith('start')).map((h) => h.slice(6));
    this.heard.length = 0;
    return starts;
  }
}

function setup(options: Parameters<AddressSpace['mmap']>[0], mib = 128) {
  const host = new HostMachine({ memoryBytes: mib * 1024 * 1024 });
  const mm = host.createProcess();
  const hva = mm.mmap(options);
  const listener = new Listener(hva);
  mm.registerNotifier(listener);
  return { host, mm, hva, listener };
}

const out = { pfn: 0, writable: false };
const bytes = (...b: number[]) => Uint8Array.from(b);
function byteAt(mm: AddressSpace, hva: number): number {
  const b = new Uint8Array(1);
  const error = mm.read(hva, b);
  return error === 0 ? b[0]! : error;
}

describe('private anonymous memory', () => {
  it('reads as the zero page, and a write copies it: one page announced', () => {
    const { mm, hva, listener, host } = setup({ size: 0x10000, kind: 'anon' });
    expect(mm.getUserPageFastOnly(hva, false)).toBe(-1);
    expect(mm.getUserPages(hva, 0, out)).toBe(0);
    expect(out).toEqual({ pfn: host.zero.small, writable: false });
    expect(mm.getUserPageFastOnly(hva, true)).toBe(-1);
    expect(mm.getUserPages(hva, FOLL_WRITE, out)).toBe(0);
    expect(out.writable).toBe(true);
    expect(out.pfn).not.toBe(host.zero.small);
    expect(mm.getUserPageFastOnly(hva, true)).toBe(out.pfn);
    expect(listener.ranges()).toEqual(['0+1000']);
  });

  it('a first write announces nothing', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    expect(mm.write(hva + 0xffe, bytes(1, 2, 3, 4))).toBe(0);
    expect(byteAt(mm, hva + 0x1001)).toBe(4);
    expect(listener.ranges()).toEqual([]);
  });

  it('MADV_DONTNEED announces the range, drops the page and gives its frame back', () => {
    const { mm, hva, listener, host } = setup({ size: 0x10000, kind: 'anon' });
    mm.write(hva, bytes(9));
    const free = host.pages.freeFrames;
    expect(mm.madvise(hva, 0x1000, 'dontneed')).toBe(0);
    expect(listener.heard).toEqual(['start 0+1000', 'end 0+1000']);
    expect(mm.residency(hva)).toBe(false);
    expect(host.pages.freeFrames).toBe(free + 1);
    expect(byteAt(mm, hva)).toBe(0);
  });

  it('mprotect announces the range, and write access comes back without a fault', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    mm.write(hva, bytes(9));
    expect(mm.mprotect(hva, 0x1000, 0)).toBe(0);
    expect(mm.getUserPages(hva, 0, out)).toBe(-EFAULT);
    expect(mm.getUserPageFastOnly(hva, false)).toBe(-1);
    expect(mm.residency(hva)).toBe(true);
    expect(mm.mprotect(hva, 0x1000, RW)).toBe(0);
    expect(mm.getUserPageFastOnly(hva, true)).toBeGreaterThan(0);
    expect(listener.ranges()).toEqual(['0+1000', '0+1000']);
    expect(mm.vmas.list).toHaveLength(1);
  });

  it('mprotect of what has no page tables announces nothing', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    mm.mprotect(hva, 0x10000, PROT_READ);
    expect(listener.ranges()).toEqual([]);
    expect(mm.getUserPages(hva, FOLL_WRITE, out)).toBe(-EFAULT);
    expect(mm.write(hva, bytes(1))).toBe(-EFAULT);
    expect(byteAt(mm, hva)).toBe(0);
  });

  it('munmap announces the range as asked; cutting a 2 MiB range announces the split first', () => {
    const { mm, hva, listener } = setup({ size: 0x400000, kind: 'anon' });
    mm.write(hva + 0x300000, bytes(1));
    expect(mm.munmap(hva, 0x1000)).toBe(0);
    expect(listener.ranges()).toEqual(['0+200000', '0+1000']);
    expect(mm.vmaAt(hva)).toBe(null);
    expect(mm.getUserPages(hva, 0, out)).toBe(-EFAULT);
    expect(mm.vmaAt(hva + 0x1000)?.prot).toBe(RW);
    expect(mm.munmap(hva, 0x1000)).toBe(0);
    expect(listener.ranges()).toEqual([]);
    expect(mm.mmap({ size: 0x1000, kind: 'anon', at: hva })).toBe(hva);
    expect(byteAt(mm, hva)).toBe(0);
    expect(mm.madvise(hva, 0x401000, 'dontneed')).toBe(-ENOMEM);
  });

  it('fork announces every written private mapping, in address order; the next write takes its page over', () => {
    const { mm, hva, listener, host } = setup({ size: 0x200000, kind: 'anon' });
    const second = mm.mmap({ size: 0x10000, kind: 'anon' });
    expect(second).toBeLessThan(hva);
    const untouched = mm.mmap({ size: 0x10000, kind: 'anon' });
    expect(byteAt(mm, untouched)).toBe(0);
    mm.write(hva, bytes(1));
    mm.write(second, bytes(1));
    mm.getUserPages(hva, 0, out);
    const before = out.pfn;
    const free = host.pages.freeFrames;
    mm.fork();
    expect(listener.ranges()).toEqual([`${(second - hva).toString(16)}+10000`, '0+200000']);
    expect(mm.getUserPageFastOnly(hva, true)).toBe(-1);
    mm.getUserPages(hva, FOLL_WRITE, out);
    expect(out.pfn).toBe(before);
    expect(listener.ranges()).toEqual([]);
    expect(host.pages.freeFrames).toBe(free);
  });

  it('goes to swap and comes back; a fault that must not sleep says so', () => {
    const { mm, hva, listener, host } = setup({ size: 0x10000, kind: 'anon' });
    mm.write(hva, bytes(7));
    expect(mm.madvise(hva, 0x1000, 'pageout')).toBe(0);
    expect(listener.ranges()).toEqual(['0+1000']);
    expect(mm.pageState(hva)).toEqual({ present: false, swapped: true });
    host.swap.synchronous = false;
    expect(mm.getUserPages(hva, FOLL_NOWAIT, out)).toBe(-EAGAIN);
    expect(mm.getUserPages(hva, 0, out)).toBe(0);
    expect(out.writable).toBe(true);
    expect(byteAt(mm, hva)).toBe(7);
    expect(host.swap.used).toBe(0);
  });

  it('MADV_FREE then page-out drops clean contents, and keeps those written since', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    mm.write(hva, bytes(7));
    mm.write(hva + 0x1000, bytes(8));
    expect(mm.madvise(hva, 0x2000, 'free')).toBe(0);
    mm.write(hva + 0x1000, bytes(9));
    mm.madvise(hva, 0x2000, 'pageout');
    expect(listener.ranges()).toEqual(['0+2000', '0+1000', '1000+1000']);
    expect(mm.pageState(hva)).toEqual({ present: false, swapped: false });
    expect(byteAt(mm, hva)).toBe(0);
    expect(byteAt(mm, hva + 0x1000)).toBe(9);
  });

  it('gives back everything when the process ends', () => {
    const { mm, hva, listener, host } = setup({ size: 0x400000, kind: 'thp' });
    const free = host.pages.freeFrames;
    mm.write(hva, bytes(1));
    const file = mm.mmap({ size: 0x10000, kind: 'memfd' });
    mm.write(file, bytes(1));
    mm.exit();
    expect(listener.heard.at(-1)).toBe('release');
    expect(host.pages.freeFrames).toBe(free);
  });
});

describe('transparent huge pages', () => {
  it('a first write gets a 2 MiB folio, a first read the huge zero page', () => {
    const { mm, hva, listener, host } = setup({ size: 0x400000, kind: 'thp' });
    mm.getUserPages(hva + 0x1000, FOLL_WRITE, out);
    expect(out.pfn % 512).toBe(1);
    expect(mm.hostMappingLevel(hva)).toBe(2);
    mm.getUserPages(hva + 0x201000, 0, out);
    expect(host.zero.isHuge(out.pfn - 1)).toBe(true);
    expect(mm.hostMappingLevel(hva + 0x200000)).toBe(2);
    expect(mm.getUserPages(hva + 0x201000, FOLL_WRITE, out)).toBe(0);
    expect(listener.ranges()).toEqual(['200000+200000', '201000+1000']);
    expect(mm.hostMappingLevel(hva + 0x200000)).toBe(1);
    mm.getUserPages(hva + 0x205000, FOLL_WRITE, out);
    expect(listener.ranges()).toEqual(['205000+1000']);
  });

  it('needs the whole aligned range inside the mapping, and the advice', () => {
    const { mm, hva } = setup({ size: 0x300000, kind: 'thp' });
    mm.write(hva + 0x200000, bytes(1));
    expect(mm.hostMappingLevel(hva + 0x200000)).toBe(1);
    const plain = mm.mmap({ size: 0x200000, kind: 'anon' });
    mm.write(plain, bytes(1));
    expect(mm.hostMappingLevel(plain)).toBe(1);
    expect(mm.madvise(plain, 0x200000, 'hugepage')).toBe(0);
    mm.madvise(plain, 0x200000, 'dontneed');
    mm.write(plain, bytes(1));
    // The table of small pages is still there, so it stays with small pages.
    expect(mm.hostMappingLevel(plain)).toBe(1);
  });

  it('MADV_DONTNEED of one page splits it, inside the announced range', () => {
    const { mm, hva, listener } = setup({ size: 0x200000, kind: 'thp' });
    mm.write(hva + 0x2000, bytes(5));
    mm.madvise(hva + 0x1000, 0x1000, 'dontneed');
    expect(listener.heard).toEqual(['start 1000+1000', 'start 0+200000', 'end 0+200000', 'end 1000+1000']);
    expect(byteAt(mm, hva + 0x2000)).toBe(5);
    expect(mm.residency(hva + 0x1000)).toBe(false);
    listener.heard.length = 0;
    mm.write(hva + 0x2000, bytes(6));
    expect(listener.ranges()).toEqual([]);
  });

  it('a memory error and a page-out split it first', () => {
    for (const advice of ['hwpoison', 'pageout'] as const) {
      const { mm, hva, listener } = setup({ size: 0x200000, kind: 'thp' });
      mm.write(hva + 0x1000, bytes(5));
      expect(mm.madvise(hva, 0x1000, advice)).toBe(0);
      expect(listener.ranges()).toEqual(['0+200000', '0+200000', '0+1000']);
      expect(byteAt(mm, hva + 0x1000)).toBe(5);
    }
  });

  it('aging is asked of the whole folio', () => {
    const { mm, hva, listener } = setup({ size: 0x200000, kind: 'thp' });
    mm.write(hva, bytes(5));
    mm.idleMark(hva);
    expect(mm.idleRead(hva)).toBe(true);
    listener.young = true;
    expect(mm.idleRead(hva)).toBe(false);
    expect(listener.heard).toEqual(['age 0+200000', 'age 0+200000', 'age 0+200000']);
    expect(mm.idleRead(hva)).toBe(false);
    expect(listener.heard).toHaveLength(3);
  });
});

describe('files', () => {
  it('a shared file page is writable from a read fault', () => {
    const { mm, hva } = setup({ size: 0x10000, kind: 'memfd' });
    mm.getUserPages(hva, 0, out);
    expect(out.writable).toBe(true);
  });

  it('a private file page is shared until it is written', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'privfile' });
    mm.getUserPages(hva, 0, out);
    const cached = out.pfn;
    expect(out.writable).toBe(false);
    mm.getUserPages(hva, FOLL_WRITE, out);
    expect(out.pfn).not.toBe(cached);
    expect(listener.ranges()).toEqual(['0+1000']);
    mm.getUserPages(hva + 0x1000, FOLL_WRITE, out);
    expect(listener.ranges()).toEqual([]);
    mm.fileAt(hva)!.punchHole(0, 0x2000);
    expect(mm.residency(hva)).toBe(true);
  });

  it('truncation unmaps twice, and beyond the end is SIGBUS', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'memfd' });
    mm.write(hva + 0x1000, bytes(3));
    mm.write(hva + 0x10, bytes(3));
    expect(mm.fileAt(hva)!.truncate(0x8)).toBe(0);
    expect(listener.ranges()).toEqual(['1000+f000', '1000+f000']);
    expect(mm.getUserPages(hva + 0x1000, 0, out)).toBe(-EFAULT);
    expect(byteAt(mm, hva + 0x10)).toBe(0);
    expect(mm.fileAt(hva)!.truncate(0x10000)).toBe(0);
    expect(listener.ranges()).toEqual([]);
    expect(byteAt(mm, hva + 0x1000)).toBe(0);
  });

  it('MADV_REMOVE punches a hole', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'shared' });
    mm.write(hva, bytes(3));
    expect(mm.madvise(hva, 0x1000, 'remove')).toBe(0);
    expect(listener.ranges()).toEqual(['0+1000']);
    expect(byteAt(mm, hva)).toBe(0);
  });

  it('two mappings of one file show the same bytes', () => {
    const { mm, hva } = setup({ size: 0x10000, kind: 'memfd' });
    const file = mm.fileAt(hva)!;
    const other = mm.mmap({ size: 0x1000, kind: 'memfd', file, offset: 0x3000 });
    mm.write(hva + 0x3005, bytes(42));
    expect(byteAt(mm, other + 5)).toBe(42);
    mm.munmap(hva, 0x10000);
    expect(byteAt(mm, other + 5)).toBe(42);
  });

  it('hugetlb pages map at their level and are announced by the gigabyte when tables may be shared', () => {
    const { mm, hva, listener } = setup({ size: 0x40000000, kind: 'hugetlb2m', align: 0x40000000 });
    mm.getUserPages(hva + 0x201000, 0, out);
    expect(mm.hostMappingLevel(hva + 0x200000)).toBe(2);
    expect(out.writable).toBe(true);
    mm.madvise(hva + 0x200000, 0x200000, 'dontneed');
    expect(listener.ranges()).toEqual(['0+40000000']);
    expect(mm.munmap(hva + 0x1000, 0x1000)).toBeLessThan(0);
  });

  it('a gigantic page costs no write', () => {
    const { mm, hva } = setup({ size: 0x40000000, kind: 'hugetlb1g' }, 2304);
    expect(mm.getUserPages(hva + 0x12345678, FOLL_WRITE, out)).toBe(0);
    expect(out.pfn).toBe(0x40000 + 0x12345);
    expect(mm.hostMappingLevel(hva)).toBe(3);
    mm.mprotect(hva, 0x40000000, PROT_READ);
    mm.mprotect(hva, 0x40000000, RW);
    expect(mm.write(hva + 5, bytes(1))).toBe(0);
  });
});

describe('userfaultfd', () => {
  it('answers a missing page by SIGBUS', () => {
    const { mm, hva } = setup({ size: 0x10000, kind: 'anon' });
    expect(mm.userfaultRegister(hva, 0x10000, 'sigbus')).toBe(0);
    expect(mm.getUserPages(hva, 0, out)).toBe(-EFAULT);
    expect(mm.write(hva, bytes(1))).toBe(-EFAULT);
  });

  it('lets a task sleep until the page is provided', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    mm.userfaultRegister(hva, 0x10000, 'block');
    const woken: number[] = [];
    mm.userfaults.onWake((start) => woken.push(start - hva));
    expect(mm.getUserPages(hva, FOLL_NOWAIT, out)).toBe(-EAGAIN);
    expect(mm.userfaults.read()).toEqual([]);
    expect(mm.getUserPages(hva + 8, FOLL_WRITE, out)).toBe(-EAGAIN);
    expect(mm.userfaults.read()).toEqual([{ event: 0x12, flags: 1, address: hva }]);
    expect(mm.userfaultCopy(hva, bytes(5, 6))).toBe(0);
    expect(mm.userfaultCopy(hva, bytes(5, 6))).toBe(-EEXIST);
    expect(mm.userfaultCopy(hva + 0x1000, null, false)).toBe(0);
    expect(woken).toEqual([0]);
    expect(byteAt(mm, hva + 1)).toBe(6);
    mm.getUserPages(hva + 0x1000, FOLL_WRITE, out);
    expect(listener.ranges()).toEqual(['1000+1000']);
  });
});

describe('memory errors', () => {
  it('takes the page away from everybody and tells the process', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    mm.write(hva, bytes(1));
    expect(mm.madvise(hva, 0x1000, 'hwpoison')).toBe(0);
    expect(listener.ranges()).toEqual(['0+1000']);
    expect(mm.takeSignals()).toEqual([{ signal: 7, code: 'MCEERR_AR', address: hva, lsb: 12 }]);
    expect(mm.getUserPages(hva, 0, out)).toBe(-EHWPOISON);
    expect(mm.isPoisoned(hva)).toBe(true);
    expect(byteAt(mm, hva)).toBe(-EHWPOISON);
    mm.madvise(hva, 0x1000, 'dontneed');
    expect(byteAt(mm, hva)).toBe(0);
  });

  it('cannot be had of the zero page', () => {
    const { mm, hva } = setup({ size: 0x10000, kind: 'anon' });
    expect(mm.madvise(hva, 0x1000, 'hwpoison')).toBe(-EBUSY);
  });

  it('stays with a file page after its mapping is gone', () => {
    const { mm, hva } = setup({ size: 0x10000, kind: 'memfd' });
    mm.write(hva, bytes(1));
    expect(mm.madvise(hva, 0x1000, 'hwpoison')).toBe(0);
    mm.madvise(hva, 0x1000, 'dontneed');
    expect(byteAt(mm, hva)).toBe(-EHWPOISON);
  });

  it('soft offlining moves the contents', () => {
    const { mm, hva, listener } = setup({ size: 0x10000, kind: 'anon' });
    mm.write(hva, bytes(4));
    mm.getUserPages(hva, 0, out);
    const before = out.pfn;
    expect(mm.madvise(hva, 0x1000, 'soft_offline')).toBe(0);
    expect(listener.ranges()).toEqual(['0+1000']);
    mm.getUserPages(hva, 0, out);
    expect(out.pfn).not.toBe(before);
    expect(out.writable).toBe(true);
    expect(byteAt(mm, hva)).toBe(4);
  });
});

describe('without faulting', () => {
  it('copies only what is present', () => {
    const { mm, hva } = setup({ size: 0x10000, kind: 'anon' });
    const b = new Uint8Array(4);
    expect(mm.readInatomic(hva, b)).toBe(-EFAULT);
    expect(byteAt(mm, hva)).toBe(0);
    expect(mm.readInatomic(hva, b)).toBe(0);
    expect(mm.writeInatomic(hva, b)).toBe(-EFAULT);
    mm.write(hva, bytes(1));
    expect(mm.writeInatomic(hva, bytes(2))).toBe(0);
    expect(byteAt(mm, hva)).toBe(2);
  });
});

describe('capture and restore', () => {
  it('brings back bytes, mappings and free memory', () => {
    const { host, mm, hva } = setup({ size: 0x400000, kind: 'thp' });
    mm.write(hva + 5, bytes(1));
    const file = mm.mmap({ size: 0x10000, kind: 'memfd' });
    mm.write(file, bytes(2));
    const free = host.pages.freeFrames;
    const state = host.capture();
    for (let i = 0; i < 2; i++) {
      mm.write(hva + 5, bytes(9));
      mm.write(hva + 0x200000, bytes(9));
      mm.munmap(file, 0x10000);
      mm.madvise(hva, 0x1000, 'dontneed');
      host.restore(state);
      expect(byteAt(mm, hva + 5)).toBe(1);
      expect(byteAt(mm, file)).toBe(2);
      expect(host.pages.freeFrames).toBe(free);
      expect(mm.residency(hva + 0x200000)).toBe(false);
      expect(mm.hostMappingLevel(hva)).toBe(2);
    }
  });
});
