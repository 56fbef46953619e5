/** The ELF container, 32 and 64 bits: headers checked, loadable segments taken out. */
import { ImageError } from '../image-error.ts';
import type { Segment } from './boot-image.ts';

const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ET_EXEC = 2;
const ET_DYN = 3;
const PT_LOAD = 1;
const EM_386 = 3;
const EM_X86_64 = 62;

const machines: ReadonlyMap<number, string> = new Map([
  [0, 'no machine'],
  [2, 'SPARC'],
  [4, 'Motorola 68000'],
  [8, 'MIPS'],
  [20, 'PowerPC'],
  [21, 'PowerPC 64'],
  [22, 'S/390'],
  [40, 'ARM'],
  [43, 'SPARC V9'],
  [50, 'IA-64'],
  [183, 'AArch64'],
  [243, 'RISC-V'],
  [247, 'BPF'],
  [258, 'LoongArch'],
]);

export interface ElfImage {
  readonly is64: boolean;
  readonly entry: number;
  /** Loadable segments at their physical addresses, without empty ones. */
  readonly segments: readonly Segment[];
}

/** True when the file starts like an ELF file. */
export function looksLikeElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

/** Reads an executable for x86; throws ImageError for anything else. */
export function readElf(file: string, bytes: Uint8Array): ElfImage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cut = () => new ImageError(file, `truncated ELF file (${bytes.length} bytes)`);
  if (bytes.length < 20) throw cut();
  const elfClass = bytes[4];
  if (elfClass !== ELFCLASS32 && elfClass !== ELFCLASS64)
    throw new ImageError(file, `ELF class ${elfClass} is neither 32 nor 64 bits`);
  const is64 = elfClass === ELFCLASS64;
  const littleEndian = bytes[5] === 1;
  const machine = view.getUint16(18, littleEndian);
  if (machine !== EM_386 && machine !== EM_X86_64) {
    const name = machines.get(machine) ?? `machine ${machine}`;
    throw new ImageError(file, `ELF file for ${name}, expected x86-64 or i386`);
  }
  if (!littleEndian) throw new ImageError(file, 'ELF file with big-endian data, expected x86-64 or i386');
  if (bytes.length < (is64 ? 64 : 52)) throw cut();
  const type = view.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) throw new ImageError(file, `ELF type ${type} is not an executable`);
  const word = (at: number): number => (is64 ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true));
  const entry = word(24);
  const headers = word(is64 ? 32 : 28);
  const headerSize = view.getUint16(is64 ? 54 : 42, true);
  const count = view.getUint16(is64 ? 56 : 44, true);
  if (count > 0 && headerSize < (is64 ? 56 : 32))
    throw new ImageError(file, `ELF program headers of ${headerSize} bytes`);
  if (headers + headerSize * count > bytes.length) throw cut();
  const segments: Segment[] = [];
  for (let i = 0; i < count; i++) {
    const at = headers + i * headerSize;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = word(at + (is64 ? 8 : 4));
    const gpa = word(at + (is64 ? 24 : 12));
    const fileSize = word(at + (is64 ? 32 : 16));
    const size = word(at + (is64 ? 40 : 20));
    if (size === 0) continue;
    if (fileSize > size) throw new ImageError(file, `ELF segment ${i} is larger in the file than in memory`);
    if (offset + fileSize > bytes.length) throw cut();
    segments.push({ gpa, bytes: bytes.subarray(offset, offset + fileSize), size });
  }
  if (segments.length === 0) throw new ImageError(file, 'ELF file without a loadable segment');
  return { is64, entry, segments };
}
