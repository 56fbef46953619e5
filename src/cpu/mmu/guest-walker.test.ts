import { beforeAll, describe, expect, it } from 'vitest';
import {
  CR0_PE,
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NX,
} from '../../arch/registers.ts';
import { rsvdMask64 } from '../../arch/rsvd-mask.testing.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { ACCESS_FETCH, ACCESS_READ, ACCESS_WRITE } from '../state.ts';
import { GuestWalker } from './guest-walker.ts';
import { TLB_GLOBAL } from './tlb.ts';
import { WalkCaches } from './walk-cache.ts';
import { WALK_NESTED_FAULT, WALK_OK, WALK_PAGE_FAULT } from './walk-result.ts';

const tcg = hardwareProfile('qemu-tcg-epyc');
const silicon = { ...hardwareProfile('silicon-epyc'), la57: true };
const ROOT = 0x3100000;
const LEAF_PFN = 0x3800n;
const memory = new PhysicalMemory(64 * 1024 * 1024);
const BASE = CR0_PE | CR0_PG;

const caches = new WalkCaches(memory, false);
const makeWalker = (profile: HardwareProfile): GuestWalker => new GuestWalker(memory, profile, caches);

beforeAll(() => memory.u8.fill(0, ROOT, ROOT + 0x100000));

/** What the walk reads from the machine, as the manuals state it; every number a bigint. */
interface Setting {
  levels: number;
  wp: boolean;
  smep: boolean;
  smap: boolean;
  nx: boolean;
  maxPhyAddr: number;
  rsvdP: boolean;
}

const P = 1n;
const W = 2n;
const U = 4n;
const PS = 0x80n;
const NX = 1n << 63n;

/** @sdm 4.6 and 4.7 for entries from the root down: the error code, or -1 when the access is allowed. */
function specification(entries: readonly bigint[], top: number, access: number, index: number, s: Setting): number {
  const user = index === 1;
  const accessBits =
    (access === ACCESS_WRITE ? 2 : 0) | (user ? 4 : 0) | (access === ACCESS_FETCH && (s.nx || s.smep) ? 16 : 0);
  let writable = true;
  let userPage = true;
  let executable = true;
  for (const [i, entry] of entries.entries()) {
    const level = top - i;
    if ((entry & P) === 0n) return accessBits;
    const large = level > 1 && (entry & PS) !== 0n;
    if ((entry & rsvdMask64(level, large, s.maxPhyAddr, s.nx, true)) !== 0n) return accessBits | 8 | (s.rsvdP ? 1 : 0);
    if ((entry & W) === 0n) writable = false;
    if ((entry & U) === 0n) userPage = false;
    if ((entry & NX) !== 0n) executable = false;
    if (large) break;
  }
  if (user && !userPage) return accessBits | 1;
  if (access === ACCESS_FETCH) {
    const refused = !executable || (!user && s.smep && userPage);
    return refused ? accessBits | 1 : -1;
  }
  if (!user && index === 0 && s.smap && userPage) return accessBits | 1;
  if (access === ACCESS_WRITE && !writable && (user || s.wp)) return accessBits | 1;
  return -1;
}

function configure(walker: GuestWalker, s: Setting): void {
  const cr0 = BASE | (s.wp ? CR0_WP : 0);
  const cr4 = CR4_PAE | (s.levels === 5 ? CR4_LA57 : 0) | (s.smep ? CR4_SMEP : 0) | (s.smap ? CR4_SMAP : 0);
  walker.configure(cr0, ROOT, 0, cr4, EFER_LMA | (s.nx ? EFER_NX : 0), 0);
}

/** Stores entries for linear address 0, root first, each table in its own frame; the last is a leaf. */
function store(entries: readonly bigint[]): void {
  for (const [i, entry] of entries.entries()) {
    const last = i === entries.length - 1;
    memory.u64[(ROOT + i * 0x1000) / 8] = last ? entry : entry | BigInt(ROOT + (i + 1) * 0x1000);
  }
}

const booleans = [false, true];

