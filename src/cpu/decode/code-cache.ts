/**
 * Decoded code: records by host physical address. A page with records is watched (PhysicalMemory.watch); a write to it drops them all.
 * Dropped records stay where they are, made stale, until the whole region is cleared, because a link may still lead to one.
 */
import { FS } from '../../arch/registers.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { Feature } from '../isa/features.ts';
import {
  FORM_MEMORY,
  FORM_MEMORY_BASED,
  FORM_MEMORY_FLAT,
  FORM_REGISTER,
  FORM_REGISTER_FLAT,
  type HandlerIndex,
} from '../semantics/handlers.ts';
import { CODE_BASE, TLB_BASE, TLB_END, TLB_ENTRY_SIZE, TLB_NO_TAG, TLB_PAGE, TLB_WRITE_TAG } from '../state.ts';
import {
  CODE_CLEARINGS,
  CODE_SLOTS,
  CODE_TABLE_SIZE,
  CODE_TABLES,
  CODE_TAGS,
  codeSlot,
  ONE_OFF_RECORD,
  RECORDS,
  RECORDS_END,
} from './code-layout.ts';
import { DECODE_INVALID, DECODE_OK, Decoder } from './decoder.ts';
import {
  RECORD_ADDRSIZE,
  RECORD_BASE,
  RECORD_BYTES,
  RECORD_COMPILED,
  RECORD_DISP,
  RECORD_ENCODING,
  RECORD_FLAGS,
  RECORD_HANDLER,
  RECORD_HAS_MEMORY,
  RECORD_HAS_SEGMENT,
  RECORD_HEAT,
  RECORD_IMM,
  RECORD_IMM2,
  RECORD_INDEX,
  RECORD_INNER,
  RECORD_LENGTH,
  RECORD_MODE,
  RECORD_NEXT,
  RECORD_OPSIZE,
  RECORD_REG,
  RECORD_RM,
  RECORD_SCALE,
  RECORD_SECOND,
  RECORD_SEGMENT,
  RECORD_SIZE,
  RECORD_SYSTEM_OP,
  RECORD_TAKEN,
  RECORD_VVVV,
} from './record.ts';

/** Instructions decoded ahead of the one that is wanted. */
const RUN = 32;
/** A frame whose records were dropped so often is one that code keeps writing to: its instructions are decoded one by one and not kept. */
const REWRITTEN = 32;
/** After so many instructions that were not kept, frames get a new chance. */
const FORGIVENESS = 0x10000;
/** Row number of an undefined instruction. */
export const NO_ENCODING = 0xffff;

export class CodeCache {
  private readonly u8: Uint8Array;
  private readonly i32: Int32Array;
  private readonly watch: Uint8Array;
  private readonly handlers: HandlerIndex;
  private readonly decoder: Decoder;
  private free = RECORDS;
  /** By frame: how often a write dropped its records. */
  private readonly rewrites: Uint8Array;
  private notKept = 0;
  private clearings = 0;
  /** Calls of `invalidate`. */
  invalidations = 0;
  /** Transfers to a record before it is compiled; 0: never. */
  compileAfter = 0;
  /** Told about records that go and were compiled. */
  onDropCompiled: (record: number) => void = () => {};
  /** Records of instructions that end in a frame, by that frame, with the places in tables that hold them. */
  private readonly crossings = new Map<number, { record: number; place: number }[]>();

  constructor(memory: PhysicalMemory, handlers: HandlerIndex, absent?: ReadonlySet<Feature>) {
    this.decoder = new Decoder(absent);
    this.u8 = memory.u8;
    this.i32 = memory.i32;
    this.watch = memory.watch;
    this.rewrites = new Uint8Array(memory.watch.length);
    this.handlers = handlers;
    this.clear();
  }

  /** Forgets everything. Not while a handler runs, unless the handler is followed by a lookup. */
  clear(): void {
    for (const pfn of [...this.crossings.keys()]) this.dropCrossings(pfn);
    for (let slot = 0; slot < CODE_SLOTS; slot++) this.dropSlot(slot);
    this.i32.fill(0, CODE_BASE >> 2, CODE_TABLES >> 2);
    this.i32[CODE_CLEARINGS >> 2] = ++this.clearings;
  }

  private dropSlot(slot: number): void {
    const at = (CODE_TAGS >> 2) + slot;
    const tag = this.i32[at]!;
    if (tag === 0) return;
    this.i32[at] = 0;
    const table = (CODE_TABLES + slot * CODE_TABLE_SIZE) >> 2;
    for (let i = table; i < table + 4096; i++) {
      const record = this.i32[i]!;
      if (record === 0) continue;
      this.i32[i] = 0;
      if (this.i32[(record + RECORD_COMPILED) >> 2] !== 0) this.onDropCompiled(record);
      this.i32[(record + RECORD_HANDLER) >> 2] = this.handlers.stale;
    }
    const pfn = tag >>> 12;
    if (!this.isDecoded(pfn)) this.watch[pfn] = 0;
  }

