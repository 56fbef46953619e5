/** The generated refill beside the walkers in TypeScript: the same frames, marks, TLB and caches, or no more than a walk anew brings. */

import { expect, test } from 'vitest';
import {
  CR0_PG,
  CR0_WP,
  CR4_PAE,
  CR4_PGE,
  CR4_PSE,
  CR4_SMAP,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
} from '../../arch/registers.ts';
import { PAGE_SIZE, PhysicalMemory, PROCESSOR_FRAMES } from '../../host/physical-memory.ts';
import { thorough } from '../../runs.testing.ts';
import { bochsSkylake } from '../profiles/bochs-skylake.ts';
import { siliconEpyc } from '../profiles/silicon-epyc.ts';
import { generator } from '../semantics/native-cases.testing.ts';
import {
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_WRITE,
  CR3_AT,
  FRAME_CODE,
  FRAME_WATCH,
  FRAME_WRITE,
  MMU_INDEX_AT,
  STATE_BASE,
} from '../state.ts';
import { Core } from '../system/core.ts';
import { translate } from '../system/translation.ts';
import { W_CR0, W_CR3, W_CR4, W_EFER } from '../system/words.ts';
import { ModuleBuilder } from '../wasm/module.ts';
import { defineRefill } from './refill.ts';

const FRAMES = 64;
const memory = new PhysicalMemory((PROCESSOR_FRAMES + FRAMES) * PAGE_SIZE);
const { i32, u8 } = memory;
const m = new ModuleBuilder();
m.export('refill', defineRefill(m));
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(m.finish()), { env: { memory: memory.memory } });
const refill = exports['refill'] as (linear: bigint, access: number) => number;

const END = PROCESSOR_FRAMES + FRAMES;
/** What a walk can change: the state with the TLB and its bookkeeping, marks of frames, the tables. */
const CHANGED = [
  [STATE_BASE, 0x40000],
  [FRAME_CODE, FRAME_CODE + END],
  [FRAME_WRITE, FRAME_WRITE + END],
  [FRAME_WATCH, FRAME_WATCH + END],
  [PROCESSOR_FRAMES * PAGE_SIZE, (PROCESSOR_FRAMES + 8) * PAGE_SIZE],
] as const;
const snapshot = (): Uint8Array[] => CHANGED.map(([from, to]) => u8.slice(from, to));
const restore = (parts: readonly Uint8Array[]): void => {
  CHANGED.forEach(([from], i) => {
    u8.set(parts[i]!, from);
  });
};

/** Tables of one frame each, by level, filled with entries that mostly lead on. */
function fill(next: () => number, frame: number, lower: number, last: boolean, wide: boolean, large: number): void {
  for (let i = 0; i < 1024; i += wide ? 2 : 1) {
    const odd = next() % 64;
    const target = last ? PROCESSOR_FRAMES + (next() % FRAMES) : lower;
    let lo = (target << 12) | 0x67;
    let hi = 0;
    if (odd === 0) lo &= ~1;
    else if (odd === 1) lo &= ~2;
    else if (odd === 2) lo &= ~4;
    else if (odd < 10) lo &= ~(last ? 0x60 : 0x20);
    else if (odd < 20) lo &= ~(last ? 0x40 : 0);
    else if (odd === 20 && wide) hi = 1 << 31;
    else if (odd === 21 && wide) hi = 1 << (16 + (next() % 4));
    else if (odd < 26) lo |= 0x100;
    if (!last && large !== 0 && next() % 4 === 0) lo = (lo & 0xfff) | 0x80 | (wide && next() % 8 === 0 ? 0x2000 : 0);
    i32[(frame << 10) + i] = lo;
    if (wide) i32[(frame << 10) + i + 1] = hi;
  }
}

