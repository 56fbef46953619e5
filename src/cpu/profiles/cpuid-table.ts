/** Shorthand for CPUID tables: rows as the manuals list them, feature words as bit numbers. */
import type { CpuidEntry } from '../profile.ts';

/** One row; registers as unsigned 32-bit numbers. */
export function row(leaf: number, index: number, eax: number, ebx: number, ecx: number, edx: number): CpuidEntry {
  return { leaf, index, eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
}

/** A feature word with the bits `numbers` set. */
export function bits(...numbers: readonly number[]): number {
  let word = 0;
  for (const number of numbers) word |= 1 << number;
  return word >>> 0;
}

/** The three leaves of a brand string of at most 47 characters. */
export function brand(text: string): CpuidEntry[] {
  const bytes = text.padEnd(48, '\0');
  const word = (at: number): number => {
    let value = 0;
    for (let i = 0; i < 4; i++) value |= bytes.charCodeAt(at + i) << (i * 8);
    return value;
  };
  return [0, 1, 2].map((n) =>
    row(0x80000002 + n, 0, word(n * 16), word(n * 16 + 4), word(n * 16 + 8), word(n * 16 + 12)),
  );
}
