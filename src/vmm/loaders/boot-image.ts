/** What a loader makes of a file: bytes at guest addresses and the state that the first vCPU starts in. */

/** Bytes to be copied to guest-physical memory; the rest up to `size` is zeros. */
export interface Segment {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  /** Bytes in memory, at least `bytes.length`. */
  readonly size: number;
}

/** How the first vCPU starts. */
export type EntryMode =
  /** 16-bit real mode: all segments `segment`, or `data` except for code, IP `ip`, SP `sp`. */
  | {
      readonly mode: 'real';
      readonly segment: number;
      readonly data?: number;
      readonly ip: number;
      readonly sp: number;
    }
  /** 32-bit protected mode, flat segments, paging off, interrupts off. */
  | {
      readonly mode: 'protected';
      readonly eip: number;
      readonly eax: number;
      readonly ebx: number;
      readonly gdt: number;
    }
  /** 64-bit mode, flat segments, the first 4 GiB identity-mapped by 2 MiB pages, interrupts off. */
  /** Where RESET, or the launch of an encrypted guest, has put it. */
  | { readonly mode: 'reset' }
  | { readonly mode: 'long'; readonly rip: number; readonly rsp: number; readonly cr3: number; readonly gdt: number };

export interface BootImage {
  /** What the file was recognised as: `flat`, `elf64`, `multiboot`. */
  readonly format: 'flat' | 'elf64' | 'multiboot';
  readonly segments: readonly Segment[];
  readonly entry: EntryMode;
}

/** What the loaders are told about the machine and the run. */
export interface LoadOptions {
  /** Name of the file, for messages. */
  readonly file: string;
  /** RAM in bytes. */
  readonly memoryBytes: number;
  /** Command line for the guest. */
  readonly append: string;
  /** Files handed to the guest as they are: multiboot modules. */
  readonly modules: readonly { readonly name: string; readonly bytes: Uint8Array }[];
}

/** RAM below this address, if there is so much; the rest starts at 4 GiB. Devices live in between. */
export const LOW_RAM_LIMIT = 0xc000_0000;
export const HIGH_RAM_START = 0x1_0000_0000;

/** The RAM of a machine as ranges of guest-physical addresses. */
export function ramRanges(memoryBytes: number): { readonly gpa: number; readonly size: number }[] {
  const low = Math.min(memoryBytes, LOW_RAM_LIMIT);
  const ranges = [{ gpa: 0, size: low }];
  if (memoryBytes > low) ranges.push({ gpa: HIGH_RAM_START, size: memoryBytes - low });
  return ranges;
}

/** True when [gpa, gpa + size) is all RAM. */
export function isRam(memoryBytes: number, gpa: number, size: number): boolean {
  return ramRanges(memoryBytes).some((r) => gpa >= r.gpa && gpa + size <= r.gpa + r.size);
}
