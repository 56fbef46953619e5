/**
 * Breakpoints of DR0 to DR3 on instructions and data (@sdm 17.2, 17.3; @apm 13.1). Pages that hold a data breakpoint stay out of the TLB,
 * so that every access to them passes by here. I/O breakpoints never match.
 */
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { CS, RFLAGS_RF } from '../../arch/registers.ts';
import {
  ACCESS_READ,
  BREAKPOINT_HITS_AT,
  DR_AT,
  INT_SHADOW_AT,
  SHADOW_STACK,
  STATUS_OK,
  WALK_BLOCKED_AT,
} from '../state.ts';
import type { Core } from './core.ts';
import { W_RIP } from './words.ts';

const W_DR = DR_AT >> 2;
const W_DR6 = W_DR + 12;
const W_DR7 = W_DR + 14;
const ENABLED = 0xff;

/** The R/W field: what stops at the breakpoint. */
const ON_EXECUTE = 0;
const ON_WRITE = 1;
const ON_ACCESS = 3;
/** Bytes that the LEN field stands for. */
const LENGTHS = [1, 2, 8, 4];

export class Breakpoints {
  private readonly core: Core;
  /** Some breakpoint is on data. */
  watching = false;
  /** What the TLB was filled under: DR7 and the addresses. */
  private readonly known = new Int32Array(9);

  constructor(core: Core) {
    this.core = core;
  }

  /** Breakpoint `n` is enabled, locally or globally. */
  private enabled(n: number): boolean {
    return ((this.core.i32[W_DR7]! >>> (2 * n)) & 3) !== 0;
  }

  private kind(n: number): number {
    return (this.core.i32[W_DR7]! >>> (16 + 4 * n)) & 3;
  }

  private isOnData(n: number): boolean {
    if (!this.enabled(n)) return false;
    const kind = this.kind(n);
    return kind === ON_WRITE || kind === ON_ACCESS;
  }

  /** After DR0 to DR3 or DR7 may have changed. HOT while none is enabled. */
  update(): void {
    const { i32 } = this.core;
    if ((i32[W_DR7]! & ENABLED) === 0 && !this.watching) return;
    this.watching = this.isOnData(0) || this.isOnData(1) || this.isOnData(2) || this.isOnData(3);
    i32[WALK_BLOCKED_AT >> 2] = this.watching ? 1 : 0;
    let changed = this.known[8] !== i32[W_DR7]!;
    this.known[8] = i32[W_DR7]!;
    for (let i = 0; i < 8; i++) {
      changed ||= this.known[i] !== i32[W_DR + i]!;
      this.known[i] = i32[W_DR + i]!;
    }
    if (changed) this.core.tlb.flushAll();
  }

  /** True when a data breakpoint lies in the page of `va`. */
  inPage(vaLo: number, vaHi: number): boolean {
    const { i32 } = this.core;
    for (let n = 0; n < 4; n++) {
      if (!this.isOnData(n)) continue;
      if (i32[W_DR + 2 * n + 1] === vaHi && (i32[W_DR + 2 * n]! & ~0xfff) === (vaLo & ~0xfff)) return true;
    }
    return false;
  }

  /** The running instruction accesses `size` bytes at `va`: a breakpoint that is met traps after it. */
  accessed(vaLo: number, vaHi: number, size: number, access: number): void {
    const { i32 } = this.core;
    for (let n = 0; n < 4; n++) {
      if (!this.isOnData(n) || (access === ACCESS_READ && this.kind(n) === ON_WRITE)) continue;
      if (i32[W_DR + 2 * n + 1] !== vaHi) continue;
      const length = LENGTHS[(i32[W_DR7]! >>> (18 + 4 * n)) & 3]!;
      const start = (i32[W_DR + 2 * n]! & ~(length - 1)) >>> 0;
      const at = vaLo >>> 0;
      if (at < start + length && at + size > start) i32[BREAKPOINT_HITS_AT >> 2]! |= 1 << n;
    }
  }

  /** STATUS_EXCEPTION, a fault before the instruction at RIP, when a breakpoint is on it and neither RFLAGS.RF nor, on Intel, a load of SS holds it off. */
  onInstruction(): number {
    const core = this.core;
    const { i32 } = core;
    if (core.profile.vendor === 'intel' && (i32[INT_SHADOW_AT >> 2]! & SHADOW_STACK) !== 0) return STATUS_OK;
    const cs = core.segment(CS);
    const wide = core.mode64();
    const lo = wide ? i32[W_RIP]! : (i32[W_RIP]! + i32[cs]!) | 0;
    const hi = wide ? i32[W_RIP + 1]! : 0;
    let hits = 0;
    for (let n = 0; n < 4; n++) {
      if (!this.enabled(n) || this.kind(n) !== ON_EXECUTE) continue;
      if (i32[W_DR + 2 * n] === lo && i32[W_DR + 2 * n + 1] === hi) hits |= 1 << n;
    }
    if (hits === 0 || (core.flags() & RFLAGS_RF) !== 0) return STATUS_OK;
    i32[W_DR6] = (i32[W_DR6]! & ~0xf) | hits;
    return core.raise(DB_VECTOR);
  }
}
