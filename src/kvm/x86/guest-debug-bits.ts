/** Bits of KVM_SET_GUEST_DEBUG's control word (@kvm uapi/asm/kvm.h KVM_GUESTDBG_*). */

export const KVM_GUESTDBG_ENABLE = 1 << 0;
export const KVM_GUESTDBG_SINGLESTEP = 1 << 1;
export const KVM_GUESTDBG_USE_SW_BP = 1 << 16;
export const KVM_GUESTDBG_USE_HW_BP = 1 << 17;
export const KVM_GUESTDBG_INJECT_DB = 1 << 18;
export const KVM_GUESTDBG_INJECT_BP = 1 << 19;
export const KVM_GUESTDBG_BLOCKIRQ = 1 << 20;
