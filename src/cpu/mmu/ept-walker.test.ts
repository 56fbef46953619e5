import { beforeEach, describe, expect, it } from 'vitest';
import { LINEAR_USER, LINEAR_WRITABLE } from '../../arch/ept-qualification.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { siliconSkylake } from '../profiles/silicon-skylake.ts';
import { EPT_ERROR_MISCONFIG, EPT_ERROR_PML_FULL, EptWalker } from './ept-walker.ts';

/** First frame that is not the processor's own. */
const BASE = 0x3100;
const ROOT = BASE;
const TABLE3 = BASE + 1;
const TABLE2 = BASE + 2;
const TABLE1 = BASE + 3;
const LOG = BASE + 4;
const PAGE = BASE + 5;
const R = 1;
const W = 2;
const X = 4;
const WB = 6 << 3;
const LARGE = 1 << 7;
const A = 1 << 8;
const D = 1 << 9;

let memory: PhysicalMemory;
let ept: EptWalker;

/** Entry `index` of the table in frame `table`. */
function put(table: number, index: number, lo: number, hi = 0): void {
  memory.i32[table * 1024 + index * 2] = lo;
  memory.i32[table * 1024 + index * 2 + 1] = hi;
}

function low(table: number, index: number): number {
  return memory.i32[table * 1024 + index * 2]!;
}

/** The leaf of gfn 5 is `lo`, in a table whose own rights are `above`. */
function map(lo: number, above = R | W | X, hi = 0): void {
  put(ROOT, 0, (TABLE3 << 12) | R | W | X);
  put(TABLE3, 0, (TABLE2 << 12) | R | W | X);
  put(TABLE2, 0, (TABLE1 << 12) | above);
  put(TABLE1, 5, lo, hi);
}

beforeEach(() => {
  memory = new PhysicalMemory(64 * 1024 * 1024);
  ept = new EptWalker(memory, siliconSkylake);
  ept.rootPfn = ROOT;
});

describe('a walk of EPT', () => {
  it('has a fifth level when the pointer says so', () => {
    map((PAGE << 12) | R | W | X | WB);
    put(PAGE, 3, (ROOT << 12) | R | W | X);
    ept.rootPfn = PAGE;
    ept.levels = 5;
    expect([ept.walk(3 * 2 ** 36 + 5, false, false), ept.pfn]).toEqual([true, PAGE]);
    expect([ept.walk(5, false, false), ept.error]).toEqual([false, 0]);
    put(PAGE, 3, (ROOT << 12) | R | W | X | 0x80);
    expect([ept.walk(3 * 2 ** 36 + 5, false, false), ept.error]).toEqual([false, EPT_ERROR_MISCONFIG]);
  });

  it('sets accessed and dirty bits as it goes', () => {
    map((PAGE << 12) | R | W | X | WB);
    expect(ept.walk(5, false, false)).toBe(true);
    expect([ept.pfn, ept.readable, ept.writable, ept.executable]).toEqual([PAGE, true, false, true]);
    expect([low(ROOT, 0) & A, low(TABLE2, 0) & A, low(TABLE1, 5) & (A | D)]).toEqual([A, A, A]);
    expect(ept.walk(5, true, false)).toBe(true);
    expect(ept.writable).toBe(true);
    expect(low(TABLE1, 5) & D).toBe(D);
  });

  it('leaves them alone where EPTP does not ask for them', () => {
    ept.adEnabled = false;
    map((PAGE << 12) | R | W | WB);
    expect(ept.walk(5, true, false)).toBe(true);
    expect(low(TABLE1, 5) & (A | D)).toBe(0);
    expect(ept.writable).toBe(true);
  });

  it('maps 2M and 1G pages', () => {
    map(0);
    put(TABLE2, 1, (512 << 12) | LARGE | R | W | X | WB);
    expect(ept.walk(512 + 7, false, false)).toBe(true);
    expect(ept.pfn).toBe(512 + 7);
    put(TABLE3, 1, LARGE | R | WB);
    expect(ept.walk(0x40000 + 300, false, false)).toBe(true);
    expect([ept.pfn, ept.writable, ept.executable]).toEqual([300, false, false]);
  });

  it('knows pages that can only be executed', () => {
    map((PAGE << 12) | X | WB);
    expect(ept.walk(5, false, true)).toBe(true);
    expect(ept.readable).toBe(false);
    expect(ept.walk(5, false, false)).toBe(false);
  });

  it.each([
    ['nothing is mapped', 0, R | W | X, false, false, 0x581],
    ['a read-only page is written', (PAGE << 12) | R | WB, R | W | X, true, false, 0x58a],
    ['a table takes the right to execute', (PAGE << 12) | R | W | X | WB, R | W, false, true, 0x59c],
  ])('says in the qualification that %s', (_, lo, above, write, fetch, qualification) => {
    map(lo, above);
    expect(ept.walk(5, write, fetch)).toBe(false);
    ept.blameFinal(write, fetch, LINEAR_WRITABLE);
    expect(ept.error).toBe(qualification);
  });

  it('reports accesses to guest page tables as read and write', () => {
    map(0);
    expect(ept.walk(5, true, false)).toBe(false);
    ept.blameTable(true);
    expect(ept.error).toBe(0x83);
    expect(LINEAR_USER).toBe(0x200);
  });

  it.each([
    ['W without R', (PAGE << 12) | W | WB, 0],
    ['W and X without R: an MMIO entry', (0xd0000 << 12) | W | X, 0],
    ['memory type 2', (PAGE << 12) | R | (2 << 3), 0],
    ['memory type 7', (PAGE << 12) | R | (7 << 3), 0],
    ['an address bit that the processor has not got', (PAGE << 12) | R | WB, 1 << 14],
  ])('finds a misconfiguration: %s', (_, lo, hi) => {
    map(lo, R | W | X, hi);
    expect(ept.walk(5, false, false)).toBe(false);
    ept.blameFinal(false, false, 0);
    expect(ept.error).toBe(EPT_ERROR_MISCONFIG);
  });

  it('finds it in a table entry and in a large page that is not aligned', () => {
    map((PAGE << 12) | R | WB);
    put(TABLE2, 0, (TABLE1 << 12) | R | W | X | (1 << 4));
    expect(ept.walk(5, false, false)).toBe(false);
    expect(ept.error).toBe(EPT_ERROR_MISCONFIG);
    put(TABLE2, 0, (TABLE1 << 12) | LARGE | R | WB);
    expect(ept.walk(5, false, false)).toBe(false);
    expect(ept.error).toBe(EPT_ERROR_MISCONFIG);
  });
});

describe('the log of modified pages', () => {
  beforeEach(() => {
    ept.pmlBase = LOG * 4096;
    ept.pmlIndex = 511;
    map((PAGE << 12) | R | W | WB);
  });

  it('gets the page when its dirty bit is set, once', () => {
    expect(ept.walk(5, false, false)).toBe(true);
    expect(ept.pmlIndex).toBe(511);
    expect(ept.walk(5, true, false)).toBe(true);
    expect(ept.walk(5, true, false)).toBe(true);
    expect(ept.pmlIndex).toBe(510);
    expect(low(LOG, 511)).toBe(5 << 12);
  });

  it('stops the access when it is full, before anything is marked', () => {
    ept.pmlIndex = 0xffff;
    expect(ept.walk(5, true, false)).toBe(false);
    expect(ept.error).toBe(EPT_ERROR_PML_FULL);
    expect(low(TABLE1, 5) & D).toBe(0);
  });
});
