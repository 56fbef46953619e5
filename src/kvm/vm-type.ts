/** Types of VM that KVM_CREATE_VM knows (@kvm uapi/asm/kvm.h). */

export const KVM_X86_DEFAULT_VM = 0;
/** Memory can be private; SMM and shadow paging cannot be had. */
export const KVM_X86_SW_PROTECTED_VM = 1;
/** AMD's SEV-SNP: memory is private where the guest's C-bit says so. */
export const KVM_X86_SNP_VM = 4;
/** Intel's TDX: memory is private unless the shared bit of the guest-physical address says otherwise. */
export const KVM_X86_TDX_VM = 5;
