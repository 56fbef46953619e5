/** How an instruction is to be emulated (@kvm kvm_host.h EMULTYPE_*). */
/** Decoded before: go on with what the context holds. */
export const EMULTYPE_NO_DECODE = 1 << 0;
/** Emulation follows an intercepted #UD. */
export const EMULTYPE_TRAP_UD = 1 << 1;
/** Only move past the instruction. */
export const EMULTYPE_SKIP = 1 << 2;
/** A fault on a page that may be a shadowed page table: the instruction may be retried natively. */
export const EMULTYPE_ALLOW_RETRY_PF = 1 << 3;
/** #UD with the forced-emulation prefix. */
export const EMULTYPE_TRAP_UD_FORCED = 1 << 4;
/** #GP of a VMware backdoor port. */
export const EMULTYPE_VMWARE_GP = 1 << 5;
/** Emulation follows a page fault: the faulting address is known. */
export const EMULTYPE_PF = 1 << 6;
/** Completes an instruction that went to userspace. */
export const EMULTYPE_COMPLETE_USER_EXIT = 1 << 7;
/** The write hit a page table used to translate the write itself. */
export const EMULTYPE_WRITE_PF_TO_SP = 1 << 8;
/** Skips the soft interrupt whose vector is in bits 23:16, and nothing else. */
export const EMULTYPE_SKIP_SOFT_INT = 1 << 9;

/** @kvm kvm_host.h EMULTYPE_SET_SOFT_INT_VECTOR */
export function emultypeSetSoftIntVector(vector: number): number {
  return (vector & 0xff) << 16;
}

/** @kvm kvm_host.h EMULTYPE_GET_SOFT_INT_VECTOR */
export function emultypeGetSoftIntVector(type: number): number {
  return (type >>> 16) & 0xff;
}
