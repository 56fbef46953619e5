/** Everything one emulated instruction knows (@kvm kvm_emulate.h struct x86_emulate_ctxt). One per vCPU, reused for every instruction. */
import { notImplemented, type Opcode } from './opcode.ts';
import { Operand } from './operand.ts';
import { type SegmentDesc, type X86EmulateOps, X86Exception } from './ops.ts';

/** Execution mode; the order matters, as code compares with `<`. */
export const X86EMUL_MODE_REAL = 0;
export const X86EMUL_MODE_VM86 = 1;
export const X86EMUL_MODE_PROT16 = 2;
export const X86EMUL_MODE_PROT32 = 3;
export const X86EMUL_MODE_PROT64 = 4;

/** Verdict on a whole instruction. */
export const EMULATION_FAILED = -1;
export const EMULATION_OK = 0;
export const EMULATION_RESTART = 1;
export const EMULATION_INTERCEPTED = 2;

/** The shadow that STI or a load of SS casts over the next instruction, in `interruptibility`. */
export const SHADOW_INT_MOV_SS = 1;
export const SHADOW_INT_STI = 2;

/** Longest instruction, in bytes. */
export const MAX_INSN_BYTES = 15;

/** A step of emulation: X86EMUL_CONTINUE or why it stopped. */
export type Handler = (ctxt: EmulateCtxt) => number;

/** Instruction bytes: `ptr` is the next one to decode, `end` the first one that was not fetched; both are offsets into `data`. */
export class FetchCache {
  readonly data = new Uint8Array(MAX_INSN_BYTES);
  ptr = 0;
  end = 0;
}

/** What an instruction read, so that running it again after an exit sees the same values: offsets into `data`. */
export class ReadCache {
  readonly data = new Uint8Array(1024);
  pos = 0;
  end = 0;
}

/** A segment with nothing in it. */
export function emptySegment(): SegmentDesc {
  return { selector: 0, baseLo: 0, baseHi: 0, limit: 0, type: 0, s: 0, dpl: 0, p: 0, avl: 0, l: 0, db: 0, g: 0 };
}

export class EmulateCtxt {
  readonly ops: X86EmulateOps;
  /** Whatever `ops` needs to find its vCPU; the emulator does not look at it. */
  readonly vcpu: unknown;

  // State before the instruction, set by the caller; after EMULATION_OK, the state to commit.
  eflags = 0;
  /** Address of the instruction; advanced when it completes. */
  eipLo = 0;
  eipHi = 0;
  mode = X86EMUL_MODE_REAL;
  /** SHADOW_INT_* that the instruction leaves behind. */
  interruptibility = 0;
  /** An I/O permission check was passed and need not be repeated. */
  permOk = false;
  /** RFLAGS.TF before the instruction (after it, for SYSCALL). */
  tf = false;
  haveException = false;
  readonly exception = new X86Exception();
  /** The faulting gpa, when the exit told it. */
  gpaAvailable = false;
  gpaVal = 0;

  // What decoding found.
  opcodeLen = 0;
  /** Last opcode byte. */
  b = 0;
  /** X86_INTERCEPT_*. */
  intercept = 0;
  opBytes = 0;
  adBytes = 0;
  execute: Handler | null = null;
  checkPerm: Handler | null = null;
  /** The row of the opcode table. */
  row: Opcode = notImplemented;
  ripRelative = false;
  /** An operand-size prefix, a segment prefix was there. */
  opPrefix = false;
  hasSegOverride = false;
  rexPrefix = 0;
  lockPrefix = 0;
  /** 0, 0xf2 or 0xf3. */
  repPrefix = 0;
  modrm = 0;
  modrmMod = 0;
  modrmReg = 0;
  modrmRm = 0;
  modrmSeg = 0;
  segOverride = 0;
  /** Flags of the opcode (opcode.ts), and the kinds of its three operands. */
  d = 0;
  dDst = 0;
  dSrc = 0;
  dSrc2 = 0;
  isBranch = false;
  /** Address of the next instruction byte; the next instruction once decoding is done. */
  nextEipLo = 0;
  nextEipHi = 0;
  readonly src = new Operand();
  readonly src2 = new Operand();
  readonly dst = new Operand();
  readonly memop = new Operand();
  /** The operand that took `memop`, or null. */
  memopp: Operand | null = null;

  // General registers: halves, low at 2 * nr; which are loaded, and which were changed.
  readonly regs = new Int32Array(32);
  readonly regs8 = new Uint8Array(this.regs.buffer);
  readonly regs16 = new Uint16Array(this.regs.buffer);
  regsValid = 0;
  regsDirty = 0;

  readonly fetch = new FetchCache();
  readonly ioRead = new ReadCache();
  readonly memRead = new ReadCache();

  // Where callbacks and address arithmetic leave 64-bit results.
  readonly segBase = new Int32Array(2);
  readonly io64 = new Int32Array(2);
  linearLo = 0;
  linearHi = 0;
  /** Bytes from the linear address to the end of its segment, at most 2^32 - 1. */
  maxSize = 0;
  /** The last immediate or displacement fetched, sign-extended. */
  immLo = 0;
  immHi = 0;
  /** Scratch for segments and small transfers, so that nothing is allocated. */
  readonly seg = emptySegment();
  readonly newSeg = emptySegment();
  readonly oldSeg = emptySegment();
  readonly bytes = new Uint8Array(16);
  readonly bytes32 = new Int32Array(this.bytes.buffer);

  constructor(ops: X86EmulateOps, vcpu: unknown = null) {
    this.ops = ops;
    this.vcpu = vcpu;
  }
}
