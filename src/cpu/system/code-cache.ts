/** The door from the system side to the interpreter and its translated code. */
import type { VmcsSwitch } from '../interpreter/state-switch-vmcs.ts';

/** The part of the interpreter that the system side calls. */
export interface CodeCache {
  /** How often translated code was dropped. */
  readonly invalidations: number;
  /** Translated code of frame `pfn` is about to change. */
  invalidateCode(pfn: number): void;
  readRflags(): number;
  writeRflags(value: number): void;
  /** The bulk of what VMRUN loads from, and #VMEXIT stores to, the control block at physical address `vmcbPa`. */
  loadGuest(vmcbPa: number): number;
  storeGuest(vmcbPa: number, intCtl: number, event: number, eventError: number): void;
  /** The same for a VMCS. */
  readonly vmcs: VmcsSwitch;
  /** Copies the 15 bytes at physical address `from` to `to`. */
  copyInstruction(to: number, from: number): void;
  /** Bytes of the instruction at RIP, 0 when it cannot be fetched. */
  instructionLength(): number;
}

/** Of a processor that has run nothing yet. */
export const NO_CODE: CodeCache = {
  invalidations: 0,
  invalidateCode() {},
  readRflags: () => 2,
  writeRflags() {},
  loadGuest: () => 1,
  storeGuest() {},
  vmcs: { known: () => 0, remember() {}, load() {}, store() {} },
  copyInstruction() {},
  instructionLength: () => 0,
};