describe('four and five levels against the specification', () => {
  const cases: { levels: number; leafLevel: number }[] = [
    { levels: 4, leafLevel: 1 },
    { levels: 4, leafLevel: 2 },
    { levels: 4, leafLevel: 3 },
    { levels: 5, leafLevel: 1 },
  ];
  for (const { levels, leafLevel } of cases) {
    it(`${levels} levels, leaf at ${leafLevel}: every permission, access and mode`, () => {
      let checked = 0;
      for (const profile of [tcg, silicon]) {
        const walker = makeWalker(profile);
        for (const wp of booleans)
          for (const smep of booleans)
            for (const smap of booleans)
              for (const nx of booleans) {
                const rsvdP = !profile.rsvdWithoutP;
                const s = { levels, wp, smep, smap, nx, maxPhyAddr: profile.maxPhyAddr, rsvdP };
                configure(walker, s);
                for (let bits = 0; bits < 128; bits++) {
                  const leaf = flagsOf(bits & 15) | (LEAF_PFN << 12n) | (leafLevel > 1 ? PS : 0n);
                  const upper = flagsOf(((bits >> 4) << 1) | 1);
                  const entries: bigint[] = [];
                  for (let level = levels; level > leafLevel; level--) {
                    entries.push(level === leafLevel + 1 ? upper : P | W | U);
                  }
                  // A large leaf's frame is aligned to its size.
                  entries.push(
                    leafLevel === 1
                      ? leaf
                      : (leaf & ~((1n << BigInt(12 + 9 * (leafLevel - 1))) - 1n)) | (leaf & (0xfffn | NX)),
                  );
                  for (const access of [ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH]) {
                    for (const index of [0, 1, 2]) {
                      store(entries);
                      const expected = specification(entries, levels, access, index, s);
                      const result = walker.walk(0, 0, access, index);
                      const got = result === WALK_OK ? -1 : walker.error;
                      if (got !== expected) {
                        expect.fail(
                          `entries ${entries.map((e) => e.toString(16))} access ${access} index ${index} ${JSON.stringify(s)}: ${got}, not ${expected}`,
                        );
                      }
                      checked++;
                    }
                  }
                }
              }
      }
      expect(checked).toBe(2 * 16 * 128 * 9);
    });
  }

  it('checks every reserved bit at every level', () => {
    const walker = makeWalker(silicon);
    const s = { levels: 4, wp: true, smep: false, smap: false, nx: true, maxPhyAddr: 48, rsvdP: true };
    configure(walker, s);
    for (let at = 0; at < 4; at++) {
      for (let bit = 0n; bit < 63n; bit++) {
        // Bits that choose the frame or the kind of entry are not this test's matter.
        if (bit < 9n || (bit >= 12n && bit < 48n)) continue;
        const entries = [P | W | U, P | W | U, P | W | U, P | W | U | (LEAF_PFN << 12n)];
        entries[at] = entries[at]! | (1n << bit);
        store(entries);
        const expected = specification(entries, 4, ACCESS_READ, 0, s);
        const result = walker.walk(0, 0, ACCESS_READ, 0);
        expect([at, bit, result === WALK_OK ? -1 : walker.error]).toEqual([at, bit, expected]);
      }
    }
  });
});

/** P W U NX from the low four bits of a number. */
function flagsOf(bits: number): bigint {
  return (bits & 1 ? P : 0n) | (bits & 2 ? W : 0n) | (bits & 4 ? U : 0n) | (bits & 8 ? NX : 0n);
}

describe('accessed and dirty bits', () => {
  const walker = makeWalker(tcg);
  const s = { levels: 4, wp: true, smep: false, smap: false, nx: true, maxPhyAddr: 40, rsvdP: false };
  const entries = [P | W | U, P | W | U, P | W | U, P | W | U | (LEAF_PFN << 12n)];
  const flags = (i: number): bigint => memory.u64[(ROOT + i * 0x1000) / 8]! & 0x60n;

  it('sets A on the way and D for a write only', () => {
    configure(walker, s);
    store(entries);
    expect(walker.walk(0x123, 0, ACCESS_READ, 1)).toBe(WALK_OK);
    expect(walker.pfn).toBe(Number(LEAF_PFN));
    expect([0, 1, 2, 3].map(flags)).toEqual([0x20n, 0x20n, 0x20n, 0x20n]);
    expect(walker.writable).toBe(false);
    expect(walker.walk(0, 0, ACCESS_WRITE, 1)).toBe(WALK_OK);
    expect(flags(3)).toBe(0x60n);
    expect(walker.writable).toBe(true);
    expect(flags(2)).toBe(0x20n);
  });

  it('leaves the leaf alone when the access is refused', () => {
    store([P | W | U, P | W | U, P | W | U, P | U | (LEAF_PFN << 12n)]);
    expect(walker.walk(0, 0, ACCESS_WRITE, 1)).toBe(WALK_PAGE_FAULT);
    expect(flags(3)).toBe(0n);
  });
});

