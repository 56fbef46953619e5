/** A 64-bit ELF without a multiboot header: started at its entry point in 64-bit mode over an identity map of the first 4 GiB. */
import { ImageError } from '../image-error.ts';
import type { BootImage, LoadOptions } from './boot-image.ts';
import { flatGdt, GDT_BYTES, IDENTITY_BYTES, identityTables } from './boot-tables.ts';
import type { ElfImage } from './elf.ts';
import { LowMemory } from './low-memory.ts';

const STACK_BYTES = 0x4000;

export function loadElf64(elf: ElfImage, options: LoadOptions): BootImage {
  if (!elf.is64)
    throw new ImageError(options.file, '32-bit ELF file without a multiboot header: nothing says how to start it');
  if (elf.entry >= 0x1_0000_0000)
    throw new ImageError(options.file, `entry point 0x${elf.entry.toString(16)} is above 4 GiB`);
  const low = new LowMemory(options.file, elf.segments);
  const gdt = low.take(GDT_BYTES);
  const cr3 = low.take(IDENTITY_BYTES);
  const stack = low.take(STACK_BYTES);
  return {
    format: 'elf64',
    segments: [
      ...elf.segments,
      { gpa: gdt, bytes: flatGdt(), size: GDT_BYTES },
      { gpa: cr3, bytes: identityTables(cr3), size: IDENTITY_BYTES },
    ],
    entry: { mode: 'long', rip: elf.entry, rsp: stack + STACK_BYTES, cr3, gdt },
  };
}
