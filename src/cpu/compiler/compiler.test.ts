/** The two engines beside each other: same registers, flags, memory, TLB, call-outs and instruction counts. */

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CS, DS, ES, FS, GS, RAX, RCX, RDI, RSP, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB } from '../../arch/vmcb.ts';
import { runs, thorough } from '../../runs.testing.ts';
import { FlatMachine, type Mode } from '../interpreter/flat-machine.testing.ts';
import {
  COMPARABLE,
  DATA_ADDRESS,
  DATA_SIZE,
  encode,
  generator,
  type NativeState,
  stateOf,
} from '../semantics/native-cases.testing.ts';
import {
  FAULT_VECTOR,
  FPU_CW_AT,
  FPU_REGS,
  GPR,
  RIP_AT,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SIZE,
  STATE_END,
  STATUS_BUDGET,
  STATUS_EXIT,
  TLB_BASE,
  TLB_END,
  XMM,
  XMM_SIZE,
} from '../state.ts';
import { INTERPRETER } from './engine.ts';

/** A fresh page for each case: one that is written again and again is not compiled. */
let page = 0;
const freshPage = (): number => 0x400000 + (page++ % 3000) * 4096;
const STACK = 0x300000;
const PAGE = 4096;

function machines(mode: Mode = 'long64'): [FlatMachine, FlatMachine] {
  return [new FlatMachine(mode, INTERPRETER), new FlatMachine(mode, { compileAfter: 1 })];
}

/** Segments of a machine in a mode other than 64-bit: where they begin, and where they end. */
interface Segments {
  readonly mode: Mode;
  readonly name: string;
  /** Added to the place that a segment is for. */
  readonly shift: number;
  readonly limit: number;
  /** CS, data and stack begin at the code, data and stack of the case, not at zero. */
  readonly based: boolean;
  readonly wideStack: boolean;
}
const LEGACY: readonly Segments[] = [
  { mode: 'protected32', name: 'flat', shift: 0, limit: -1, based: false, wideStack: true },
  { mode: 'protected32', name: 'with bases and limits', shift: 0x100, limit: 0x17f, based: true, wideStack: true },
  { mode: 'protected32', name: 'with a narrow stack', shift: 0x1000, limit: 0xffff, based: true, wideStack: false },
  { mode: 'real16', name: 'with bases', shift: 0x40, limit: 0xffff, based: true, wideStack: false },
];
/** Sets the segments and what counts from their starts. */
function setSegments(m: FlatMachine, s: Segments, at: number): void {
  const { i32 } = m.memory;
  const set = (segment: number, base: number, limit: number): void => {
    const word = (SEG + segment * SEG_SIZE) >> 2;
    i32[word + (SEG_BASE >> 2)] = base;
    i32[word + (SEG_LIMIT >> 2)] = limit;
  };
  const place = (address: number): number => (s.based ? address - s.shift : 0);
  set(CS, place(at), s.based ? 0xffff : -1);
  for (const segment of [DS, ES, FS, GS]) set(segment, place(DATA_ADDRESS), s.limit);
  set(SS, place(STACK), s.based ? 0xffff : -1);
  const attr = (SEG + SS * SEG_SIZE + SEG_ATTR) >> 2;
  i32[attr] = s.wideStack ? i32[attr]! | VMCB_ATTR_DB : i32[attr]! & ~VMCB_ATTR_DB;
  if (!s.based) return;
  m.rip = s.shift;
  m.setRegister(RSP, s.shift);
  m.setRegister(RDI, s.shift + DATA_SIZE / 2);
}

function setUp(m: FlatMachine, at: number, code: ArrayLike<number>, state: NativeState): void {
  const { u64 } = m.memory;
  u64.set(state.gpr, GPR >> 3);
  for (let i = 0; i < 32; i++) u64[((XMM + (i >> 1) * XMM_SIZE) >> 3) + (i & 1)] = state.xmm[i]!;
  for (let i = 0; i < 8; i++) u64[(FPU_REGS >> 3) + i * 2] = state.mmx[i]!;
  m.load(DATA_ADDRESS, state.data);
  m.load(at, code);
  m.interpreter.writeRflags(state.flags);
  m.setRegister(RSP, STACK);
  m.rip = at;
  m.translations = [];
}

