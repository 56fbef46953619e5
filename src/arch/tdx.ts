/**
 * The interface of the TDX module: leaves of SEAMCALL and TDCALL, status codes, operand ids (@tdx Intel TDX Module ABI, "Interface
 * Functions" and "Function Completion Status Codes"). A status is 64 bits: what happened in the upper half, the operand it happened to,
 * or an exit reason, in the lower. Here it is one number: the upper half times 2^16, plus the lower, which never needs more bits.
 */

// SEAMCALL: host to module.
export const TDH_VP_ENTER = 0;
export const TDH_MNG_ADDCX = 1;
export const TDH_MEM_PAGE_ADD = 2;
export const TDH_MEM_SEPT_ADD = 3;
export const TDH_VP_ADDCX = 4;
export const TDH_MEM_PAGE_AUG = 6;
export const TDH_MEM_RANGE_BLOCK = 7;
export const TDH_MNG_KEY_CONFIG = 8;
export const TDH_MNG_CREATE = 9;
export const TDH_VP_CREATE = 10;
export const TDH_MNG_RD = 11;
export const TDH_MR_EXTEND = 16;
export const TDH_MR_FINALIZE = 17;
export const TDH_VP_FLUSH = 18;
export const TDH_MNG_VPFLUSHDONE = 19;
export const TDH_MNG_KEY_FREEID = 20;
export const TDH_MNG_INIT = 21;
export const TDH_VP_INIT = 22;
export const TDH_PHYMEM_PAGE_RDMD = 24;
export const TDH_MEM_SEPT_RD = 25;
export const TDH_PHYMEM_PAGE_RECLAIM = 28;
export const TDH_MEM_PAGE_REMOVE = 29;
export const TDH_MEM_SEPT_REMOVE = 30;
export const TDH_SYS_INIT = 33;
export const TDH_MEM_TRACK = 38;
export const TDH_MEM_RANGE_UNBLOCK = 39;
export const TDH_PHYMEM_CACHE_WB = 40;
export const TDH_PHYMEM_PAGE_WBINVD = 41;
export const TDH_VP_WR = 43;

// TDCALL: guest to module.
export const TDG_VP_VMCALL = 0;
export const TDG_VP_INFO = 1;
export const TDG_MR_RTMR_EXTEND = 2;
export const TDG_VP_VEINFO_GET = 3;
export const TDG_MR_REPORT = 4;
export const TDG_MEM_PAGE_ACCEPT = 6;

