/**
 * The one layout of the processor's state in linear memory. TypeScript views, generated code and captures all take their offsets
 * from here. Byte addresses; 64-bit fields are low half first.
 */

import { FRAME_WATCH } from '../host/physical-memory.ts';

export const STATE_BASE = 0x1000;

/** Sixteen general registers, 8 bytes each, in encoding order. */
export const GPR = STATE_BASE + 0x000;
export const RIP_AT = STATE_BASE + 0x080;
/**
 * RFLAGS without CF PF AF ZF SF OF, which live in the lazy-flags fields below. Read and written whole through the interpreter's
 * `readRflags` and `writeRflags`.
 */
export const RFLAGS_AT = STATE_BASE + 0x088;
/** Lazy flags: what the last flag-setting instruction was (its meaning belongs to src/cpu/semantics), and its operands. */
export const FLAGS_OP = STATE_BASE + 0x090; // u32
export const FLAGS_RES = STATE_BASE + 0x098; // u64
export const FLAGS_DST = STATE_BASE + 0x0a0; // u64
export const FLAGS_SRC = STATE_BASE + 0x0a8; // u64
/** A word that is always zero: the base or index register of an address that has none. */
export const ZERO_AT = STATE_BASE + 0x0b0; // u64
/** Segment (ES 0 CS 1 SS 2 DS 3 FS 4 GS 5) of the access that `translate`, `readCross` or `writeCross` is asked about: #SS or #GP. */
export const ACCESS_SEG_AT = STATE_BASE + 0x0b8; // u32
/** Bytes of the access that `translate` is asked about. */
export const ACCESS_SIZE_AT = STATE_BASE + 0x0bc; // u32

/** Eight segment registers ES CS SS DS FS GS TR LDTR, 32 bytes each. */
export const SEG = STATE_BASE + 0x100;
export const SEG_SIZE = 32;
export const SEG_BASE = 0; // u64
export const SEG_LIMIT = 8; // u32, in bytes, granularity applied
export const SEG_ATTR = 12; // u32, VMCB attribute format
export const SEG_SELECTOR = 16; // u32
export const GDTR_BASE = STATE_BASE + 0x200; // u64
export const GDTR_LIMIT = STATE_BASE + 0x208; // u32
export const IDTR_BASE = STATE_BASE + 0x210;
export const IDTR_LIMIT = STATE_BASE + 0x218;

export const CR0_AT = STATE_BASE + 0x220; // u64 each
export const CR2_AT = STATE_BASE + 0x228;
export const CR3_AT = STATE_BASE + 0x230;
export const CR4_AT = STATE_BASE + 0x238;
export const EFER_AT = STATE_BASE + 0x240;
export const CR8_AT = STATE_BASE + 0x248;
export const XCR0_AT = STATE_BASE + 0x250;
export const PKRU_AT = STATE_BASE + 0x258; // u32
export const CPL_AT = STATE_BASE + 0x25c; // u32
/** Default operation of CS for the decoder: 0 = 16-bit, 1 = 32-bit, 2 = 64-bit. Kept by whoever loads CS or EFER. */
export const CODE_MODE_AT = STATE_BASE + 0x260; // u32
/**
 * Which part of the TLB accesses use: 0 supervisor, 1 user, 2 supervisor with EFLAGS.AC exempting it from SMAP, 3 user with alignment
 * checks. The last one holds no data tags: every data access of such code comes to the port, which looks at its address.
 */
export const MMU_INDEX_AT = STATE_BASE + 0x264; // u32
export const MMU_ALIGNED_USER = 3;
/** Non-zero for one instruction after STI or a load of SS: SHADOW_*. */
export const INT_SHADOW_AT = STATE_BASE + 0x268; // u32
export const SHADOW_STI = 1;
/** Beside SHADOW_STACK or alone: the instruction in the shadow executes, so that one that casts a new shadow can be told. */
export const SHADOW_ACTIVE = 2;
/** A load of SS holds off debug traps as well. */
export const SHADOW_STACK = 4;
/** Non-zero: segment limits and types are not checked on data accesses (HardwareProfile.segmentChecks). */
export const SEGMENTS_UNCHECKED_AT = STATE_BASE + 0x26c; // u32
/** Breakpoints (bits 3:0) whose condition a data access has met; the trap follows the instruction. */
export const BREAKPOINT_HITS_AT = STATE_BASE + 0x270; // u32
/** QUIRK_*: what the manuals leave open, as the profile has it. */
export const QUIRKS_AT = STATE_BASE + 0x274; // u32
/** PUSHA writes the lowest address first. */
export const QUIRK_PUSHA_UPWARDS = 1;
/** MASKMOVQ and MASKMOVDQU reach their whole operand, whatever the mask. */
export const QUIRK_MASKMOV_REACHES_ALL = 2;
/** RIP at which RFLAGS.RF is still meant: past it the flag is off. u64. */
export const RF_RIP_AT = STATE_BASE + 0x278;
export const DR_AT = STATE_BASE + 0x280; // DR0..DR7, u64 each
export const STAR_AT = STATE_BASE + 0x2e0;
export const LSTAR_AT = STATE_BASE + 0x2e8;
export const CSTAR_AT = STATE_BASE + 0x2f0;
export const SFMASK_AT = STATE_BASE + 0x2f8;
export const KERNEL_GS_BASE_AT = STATE_BASE + 0x300;
export const SYSENTER_CS_AT = STATE_BASE + 0x308;
export const SYSENTER_ESP_AT = STATE_BASE + 0x310;
export const SYSENTER_EIP_AT = STATE_BASE + 0x318;
export const PAT_AT = STATE_BASE + 0x320;
export const DBGCTL_AT = STATE_BASE + 0x328;
export const TSC_OFFSET_AT = STATE_BASE + 0x330;
export const TSC_AUX_AT = STATE_BASE + 0x338;

