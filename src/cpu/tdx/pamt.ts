/**
 * The physical address metadata table: what every frame is to the TDX module, and whose (@tdx base spec, "Physical Memory
 * Management"). The module alone reads and writes it, so it lies outside the machine's memory.
 */

/** Page types, as TDH.PHYMEM.PAGE.RDMD reports them. */
export const PT_NDA = 0;
export const PT_REG = 3;
export const PT_TDR = 4;
export const PT_TDCX = 5;
export const PT_TDVPR = 6;
export const PT_EPT = 8;

/** A copy of the table. */
export interface PamtState {
  readonly type: Uint8Array;
  readonly owner: Int32Array;
  readonly blockEpoch: Int32Array;
}

export class Pamt {
  readonly type: Uint8Array;
  /** Frame of the owner's TDR. */
  readonly owner: Int32Array;
  /** The TD's epoch when the page's range was blocked. */
  readonly blockEpoch: Int32Array;

  constructor(frames: number) {
    this.type = new Uint8Array(frames);
    this.owner = new Int32Array(frames);
    this.blockEpoch = new Int32Array(frames);
  }

  give(pfn: number, type: number, owner: number): void {
    this.type[pfn] = type;
    this.owner[pfn] = owner;
    this.blockEpoch[pfn] = 0;
  }

  /** The host's again. */
  free(pfn: number): void {
    this.type[pfn] = PT_NDA;
    this.owner[pfn] = 0;
  }

  /** The memory is a TD's or the module's: encrypted with a private key. */
  isPrivate(pfn: number): boolean {
    return this.type[pfn] !== PT_NDA;
  }

  capture(): PamtState {
    return { type: this.type.slice(), owner: this.owner.slice(), blockEpoch: this.blockEpoch.slice() };
  }

  restore(state: PamtState): void {
    this.type.set(state.type);
    this.owner.set(state.owner);
    this.blockEpoch.set(state.blockEpoch);
  }
}
