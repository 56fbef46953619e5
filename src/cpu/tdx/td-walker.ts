/**
 * The second level of a TD's address translation: the shared bit of the guest physical address chooses between the secure EPT and the
 * shared one, both walked by the processor's EPT walker (@tdx base spec, "Guest Physical Address Translation"). It takes the place of
 * that walker while a TD runs, so that other guests pay nothing for it.
 */
import { SHARED_GFN_48 } from '../../arch/tdx.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { EptWalker } from '../mmu/ept-walker.ts';
import type { SecondWalker } from '../mmu/second-walker.ts';

export class TdWalker implements SecondWalker {
  private readonly ept: EptWalker;
  private readonly i32: Int32Array;
  /** Root of the secure EPT. */
  rootPfn = 0;
  /** Root of the shared EPT, -1 until the host gives one. */
  sharedRoot = -1;
  pfn = 0;
  readable = false;
  writable = false;
  executable = false;
  error = 0;
  errorHi = 0;

  constructor(ept: EptWalker, memory: PhysicalMemory) {
    this.ept = ept;
    this.i32 = memory.i32;
  }

  get dry(): boolean {
    return this.ept.dry;
  }

  set dry(value: boolean) {
    this.ept.dry = value;
  }

  walk(gfn: number, write: boolean, fetch: boolean): boolean {
    const { ept } = this;
    const shared = gfn >= SHARED_GFN_48;
    if (shared && this.sharedRoot < 0) {
      ept.error = 0;
      return false;
    }
    ept.rootPfn = shared ? this.sharedRoot : this.rootPfn;
    if (!ept.walk(gfn, write, fetch)) return false;
    this.pfn = ept.pfn;
    this.readable = ept.readable;
    this.writable = ept.writable;
    // Code is fetched from private memory alone.
    this.executable = ept.executable && !shared;
    return !(fetch && shared) || this.refuse();
  }

  /** A fetch from shared memory: the entry's rights do not matter. */
  private refuse(): boolean {
    this.ept.error = 0;
    return false;
  }

  blameFinal(write: boolean, fetch: boolean, linear: number): void {
    this.ept.blameFinal(write, fetch, linear);
    this.takeBlame();
  }

  get tablesAreWrites(): boolean {
    return this.ept.tablesAreWrites;
  }

  blameTable(write: boolean): void {
    this.ept.blameTable(write);
    this.takeBlame();
  }

  private takeBlame(): void {
    this.error = this.ept.error;
    this.errorHi = this.ept.errorHi;
  }

  /**
   * Whether the entry of the shared EPT that a walk for `gfn` ends on suppresses #VE: bit 63 (@sdm 27.5.7.1). Asked after a violation.
   */
  suppressesVe(gfn: number): boolean {
    if (this.sharedRoot < 0) return true;
    let table = this.sharedRoot;
    for (let level = 3; ; level--) {
      const word = (table << 10) | ((Math.floor(gfn / 512 ** level) % 512) << 1);
      const lo = this.i32[word]!;
      const hi = this.i32[word + 1]!;
      if ((lo & 7) === 0 || level === 0 || (lo & 0x80) !== 0) return hi < 0;
      table = (hi & 0xfffff) * 0x100000 + (lo >>> 12);
    }
  }
}