  /** The slot whose table has `record` at byte `offset`, or -1: a search, for what is rare. */
  slotOf(record: number, offset: number): number {
    for (let slot = 0; slot < CODE_SLOTS; slot++) {
      if (this.i32[((CODE_TABLES + slot * CODE_TABLE_SIZE) >> 2) + offset] === record) return slot;
    }
    return -1;
  }

  private tagOf(pfn: number, mode: number): number {
    return (pfn << 12) | (mode + 1) | 0;
  }
  private isDecoded(pfn: number): boolean {
    if (this.crossings.has(pfn)) return true;
    for (let mode = 0; mode < 3; mode++) {
      if (this.i32[(CODE_TAGS >> 2) + codeSlot(pfn, mode)] === this.tagOf(pfn, mode)) return true;
    }
    return false;
  }

  private dropCrossings(pfn: number): void {
    for (const { record, place } of this.crossings.get(pfn) ?? []) {
      this.i32[(record + RECORD_HANDLER) >> 2] = this.handlers.stale;
      if (this.i32[place] === record) this.i32[place] = 0;
    }
    this.crossings.delete(pfn);
    if (!this.isDecoded(pfn)) this.watch[pfn] = 0;
  }

  /** Drops the records of frame `pfn`. */
  invalidate(pfn: number): void {
    this.invalidations++;
    if (this.rewrites[pfn]! < REWRITTEN) this.rewrites[pfn]!++;
    for (let mode = 0; mode < 3; mode++) {
      const slot = codeSlot(pfn, mode);
      if (this.i32[(CODE_TAGS >> 2) + slot] === this.tagOf(pfn, mode)) this.dropSlot(slot);
    }
    this.dropCrossings(pfn);
    this.watch[pfn] = 0;
  }

  /** Frame `pfn` is about to hold translations: from now on no write reaches it without notice. */
  private watchFrame(pfn: number): void {
    if (this.watch[pfn] !== 0) return;
    this.watch[pfn] = 1;
    const page = (pfn << 12) | 0;
    for (let entry = TLB_BASE; entry < TLB_END; entry += TLB_ENTRY_SIZE) {
      if (this.i32[(entry + TLB_PAGE) >> 2] !== page) continue;
      this.i32[(entry + TLB_WRITE_TAG) >> 2] = TLB_NO_TAG;
      this.i32[(entry + TLB_WRITE_TAG + 4) >> 2] = 0;
    }
  }

  /**
   * Decodes at byte `offset` of frame `pfn` and a stretch beyond, and keeps the records.
   * @returns the record, or 0 when the instruction does not end in the page or the page is not worth keeping
   */
  decodeInPage(pfn: number, offset: number, mode: number): number {
    if (this.rewrites[pfn] === REWRITTEN) {
      this.notKept++;
      if (this.notKept % FORGIVENESS === 0) this.rewrites.fill(0);
      return 0;
    }
    this.reserve(RUN);
    const slot = codeSlot(pfn, mode);
    const table = (CODE_TABLES + slot * CODE_TABLE_SIZE) >> 2;
    let first = 0;
    let previous = 0;
    let at = offset;
    for (let n = 0; n < RUN && at < 4096; n++) {
      const known = this.i32[(CODE_TAGS >> 2) + slot] === this.tagOf(pfn, mode) ? this.i32[table + at]! : 0;
      if (known !== 0) {
        // One that needs its second page looked at again is for decodeAcross.
        if (first === 0 && this.i32[(known + RECORD_HANDLER) >> 2] === this.handlers.crossing) return 0;
        if (previous !== 0) this.i32[(previous + RECORD_NEXT) >> 2] = known;
        return first === 0 ? known : first;
      }
      const start = pfn * 4096 + at;
      const status = this.decoder.decode(this.u8, start, pfn * 4096 + 4096, mode);
      if (status !== DECODE_OK && status !== DECODE_INVALID) break;
      if (first === 0) this.claimSlot(slot, pfn, mode);
      const record = this.free;
      this.free += RECORD_SIZE;
      this.write(record, status, this.u8, start);
      this.i32[(record + RECORD_HEAT) >> 2] = this.compileAfter << Math.min(16, this.rewrites[pfn]!);
      this.i32[table + at] = record;
      if (previous !== 0) this.i32[(previous + RECORD_NEXT) >> 2] = record;
      if (first === 0) first = record;
      if (status === DECODE_INVALID || endsRun(this.decoder)) break;
      previous = record;
      at += this.decoder.length;
    }
    return first;
  }

  /** Makes room for `count` records, by forgetting all of them if it must. */
  private reserve(count: number): void {
    if (this.free + count * RECORD_SIZE <= RECORDS_END) return;
    this.clear();
    this.free = RECORDS;
  }

