/**
 * The reverse map in physical memory and the two instructions by which the hypervisor changes it, RMPUPDATE and PSMASH
 * (@apm 15.36.3, 15.36.4). Every entry of a 2 MiB page carries the page's state with its own frame's address, so that a look at one entry
 * answers for it.
 */
import {
  RMP_2M,
  RMP_ASID_MASK,
  RMP_ASID_SHIFT,
  RMP_ASSIGNED,
  RMP_BOOKKEEPING,
  RMP_ENTRY_SIZE,
  RMP_FAIL_INPUT,
  RMP_FAIL_OVERLAP,
  RMP_FAIL_PERMISSION,
  RMP_FRAMES_2M,
  RMP_GFN_HI_MASK,
  RMP_GFN_LO_SHIFT,
  RMP_IMMUTABLE,
  RMP_SUCCESS,
  RMP_VALIDATED,
  RMP_VMSA,
  VMPL_ALL,
} from '../../arch/rmp.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { MemoryCipher } from './memory-cipher.ts';

/** RMPUPDATE's operand in memory, decoded (@apm volume 3). */
export interface RmpState {
  readonly asid: number;
  readonly gfn: number;
  readonly assigned: boolean;
  readonly large: boolean;
  readonly immutable: boolean;
}

/** Bytes that the reverse map of a memory of `frames` frames takes. */
export const rmpBytes = (frames: number): number => RMP_BOOKKEEPING + frames * RMP_ENTRY_SIZE;

export class Rmp {
  private readonly memory: PhysicalMemory;
  private readonly i32: Int32Array;
  private readonly cipher: MemoryCipher;
  private readonly maxAsid: number;
  /** First word of the entry of frame 0. */
  private readonly base: number;
  /** Frames of the table itself. */
  readonly firstFrame: number;
  readonly endFrame: number;

  /** The table at physical address `at` (RMP_BASE), which covers all of memory. */
  constructor(memory: PhysicalMemory, cipher: MemoryCipher, at: number, maxAsid: number) {
    this.memory = memory;
    this.i32 = memory.i32;
    this.cipher = cipher;
    this.maxAsid = maxAsid;
    this.base = (at + RMP_BOOKKEEPING) >>> 2;
    this.firstFrame = Math.floor(at / 4096);
    this.endFrame = Math.ceil((at + rmpBytes(memory.frames)) / 4096);
  }

  /** First word of the entry of frame `pfn`. HOT */
  entry(pfn: number): number {
    return this.base + pfn * 4;
  }
  /** HOT */
  assigned(pfn: number): boolean {
    return (this.i32[this.base + pfn * 4]! & RMP_ASSIGNED) !== 0;
  }
  large(pfn: number): boolean {
    return (this.i32[this.base + pfn * 4]! & RMP_2M) !== 0;
  }
  immutable(pfn: number): boolean {
    return (this.i32[this.base + pfn * 4]! & RMP_IMMUTABLE) !== 0;
  }
  validated(pfn: number): boolean {
    return (this.i32[this.base + pfn * 4 + 1]! & RMP_VALIDATED) !== 0;
  }
  vmsa(pfn: number): boolean {
    return (this.i32[this.base + pfn * 4 + 1]! & RMP_VMSA) !== 0;
  }
  asid(pfn: number): number {
    return (this.i32[this.base + pfn * 4 + 1]! >>> RMP_ASID_SHIFT) & RMP_ASID_MASK;
  }
  gfn(pfn: number): number {
    const word = this.base + pfn * 4;
    return (this.i32[word + 1]! & RMP_GFN_HI_MASK) * 0x100000 + (this.i32[word]! >>> RMP_GFN_LO_SHIFT);
  }
  /** VMPL_* of a level. */
  permissions(pfn: number, vmpl: number): number {
    return (this.i32[this.base + pfn * 4 + 2]! >>> (vmpl * 8)) & 0xff;
  }