// Upper halves of statuses.
export const TDX_SUCCESS = 0;
export const TDX_NON_RECOVERABLE_VCPU = 0x40000001;
export const TDX_NON_RECOVERABLE_TD = 0x40000002;
export const TDX_SEAMCALL_VMFAILINVALID = 0x8000ff00;
export const TDX_OPERAND_INVALID = 0xc0000100;
export const TDX_OPERAND_BUSY = 0x80000200;
export const TDX_PREVIOUS_TLB_EPOCH_BUSY = 0x80000201;
export const TDX_PAGE_METADATA_INCORRECT = 0xc0000300;
export const TDX_TD_ASSOCIATED_PAGES_EXIST = 0xc0000400;
export const TDX_SYS_INIT_NOT_PENDING = 0xc0000500;
export const TDX_SYS_NOT_READY = 0xc0000505;
export const TDX_TDCS_NOT_ALLOCATED = 0xc0000606;
export const TDX_LIFECYCLE_STATE_INCORRECT = 0xc0000607;
export const TDX_OP_STATE_INCORRECT = 0xc0000608;
export const TDX_TDCX_NUM_INCORRECT = 0xc0000610;
export const TDX_X2APIC_ID_NOT_UNIQUE = 0xc0000621;
export const TDX_VCPU_STATE_INCORRECT = 0xc0000700;
export const TDX_VCPU_ASSOCIATED = 0x80000701;
export const TDX_VCPU_NOT_ASSOCIATED = 0x80000702;
export const TDX_NO_VALID_VE_INFO = 0xc0000704;
export const TDX_MAX_VCPUS_EXCEEDED = 0xc0000705;
export const TDX_TD_KEYS_NOT_CONFIGURED = 0x80000810;
export const TDX_KEY_STATE_INCORRECT = 0xc0000811;
export const TDX_KEY_CONFIGURED = 0x00000815;
export const TDX_WBCACHE_NOT_COMPLETE = 0x80000817;
export const TDX_HKID_NOT_FREE = 0xc0000820;
export const TDX_NO_HKID_READY_TO_WBCACHE = 0x00000821;
export const TDX_FLUSHVP_NOT_DONE = 0x80000824;
export const TDX_EPT_WALK_FAILED = 0xc0000b00;
export const TDX_EPT_ENTRY_NOT_PRESENT = 0xc0000b03;
export const TDX_GPA_RANGE_NOT_BLOCKED = 0xc0000b06;
export const TDX_GPA_RANGE_ALREADY_BLOCKED = 0x00000b07;
export const TDX_TLB_TRACKING_NOT_DONE = 0xc0000b08;
export const TDX_PAGE_ALREADY_ACCEPTED = 0x00000b0a;
export const TDX_PAGE_SIZE_MISMATCH = 0xc0000b0b;
export const TDX_EPT_ENTRY_STATE_INCORRECT = 0xc0000b0d;
export const TDX_EPT_PAGE_NOT_FREE = 0xc0000b0e;
export const TDX_METADATA_FIELD_ID_INCORRECT = 0xc0000c00;
export const TDX_METADATA_FIELD_NOT_READABLE = 0xc0000c02;

// Operand ids.
export const OPERAND_ID_RAX = 0;
export const OPERAND_ID_RCX = 1;
export const OPERAND_ID_RDX = 2;
export const OPERAND_ID_R8 = 8;
export const OPERAND_ID_ATTRIBUTES = 64;
export const OPERAND_ID_XFAM = 65;
export const OPERAND_ID_EXEC_CONTROLS = 66;
export const OPERAND_ID_EPTP_CONTROLS = 67;
export const OPERAND_ID_MAX_VCPUS = 68;
export const OPERAND_ID_CPUID_CONFIG = 69;
export const OPERAND_ID_TDR = 128;
export const OPERAND_ID_TDVPR = 130;
export const OPERAND_ID_TDCS = 144;
export const OPERAND_ID_SEPT = 146;
export const OPERAND_ID_TD_EPOCH = 169;
export const OPERAND_ID_OP_STATE = 172;

