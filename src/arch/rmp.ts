/**
 * The reverse map of SEV-SNP: one entry of 16 bytes for each frame of physical memory, in the format of the family-25 processors
 * (Processor Programming Reference, model 01h), behind 16 KiB that the processor keeps for itself. Words of 32 bits. Where VMPL permissions
 * are is not published: here they are the third word, a byte a level.
 */

/** Bytes before the first entry. */
export const RMP_BOOKKEEPING = 0x4000;
export const RMP_ENTRY_SIZE = 16;

// Word 0; bits 31:12 are the guest frame's low 20 bits.
export const RMP_ASSIGNED = 1 << 0;
/** The entry stands for 2 MiB; every entry of the stretch says so here. */
export const RMP_2M = 1 << 1;
export const RMP_IMMUTABLE = 1 << 2;
export const RMP_GFN_LO_SHIFT = 12;

// Word 1.
export const RMP_GFN_HI_MASK = 0x7ffff;
export const RMP_ASID_SHIFT = 19;
export const RMP_ASID_MASK = 0x3ff;
export const RMP_VMSA = 1 << 29;
export const RMP_VALIDATED = 1 << 30;

/** Of a permission byte (@apm 15.36.7). */
export const VMPL_READ = 1 << 0;
export const VMPL_WRITE = 1 << 1;
export const VMPL_EXECUTE_USER = 1 << 2;
export const VMPL_EXECUTE_SUPERVISOR = 1 << 3;
export const VMPL_SUPERVISOR_SHADOW_STACK = 1 << 4;
export const VMPL_ALL = 0x1f;

/** What the instructions answer in EAX (@apm volume 3, PVALIDATE, RMPADJUST, RMPUPDATE, PSMASH). */
export const RMP_SUCCESS = 0;
export const RMP_FAIL_INPUT = 1;
export const RMP_FAIL_PERMISSION = 2;
export const RMP_FAIL_INUSE = 3;
/** RMPUPDATE: other page sizes are in the way. */
export const RMP_FAIL_OVERLAP = 4;
/** PVALIDATE, RMPADJUST: 2 MiB are wanted where nested tables or the reverse map have 4 KiB. */
export const RMP_FAIL_SIZEMISMATCH = 6;

/** Frames of a 2 MiB page. */
export const RMP_FRAMES_2M = 512;
