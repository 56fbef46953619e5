/**
 * The save area of a guest with encrypted state (@apm table B-4): a page of its own, whose first part has the layout of the control block's save
 * area. Offsets in bytes from the page's start.
 */
export const VMSA_VMPL = 0x0ca; // byte
export const VMSA_CPL = 0x0cb; // byte
export const VMSA_EFER = 0x0d0;
export const VMSA_XSS = 0x140;
export const VMSA_CR4 = 0x148;
export const VMSA_CR0 = 0x158;
export const VMSA_RFLAGS = 0x170;
export const VMSA_RIP = 0x178;
export const VMSA_G_PAT = 0x268;
export const VMSA_PKRU = 0x2e8; // u32
export const VMSA_TSC_AUX = 0x2ec; // u32
export const VMSA_TSC_OFFSET = 0x2f8;
/** RCX, RDX, RBX, then (behind 8 bytes) RBP, RSI, RDI and R8 to R15. */
export const VMSA_RCX = 0x308;
export const VMSA_RDX = 0x310;
export const VMSA_RBX = 0x318;
export const VMSA_RBP = 0x328;
export const VMSA_RSI = 0x330;
export const VMSA_RDI = 0x338;
export const VMSA_R8 = 0x340;
export const VMSA_EXIT_INFO_1 = 0x390;
export const VMSA_EXIT_INFO_2 = 0x398;
export const VMSA_EXIT_INT_INFO = 0x3a0;
export const VMSA_NRIP = 0x3a8;
export const VMSA_SEV_FEATURES = 0x3b0;
export const VMSA_EXIT_CODE = 0x3c0;
export const VMSA_XCR0 = 0x3e8;
export const VMSA_X87_DP = 0x400;
export const VMSA_MXCSR = 0x408; // u32
export const VMSA_X87_FTW = 0x40c; // u16 each
export const VMSA_X87_FSW = 0x40e;
export const VMSA_X87_FCW = 0x410;
/** Bytes 0 to 7 of the eight registers, then bytes 8 and 9. */
export const VMSA_X87 = 0x420;
/** The lower, and the upper, halves of the sixteen YMM registers. */
export const VMSA_XMM = 0x470;
export const VMSA_YMM = 0x570;

/** General registers that have no place in the control block's save area: number and offset. */
export const VMSA_GPRS: readonly (readonly [number, number])[] = [
  [1, VMSA_RCX],
  [2, VMSA_RDX],
  [3, VMSA_RBX],
  [5, VMSA_RBP],
  [6, VMSA_RSI],
  [7, VMSA_RDI],
  ...Array.from({ length: 8 }, (_, i) => [8 + i, VMSA_R8 + i * 8] as const),
];

/** SEV_FEATURES. */
export const SEV_FEATURE_SNP_ACTIVE = 1 << 0;
export const SEV_FEATURE_DEBUG_SWAP = 1 << 5;