/** PAE's four directory pointers as MOV to CR3 loaded them, u64 each; used by VMX with EPT only. */
export const PDPTR_AT = STATE_BASE + 0x340;

/** Retired instructions since the machine started, u64: virtual time. */
export const INSNS_AT = STATE_BASE + 0x360;
/** Instructions the interpreter may still retire before it returns STATUS_BUDGET, i32. */
export const BUDGET_AT = STATE_BASE + 0x368;
/** Low half of INSNS_AT when RFLAGS.RF was last set: it is over after a few instructions wherever they lead. u32 */
export const RF_SINCE_AT = STATE_BASE + 0x36c;

/**
 * Physical address of the map that says which ports exit, in SVM's form, when code at CPL 0 may go by it alone; 0: the port decides. And
 * whether an exit tells the address size.
 */
export const PORT_MAP_AT = STATE_BASE + 0x370; // u32
export const PORT_ADDRESS_SIZE_AT = STATE_BASE + 0x374; // u32

/**
 * Bits 31:12 of the linear address of the last access that a second level of paging refused, and bit 0: where a guest has a device, the next
 * access there ends in the same way. 0 for none.
 */
export const REFUSED_PAGE_AT = STATE_BASE + 0x378; // u32

/** What stopped an instruction: filled before STATUS_EXCEPTION is returned. */
export const FAULT_VECTOR = STATE_BASE + 0x380; // u32
export const FAULT_HAS_ERROR = STATE_BASE + 0x384; // u32
export const FAULT_ERROR = STATE_BASE + 0x388; // u32
export const FAULT_ADDRESS = STATE_BASE + 0x390; // u64, what CR2 gets when the exception is delivered
/** The pending #VMEXIT: filled before STATUS_EXIT is returned. */
export const EXIT_CODE_AT = STATE_BASE + 0x3a0; // u32 (low half; -1 fills both)
export const EXIT_INFO1_AT = STATE_BASE + 0x3a8; // u64
export const EXIT_INFO2_AT = STATE_BASE + 0x3b0; // u64
/** Length in bytes of the instruction being executed; RIP still points at it until it retires. */
export const INSN_LENGTH_AT = STATE_BASE + 0x3b8; // u32

/** Scratch that page-crossing accesses (of up to 32 bytes) and call-outs pass values through. */
export const SCRATCH = STATE_BASE + 0x3c0;

/** FPU and vector state: x87 and MMX registers (8 x 16), then XMM/YMM (16 x 32). */
export const FPU_CW_AT = STATE_BASE + 0x400; // u32 each
export const FPU_SW_AT = STATE_BASE + 0x404;
export const FPU_TAG_AT = STATE_BASE + 0x408;
export const MXCSR_AT = STATE_BASE + 0x40c;
export const FPU_REGS = STATE_BASE + 0x420;
export const XMM = STATE_BASE + 0x500;
export const XMM_SIZE = 32;
/** What generated code and the assists of src/cpu/floating pass each other: 256 bytes. */
export const ASSIST = STATE_BASE + 0x700;
export const STATE_END = STATE_BASE + 0x800;
/** Where generated code puts a YMM result together before it is known that there is no fault: 64 bytes, of no meaning between instructions. */
export const VECTOR_STAGE = STATE_BASE + 0x800;
/** Floating-point flags of the halves of an instruction on 256 bits, until they are acted on: u32, 0 for none. */
export const VECTOR_FLAGS_AT = STATE_BASE + 0x840;

