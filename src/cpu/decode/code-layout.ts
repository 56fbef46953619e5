/**
 * The region of decoded code: a direct-mapped set of code pages, each with a table that gives the record at every byte offset, and the
 * records. A slot's tag is the page's host physical address plus the code mode plus 1.
 */
import { CODE_BASE, CODE_END } from '../state.ts';
import { RECORD_SIZE } from './record.ts';

export const CODE_SLOTS = 1024;
/** u32 a slot. */
export const CODE_TAGS = CODE_BASE;
/** A record that is all zeros, and the record of an instruction that is not kept. */
export const EMPTY_RECORD = CODE_BASE + 0x8000;
export const ONE_OFF_RECORD = EMPTY_RECORD + RECORD_SIZE;
/** How often all of it was cleared, u32: a record from before a clearing is one no longer. */
export const CODE_CLEARINGS = CODE_BASE + 0x9000;
/** 4096 record addresses (u32) a slot, 0 where none is decoded. */
export const CODE_TABLES = CODE_BASE + 0x10000;
export const CODE_TABLE_SIZE = 4096 * 4;
export const RECORDS = CODE_TABLES + CODE_SLOTS * CODE_TABLE_SIZE;
export const RECORDS_END = CODE_END;
/** What a mode adds to the frame number when a slot is chosen, so that modes of one page do not collide. */
export const SLOT_MODE_STEP = 341;

/** Slot of frame `pfn` decoded in `mode`. */
export const codeSlot = (pfn: number, mode: number): number => (pfn + mode * SLOT_MODE_STEP) & (CODE_SLOTS - 1);
