import { describe, expect, it } from 'vitest';
import type { LoadOptions } from './boot-image.ts';
import { loadImage } from './load.ts';

const MIB = 1024 * 1024;
const options: LoadOptions = { file: 'guest', memoryBytes: 64 * MIB, append: '', modules: [] };

/** An ELF executable with one segment of `code` at 1 MiB and 64 bytes more of zeros. */
function elf(bits: 32 | 64, code: Uint8Array, change: (v: DataView) => void = () => {}): Uint8Array {
  const headers = bits === 64 ? 64 + 56 : 52 + 32;
  const bytes = new Uint8Array(headers + code.length);
  const v = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, bits / 32, 1, 1]);
  v.setUint16(16, 2, true);
  v.setUint16(18, bits === 64 ? 62 : 3, true);
  if (bits === 64) {
    v.setBigUint64(24, 0x100000n, true);
    v.setBigUint64(32, 64n, true);
    v.setUint16(54, 56, true);
    v.setUint16(56, 1, true);
    v.setUint32(64, 1, true);
    v.setBigUint64(72, BigInt(headers), true);
    v.setBigUint64(88, 0x100000n, true);
    v.setBigUint64(96, BigInt(code.length), true);
    v.setBigUint64(104, BigInt(code.length + 64), true);
  } else {
    v.setUint32(24, 0x100000, true);
    v.setUint32(28, 52, true);
    v.setUint16(42, 32, true);
    v.setUint16(44, 1, true);
    v.setUint32(52, 1, true);
    v.setUint32(56, headers, true);
    v.setUint32(64, 0x100000, true);
    v.setUint32(68, code.length, true);
    v.setUint32(72, code.length + 64, true);
  }
  bytes.set(code, headers);
  change(v);
  return bytes;
}

function multibootHeader(flags: number, addresses: number[] = []): Uint8Array {
  const words = Uint32Array.of(0x1badb002, flags, -(0x1badb002 + flags), ...addresses);
  return new Uint8Array(words.buffer);
}

const code = Uint8Array.of(0xfa, 0xf4, 0, 0);

describe('recognising images', () => {
  it('a flat binary starts at 1000:0 in real mode', () => {
    const image = loadImage(code, options);
    expect(image.format).toBe('flat');
    expect(image.entry).toEqual({ mode: 'real', segment: 0x1000, ip: 0, sp: 0x8000 });
    expect(image.segments[0]).toMatchObject({ gpa: 0x10000, size: 4 });
  });

  it('an ELF64 starts in 64-bit mode over an identity map', () => {
    const image = loadImage(elf(64, code), options);
    expect(image.format).toBe('elf64');
    if (image.entry.mode !== 'long') throw new Error('not long mode');
    expect(image.entry.rip).toBe(0x100000);
    expect(image.segments[0]).toMatchObject({ gpa: 0x100000, size: 68 });
    const cr3 = image.entry.cr3;
    const tables = image.segments.find((s) => s.gpa === cr3)!;
    const words = new BigUint64Array(tables.bytes.slice().buffer);
    // 0xd0000000 through the four levels: PML4 0, PDPT 3, PD 128, a 2 MiB leaf.
    expect(words[0]! & ~0xfffn).toBe(BigInt(cr3 + 0x1000));
    expect(words[512 + 3]! & ~0xfffn).toBe(BigInt(cr3 + 0x5000));
    expect(words[1024 + 3 * 512 + 128]).toBe(0xd00000e3n);
  });

  it('multiboot of either size starts in 32-bit mode and is told of memory, command line and modules', () => {
    for (const bits of [32, 64] as const) {
      const kernel = elf(bits, new Uint8Array([...multibootHeader(3), ...code]));
      const modules = [{ name: 'initrd arg', bytes: Uint8Array.of(1, 2, 3) }];
      const image = loadImage(kernel, { ...options, append: 'a=b c', modules });
      expect(image.format).toBe('multiboot');
      if (image.entry.mode !== 'protected') throw new Error('not protected mode');
      const { entry } = image;
      expect(entry.eip).toBe(0x100000);
      expect(entry.eax).toBe(0x2badb002);
      const info = image.segments.find((s) => s.gpa === entry.ebx)!;
      const v = new DataView(info.bytes.buffer);
      const word = (at: number): number => v.getUint32(at, true);
      const text = (gpa: number): string => {
        const from = gpa - info.gpa;
        return new TextDecoder().decode(info.bytes.subarray(from, info.bytes.indexOf(0, from)));
      };
      expect(word(0)).toBe(0x24d);
      expect(word(4)).toBe(639);
      expect(word(8)).toBe(63 * 1024);
      expect(text(word(16))).toBe('guest a=b c');
      expect(text(word(64))).toBe('softkvm');
      expect(word(20)).toBe(1);
      const module = word(24) - info.gpa;
      expect(word(module) % 4096).toBe(0);
      expect(word(module + 4) - word(module)).toBe(3);
      expect(text(word(module + 8))).toBe('initrd arg');
      expect(image.segments.find((s) => s.gpa === word(module))!.bytes).toEqual(modules[0]!.bytes);
      const map = word(48) - info.gpa;
      expect(word(44)).toBe(3 * 24);
      expect([word(map), word(map + 4), word(map + 12), word(map + 20)]).toEqual([20, 0, 0x9fc00, 1]);
      expect([word(map + 52), word(map + 60), word(map + 68)]).toEqual([0x100000, 63 * MIB, 1]);
    }
  });

  it('multiboot without ELF loads by the addresses of its header', () => {
    const kernel = new Uint8Array([...multibootHeader(1 << 16, [0x200000, 0x200000, 0, 0x201000, 0x200020]), ...code]);
    const image = loadImage(kernel, options);
    expect(image.segments[0]).toMatchObject({ gpa: 0x200000, size: 0x1000 });
    expect(image.entry).toMatchObject({ mode: 'protected', eip: 0x200020 });
  });
});