const NAMES: ReadonlyMap<number, string> = new Map([
  [TDX_SUCCESS, 'TDX_SUCCESS'],
  [TDX_NON_RECOVERABLE_VCPU, 'TDX_NON_RECOVERABLE_VCPU'],
  [TDX_NON_RECOVERABLE_TD, 'TDX_NON_RECOVERABLE_TD'],
  [TDX_SEAMCALL_VMFAILINVALID, 'TDX_SEAMCALL_VMFAILINVALID'],
  [TDX_OPERAND_INVALID, 'TDX_OPERAND_INVALID'],
  [TDX_OPERAND_BUSY, 'TDX_OPERAND_BUSY'],
  [TDX_PREVIOUS_TLB_EPOCH_BUSY, 'TDX_PREVIOUS_TLB_EPOCH_BUSY'],
  [TDX_PAGE_METADATA_INCORRECT, 'TDX_PAGE_METADATA_INCORRECT'],
  [TDX_TD_ASSOCIATED_PAGES_EXIST, 'TDX_TD_ASSOCIATED_PAGES_EXIST'],
  [TDX_SYS_INIT_NOT_PENDING, 'TDX_SYS_INIT_NOT_PENDING'],
  [TDX_SYS_NOT_READY, 'TDX_SYS_NOT_READY'],
  [TDX_TDCS_NOT_ALLOCATED, 'TDX_TDCS_NOT_ALLOCATED'],
  [TDX_LIFECYCLE_STATE_INCORRECT, 'TDX_LIFECYCLE_STATE_INCORRECT'],
  [TDX_OP_STATE_INCORRECT, 'TDX_OP_STATE_INCORRECT'],
  [TDX_TDCX_NUM_INCORRECT, 'TDX_TDCX_NUM_INCORRECT'],
  [TDX_X2APIC_ID_NOT_UNIQUE, 'TDX_X2APIC_ID_NOT_UNIQUE'],
  [TDX_VCPU_STATE_INCORRECT, 'TDX_VCPU_STATE_INCORRECT'],
  [TDX_VCPU_ASSOCIATED, 'TDX_VCPU_ASSOCIATED'],
  [TDX_VCPU_NOT_ASSOCIATED, 'TDX_VCPU_NOT_ASSOCIATED'],
  [TDX_NO_VALID_VE_INFO, 'TDX_NO_VALID_VE_INFO'],
  [TDX_MAX_VCPUS_EXCEEDED, 'TDX_MAX_VCPUS_EXCEEDED'],
  [TDX_TD_KEYS_NOT_CONFIGURED, 'TDX_TD_KEYS_NOT_CONFIGURED'],
  [TDX_KEY_STATE_INCORRECT, 'TDX_KEY_STATE_INCORRECT'],
  [TDX_KEY_CONFIGURED, 'TDX_KEY_CONFIGURED'],
  [TDX_WBCACHE_NOT_COMPLETE, 'TDX_WBCACHE_NOT_COMPLETE'],
  [TDX_HKID_NOT_FREE, 'TDX_HKID_NOT_FREE'],
  [TDX_NO_HKID_READY_TO_WBCACHE, 'TDX_NO_HKID_READY_TO_WBCACHE'],
  [TDX_FLUSHVP_NOT_DONE, 'TDX_FLUSHVP_NOT_DONE'],
  [TDX_EPT_WALK_FAILED, 'TDX_EPT_WALK_FAILED'],
  [TDX_EPT_ENTRY_NOT_PRESENT, 'TDX_EPT_ENTRY_NOT_PRESENT'],
  [TDX_GPA_RANGE_NOT_BLOCKED, 'TDX_GPA_RANGE_NOT_BLOCKED'],
  [TDX_GPA_RANGE_ALREADY_BLOCKED, 'TDX_GPA_RANGE_ALREADY_BLOCKED'],
  [TDX_TLB_TRACKING_NOT_DONE, 'TDX_TLB_TRACKING_NOT_DONE'],
  [TDX_PAGE_ALREADY_ACCEPTED, 'TDX_PAGE_ALREADY_ACCEPTED'],
  [TDX_PAGE_SIZE_MISMATCH, 'TDX_PAGE_SIZE_MISMATCH'],
  [TDX_EPT_ENTRY_STATE_INCORRECT, 'TDX_EPT_ENTRY_STATE_INCORRECT'],
  [TDX_EPT_PAGE_NOT_FREE, 'TDX_EPT_PAGE_NOT_FREE'],
  [TDX_METADATA_FIELD_ID_INCORRECT, 'TDX_METADATA_FIELD_ID_INCORRECT'],
  [TDX_METADATA_FIELD_NOT_READABLE, 'TDX_METADATA_FIELD_NOT_READABLE'],
]);

/** The status of `code` (an upper half) for `detail`: an operand id or an exit reason. */
export function tdxStatus(code: number, detail = 0): number {
  return code * 0x10000 + detail;
}

/** The upper half of a status. */
export function tdxCode(status: number): number {
  return Math.floor(status / 0x10000);
}

/** The lower half of a status. */
export function tdxDetail(status: number): number {
  return status % 0x10000;
}