describe('protection keys', () => {
  it('refuse data accesses to user pages with PK, never fetches', () => {
    const walker = makeWalker(silicon);
    for (let rights = 0; rights < 4; rights++) {
      for (const wp of booleans) {
        walker.configure(BASE | (wp ? CR0_WP : 0), ROOT, 0, CR4_PAE | CR4_PKE, EFER_LMA | EFER_NX, rights << 10);
        for (const access of [ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH]) {
          for (const index of [0, 1]) {
            store([P | W | U, P | W | U, P | W | U, P | W | U | (LEAF_PFN << 12n) | (5n << 59n)]);
            const denied =
              access !== ACCESS_FETCH &&
              ((rights & 1) !== 0 || (access === ACCESS_WRITE && (rights & 2) !== 0 && (index === 1 || wp)));
            const result = walker.walk(0, 0, access, index);
            expect(result).toBe(denied ? WALK_PAGE_FAULT : WALK_OK);
            if (denied) expect(walker.error).toBe(0x21 | (access === ACCESS_WRITE ? 2 : 0) | (index === 1 ? 4 : 0));
          }
        }
      }
    }
  });
});

describe('32-bit paging and PAE', () => {
  it('walks two levels, 4 MiB pages and PSE-36', () => {
    const walker = makeWalker(tcg);
    const i32 = memory.i32;
    walker.configure(BASE, ROOT, 0, CR4_PSE | CR4_PGE, 0, 0);
    i32[(ROOT + 4) >> 2] = (ROOT + 0x1000) | 7;
    i32[(ROOT + 0x1000 + 8) >> 2] = 0x3456007 | 0x100;
    expect(walker.walk(0x402abc, 0, ACCESS_READ, 1)).toBe(WALK_OK);
    expect(walker.pfn).toBe(0x3456);
    expect(walker.flags & TLB_GLOBAL).toBe(TLB_GLOBAL);
    i32[(ROOT + 8) >> 2] = 0x3400087;
    expect(walker.walk(0x8abcde, 0, ACCESS_WRITE, 1)).toBe(WALK_OK);
    expect(walker.pfn).toBe(0x34ab);
    expect(i32[(ROOT + 8) >> 2]).toBe(0x34000e7);
    i32[(ROOT + 8) >> 2] = 0x3600087; // bit 21
    expect(walker.walk(0x800000, 0, ACCESS_READ, 1)).toBe(WALK_PAGE_FAULT);
    expect(walker.error).toBe(0xc);
    i32[(ROOT + 12) >> 2] = 0x03402087; // physical bit 32
    expect(() => walker.walk(0xc00000, 0, ACCESS_READ, 1)).toThrow('frame 1061888');
    // Without NX a fetch is not told from a read.
    expect(walker.walk(0x1000000, 0, ACCESS_FETCH, 1)).toBe(WALK_PAGE_FAULT);
    expect(walker.error).toBe(4);
  });

  it('walks PAE from its four pointers, whose reserved bits depend on the profile', () => {
    for (const [profile, expected] of [
      [tcg, WALK_OK],
      [silicon, WALK_PAGE_FAULT],
    ] as const) {
      const walker = makeWalker(profile);
      const u64 = memory.u64;
      walker.configure(BASE, ROOT + 0x20, 0, CR4_PAE, EFER_NX, 0);
      u64[(ROOT + 0x20 + 8) / 8] = BigInt(ROOT + 0x1000) | 1n;
      u64[(ROOT + 0x1000) / 8] = BigInt(ROOT + 0x2000) | 7n;
      u64[(ROOT + 0x2000 + 8) / 8] = (LEAF_PFN << 12n) | 7n;
      expect(walker.walk(0x40001000, 0, ACCESS_WRITE, 1)).toBe(WALK_OK);
      expect(walker.pfn).toBe(Number(LEAF_PFN));
      // QEMU marks the pointer as accessed.
      expect(u64[(ROOT + 0x20 + 8) / 8]).toBe(BigInt(ROOT + 0x1000) | (profile === tcg ? 0x21n : 1n));
      u64[(ROOT + 0x2000 + 8) / 8] = (LEAF_PFN << 12n) | 7n | (1n << 52n);
      expect(walker.walk(0x40001000, 0, ACCESS_WRITE, 1)).toBe(WALK_PAGE_FAULT);
      u64[(ROOT + 0x2000 + 8) / 8] = (LEAF_PFN << 12n) | 7n;
      u64[(ROOT + 0x20 + 8) / 8] = BigInt(ROOT + 0x1000) | 3n;
      expect(walker.walk(0x40001000, 0, ACCESS_WRITE, 1)).toBe(expected);
    }
  });
});

