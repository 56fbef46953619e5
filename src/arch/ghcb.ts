/**
 * The guest-hypervisor communication block and the protocol of its MSR (AMD document 56421, version 2). Offsets in bytes from the block's start; the
 * registers are where a VMSA has them.
 */
export const GHCB_CPL = 0x0cb; // byte
export const GHCB_RAX = 0x1f8;
export const GHCB_RCX = 0x308;
export const GHCB_RDX = 0x310;
export const GHCB_RBX = 0x318;
export const GHCB_RSI = 0x330;
export const GHCB_SW_EXIT_CODE = 0x390;
export const GHCB_SW_EXIT_INFO_1 = 0x398;
export const GHCB_SW_EXIT_INFO_2 = 0x3a0;
export const GHCB_SW_SCRATCH = 0x3a8;
export const GHCB_XCR0 = 0x3e8;
/** 16 bytes, a bit for each eight bytes of what is before. */
export const GHCB_VALID_BITMAP = 0x3f0;
export const GHCB_SHARED_BUFFER = 0x800;
export const GHCB_SHARED_BUFFER_END = 0xff0;
export const GHCB_USAGE = 0xffc; // u32

/** Events beyond the codes of #VMEXIT: low half; the high half is 0. */
export const SVM_VMGEXIT_MMIO_READ = 0x80000001 | 0;
export const SVM_VMGEXIT_MMIO_WRITE = 0x80000002 | 0;
export const SVM_VMGEXIT_NMI_COMPLETE = 0x80000003 | 0;
export const SVM_VMGEXIT_AP_HLT_LOOP = 0x80000004 | 0;
export const SVM_VMGEXIT_AP_JUMP_TABLE = 0x80000005 | 0;
export const SVM_VMGEXIT_PSC = 0x80000010 | 0;
export const SVM_VMGEXIT_GUEST_REQUEST = 0x80000011 | 0;
export const SVM_VMGEXIT_EXT_GUEST_REQUEST = 0x80000012 | 0;
export const SVM_VMGEXIT_AP_CREATION = 0x80000013 | 0;
export const SVM_VMGEXIT_HV_FEATURES = 0x8000fffd | 0;
export const SVM_VMGEXIT_TERM_REQUEST = 0x8000fffe | 0;
export const SVM_VMGEXIT_UNSUPPORTED_EVENT = 0x8000ffff | 0;

/** AP creation: low half of SW_EXITINFO1. */
export const SVM_VMGEXIT_AP_CREATE_ON_INIT = 0;
export const SVM_VMGEXIT_AP_CREATE = 1;
export const SVM_VMGEXIT_AP_DESTROY = 2;

/** SW_EXITINFO2 when the low half of SW_EXITINFO1 is 2. */
export const GHCB_ERR_INVALID_USAGE = 2;
export const GHCB_ERR_INVALID_SCRATCH_AREA = 3;
export const GHCB_ERR_MISSING_INPUT = 4;
export const GHCB_ERR_INVALID_INPUT = 5;
export const GHCB_ERR_INVALID_EVENT = 6;

/** The MSR's low 12 bits. */
export const GHCB_MSR_SEV_INFO_RESP = 0x001;
export const GHCB_MSR_SEV_INFO_REQ = 0x002;
export const GHCB_MSR_CPUID_REQ = 0x004;
export const GHCB_MSR_CPUID_RESP = 0x005;
export const GHCB_MSR_PREF_GPA_REQ = 0x010;
export const GHCB_MSR_PREF_GPA_RESP = 0x011;
export const GHCB_MSR_REG_GPA_REQ = 0x012;
export const GHCB_MSR_REG_GPA_RESP = 0x013;
export const GHCB_MSR_PSC_REQ = 0x014;
export const GHCB_MSR_PSC_RESP = 0x015;
export const GHCB_MSR_HV_FT_REQ = 0x080;
export const GHCB_MSR_HV_FT_RESP = 0x081;
export const GHCB_MSR_TERM_REQ = 0x100;

/** Page-state changes. */
export const PSC_PRIVATE = 1;
export const PSC_SHARED = 2;
/** Error in SW_EXITINFO2: high and low half. */
export const PSC_ERROR_GENERIC_HI = 0x100;
export const PSC_ERROR_INVALID_HI = 1;
export const PSC_ERROR_INVALID_HEADER = 1;
export const PSC_ERROR_INVALID_ENTRY = 2;
export const PSC_MAX_ENTRIES = 253;

/** What a hypervisor has: SNP and creation of APs. */
export const GHCB_HV_FT_SNP = 1 << 0;
export const GHCB_HV_FT_SNP_AP_CREATION = 1 << 1;
