/** Numbers of the MSRs that KVM knows by name: the processor's, and those that KVM makes up for its guests. */
export * from '../../arch/msr.ts';

/** @kvm uapi/asm/kvm_para.h MSR_KVM_* */
export const MSR_KVM_WALL_CLOCK = 0x11;
export const MSR_KVM_SYSTEM_TIME = 0x12;
export const MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00;
export const MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01;
export const MSR_KVM_ASYNC_PF_EN = 0x4b564d02;
export const MSR_KVM_STEAL_TIME = 0x4b564d03;
export const MSR_KVM_PV_EOI_EN = 0x4b564d04;
export const MSR_KVM_POLL_CONTROL = 0x4b564d05;
export const MSR_KVM_ASYNC_PF_INT = 0x4b564d06;
export const MSR_KVM_ASYNC_PF_ACK = 0x4b564d07;

/** What getting or setting an MSR answers when KVM does not know it. */
export const KVM_MSR_RET_UNSUPPORTED = 2;