/**
 * Translations of the frames that hold the guest's page tables (nested paging), of 16 bytes: guest frame (-1: none), host frame. They
 * live and die with the TLB. Direct-mapped by the low bits of the frame.
 */
export const TABLE_CACHE = STATE_BASE + 0x1000;
export const TABLE_CACHE_ENTRIES = 16;
/** Upper levels of the guest's walks, and of nested ones: src/cpu/mmu/walk-cache.ts. 16 bytes an entry. */
export const WALK_CACHE = STATE_BASE + 0x1100;
export const NESTED_WALK_CACHE = STATE_BASE + 0x1200;
export const WALK_CACHE_ENTRIES = 16;

/**
 * The TLB that generated code looks into: four MMU contexts (see MMU_INDEX_AT) of 1024 direct-mapped entries, indexed by bits
 * 21:12 of the linear address. A tag is the linear address of the page (low 12 bits 0) and never matches when it is TLB_NO_TAG.
 * The page is usable at once: all permissions are resolved, accessed and dirty bits set. A write tag is withheld for a page that
 * is not yet dirty or that holds translated code.
 */
export const TLB_BASE = 0x4000;
export const TLB_CONTEXTS = 4;
export const TLB_ENTRIES = 1024;
export const TLB_ENTRY_SIZE = 32;
export const TLB_READ_TAG = 0; // u64
export const TLB_WRITE_TAG = 8; // u64
export const TLB_CODE_TAG = 16; // u64
export const TLB_PAGE = 24; // u32, host physical address of the page
export const TLB_FLAGS = 28; // u32, bit 0: global
export const TLB_NO_TAG = 1;
export const TLB_END = TLB_BASE + TLB_CONTEXTS * TLB_ENTRIES * TLB_ENTRY_SIZE;

/**
 * Translations of the process-context identifiers that are not selected (src/cpu/mmu/pcid-store.ts): the selected one, where the next
 * goes, and entries of 40 bytes.
 */
export const PCID_STORE = TLB_END;
export const PCID_STORE_HEADER = 16;
export const PCID_STORE_ENTRIES = 1024;
export const PCID_STORE_ENTRY_SIZE = 40;
/** Captures copy what lies between STATE_BASE and here. */
export const CAPTURED_END = PCID_STORE + PCID_STORE_HEADER + PCID_STORE_ENTRIES * PCID_STORE_ENTRY_SIZE;

/**
 * Bookkeeping of the TLB and of walks that generated code shares with src/cpu/mmu. It follows from the rest of the state and from the
 * control block, so captures do without it.
 */
const BOOK = 0x30000;
/** Slots filled since the last flush, as indexes of 32-bit words; how many; and a byte for each slot: it is listed. */
export const TLB_USED = BOOK; // u32 each
export const TLB_LISTED = BOOK + 0x4000;
/** A byte for each stretch of 4 MiB, folded, that may have pieces of large pages. */
export const TLB_LARGE_AT = BOOK + 0x5000;
export const TLB_USED_COUNT_AT = BOOK + 0x5400; // u32
export const TLB_HAS_LARGE_AT = BOOK + 0x5404; // u32
/** Non-zero: something was inserted since the cache was last emptied. u32 each */
export const TABLE_CACHE_USED_AT = BOOK + 0x5408;
export const WALK_CACHE_USED_AT = BOOK + 0x540c;
export const NESTED_WALK_CACHE_USED_AT = BOOK + 0x5410;
/** Levels of the walks that the generated refill may do, 2 or 4; 0: none. u32 */
export const WALK_MODE_AT = BOOK + 0x5414;
/** Non-zero: data breakpoints watch every access. u32 */
export const WALK_BLOCKED_AT = BOOK + 0x5418;
/** WALK_ROLE_*: the control bits that such walks go by. u32 */
export const WALK_ROLE_AT = BOOK + 0x541c;
export const WALK_ROLE_WP = 1;
export const WALK_ROLE_SMAP = 2;
export const WALK_ROLE_PGE = 4;
export const WALK_ROLE_PSE = 8;
/** Upper levels of walks are remembered. */
export const WALK_ROLE_CACHES = 16;
/** Reserved bits in the high half of the guest's entries, and of nested ones. u32 each */
export const WALK_RSVD_HI_AT = BOOK + 0x5420;
export const NESTED_RSVD_HI_AT = BOOK + 0x5424;
/** Nested paging is on; the frame of its root; its levels. u32 each */
export const WALK_NESTED_AT = BOOK + 0x5428;
export const NESTED_ROOT_AT = BOOK + 0x542c;
export const NESTED_LEVELS_AT = BOOK + 0x5430;
/** Frames of memory. u32 */
export const FRAMES_AT = BOOK + 0x5434;
/** Non-zero: pieces of pages of 1 GiB may be in the TLB. u32 */
export const TLB_HAS_HUGE_AT = BOOK + 0x5438;
/** Exceptions, a bit a vector, that generated code may deliver: faults that the control block does not intercept. u32 */
export const QUICK_EXCEPTIONS_AT = BOOK + 0x543c;
/** QUICK_*: what else generated code may do by itself, since no intercept is in the way. u32 */
export const QUICK_AT = BOOK + 0x5440;
/** Reads of CR2, CR3 and CR8, each at the bit of its number; writes of CR8, where SVM's intercept is. */
export const QUICK_CR_READS = 0x10c;
export const QUICK_CR8_WRITE = 1 << 24;
export const QUICK_IRET = 1 << 16;
export const QUICK_INVLPG = 1 << 17;
/** SYSCALL and SYSRET. */
export const QUICK_FAST_CALLS = 1 << 18;
/** `Core.event`: non-zero while an event is under way. u32 */
export const EVENT_AT = BOOK + 0x5444;
/** Address of the reverse map's first entry (SEV-SNP), 0 when there is none. u32 */
export const RMP_AT = BOOK + 0x5448;