describe('images that cannot be loaded say so in one line', () => {
  const cases: [name: string, image: Uint8Array, message: RegExp][] = [
    ['empty', new Uint8Array(0), /^guest: empty file$/],
    ['cut short', elf(64, code).subarray(0, 100), /^guest: truncated ELF file \(100 bytes\)$/],
    ['cut in the segment', elf(64, code).subarray(0, 122), /^guest: truncated ELF file \(122 bytes\)$/],
    [
      'another machine',
      elf(64, code, (v) => v.setUint16(18, 183, true)),
      /^guest: ELF file for AArch64, expected x86-64 or i386$/,
    ],
    [
      'an unknown machine',
      elf(64, code, (v) => v.setUint16(18, 4711, true)),
      /^guest: ELF file for machine 4711, expected/,
    ],
    ['an object file', elf(64, code, (v) => v.setUint16(16, 1, true)), /^guest: ELF type 1 is not an executable$/],
    [
      'too large for memory',
      elf(64, code, (v) => v.setBigUint64(88, 0x8000000n, true)),
      /^guest: does not fit: 0x8000000\.\./,
    ],
    ['ELF32 without a header', elf(32, code), /^guest: 32-bit ELF file without a multiboot header/],
    ['unknown requirements', new Uint8Array([...multibootHeader(0x10), ...code]), /requires unknown features 0x10$/],
    ['no segment', elf(64, code, (v) => v.setUint32(64, 4, true)), /^guest: ELF file without a loadable segment$/],
    ['a text file', new TextEncoder().encode('#!/bin/sh\necho größer\n'), /^guest: is text, expected an ELF file/],
    ['a large unknown file', new Uint8Array(1 << 20), /^guest: flat binary of 1048576 bytes, expected at most/],
  ];
  for (const [name, image, message] of cases) {
    it(name, () => {
      let said = '';
      try {
        loadImage(image, options);
      } catch (error) {
        said = (error as Error).message;
      }
      expect(said).toMatch(message);
      expect(said).not.toContain('\n');
    });
  }

  it('a Linux kernel', () => {
    const kernel = new Uint8Array(0x400);
    kernel.set(new TextEncoder().encode('HdrS'), 0x202);
    expect(() => loadImage(kernel, options)).toThrow(/bzImage.*not supported yet/);
  });

  it('modules for an image that takes none', () => {
    expect(() => loadImage(code, { ...options, modules: [{ name: 'm', bytes: code }] })).toThrow(
      /cannot be given modules/,
    );
  });

  it('any prefix of a good image fails cleanly or loads', () => {
    const whole = elf(32, new Uint8Array([...multibootHeader(3), ...code]));
    for (let n = 0; n < whole.length; n++) {
      try {
        loadImage(whole.subarray(0, n), options);
      } catch (error) {
        expect((error as Error).constructor.name).toBe('ImageError');
      }
    }
  });
});
