import { expect, test } from 'vitest';
import type { AddressSpace } from './address-space.ts';
import { EINVAL } from './errno.ts';
import { HostMachine } from './machine.ts';
import { SIZE_2M } from './page-table.ts';
import { PROT_READ, PROT_WRITE } from './vma.ts';

function anonymous(): { mm: AddressSpace; hva: number; announced: number[] } {
  const mm = new HostMachine({ memoryBytes: 128 * 1024 * 1024 }).createProcess();
  const hva = mm.mmap({ size: SIZE_2M, kind: 'anon', prot: PROT_READ | PROT_WRITE, align: SIZE_2M });
  const announced: number[] = [];
  mm.registerNotifier({
    invalidateRangeStart: (start, end) => announced.push(start - hva, end - start),
    invalidateRangeEnd: () => {},
    clearFlushYoung: () => false,
    clearYoung: () => false,
    testYoung: () => false,
    release: () => {},
  });
  return { mm, hva, announced };
}

const out = { pfn: 0, writable: false };

test('small pages become one huge page with their contents, announced once', () => {
  const { mm, hva, announced } = anonymous();
  mm.write(hva + 0x1000, Uint8Array.of(5));
  mm.madvise(hva, SIZE_2M, 'hugepage');
  expect(mm.madvise(hva, SIZE_2M, 'collapse')).toBe(0);
  expect(announced).toEqual([0, SIZE_2M]);
  expect(mm.getUserPages(hva, 0, out)).toBe(0);
  const first = out.pfn;
  mm.getUserPages(hva + 0x1000, 0, out);
  expect([first % 512, out.pfn - first]).toEqual([0, 1]);
  const byte = new Uint8Array(1);
  mm.read(hva + 0x1000, byte);
  expect(byte[0]).toBe(5);
  expect(mm.madvise(hva, SIZE_2M, 'collapse')).toBe(0);
});

test('memory that is empty, or told to stay small, does not collapse', () => {
  const { mm, hva } = anonymous();
  expect(mm.madvise(hva, SIZE_2M, 'collapse')).toBe(-EINVAL);
  mm.madvise(hva, SIZE_2M, 'hugepage');
  expect(mm.madvise(hva, SIZE_2M, 'collapse')).toBe(-EINVAL);
  mm.write(hva, Uint8Array.of(1));
  mm.madvise(hva, SIZE_2M, 'nohugepage');
  expect(mm.madvise(hva, SIZE_2M, 'collapse')).toBe(-EINVAL);
});