/** Of a guest with encrypted state: the processor's copy of its control block, with its registers; meaningless outside VMRUN. A page. */
export const VMSA_BLOCK = 0x38000;
/** Two pages for what is read of somebody else's page: its ciphertext. */
export const CIPHERTEXT = 0x39000;

/** Predecoded instruction records and their index; the layout inside belongs to src/cpu/decode. */
export const CODE_BASE = 0x40000;
export const CODE_END = FRAME_WATCH - 0x200000;
/** A byte for each frame: a code tag, or a write tag, of it may be in the TLB. */
export const FRAME_CODE = CODE_END;
export const FRAME_WRITE = CODE_END + 0x100000;
export { FRAME_WATCH };

/** What a handler, and `run`, return. */
export const STATUS_OK = 0;
/** A guest exception: FAULT_*; the instruction left no trace. */
export const STATUS_EXCEPTION = 1;
/** A #VMEXIT: EXIT_*; RIP is where the architecture says. */
export const STATUS_EXIT = 2;
/** BUDGET_AT ran out between instructions. */
export const STATUS_BUDGET = 3;
/** Ended a block: mode, CS or translation changed; look things up again. Only inside the interpreter. */
export const STATUS_RELOAD = 4;
/** The same, and whether a single-step trap follows is decided by TF as it is now: SYSCALL, SYSRET. Only inside the interpreter. */
export const STATUS_RELOAD_TF = 10;

/** Accesses, as the processor's memory port takes them. */
export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_FETCH = 2;
/** Read-modify-write: reads that need write permission first. */
export const ACCESS_RMW = 3;

/**
 * What the interpreter and generated code call for everything that is not a TLB hit or plain computation. Implemented by
 * src/cpu/system.
 */
export interface SystemPort {
  /**
   * Translates for `access` at the current privilege, fills the TLB, and answers with the host physical address of the byte, or -1
   * after filling FAULT_* (return STATUS_EXCEPTION) or EXIT_* (return STATUS_EXIT); `lastStatus()` says which.
   * Write accesses to a watched frame drop its code before they answer.
   */
  translate(vaLo: number, vaHi: number, access: number): number;
  /**
   * The same for a data access of compiled code, which goes on with what follows in its region; -2 when it cannot, or when the access
   * needs more than the translation: the interpreter executes the instruction, as if nothing had been asked.
   */
  reach(vaLo: number, vaHi: number, access: number): number;
  /** Reads `size` (2..32) bytes that cross a page into SCRATCH; a STATUS. */
  readCross(vaLo: number, vaHi: number, size: number, access: number): number;
  /** Writes `size` bytes from SCRATCH across a page: both pages are translated before a byte is written; a STATUS. */
  writeCross(vaLo: number, vaHi: number, size: number): number;
  /** Asked before an instruction while DR7 enables breakpoints: STATUS_EXCEPTION when one is on it, else STATUS_OK. */
  breakpoint(): number;
  /** The status that goes with a -1 of `translate`. */
  lastStatus(): number;
  /**
   * Executes an instruction that the emitters leave to TypeScript (descriptor tables, control and debug registers, MSRs, far
   * transfers, ports, CPUID, ...). `op` is its SYS_ number from src/cpu/system-ops.ts, `record` the address of its decoded record.
   * A STATUS; on OK the interpreter advances RIP unless the port moved it (then STATUS_RELOAD).
   */
  system(op: number, record: number): number;
}
