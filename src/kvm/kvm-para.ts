/** What a guest and KVM say to each other in a hypercall: numbers, and errnos of their own (@kvm uapi/linux/kvm_para.h KVM_HC_*). */
export const KVM_HC_VAPIC_POLL_IRQ = 1;
export const KVM_HC_KICK_CPU = 5;
export const KVM_HC_SEND_IPI = 10;
export const KVM_HC_SCHED_YIELD = 11;
export const KVM_HC_MAP_GPA_RANGE = 12;
export const KVM_EPERM = 1;
export const KVM_EINVAL = 22;
export const KVM_ENOSYS = 1000;