describe('nested paging', () => {
  const NESTED = 0x3300000;
  const walker = makeWalker(hardwareProfile('silicon-epyc'));
  const entry = (gfn: number): number => (NESTED + 0x3000) / 8 + gfn;

  /** Guest frames 0 to 511 lie at host frames 0x3400 on. */
  function nest(): void {
    memory.u8.fill(0, NESTED, NESTED + 0x4000);
    for (let i = 0; i < 3; i++) memory.u64[(NESTED + i * 0x1000) / 8] = BigInt(NESTED + (i + 1) * 0x1000) | 7n;
    for (let gfn = 0; gfn < 512; gfn++) memory.u64[entry(gfn)] = BigInt(0x3400000 + gfn * 0x1000) | 7n;
    caches.flush();
    walker.nested = true;
    walker.nestedWalker.rootPfn = NESTED >> 12;
    for (let i = 0; i < 3; i++) memory.u64[(0x3410000 + i * 0x1000) / 8] = BigInt(0x11000 + i * 0x1000) | 7n;
    memory.u64[(0x3413000 + 8) / 8] = 0x20007n;
    walker.configure(BASE | CR0_WP, 0x10000, 0, CR4_PAE, EFER_LMA | EFER_NX, 0);
  }

  it('writes to tables and does the access, as nested accesses of a user', () => {
    nest();
    expect(walker.walk(0x1234, 0, ACCESS_READ, 0)).toBe(WALK_OK);
    expect([walker.gfn, walker.pfn]).toEqual([0x20, 0x3420]);
    expect(memory.u64[entry(0x10)]! & 0x60n).toBe(0x60n);
    expect(memory.u64[entry(0x20)]! & 0x60n).toBe(0x20n);
    expect(walker.writable).toBe(false);
    expect(walker.walk(0x1234, 0, ACCESS_WRITE, 0)).toBe(WALK_OK);
    expect(memory.u64[entry(0x20)]! & 0x60n).toBe(0x60n);
    expect(walker.writable).toBe(true);
  });

  it('reports every kind of nested fault', () => {
    const fault = (access: number): string => {
      const result = walker.walk(0x1234, 0, access, 0);
      if (result !== WALK_NESTED_FAULT) return `${result}`;
      return `${walker.errorHi}:${walker.error.toString(16)} ${walker.gfn.toString(16)}+${walker.gpaOffset.toString(16)}`;
    };
    nest();
    memory.u64[entry(0x12)] = 0n;
    expect(fault(ACCESS_FETCH)).toBe('2:6 12+0');
    nest();
    memory.u64[entry(0x13)] = 0x3413005n; // read-only table
    expect(fault(ACCESS_READ)).toBe('2:7 13+8');
    nest();
    memory.u64[entry(0x20)] = 0x3420005n;
    expect(fault(ACCESS_READ)).toBe('0');
    expect(fault(ACCESS_WRITE)).toBe('1:7 20+234');
    memory.u64[entry(0x20)] = 0x3420007n | (1n << 63n);
    expect(fault(ACCESS_FETCH)).toBe('1:15 20+234');
    memory.u64[entry(0x20)] = 0x3420003n; // no U
    expect(fault(ACCESS_READ)).toBe('1:5 20+234');
    memory.u64[entry(0x20)] = 0x3420007n | (1n << 51n);
    expect(fault(ACCESS_READ)).toBe('1:d 20+234');
    memory.u64[entry(0x20)] = 0n;
    expect(fault(ACCESS_WRITE)).toBe('1:6 20+234');
  });

  it('has five levels where the host has', () => {
    nest();
    memory.u8.fill(0, NESTED + 0x4000, NESTED + 0x6000);
    memory.u64[(NESTED + 0x4000) / 8] = BigInt(NESTED) | 7n;
    // The second entry of the top is for guest frames from 2^36 on.
    memory.u64[(NESTED + 0x4000) / 8 + 1] = BigInt(NESTED + 0x5000) | 7n;
    memory.u64[(NESTED + 0x5000) / 8 + 511] = BigInt(NESTED + 0x1000) | 7n;
    const five = makeWalker(silicon).nestedWalker;
    five.rootPfn = (NESTED >> 12) + 4;
    expect([five.walk(0x20, false, false), five.pfn]).toEqual([true, 0x3420]);
    expect([five.walk(2 ** 37 - 2 ** 27 + 0x21, false, false), five.pfn]).toEqual([true, 0x3421]);
    expect([five.walk(2 ** 36, false, false), five.error]).toEqual([false, 0]);
  });

  it('maps large pages', () => {
    nest();
    memory.u64[(NESTED + 0x2000) / 8] = 0x3400087n;
    expect(walker.walk(0x1234, 0, ACCESS_WRITE, 0)).toBe(WALK_OK);
    expect(walker.pfn).toBe(0x3420);
    expect(memory.u64[(NESTED + 0x2000) / 8]! & 0x60n).toBe(0x60n);
    memory.u64[(NESTED + 0x2000) / 8] = 0x3402087n;
    expect(walker.walk(0x1234, 0, ACCESS_WRITE, 0)).toBe(WALK_NESTED_FAULT);
    expect(walker.error).toBe(0xf);
  });
});