interface Kind {
  readonly name: string;
  readonly wide: boolean;
  readonly nested: boolean;
}
test.each<Kind>([
  { name: 'four levels', wide: true, nested: false },
  { name: 'four levels, nested', wide: true, nested: true },
  { name: 'two levels', wide: false, nested: false },
  { name: 'two levels, nested', wide: false, nested: true },
])('$name', ({ wide, nested }) => {
  const next = generator(wide ? 11 : 12);
  let hits = 0;
  // Each fourth round is without walk caches; the bits of the number choose CR0 and CR4.
  const rounds = thorough ? 16 : 6;
  for (let round = 0; round < rounds; round++) {
    const core = new Core(memory, round % 4 === 3 ? { ...siliconEpyc, walkCaches: false } : siliconEpyc);
    core.code = { ...core.code, invalidateCode: (pfn) => (memory.watch[pfn] = 0) } as typeof core.code;
    memory.watch.fill(0);
    // Frames of tables: the guest's 0 to 3, nested ones 4 to 7; guest-physical is the same as physical.
    const table = (n: number): number => PROCESSOR_FRAMES + n;
    const levels = wide ? [0, 1, 2, 3] : [2, 3];
    levels.forEach((n, i) => {
      fill(next, table(n), table(n + 1), i === levels.length - 1, wide, i === levels.length - 2 ? round & 1 : 0);
    });
    [4, 5, 6].forEach((n) => {
      fill(next, table(n), table(n + 1), false, true, 0);
    });
    fill(next, table(7), 0, true, true, 0);
    // Behind nested paging a frame is mostly where the guest thinks, its tables always.
    for (let i = 0; i < FRAMES; i++) {
      const word = (table(7) << 10) | (((PROCESSOR_FRAMES + i) & 511) << 1);
      if (i < 8 || next() % 8 !== 0) i32[word] = ((PROCESSOR_FRAMES + i) << 12) | 0x67;
      if (i < 8) i32[word + 1] = 0;
    }
    for (let i = 0; i < 6; i++) memory.watch[PROCESSOR_FRAMES + 8 + (next() % (FRAMES - 8))] = 1;
    i32[W_CR0] = CR0_PG | 1 | (round & 2 ? CR0_WP : 0);
    i32[W_CR4] = (wide ? CR4_PAE : CR4_PSE) | (round & 4 ? CR4_PGE : 0) | (round & 8 ? CR4_SMAP : 0);
    i32[W_EFER] = wide ? EFER_LMA | EFER_LME | EFER_NX : 0;
    i32[W_CR3] = table(levels[0]!) << 12;
    i32[(CR3_AT >> 2) + 1] = 0;
    core.walker.nested = nested;
    core.walker.nestedWalker.rootPfn = table(4);
    core.updatePaging();
    core.tlb.flushAll();
    for (let n = 0; n < 300; n++) {
      const index = next() % 3;
      const access = [ACCESS_READ, ACCESS_WRITE, ACCESS_RMW][next() % 3]!;
      // A few stretches, so that caches are hit; now and then not canonical, or beyond 32 bits.
      const stretch = (next() % 3) * 0x200000 + (next() % 2) * 0x40000000;
      const lo = (stretch + (next() % 40) * 4096 + (next() & 0xfff)) | 0;
      const hi = n % 50 === 49 ? 1 << 20 : wide && n % 2 === 0 ? -1 : 0;
      i32[MMU_INDEX_AT >> 2] = index;
      if (n % 60 === 59) core.tlb.flushNonGlobal();
      if (n % 25 === 24) core.tlb.invlpg(lo, hi);
      if (core.tlb.lookup(index, lo, hi, access === ACCESS_READ ? 1 : 2) !== -1) continue;
      const before = snapshot();
      const got = refill((BigInt(hi) << 32n) | BigInt(lo >>> 0), access);
      const after = snapshot();
      if (got === 0) {
        const at = translate(core, lo, hi, access, index);
        const ends = snapshot();
        restore(before);
        expect(translate(core, lo, hi, access, index)).toBe(at);
        snapshot().forEach((part, i) => {
          expect(Buffer.compare(part, ends[i]!)).toBe(0);
        });
        continue;
      }
      hits++;
      restore(before);
      expect(got, `round ${round} access ${n}`).toBe(translate(core, lo, hi, access, index));
      snapshot().forEach((part, i) => {
        expect(Buffer.compare(part, after[i]!), `round ${round} access ${n} part ${i}`).toBe(0);
      });
    }
  }
  expect(hits).toBeGreaterThan(60 * rounds);
});

test('EPT is left to TypeScript', () => {
  const core = new Core(memory, bochsSkylake);
  expect([core.profile.vendor, refill(0x1000n, ACCESS_READ)]).toEqual(['intel', 0]);
});
