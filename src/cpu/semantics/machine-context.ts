/** A context for instructions that need more than operand values: memory, the stack, RIP, vector registers. */
import type { I32, I64 } from '../wasm/code.ts';
import type { Local32, Local64 } from '../wasm/function.ts';
import { Context } from './context.ts';

export abstract class MachineContext extends Context {
  /** Known to run in 64-bit mode, without a segment base on its memory operand. */
  abstract readonly flat: boolean;
  /** Offset of the memory operand in its segment, truncated to the address size. */
  abstract offset(): I64;
  /**
   * A host pointer to `size` bytes of the memory operand, displaced by `delta`; the instruction ends here when that faults. Bytes that
   * cross a page are in SCRATCH, and a write to them is completed by `finish`.
   */
  abstract pointer(size: number, access: number, delta?: I64): Local32;
  /** Completes writes through the last `pointer`. Can fault. */
  abstract finish(): void;
  /** Refuses a memory operand that is not aligned to `size` bytes with #GP(0), after what its segment says of the access. */
  abstract requireAligned(size: number, access?: number): void;
  abstract immediate(): I64;
  abstract immediate2(): I32;
  /** The shift of the memory operand's index. */
  abstract scale(): I64;
  /** Address of this instruction, and of the following one. */
  abstract rip(): I64;
  abstract nextRip(): I64;
  /** Ends the instruction at the relative target. */
  abstract jumpRelative(): void;
  /** Ends the instruction at `target`, truncated to the operand size. */
  abstract jump(target: I64): void;
  /** Where the relative branch goes, truncated. */
  abstract relativeTarget(): I64;
  /** `count` of the address size: rCX for LOOP and JrCXZ. */
  abstract addressMask(): I64;
  abstract sp(): I64;
  abstract setSp(value: I64): void;
  /** Writes, reads `size` bytes at stack pointer `sp`. Can fault. */
  abstract stackWrite(sp: I64, value: I64, size: number): void;
  abstract stackRead(sp: I64, size: number): Local64;
  /** Address of vector register operand `index`: 32 bytes (YMM, XMM) or 16, of which MMX has 8. */
  abstract vector(index: number): I32;
  /** Bytes of a register in the file of operand `index`: 32 for YMM, 16 for XMM, 8 for MMX. */
  abstract vectorBytes(index: number): number;
  /** Has TypeScript do `operation` (src/cpu/floating/assist.ts); the instruction ends here when that is an exception. */
  abstract assist(operation: number, argument: I32): void;
  /** Whether what a VEX encoding requires has been checked, and alignment does not matter: see vex.ts. */
  readonly isVex: boolean = false;
  /** The handler's record. */
  abstract readonly record: I32;
}

/** The meaning of an instruction that touches the machine. */
export type MachineEmitter = (c: MachineContext) => void;