/** An error: bit 63. Warnings and successes are not. */
export function tdxIsError(status: number): boolean {
  return tdxCode(status) >= 0x80000000;
}

/** As the kernel prints it, with its name: `0xc000010000000001 (TDX_OPERAND_INVALID)`. */
export function tdxStatusText(status: number): string {
  const code = tdxCode(status);
  const hex = code.toString(16).padStart(8, '0') + tdxDetail(status).toString(16).padStart(8, '0');
  return `0x${hex.replace(/^0+(?=.)/, '')} (${NAMES.get(code) ?? 'no name'})`;
}

// Attributes of a TD, low half and high half.
export const TD_ATTR_DEBUG = 1 << 0;
export const TD_ATTR_SEPT_VE_DISABLE = 1 << 28;

/** Widest guest physical address with four levels of EPT: bit 47 says shared. */
export const GPAW_48 = 48;
/** Bits 35 of a frame number: the page is shared. */
export const SHARED_GFN_48 = 2 ** 35;

/** Levels of the secure EPT, as operands have them: 0 for 4 KiB. */
export const TDX_LEVEL_4K = 0;

/** Extended exit qualification of an EPT violation: bits 3:0. */
export const EXT_EXIT_QUAL_ACCEPT = 1;
export const EXT_EXIT_QUAL_PENDING = 6;

// TD_PARAMS, byte offsets: what TDH.MNG.INIT reads (1024 bytes).
export const TD_PARAMS_ATTRIBUTES = 0;
export const TD_PARAMS_XFAM = 8;
export const TD_PARAMS_MAX_VCPUS = 16;
export const TD_PARAMS_EPTP_CONTROLS = 24;
export const TD_PARAMS_CONFIG_FLAGS = 32;
export const TD_PARAMS_TSC_FREQUENCY = 40;
export const TD_PARAMS_MRCONFIGID = 80;
export const TD_PARAMS_MROWNER = 128;
export const TD_PARAMS_MROWNERCONFIG = 176;
export const TD_PARAMS_CPUID = 256;
export const TD_PARAMS_SIZE = 1024;
export const TDX_CONFIG_FLAGS_MAX_GPAW = 1 << 0;

/** Pages behind TDR, and behind TDVPR, that a TD and a vCPU of it need. */
export const TDCX_PAGES = 4;
export const TDVPX_PAGES = 5;

/** Chunk that TDH.MR.EXTEND measures, in bytes. */
export const TDX_EXTENDMR_CHUNKSIZE = 256;

// Subfunctions of TDG.VP.VMCALL (@tdx GHCI): the lower ones are exit reasons.
export const TDVMCALL_GET_TD_VM_CALL_INFO = 0x10000;
export const TDVMCALL_MAP_GPA = 0x10001;
export const TDVMCALL_GET_QUOTE = 0x10002;
export const TDVMCALL_REPORT_FATAL_ERROR = 0x10003;

// Their answers: low half, and whether bit 63 is set.
export const TDVMCALL_STATUS_SUCCESS = 0;
export const TDVMCALL_STATUS_RETRY = 1;
/** With bit 63. */
export const TDVMCALL_ERROR_HI = 0x80000000 | 0;
export const TDVMCALL_INVALID_OPERAND = 0;
export const TDVMCALL_ALIGN_ERROR = 2;
export const TDVMCALL_SUBFUNC_UNSUPPORTED = 3;

/** Upper half of the field id of the TD VMCS's SHARED_EPT_POINTER, as TDH.VP.WR takes it. */
export const VP_FIELD_SHARED_EPTP = 0x203c;
/** Upper half of the metadata field ids of CPUID_VALUES. */
export const MD_CPUID_VALUES_HI = 0x94100003;

/** Registers of a SEAMCALL that are operands and results: numbers below 2^53, except where a leaf says otherwise. */
export interface SeamArgs {
  rcx: number;
  rdx: number;
  r8: number;
  r9: number;
}