  /**
   * Keeps the instruction in `bytes`, which begins at byte `offset` of frame `pfn` and ends in frame `next`.
   * @returns the record, or 0 when `end` bytes are not enough
   */
  decodeAcross(pfn: number, offset: number, next: number, bytes: Uint8Array, end: number, mode: number): number {
    this.reserve(1);
    const status = this.decoder.decode(bytes, 0, end, mode);
    if (status !== DECODE_OK && status !== DECODE_INVALID) return 0;
    const slot = codeSlot(pfn, mode);
    this.claimSlot(slot, pfn, mode);
    this.watchFrame(next);
    const record = this.free;
    this.free += RECORD_SIZE;
    this.write(record, status, bytes, 0);
    const w = record >> 2;
    this.i32[w + (RECORD_INNER >> 2)] = this.i32[w + (RECORD_HANDLER >> 2)]!;
    this.i32[w + (RECORD_HANDLER >> 2)] = this.handlers.crossing;
    this.i32[w + (RECORD_SECOND >> 2)] = next << 12;
    const place = ((CODE_TABLES + slot * CODE_TABLE_SIZE) >> 2) + offset;
    this.i32[place] = record;
    const here = this.crossings.get(next);
    if (here === undefined) this.crossings.set(next, [{ record, place }]);
    else here.push({ record, place });
    return record;
  }

  private claimSlot(slot: number, pfn: number, mode: number): void {
    const tag = this.tagOf(pfn, mode);
    if (this.i32[(CODE_TAGS >> 2) + slot] === tag) return;
    this.dropSlot(slot);
    this.i32[(CODE_TAGS >> 2) + slot] = tag;
    this.watchFrame(pfn);
  }

  /**
   * Decodes one instruction from `bytes` into the record that is not kept.
   * @returns the record, or 0 when `end` bytes are not enough
   */
  decodeOnce(bytes: Uint8Array, end: number, mode: number): number {
    const status = this.decoder.decode(bytes, 0, end, mode);
    if (status !== DECODE_OK && status !== DECODE_INVALID) return 0;
    this.write(ONE_OFF_RECORD, status, bytes, 0);
    return ONE_OFF_RECORD;
  }

  private write(record: number, status: number, bytes: Uint8Array, start: number): void {
    const { i32, u8, decoder: d } = this;
    const w = record >> 2;
    u8.fill(0, record, record + RECORD_SIZE);
    u8[record + RECORD_LENGTH] = d.length;
    u8[record + RECORD_MODE] = d.mode;
    for (let i = 0; i < d.length; i++) u8[record + RECORD_BYTES + i] = bytes[start + i]!;
    const row = d.row;
    if (status === DECODE_INVALID || row === undefined) {
      i32[w + (RECORD_HANDLER >> 2)] = this.handlers.undefined;
      u8[record + RECORD_ENCODING] = NO_ENCODING & 0xff;
      u8[record + RECORD_ENCODING + 1] = NO_ENCODING >> 8;
      return;
    }
    const memory = (d.flags & RECORD_HAS_MEMORY) !== 0;
    i32[w + (RECORD_HANDLER >> 2)] = this.handlers.get(row.id, d.operandSize, formOf(d, memory));
    i32[w + (RECORD_NEXT >> 2)] = 0;
    i32[w + (RECORD_TAKEN >> 2)] = 0;
    u8[record + RECORD_OPSIZE] = d.operandSize;
    u8[record + RECORD_ADDRSIZE] = d.addressSize;
    u8[record + RECORD_REG] = d.reg;
    u8[record + RECORD_RM] = d.rm;
    u8[record + RECORD_BASE] = d.base;
    u8[record + RECORD_INDEX] = d.index;
    u8[record + RECORD_SCALE] = d.scale;
    u8[record + RECORD_SEGMENT] = d.segment;
    u8[record + RECORD_FLAGS] = d.flags & (RECORD_HAS_SEGMENT * 2 - 1);
    u8[record + RECORD_VVVV] = d.vvvv;
    i32[w + (RECORD_DISP >> 2)] = d.dispLo;
    i32[w + (RECORD_DISP >> 2) + 1] = d.dispHi;
    i32[w + (RECORD_IMM >> 2)] = d.immLo;
    i32[w + (RECORD_IMM >> 2) + 1] = d.immHi;
    i32[w + (RECORD_IMM2 >> 2)] = d.imm2;
    const op = row.meaning.kind === 'system' ? row.meaning.op : 0;
    u8[record + RECORD_SYSTEM_OP] = op & 0xff;
    u8[record + RECORD_SYSTEM_OP + 1] = op >> 8;
    u8[record + RECORD_ENCODING] = row.id & 0xff;
    u8[record + RECORD_ENCODING + 1] = row.id >> 8;
  }
}

/** The form of handler that fits; without a memory operand only the mode counts. */
function formOf(d: Decoder, memory: boolean): number {
  if (!memory) return d.mode === 2 ? FORM_REGISTER_FLAT : FORM_REGISTER;
  if (d.mode !== 2 || d.addressSize !== 8) return FORM_MEMORY;
  return d.segment < FS ? FORM_MEMORY_FLAT : FORM_MEMORY_BASED;
}

/** Nothing is known to follow an unconditional transfer, or an instruction that may change how code is decoded. */
function endsRun(d: Decoder): boolean {
  const { mnemonic, meaning } = d.row!;
  return meaning.kind === 'system' || mnemonic === 'JMP' || mnemonic === 'RET';
}