describe('a processor that remembers upper levels', () => {
  const remembered = new WalkCaches(memory, true);
  const walker = new GuestWalker(memory, silicon, remembered);
  const table = (n: number): number => (ROOT + n * 0x1000) / 8;

  /** Four levels with one table each; the last maps page `n` to frame 0x3800 + n. */
  function map(): void {
    memory.u8.fill(0, ROOT, ROOT + 0x5000);
    for (let i = 0; i < 3; i++) memory.u64[table(i)] = BigInt(ROOT + (i + 1) * 0x1000) | 7n;
    for (let n = 0; n < 512; n++) memory.u64[table(3) + n] = ((LEAF_PFN + BigInt(n)) << 12n) | 7n;
    remembered.flush();
    walker.nested = false;
    walker.configure(BASE | CR0_WP, ROOT, 0, CR4_PAE, EFER_LMA | EFER_NX, 0);
  }

  it('uses them until it is told to forget, and then sees what changed', () => {
    map();
    expect(walker.walk(0x1000, 0, ACCESS_READ, 1)).toBe(WALK_OK);
    memory.u64[table(2)] = 0n;
    expect(walker.walk(0x2000, 0, ACCESS_READ, 1)).toBe(WALK_OK);
    expect(walker.pfn).toBe(0x3802);
    // Other stretches of 2 MiB, and other addresses in the same place, are walked.
    expect(walker.walk(0x201000, 0, ACCESS_READ, 1)).toBe(WALK_PAGE_FAULT);
    expect(walker.walk(0x2001000, 0, ACCESS_READ, 1)).toBe(WALK_PAGE_FAULT);
    expect(walker.walk(0x2000, 1, ACCESS_READ, 1)).toBe(WALK_PAGE_FAULT);
    remembered.guest.flush();
    expect(walker.walk(0x2000, 0, ACCESS_READ, 1)).toBe(WALK_PAGE_FAULT);
  });

  it('keeps the rights that upper levels allow, and still marks the leaf', () => {
    map();
    memory.u64[table(1)] = BigInt(ROOT + 0x2000) | 1n | (1n << 63n);
    expect(walker.walk(0x1000, 0, ACCESS_READ, 0)).toBe(WALK_OK);
    expect(walker.walk(0x3000, 0, ACCESS_READ, 0)).toBe(WALK_OK);
    expect([walker.writable, walker.executable]).toEqual([false, false]);
    expect(memory.u64[table(3) + 3]! & 0x60n).toBe(0x20n);
    expect(walker.walk(0x3000, 0, ACCESS_WRITE, 0)).toBe(WALK_PAGE_FAULT);
    expect(walker.walk(0x3000, 0, ACCESS_READ, 1)).toBe(WALK_PAGE_FAULT);
    expect(walker.walk(0x3000, 0, ACCESS_FETCH, 0)).toBe(WALK_PAGE_FAULT);
  });
});