/** Everything that a guest, or the machine around it, could tell apart. */
function seen(m: FlatMachine, status: number) {
  const { u64, u8 } = m.memory;
  return {
    status,
    rip: u64[RIP_AT >> 3],
    retired: m.retired,
    flags: m.interpreter.readRflags(),
    gpr: u64.slice(GPR >> 3, (GPR >> 3) + 16).join(),
    fpu: u8.slice(FPU_CW_AT, STATE_END).join(),
    data: m.bytes(DATA_ADDRESS, DATA_SIZE).join() + m.bytes(DATA_ADDRESS + PAGE - DATA_SIZE, 2 * DATA_SIZE).join(),
    fault: u8.slice(FAULT_VECTOR, FAULT_VECTOR + 24).join(),
    stack: m.bytes(STACK - 128, 256).join(),
    tlb: Buffer.from(u8.slice(TLB_BASE, TLB_END)).toString('base64'),
    calls: JSON.stringify(m.translations),
  };
}

test('every recorded instruction', () => {
  const vectors = JSON.parse(readFileSync(new URL('../semantics/native-vectors.json', import.meta.url), 'utf8'));
  const [plain, compiled] = machines();
  for (const [hex, seed] of (vectors as [string, number][]).filter((_, i) => thorough || i % 3 === 0)) {
    // The instruction and a jump to itself.
    const code = [...Buffer.from(hex, 'hex'), 0xeb, 0xfe];
    const state = stateOf(seed);
    const at = freshPage();
    const results = [plain, compiled].map((m) => {
      setUp(m, at, code, state);
      return seen(m, m.run(4));
    });
    expect(results[1], `${hex} seed ${seed}`).toEqual(results[0]);
  }
  expect(compiled.interpreter.compilerStatistics.compiled).toBeGreaterThan(vectors.length / (thorough ? 1 : 3));
});

/** A function of random instructions, with loops, branches, calls and stack operations between them. */
function program(seed: number, rdi: number): number[] {
  const next = generator(seed);
  const starts: number[] = [];
  const bytes: number[] = [];
  const count = 4 + (next() % 12);
  const jump = (opcode: readonly number[], to: number): void => {
    bytes.push(...opcode);
    const distance = to - (bytes.length + 4);
    bytes.push(distance & 0xff, (distance >> 8) & 0xff, (distance >> 16) & 0xff, (distance >> 24) & 0xff);
  };
  for (let n = 0; n < count; n++) {
    starts.push(bytes.length);
    for (let i = next() % 4; i >= 0; i--) {
      const code = encode(COMPARABLE[next() % COMPARABLE.length]!, next);
      // RDI, RSI and the stack pointer stay usable: their writers are taken out by restoring them.
      bytes.push(...code);
    }
    bytes.push(0xbf, rdi & 0xff, (rdi >> 8) & 0xff, (rdi >> 16) & 0xff, 0);
    bytes.push(0x83, 0xe6, 7);
    const target = starts[next() % starts.length]!;
    switch (next() % 8) {
      case 0:
        bytes.push(0x50 + (next() % 4), 0x58 + (next() % 4));
        break;
      case 1:
        jump([0xe8], target);
        break;
      case 2:
        bytes.push(0xc3);
        break;
      case 3:
        bytes.push(0x75, 1, 0xc3);
        break;
      case 4:
        jump([0xe9], target);
        break;
      default:
        jump([0x0f, 0x80 + (next() % 16)], target);
    }
  }
  jump([0xe9], starts[next() % starts.length]!);
  return bytes;
}

test.each(LEGACY)('every recorded instruction as $mode, segments $name', (segments) => {
  const vectors = JSON.parse(readFileSync(new URL('../semantics/native-vectors.json', import.meta.url), 'utf8'));
  const [plain, compiled] = machines(segments.mode);
  for (const [hex, seed] of (vectors as [string, number][]).filter((_, i) => i % (thorough ? 4 : 12) === 0)) {
    const code = [...Buffer.from(hex, 'hex'), 0xeb, 0xfe];
    const state = stateOf(seed);
    const at = freshPage();
    const results = [plain, compiled].map((m) => {
      setUp(m, at, code, state);
      setSegments(m, segments, at);
      return seen(m, m.run(8));
    });
    expect(results[1], `${hex} seed ${seed}`).toEqual(results[0]);
  }
  expect(compiled.interpreter.compilerStatistics.compiled).toBeGreaterThan(vectors.length / (thorough ? 8 : 24));
});

test.each(LEGACY)('random programs as $mode, segments $name', (segments) => {
  const [plain, compiled] = machines(segments.mode);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000_000 }), fc.integer({ min: 1, max: 400 }), (seed, budget) => {
      const code = program(seed, segments.based ? segments.shift + DATA_SIZE / 2 : DATA_ADDRESS + DATA_SIZE / 2);
      const state = stateOf(seed);
      const at = freshPage();
      for (const m of [plain, compiled]) {
        setUp(m, at, code, state);
        setSegments(m, segments, at);
        if (seed % 3 === 0) m.flushTlb();
      }
      for (let piece = 0; piece < 4; piece++) {
        const results = [plain, compiled].map((m) => seen(m, m.run(budget)));
        expect(results[1]).toEqual(results[0]);
        if (results[0]!.status !== STATUS_BUDGET) break;
        // Other segments under the same code.
        if (seed % 5 === 0) {
          for (const m of [plain, compiled])
            m.memory.i32[(SEG + DS * SEG_SIZE + SEG_LIMIT) >> 2] = 0x3f + (seed & 0x3c0);
        }
      }
    }),
    { numRuns: Number(process.env['COMPILER_RUNS'] ?? runs(150)), seed: 7 },
  );
  expect(compiled.interpreter.compilerStatistics.compiled).toBeGreaterThan(100);
});

