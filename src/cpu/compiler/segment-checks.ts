/**
 * Segments outside 64-bit mode. What a segment register held when the code was made decides how it is used: without limit or base where
 * it is open and begins at zero. That it is still so is checked where the code is entered; it cannot change inside, since no compiled
 * instruction loads a segment.
 */
import { CS, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import { state32, state64 } from '../semantics/state-access.ts';
import { SEG, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SIZE } from '../state.ts';
import { type Code, type I32, type I64, i32, i64 } from '../wasm/code.ts';
import type { Local64 } from '../wasm/function.ts';

/** Present, and in a segment that is data, writable, and does not expand down. */
const KIND = VMCB_ATTR_P | 0xe;
const WRITABLE_DATA = VMCB_ATTR_P | 2;

const at = (segment: number, field: number): number => SEG + segment * SEG_SIZE + field;

export interface UsedSegment {
  /** undefined: zero. */
  readonly base: Local64 | undefined;
  /** Highest offset, zero-extended; undefined: 4 GiB - 1. */
  readonly limit: Local64 | undefined;
}

export class SegmentChecks {
  private readonly words: Int32Array;
  private readonly local: () => Local64;
  private readonly used = new Map<number, UsedSegment | null>();
  private readonly conditions: I32[] = [];
  /** What loads the locals, after the checks. */
  readonly loads: Code[] = [];
  private stackChecked = false;
  private codeChecked = false;

  constructor(words: Int32Array, local: () => Local64) {
    this.words = words;
    this.local = local;
  }

  private word(segment: number, field: number): number {
    return this.words[at(segment, field) >> 2]!;
  }

  /** How to use a segment for data; null when its kind needs the interpreter. */
  use(segment: number): UsedSegment | null {
    const known = this.used.get(segment);
    if (known !== undefined) return known;
    const made = this.make(segment);
    this.used.set(segment, made);
    return made;
  }
  private make(segment: number): UsedSegment | null {
    if ((this.word(segment, SEG_ATTR) & KIND) !== WRITABLE_DATA) return null;
    const kind = i32.and(state32(at(segment, SEG_ATTR)), i32.const(KIND));
    this.conditions.push(i32.ne(kind, i32.const(WRITABLE_DATA)));
    let base: Local64 | undefined;
    let limit: Local64 | undefined;
    if (this.word(segment, SEG_BASE) === 0) {
      this.conditions.push(state32(at(segment, SEG_BASE)));
    } else {
      base = this.local();
      this.loads.push(base.set(state64(at(segment, SEG_BASE))));
    }
    if (this.word(segment, SEG_LIMIT) === -1) {
      this.conditions.push(i32.ne(state32(at(segment, SEG_LIMIT)), i32.const(-1)));
    } else {
      limit = this.local();
      this.loads.push(limit.set(i64.extendU(state32(at(segment, SEG_LIMIT)))));
    }
    return { base, limit };
  }

  /** Bytes of the stack pointer: 4 or 2. */
  stackSize(): number {
    const wide = this.word(SS, SEG_ATTR) & VMCB_ATTR_DB;
    if (!this.stackChecked) {
      const now = i32.and(state32(at(SS, SEG_ATTR)), i32.const(VMCB_ATTR_DB));
      this.conditions.push(i32.ne(now, i32.const(wide)));
    }
    this.stackChecked = true;
    return wide !== 0 ? 4 : 2;
  }

  /** Whether offsets in the code segment are linear addresses. */
  isCodeLinear(): boolean {
    if (this.word(CS, SEG_BASE) !== 0) return false;
    if (!this.codeChecked) this.conditions.push(state32(at(CS, SEG_BASE)));
    this.codeChecked = true;
    return true;
  }

  /** Whether something is not as it was; undefined when nothing was relied on. */
  changed(): I32 | undefined {
    return this.conditions.length === 0 ? undefined : this.conditions.reduce((a, b) => i32.or(a, b));
  }
}

/** The linear address of `offset` into a segment. */
export const linearOf = ({ base }: UsedSegment, offset: I64): I64 =>
  base === undefined ? offset : i64.and(i64.add(offset, base.get), i64.const(0xffffffff));
