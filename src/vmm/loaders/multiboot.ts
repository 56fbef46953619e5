/**
 * Multiboot 1: the header in the first 8 KiB of an ELF file of either size, or of any file that gives its addresses in the header.
 * The kernel starts in 32-bit protected mode with eax = 0x2badb002 and ebx = the information structure.
 */
import { ImageError } from '../image-error.ts';
import { type BootImage, type LoadOptions, ramRanges, type Segment } from './boot-image.ts';
import { flatGdt, GDT_BYTES } from './boot-tables.ts';
import type { ElfImage } from './elf.ts';
import { LowMemory } from './low-memory.ts';

const HEADER_MAGIC = 0x1bad_b002;
const BOOTLOADER_MAGIC = 0x2bad_b002;
const SEARCH = 8192;
/** Requirements of the header that are met: page-aligned modules, memory information, a video mode (never given, never required). */
const FLAGS_KNOWN = 0x7;
const FLAG_ADDRESSES = 1 << 16;

const INFO_MEMORY = 1 << 0;
const INFO_CMDLINE = 1 << 2;
const INFO_MODULES = 1 << 3;
const INFO_MEMORY_MAP = 1 << 6;
const INFO_LOADER_NAME = 1 << 9;
const INFO_BYTES = 120;

export interface MultibootHeader {
  /** Offset in the file. */
  readonly offset: number;
  readonly flags: number;
}

/** Finds the header, or null. */
export function findMultibootHeader(bytes: Uint8Array): MultibootHeader | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 12 <= Math.min(bytes.length, SEARCH); at += 4) {
    if (view.getUint32(at, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(at + 4, true);
    if ((HEADER_MAGIC + flags + view.getUint32(at + 8, true)) % 0x1_0000_0000 === 0) return { offset: at, flags };
  }
  return null;
}

/** Loads a multiboot kernel; `elf` is null for a file that is no ELF file. */
export function loadMultiboot(
  bytes: Uint8Array,
  header: MultibootHeader,
  elf: ElfImage | null,
  options: LoadOptions,
): BootImage {
  const unknown = header.flags & 0xffff & ~FLAGS_KNOWN;
  if (unknown !== 0)
    throw new ImageError(options.file, `multiboot header requires unknown features 0x${unknown.toString(16)}`);
  const kernel = (header.flags & FLAG_ADDRESSES) !== 0 ? byAddresses(bytes, header, options.file) : elf;
  if (kernel === null)
    throw new ImageError(options.file, 'multiboot header without load addresses in a file that is not ELF');
  if (kernel.entry >= 0x1_0000_0000) {
    throw new ImageError(
      options.file,
      `entry point 0x${kernel.entry.toString(16)} is above 4 GiB, out of reach of 32-bit code`,
    );
  }
  const modules = placeModules(kernel.segments, options);
  const loaded = [...kernel.segments, ...modules];
  const low = new LowMemory(options.file, loaded);
  const gdt = low.take(GDT_BYTES);
  const info = buildInfo(modules, options, low);
  return {
    format: 'multiboot',
    segments: [...loaded, { gpa: gdt, bytes: flatGdt(), size: GDT_BYTES }, info],
    entry: { mode: 'protected', eip: kernel.entry, eax: BOOTLOADER_MAGIC, ebx: info.gpa, gdt },
  };
}

function byAddresses(bytes: Uint8Array, header: MultibootHeader, file: string): { entry: number; segments: Segment[] } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (header.offset + 32 > bytes.length) throw new ImageError(file, 'truncated multiboot header');
  const field = (n: number): number => view.getUint32(header.offset + n, true);
  const [headerAddress, load, loadEnd, bssEnd, entry] = [field(12), field(16), field(20), field(24), field(28)];
  const start = header.offset - (headerAddress - load);
  if (load > headerAddress || start < 0)
    throw new ImageError(file, 'multiboot header says it is loaded before the file begins');
  const length = loadEnd === 0 ? bytes.length - start : loadEnd - load;
  if (length < 0 || start + length > bytes.length)
    throw new ImageError(file, `truncated multiboot file (${bytes.length} bytes)`);
  const size = Math.max(length, bssEnd === 0 ? 0 : bssEnd - load);
  return { entry, segments: [{ gpa: load, bytes: bytes.subarray(start, start + length), size }] };
}

/** Modules go page-aligned after the kernel. */
function placeModules(kernel: readonly Segment[], options: LoadOptions): Segment[] {
  let at = kernel.reduce((end, s) => Math.max(end, s.gpa + s.size), 0x10_0000);
  return options.modules.map((m) => {
    const gpa = Math.ceil(at / 0x1000) * 0x1000;
    at = gpa + m.bytes.length;
    return { gpa, bytes: m.bytes, size: m.bytes.length };
  });
}

/** The information structure and all it points to, as one piece of low memory. */
function buildInfo(modules: readonly Segment[], options: LoadOptions, low: LowMemory): Segment {
  const text = new TextEncoder();
  const names = options.modules.map((m) => text.encode(`${m.name}\0`));
  const commandLine = text.encode(options.append === '' ? `${options.file}\0` : `${options.file} ${options.append}\0`);
  const loader = text.encode('softkvm\0');
  const map = memoryMap(options.memoryBytes);
  const modulesAt = INFO_BYTES;
  const mapAt = modulesAt + modules.length * 16;
  const commandLineAt = mapAt + map.length * 24;
  const loaderAt = commandLineAt + commandLine.length;
  let nameAt = loaderAt + loader.length;
  const size = nameAt + names.reduce((sum, n) => sum + n.length, 0);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const gpa = low.take(size);
  const put = (at: number, value: number): void => view.setUint32(at, value, true);
  put(0, INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME);
  put(4, 640 - 1);
  put(8, (Math.min(options.memoryBytes, 0xc000_0000) - 0x10_0000) / 1024);
  put(16, gpa + commandLineAt);
  put(20, modules.length);
  put(24, gpa + modulesAt);
  put(44, map.length * 24);
  put(48, gpa + mapAt);
  put(64, gpa + loaderAt);
  modules.forEach((m, i) => {
    put(modulesAt + i * 16, m.gpa);
    put(modulesAt + i * 16 + 4, m.gpa + m.size);
    put(modulesAt + i * 16 + 8, gpa + nameAt);
    bytes.set(names[i]!, nameAt);
    nameAt += names[i]!.length;
  });
  map.forEach((r, i) => {
    const at = mapAt + i * 24;
    put(at, 20);
    view.setBigUint64(at + 4, BigInt(r.gpa), true);
    view.setBigUint64(at + 12, BigInt(r.size), true);
    put(at + 20, r.type);
  });
  bytes.set(commandLine, commandLineAt);
  bytes.set(loader, loaderAt);
  return { gpa, bytes, size };
}

/** RAM (type 1) and the hole of the old video memory and firmware (type 2). */
function memoryMap(memoryBytes: number): { gpa: number; size: number; type: number }[] {
  const [low, high] = ramRanges(memoryBytes);
  const map = [
    { gpa: 0, size: 0x9_fc00, type: 1 },
    { gpa: 0x9_fc00, size: 0x10_0000 - 0x9_fc00, type: 2 },
    { gpa: 0x10_0000, size: low!.size - 0x10_0000, type: 1 },
  ];
  if (high !== undefined) map.push({ ...high, type: 1 });
  return map;
}
