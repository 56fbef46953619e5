/** Numbers of the SEV-SNP firmware's interface (document 56860): statuses, and types of pages of a launch. */
export const SEV_RET_SUCCESS = 0;
export const SEV_RET_INVALID_GUEST_STATE = 0x02;
export const SEV_RET_INVALID_ADDRESS = 0x09;
export const SEV_RET_BAD_MEASUREMENT = 0x0b;
export const SEV_RET_ASID_OWNED = 0x0c;
export const SEV_RET_INVALID_ASID = 0x0d;
export const SEV_RET_INVALID_GUEST = 0x10;
export const SEV_RET_ACTIVE = 0x12;
export const SEV_RET_UNSUPPORTED = 0x15;
export const SEV_RET_INVALID_PARAM = 0x16;
export const SEV_RET_INVALID_PAGE_SIZE = 0x19;
export const SEV_RET_INVALID_PAGE_STATE = 0x1a;
export const SEV_RET_INVALID_PAGE_OWNER = 0x1c;

/** Types of SNP_LAUNCH_UPDATE. */
export const SNP_PAGE_TYPE_NORMAL = 1;
export const SNP_PAGE_TYPE_VMSA = 2;
export const SNP_PAGE_TYPE_ZERO = 3;
export const SNP_PAGE_TYPE_UNMEASURED = 4;
export const SNP_PAGE_TYPE_SECRETS = 5;
export const SNP_PAGE_TYPE_CPUID = 6;

/** Frame that VMSAs are measured at: guest-physical 0xfffffffff000. */
export const INITIAL_VMSA_GFN = 0xf_ffff_ffff;
