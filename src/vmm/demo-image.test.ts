import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { demoImage } from './demo.ts';
import { guestImage } from './guest-image.ts';
import { loadImage } from './loaders/load.ts';

const guests = fileURLToPath(new URL('../../guests/', import.meta.url));

/** The compiler and linker here, in the form of guests/compiler.txt; null when there are none. */
function compiler(): string | null {
  const first = (program: string, flag: string): string =>
    execFileSync(program, [flag], { encoding: 'utf8' }).split('\n')[0]!;
  try {
    return `gcc ${first('gcc', '-dumpfullversion')} ${first('gcc', '-dumpmachine')}, ${first('ld', '--version')}`;
  } catch {
    return null;
  }
}

describe('the demo guest', () => {
  const madeBy = readFileSync(join(guests, 'compiler.txt'), 'utf8').trim();

  it.skipIf(compiler() !== madeBy)(`is what its source compiles to (${madeBy})`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'softkvm-guest-'));
    try {
      const out = join(folder, 'demo.elf');
      execFileSync('make', ['-s', '-C', guests, `OUT=${out}`]);
      expect(readFileSync(out).equals(demoImage())).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it.skipIf(compiler() !== madeBy)('and those of the benchmark are what their source compiles to', () => {
    const folder = mkdtempSync(join(tmpdir(), 'softkvm-guest-'));
    try {
      execFileSync('make', ['-s', '-C', guests, 'bench', `BENCH=${folder}`]);
      for (const name of ['bench64.bin', 'bench32.bin', 'bench-disk.bin'])
        expect(readFileSync(join(folder, name)).equals(guestImage(name))).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it.skipIf(compiler() !== madeBy)('and those of what a host does to a guest, too', () => {
    const folder = mkdtempSync(join(tmpdir(), 'softkvm-guest-'));
    try {
      execFileSync('make', ['-s', '-C', guests, 'host', `HOST=${folder}`]);
      for (const name of ['apf.elf', 'smm.elf', 'mce.elf'])
        expect(readFileSync(join(folder, name)).equals(guestImage(name))).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it.skipIf(compiler() !== madeBy)('and that of SNP', () => {
    const folder = mkdtempSync(join(tmpdir(), 'softkvm-guest-'));
    try {
      execFileSync('make', ['-s', '-C', guests, 'snp', `SNP=${folder}`]);
      expect(readFileSync(join(folder, 'snp.elf')).equals(guestImage('snp.elf'))).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('is a 64-bit ELF that fits below 32 MiB, where its demand-paged region begins', () => {
    const image = loadImage(demoImage(), { file: 'demo.elf', memoryBytes: 128 << 20, append: '', modules: [] });
    expect(image.format).toBe('elf64');
    for (const s of image.segments) expect(s.gpa + s.size).toBeLessThan(0x200_0000);
  });
});
