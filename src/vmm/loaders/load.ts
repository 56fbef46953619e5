/** Finds out what a file is and loads it. */
import { ImageError } from '../image-error.ts';
import { type BootImage, isRam, type LoadOptions } from './boot-image.ts';
import { looksLikeElf, readElf } from './elf.ts';
import { loadElf64 } from './elf64.ts';
import { loadFlat } from './flat.ts';
import { findMultibootHeader, loadMultiboot } from './multiboot.ts';

/** Throws ImageError, one line that names the file, for what cannot be loaded. */
export function loadImage(bytes: Uint8Array, options: LoadOptions): BootImage {
  const image = recognise(bytes, options);
  for (const s of image.segments) {
    if (isRam(options.memoryBytes, s.gpa, s.size)) continue;
    const range = `0x${s.gpa.toString(16)}..0x${(s.gpa + s.size).toString(16)}`;
    throw new ImageError(
      options.file,
      `does not fit: ${range} is outside of ${formatMemory(options.memoryBytes)} of memory`,
    );
  }
  if (options.modules.length > 0 && image.format !== 'multiboot') {
    throw new ImageError(options.file, `a ${image.format} image cannot be given modules (multiboot can)`);
  }
  return image;
}

function recognise(bytes: Uint8Array, options: LoadOptions): BootImage {
  const elf = looksLikeElf(bytes) ? readElf(options.file, bytes) : null;
  const header = findMultibootHeader(bytes);
  if (header !== null) return loadMultiboot(bytes, header, elf, options);
  if (elf !== null) return loadElf64(elf, options);
  if (isLinux(bytes)) throw new ImageError(options.file, 'Linux kernels (bzImage) are not supported yet');
  if (bytes.length > 0 && looksLikeText(bytes))
    throw new ImageError(options.file, 'is text, expected an ELF file or machine code');
  return loadFlat(bytes, options);
}

/** Text throughout: valid UTF-8 and no control characters but white space. Machine code that is would be a feat. */
function looksLikeText(bytes: Uint8Array): boolean {
  if (bytes.some((b) => b === 0x7f || (b < 0x20 && b !== 0x09 && b !== 0x0a && b !== 0x0c && b !== 0x0d))) return false;
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** The boot protocol's signature. @kvm Documentation/arch/x86/boot.rst */
function isLinux(bytes: Uint8Array): boolean {
  return bytes.length > 0x206 && String.fromCharCode(...bytes.subarray(0x202, 0x206)) === 'HdrS';
}

function formatMemory(bytes: number): string {
  const mib = bytes / (1024 * 1024);
  return Number.isInteger(mib) ? `${mib} MiB` : `${bytes} bytes`;
}
