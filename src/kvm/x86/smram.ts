/** The state-save area at SMBASE + 0xfe00: 512 bytes, in AMD64's layout or in the 32-bit one (@kvm smm.h, @apm 10.2.3). */
export const SMRAM_BYTES = 512;
/** Where it is from SMBASE, and where SMM code starts. */
export const SMRAM_OFFSET = 0xfe00;
export const SMM_ENTRY = 0x8000;

/** AMD64: a segment is selector (2), attributes (2), limit (4), base (8), 16 bytes from its number on. */
export const SMRAM64 = {
  segments: { es: 0x00, cs: 0x10, ss: 0x20, ds: 0x30, fs: 0x40, gs: 0x50, ldtr: 0x70, tr: 0x90 },
  gdtr: 0x60,
  idtr: 0x80,
  intShadow: 0xcb,
  efer: 0xd0,
  /** In guest mode when the SMI came (32 bits), and where L1's VMCB for L2 is (64 bits). */
  svmGuestFlag: 0xd8,
  svmGuestVmcbGpa: 0xe0,
  revision: 0xfc,
  smbase: 0x100,
  cr4: 0x148,
  cr3: 0x150,
  cr0: 0x158,
  dr7: 0x160,
  dr6: 0x168,
  rflags: 0x170,
  rip: 0x178,
  /** R15 first, RAX last. */
  gprs: 0x180,
} as const;
export const SMM_REVISION_64 = 0x00020064;

/** 32-bit: a segment is flags (4), limit (4), base (4); selectors stand apart. */
export const SMRAM32 = {
  smbase: 0xf8,
  revision: 0xfc,
  cr4: 0x114,
  intShadow: 0x11a,
  segments: { ds: 0x12c, fs: 0x138, gs: 0x144, tr: 0x15c, ldtr: 0x178, es: 0x184, cs: 0x190, ss: 0x19c },
  selectors: { es: 0x1a8, cs: 0x1ac, ss: 0x1b0, ds: 0x1b4, fs: 0x1b8, gs: 0x1bc, ldtr: 0x1c0, tr: 0x1c4 },
  idtr: 0x150,
  gdtr: 0x16c,
  dr7: 0x1c8,
  dr6: 0x1cc,
  /** EAX first, EDI last. */
  gprs: 0x1d0,
  eip: 0x1f0,
  eflags: 0x1f4,
  cr3: 0x1f8,
  cr0: 0x1fc,
} as const;
export const SMM_REVISION_32 = 0x00020000;