  setPermissions(pfn: number, vmpl: number, mask: number): void {
    const word = this.base + pfn * 4 + 2;
    this.i32[word] = (this.i32[word]! & ~(0xff << (vmpl * 8))) | (mask << (vmpl * 8));
  }
  /** Of every frame of the page that `pfn` is in. */
  setValidated(pfn: number, on: boolean): void {
    this.flag(pfn, RMP_VALIDATED, on);
  }
  setVmsa(pfn: number, on: boolean): void {
    this.flag(pfn, RMP_VMSA, on);
  }
  setImmutable(pfn: number, on: boolean): void {
    const word = this.base + pfn * 4;
    this.i32[word] = on ? this.i32[word]! | RMP_IMMUTABLE : this.i32[word]! & ~RMP_IMMUTABLE;
  }
  private flag(pfn: number, bit: number, on: boolean): void {
    const large = this.large(pfn);
    const first = large ? pfn - (pfn % RMP_FRAMES_2M) : pfn;
    for (let frame = first; frame < first + (large ? RMP_FRAMES_2M : 1); frame++) {
      const word = this.base + frame * 4 + 1;
      this.i32[word] = on ? this.i32[word]! | bit : this.i32[word]! & ~bit;
    }
  }

  /** The table itself, which software does not write. */
  isTable(pfn: number): boolean {
    return pfn >= this.firstFrame && pfn < this.endFrame;
  }

  /** RMPUPDATE of the page at frame `pfn`: RMP_SUCCESS or RMP_FAIL_*. The caller flushes the TLB. */
  update(pfn: number, state: RmpState): number {
    const count = state.large ? RMP_FRAMES_2M : 1;
    if (pfn < 0 || pfn + count > this.memory.frames || this.isTable(pfn)) return RMP_FAIL_INPUT;
    if (state.large && (pfn % RMP_FRAMES_2M !== 0 || state.gfn % RMP_FRAMES_2M !== 0)) return RMP_FAIL_INPUT;
    if (state.asid > this.maxAsid || (!state.assigned && (state.immutable || state.asid !== 0))) return RMP_FAIL_INPUT;
    for (let frame = pfn; frame < pfn + count; frame++) {
      if (this.immutable(frame)) return RMP_FAIL_PERMISSION;
      if (this.assigned(frame) && this.large(frame) !== state.large) return RMP_FAIL_OVERLAP;
    }
    for (let i = 0; i < count; i++) this.set(pfn + i, state, state.gfn + i);
    return RMP_SUCCESS;
  }

  /** One entry anew; the page's bytes change hands with it. */
  private set(pfn: number, state: RmpState, gfn: number): void {
    const { i32 } = this;
    const word = this.base + pfn * 4;
    const was = this.assigned(pfn);
    const oldAsid = this.asid(pfn);
    const same = was && state.assigned && oldAsid === state.asid && this.gfn(pfn) === gfn;
    if (!same) {
      if (was && oldAsid !== 0) this.reveal(pfn, oldAsid);
      if (state.assigned && state.asid !== 0) this.adopt(pfn, state.asid);
    }
    if (!state.assigned) {
      i32.fill(0, word, word + 4);
      return;
    }
    i32[word] =
      RMP_ASSIGNED |
      (state.large ? RMP_2M : 0) |
      (state.immutable ? RMP_IMMUTABLE : 0) |
      ((gfn % 0x100000) << RMP_GFN_LO_SHIFT);
    const kept = same ? i32[word + 1]! & (RMP_VALIDATED | RMP_VMSA) : 0;
    i32[word + 1] = Math.floor(gfn / 0x100000) | (state.asid << RMP_ASID_SHIFT) | kept;
    // A page is VMPL0's at first, and of no other level.
    if (!same) i32[word + 2] = VMPL_ALL;
  }

  private reveal(pfn: number, asid: number): void {
    this.memory.noteWrite(pfn);
    this.cipher.encryptFrame(asid, pfn);
  }
  private adopt(pfn: number, asid: number): void {
    this.memory.noteWrite(pfn);
    this.cipher.decryptFrame(asid, pfn);
  }

  /** PSMASH: the 2 MiB page at frame `pfn` becomes 512 pages, whose state is its own: RMP_SUCCESS or RMP_FAIL_*. */
  smash(pfn: number): number {
    if (pfn < 0 || pfn % RMP_FRAMES_2M !== 0 || pfn + RMP_FRAMES_2M > this.memory.frames) return RMP_FAIL_INPUT;
    if (!this.assigned(pfn) || !this.large(pfn)) return RMP_FAIL_INPUT;
    if (this.immutable(pfn) || this.asid(pfn) === 0) return RMP_FAIL_PERMISSION;
    for (let frame = pfn; frame < pfn + RMP_FRAMES_2M; frame++) {
      const word = this.base + frame * 4;
      this.i32[word] = this.i32[word]! & ~RMP_2M;
    }
    return RMP_SUCCESS;
  }
}
