/**
 * What a nested hypervisor may want to intercept, and when emulation asks (@kvm kvm_emulate.h x86_intercept, x86_intercept_stage).
 * The values are this emulator's own vocabulary: vendor code maps them to its exit codes.
 */
export const X86_INTERCEPT_NONE = 0;
export const X86_INTERCEPT_CR_READ = 1;
export const X86_INTERCEPT_CR_WRITE = 2;
export const X86_INTERCEPT_CLTS = 3;
export const X86_INTERCEPT_LMSW = 4;
export const X86_INTERCEPT_SMSW = 5;
export const X86_INTERCEPT_DR_READ = 6;
export const X86_INTERCEPT_DR_WRITE = 7;
export const X86_INTERCEPT_LIDT = 8;
export const X86_INTERCEPT_SIDT = 9;
export const X86_INTERCEPT_LGDT = 10;
export const X86_INTERCEPT_SGDT = 11;
export const X86_INTERCEPT_LLDT = 12;
export const X86_INTERCEPT_SLDT = 13;
export const X86_INTERCEPT_LTR = 14;
export const X86_INTERCEPT_STR = 15;
export const X86_INTERCEPT_RDTSC = 16;
export const X86_INTERCEPT_RDPMC = 17;
export const X86_INTERCEPT_PUSHF = 18;
export const X86_INTERCEPT_POPF = 19;
export const X86_INTERCEPT_CPUID = 20;
export const X86_INTERCEPT_RSM = 21;
export const X86_INTERCEPT_IRET = 22;
export const X86_INTERCEPT_INTN = 23;
export const X86_INTERCEPT_INVD = 24;
export const X86_INTERCEPT_PAUSE = 25;
export const X86_INTERCEPT_HLT = 26;
export const X86_INTERCEPT_INVLPG = 27;
export const X86_INTERCEPT_INVLPGA = 28;
export const X86_INTERCEPT_VMRUN = 29;
export const X86_INTERCEPT_VMLOAD = 30;
export const X86_INTERCEPT_VMSAVE = 31;
export const X86_INTERCEPT_VMMCALL = 32;
export const X86_INTERCEPT_STGI = 33;
export const X86_INTERCEPT_CLGI = 34;
export const X86_INTERCEPT_SKINIT = 35;
export const X86_INTERCEPT_RDTSCP = 36;
export const X86_INTERCEPT_RDPID = 37;
export const X86_INTERCEPT_ICEBP = 38;
export const X86_INTERCEPT_WBINVD = 39;
export const X86_INTERCEPT_MONITOR = 40;
export const X86_INTERCEPT_MWAIT = 41;
export const X86_INTERCEPT_RDMSR = 42;
export const X86_INTERCEPT_WRMSR = 43;
export const X86_INTERCEPT_IN = 44;
export const X86_INTERCEPT_INS = 45;
export const X86_INTERCEPT_OUT = 46;
export const X86_INTERCEPT_OUTS = 47;
export const X86_INTERCEPT_XSETBV = 48;

/** Before privilege checks, after them, and after the memory operands are read. */
export const X86_ICPT_PRE_EXCEPT = 1;
export const X86_ICPT_POST_EXCEPT = 2;
export const X86_ICPT_POST_MEMACCESS = 3;
