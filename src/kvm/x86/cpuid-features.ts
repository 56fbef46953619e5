/** CPUID feature bits that KVM asks about: a word of the table below times 32, plus the bit (@kvm reverse_cpuid.h). */

/** Where each word comes from: leaf, index, register (0 EAX, 1 EBX, 2 ECX, 3 EDX). */
export const featureWords: readonly { readonly leaf: number; readonly index: number; readonly reg: number }[] = [
  { leaf: 1, index: 0, reg: 3 },
  { leaf: 1, index: 0, reg: 2 },
  { leaf: 7, index: 0, reg: 1 },
  { leaf: 7, index: 0, reg: 2 },
  { leaf: 7, index: 0, reg: 3 },
  { leaf: 0x80000001, index: 0, reg: 3 },
  { leaf: 0x80000001, index: 0, reg: 2 },
  { leaf: 0x80000008, index: 0, reg: 1 },
  { leaf: 0xd, index: 1, reg: 0 },
  { leaf: 0x80000007, index: 0, reg: 3 },
  { leaf: 0x40000001, index: 0, reg: 0 },
  { leaf: 0x80000021, index: 0, reg: 0 },
  { leaf: 0x8000000a, index: 0, reg: 3 },
];

export const WORD_1_EDX = 0;
export const WORD_1_ECX = 1;
export const WORD_7_EBX = 2;
export const WORD_7_ECX = 3;
export const WORD_7_EDX = 4;
export const WORD_8000_0001_EDX = 5;
export const WORD_8000_0001_ECX = 6;
export const WORD_8000_0008_EBX = 7;
export const WORD_D_1_EAX = 8;
export const WORD_8000_0007_EDX = 9;
export const WORD_KVM = 10;
export const WORD_8000_0021_EAX = 11;
export const WORD_8000_000A_EDX = 12;

const f = (word: number, bit: number): number => word * 32 + bit;

export const X86_FEATURE_VME = f(WORD_1_EDX, 1);
export const X86_FEATURE_APIC = f(WORD_1_EDX, 9);
export const X86_FEATURE_FXSR = f(WORD_1_EDX, 24);
export const X86_FEATURE_XMM3 = f(WORD_1_ECX, 0);
export const X86_FEATURE_MWAIT = f(WORD_1_ECX, 3);
export const X86_FEATURE_VMX = f(WORD_1_ECX, 5);
export const X86_FEATURE_PCID = f(WORD_1_ECX, 17);
export const X86_FEATURE_X2APIC = f(WORD_1_ECX, 21);
export const X86_FEATURE_MOVBE = f(WORD_1_ECX, 22);
export const X86_FEATURE_TSC_DEADLINE_TIMER = f(WORD_1_ECX, 24);
export const X86_FEATURE_XSAVE = f(WORD_1_ECX, 26);
export const X86_FEATURE_OSXSAVE = f(WORD_1_ECX, 27);
export const X86_FEATURE_FSGSBASE = f(WORD_7_EBX, 0);
export const X86_FEATURE_TSC_ADJUST = f(WORD_7_EBX, 1);
export const X86_FEATURE_SMEP = f(WORD_7_EBX, 7);
export const X86_FEATURE_INVPCID = f(WORD_7_EBX, 10);
export const X86_FEATURE_RTM = f(WORD_7_EBX, 11);
export const X86_FEATURE_SMAP = f(WORD_7_EBX, 20);
export const X86_FEATURE_UMIP = f(WORD_7_ECX, 2);
export const X86_FEATURE_PKU = f(WORD_7_ECX, 3);
export const X86_FEATURE_OSPKE = f(WORD_7_ECX, 4);
export const X86_FEATURE_LA57 = f(WORD_7_ECX, 16);
export const X86_FEATURE_RDPID = f(WORD_7_ECX, 22);
export const X86_FEATURE_BUS_LOCK_DETECT = f(WORD_7_ECX, 24);
export const X86_FEATURE_ARCH_CAPABILITIES = f(WORD_7_EDX, 29);
export const X86_FEATURE_NX = f(WORD_8000_0001_EDX, 20);
export const X86_FEATURE_FXSR_OPT = f(WORD_8000_0001_EDX, 25);
export const X86_FEATURE_GBPAGES = f(WORD_8000_0001_EDX, 26);
export const X86_FEATURE_RDTSCP = f(WORD_8000_0001_EDX, 27);
export const X86_FEATURE_LM = f(WORD_8000_0001_EDX, 29);
export const X86_FEATURE_SVM = f(WORD_8000_0001_ECX, 2);
export const X86_FEATURE_OSVW = f(WORD_8000_0001_ECX, 9);
export const X86_FEATURE_VIRT_SSBD = f(WORD_8000_0008_EBX, 25);
export const X86_FEATURE_XSAVES = f(WORD_D_1_EAX, 3);
export const X86_FEATURE_NRIPS = f(WORD_8000_000A_EDX, 3);
export const X86_FEATURE_PAUSEFILTER = f(WORD_8000_000A_EDX, 10);
export const X86_FEATURE_AUTOIBRS = f(WORD_8000_0021_EAX, 8);

// Paravirtual features (@kvm uapi/asm/kvm_para.h KVM_FEATURE_*).
export const KVM_FEATURE_CLOCKSOURCE = f(WORD_KVM, 0);
export const KVM_FEATURE_CLOCKSOURCE2 = f(WORD_KVM, 3);
export const KVM_FEATURE_ASYNC_PF = f(WORD_KVM, 4);
export const KVM_FEATURE_STEAL_TIME = f(WORD_KVM, 5);
export const KVM_FEATURE_PV_EOI = f(WORD_KVM, 6);
export const KVM_FEATURE_PV_UNHALT = f(WORD_KVM, 7);
export const KVM_FEATURE_ASYNC_PF_VMEXIT = f(WORD_KVM, 10);
export const KVM_FEATURE_PV_SEND_IPI = f(WORD_KVM, 11);
export const KVM_FEATURE_POLL_CONTROL = f(WORD_KVM, 12);
export const KVM_FEATURE_PV_SCHED_YIELD = f(WORD_KVM, 13);
export const KVM_FEATURE_ASYNC_PF_INT = f(WORD_KVM, 14);