test('random programs', () => {
  const [plain, compiled] = machines();
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1_000_000 }),
      fc.integer({ min: 1, max: 400 }),
      fc.integer({ min: 0, max: 5 }),
      (seed, budget, place) => {
        // In the middle of a page, or where accesses reach into the next one, which may be absent or read-only.
        const rdi = DATA_ADDRESS + (place < 3 ? DATA_SIZE / 2 : PAGE - 60);
        const code = program(seed, rdi);
        const state = stateOf(seed);
        const at = freshPage();
        for (const m of [plain, compiled]) {
          setUp(m, at, code, state);
          m.load(DATA_ADDRESS + PAGE - DATA_SIZE / 2, state.data);
          m.absent.clear();
          m.readOnly.clear();
          if (place === 4) m.absent.add(DATA_ADDRESS / PAGE + 1);
          if (place === 5) m.readOnly.add(DATA_ADDRESS / PAGE + 1);
          if (seed % 3 === 0 || place > 3) m.flushTlb();
        }
        // In pieces, as a run loop with deadlines has it.
        for (let piece = 0; piece < 4; piece++) {
          const results = [plain, compiled].map((m) => seen(m, m.run(budget)));
          expect(results[1]).toEqual(results[0]);
          if (results[0]!.status !== STATUS_BUDGET) break;
        }
      },
    ),
    { numRuns: Number(process.env['COMPILER_RUNS'] ?? runs(150)), seed: 5 },
  );
  expect(compiled.interpreter.compilerStatistics.compiled).toBeGreaterThan(100);
});

test('code that rewrites itself falls back to interpretation', () => {
  // 1: mov eax,imm; inc dword [1b+1]; sub ecx,1; jnz 1b; hlt
  const code = [0xb8, 0, 0, 0, 0, 0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, 0x83, 0xe9, 1, 0x75, 0xf0, 0xf4];
  const ends = machines().map((m) => {
    setUp(m, 0x20000, code, stateOf(1));
    m.setRegister(RCX, 5000);
    const status = m.run(100_000);
    return {
      ...seen(m, status),
      code: m.bytes(0x20000, 32).join(),
      compiled: m.interpreter.compilerStatistics.compiled,
    };
  });
  const [plain, compiled] = ends;
  expect(plain!.gpr.split(',')[0]).toBe('4999');
  expect(compiled!.compiled).toBeLessThan(100);
  expect({ ...compiled, compiled: 0 }).toEqual(plain);
});

test('a write to compiled code drops it', () => {
  // 1: add eax,1; sub ecx,1; jnz 1b; hlt
  const code = [0x83, 0xc0, 1, 0x83, 0xe9, 1, 0x75, 0xf8, 0xf4];
  const m = new FlatMachine('long64', { compileAfter: 10 });
  const run = (): number => {
    m.setRegister(RAX, 0);
    m.setRegister(RCX, 100);
    m.rip = 0x20000;
    expect(m.run(100_000)).toBe(STATUS_EXIT);
    return m.low(RAX);
  };
  m.load(0x20000, code);
  expect(run()).toBe(100);
  expect(m.interpreter.compilerStatistics).toMatchObject({ compiled: 1, dropped: 0 });
  m.load(0x20002, [3]);
  expect(m.interpreter.compilerStatistics.dropped).toBe(1);
  expect(run()).toBe(300);
});

test('a run ends at the instruction that its budget says, inside compiled code too', () => {
  const code = [0x83, 0xc0, 1, 0x83, 0xe9, 1, 0x75, 0xf8, 0xf4];
  for (const budget of [1, 2, 3, 7, 100, 8191, 8192, 8193, 20_001]) {
    const ends = machines().map((m) => {
      m.load(0x20000, code);
      m.rip = 0x20000;
      m.setRegister(RCX, 1 << 20);
      const status = m.run(budget);
      return [status, m.rip, m.retired, m.low(RAX)];
    });
    expect(ends[1]).toEqual(ends[0]);
    expect(ends[0]!.slice(0, 3)).toEqual([STATUS_BUDGET, 0x20000 + (budget % 3) * 3, budget]);
  }
});
