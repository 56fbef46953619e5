/** Types of VM that KVM_CREATE_VM knows (@kvm uapi/asm/kvm.h). */

export const KVM_X86_DEFAULT_VM = 0;
/** Memory can be private; SMM and shadow paging cannot be had. */
export const KVM_X86_SW_PROTECTED_VM = 1;
/** Memory is private where the guest's C-bit says so. No SNP hardware is modelled: only the fault path knows the type, KVM_CREATE_VM refuses it. */
export const KVM_X86_SNP_VM = 4;
