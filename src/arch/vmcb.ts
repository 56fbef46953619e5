/**
 * The SVM virtual machine control block: a 4 KiB page in physical memory that KVM programs and the processor reads at VMRUN and
 * writes at #VMEXIT (@apm appendix B). Offsets in bytes.
 */

// Control area.
export const VMCB_INTERCEPT_CR = 0x000; // low 16: reads, high 16: writes
export const VMCB_INTERCEPT_DR = 0x004;
export const VMCB_INTERCEPT_EXCEPTIONS = 0x008;
export const VMCB_INTERCEPT_WORD3 = 0x00c;
export const VMCB_INTERCEPT_WORD4 = 0x010;
export const VMCB_INTERCEPT_WORD5 = 0x014;
export const VMCB_PAUSE_THRESHOLD = 0x03c;
export const VMCB_PAUSE_COUNT = 0x03e;
export const VMCB_IOPM_BASE = 0x040;
export const VMCB_MSRPM_BASE = 0x048;
export const VMCB_TSC_OFFSET = 0x050;
export const VMCB_ASID = 0x058;
export const VMCB_TLB_CTL = 0x05c; // byte
export const VMCB_INT_CTL = 0x060;
export const VMCB_INT_VECTOR = 0x064;
export const VMCB_INT_STATE = 0x068; // bit 0: interrupt shadow
export const VMCB_EXIT_CODE = 0x070;
export const VMCB_EXIT_INFO_1 = 0x078;
export const VMCB_EXIT_INFO_2 = 0x080;
export const VMCB_EXIT_INT_INFO = 0x088; // error code in the upper half
export const VMCB_NESTED_CTL = 0x090;
export const NESTED_CTL_NP_ENABLE = 1 << 0;
export const NESTED_CTL_SEV_ENABLE = 1 << 1;
export const NESTED_CTL_SEV_ES_ENABLE = 1 << 2;
/** GHCB's guest-physical address, or the request that its MSR holds. */
export const VMCB_GHCB = 0x0a0;
export const VMCB_EVENT_INJ = 0x0a8; // error code in the upper half
export const VMCB_NESTED_CR3 = 0x0b0;
export const VMCB_VIRT_EXT = 0x0b8;
export const VMCB_CLEAN = 0x0c0; // VMCB_CLEAN_*: what software has not changed since the last #VMEXIT
export const VMCB_NEXT_RIP = 0x0c8;
export const VMCB_INSN_LEN = 0x0d0; // byte
export const VMCB_INSN_BYTES = 0x0d1; // 15 bytes
/** Physical address of the save area of a guest with encrypted state. */
export const VMCB_VMSA = 0x108;

// State save area. A segment is selector (2), attributes (2: descriptor bits 8-15 and 20-23 packed), limit (4), base (8).
export const VMCB_SAVE = 0x400;
export const VMCB_ES = 0x400;
export const VMCB_CS = 0x410;
export const VMCB_SS = 0x420;
export const VMCB_DS = 0x430;
export const VMCB_FS = 0x440;
export const VMCB_GS = 0x450;
export const VMCB_GDTR = 0x460;
export const VMCB_LDTR = 0x470;
export const VMCB_IDTR = 0x480;
export const VMCB_TR = 0x490;
export const VMCB_CPL = 0x4cb; // byte
export const VMCB_EFER = 0x4d0;
export const VMCB_CR4 = 0x548;
export const VMCB_CR3 = 0x550;
export const VMCB_CR0 = 0x558;
export const VMCB_DR7 = 0x560;
export const VMCB_DR6 = 0x568;
export const VMCB_RFLAGS = 0x570;
export const VMCB_RIP = 0x578;
export const VMCB_RSP = 0x5d8;
export const VMCB_RAX = 0x5f8;
export const VMCB_STAR = 0x600;
export const VMCB_LSTAR = 0x608;
export const VMCB_CSTAR = 0x610;
export const VMCB_SFMASK = 0x618;
export const VMCB_KERNEL_GS_BASE = 0x620;
export const VMCB_SYSENTER_CS = 0x628;
export const VMCB_SYSENTER_ESP = 0x630;
export const VMCB_SYSENTER_EIP = 0x638;
export const VMCB_CR2 = 0x640;
export const VMCB_G_PAT = 0x668;
export const VMCB_DBGCTL = 0x670;
export const VMCB_SPEC_CTRL = 0x6e0;

/** Bits of VMCB_CLEAN (@apm 15.15.3): intercepts, addresses of the permission maps, nested paging. */
export const VMCB_CLEAN_INTERCEPTS = 1 << 0;
export const VMCB_CLEAN_PERM_MAP = 1 << 1;
export const VMCB_CLEAN_NPT = 1 << 4;

/** INT_STATE: the guest's RFLAGS.IF, of a guest with encrypted state. */
export const SVM_GUEST_INTERRUPT_MASK = 1 << 1;

/** Segment attributes in the VMCB: type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, DB 10, G 11. */
export const VMCB_ATTR_TYPE = 0xf;
export const VMCB_ATTR_S = 1 << 4;
export const VMCB_ATTR_DPL_SHIFT = 5;
export const VMCB_ATTR_P = 1 << 7;
export const VMCB_ATTR_AVL = 1 << 8;
export const VMCB_ATTR_L = 1 << 9;
export const VMCB_ATTR_DB = 1 << 10;
export const VMCB_ATTR_G = 1 << 11;

/** Of the control-register word: reads in bits 0 to 15, writes above. */
export const INTERCEPT_CR0_READ = 1 << 0;
export const INTERCEPT_CR0_WRITE = 1 << 16;
export const INTERCEPT_CR8_WRITE = 1 << 24;

// Intercept bits of word 3 (0x00c).
export const INTERCEPT_INTR = 1 << 0;
export const INTERCEPT_NMI = 1 << 1;
export const INTERCEPT_SMI = 1 << 2;
export const INTERCEPT_INIT = 1 << 3;
export const INTERCEPT_VINTR = 1 << 4;
export const INTERCEPT_SELECTIVE_CR0 = 1 << 5;
export const INTERCEPT_STORE_IDTR = 1 << 6;
export const INTERCEPT_STORE_GDTR = 1 << 7;
export const INTERCEPT_STORE_LDTR = 1 << 8;
export const INTERCEPT_STORE_TR = 1 << 9;
export const INTERCEPT_LOAD_IDTR = 1 << 10;
export const INTERCEPT_LOAD_GDTR = 1 << 11;
export const INTERCEPT_LOAD_LDTR = 1 << 12;
export const INTERCEPT_LOAD_TR = 1 << 13;
export const INTERCEPT_RDTSC = 1 << 14;
export const INTERCEPT_RDPMC = 1 << 15;
export const INTERCEPT_PUSHF = 1 << 16;
export const INTERCEPT_POPF = 1 << 17;
export const INTERCEPT_CPUID = 1 << 18;
export const INTERCEPT_RSM = 1 << 19;
export const INTERCEPT_IRET = 1 << 20;
export const INTERCEPT_INTN = 1 << 21;
export const INTERCEPT_INVD = 1 << 22;
export const INTERCEPT_PAUSE = 1 << 23;
export const INTERCEPT_HLT = 1 << 24;
export const INTERCEPT_INVLPG = 1 << 25;
export const INTERCEPT_INVLPGA = 1 << 26;
export const INTERCEPT_IOIO_PROT = 1 << 27;
export const INTERCEPT_MSR_PROT = 1 << 28;
export const INTERCEPT_TASK_SWITCH = 1 << 29;
export const INTERCEPT_FERR_FREEZE = 1 << 30;
export const INTERCEPT_SHUTDOWN = 1 << 31;
// Intercept bits of word 4 (0x010).
export const INTERCEPT_VMRUN = 1 << 0;
export const INTERCEPT_VMMCALL = 1 << 1;
export const INTERCEPT_VMLOAD = 1 << 2;
export const INTERCEPT_VMSAVE = 1 << 3;
export const INTERCEPT_STGI = 1 << 4;
export const INTERCEPT_CLGI = 1 << 5;
export const INTERCEPT_SKINIT = 1 << 6;
export const INTERCEPT_RDTSCP = 1 << 7;
export const INTERCEPT_ICEBP = 1 << 8;
export const INTERCEPT_WBINVD = 1 << 9;
export const INTERCEPT_MONITOR = 1 << 10;
export const INTERCEPT_MWAIT = 1 << 11;
export const INTERCEPT_MWAIT_COND = 1 << 12;
export const INTERCEPT_XSETBV = 1 << 13;
export const INTERCEPT_RDPRU = 1 << 14;
export const INTERCEPT_EFER_WRITE = 1 << 15;
// Word 5.
export const INTERCEPT_INVPCID = 1 << 2;

/** #VMEXIT codes (@apm appendix C); the names are those of KVM's `kvm_exit` trace event. */
export const SVM_EXIT_READ_CR0 = 0x000;
export const SVM_EXIT_WRITE_CR0 = 0x010;
export const SVM_EXIT_READ_DR0 = 0x020;
export const SVM_EXIT_WRITE_DR0 = 0x030;
export const SVM_EXIT_EXCP_BASE = 0x040;
export const SVM_EXIT_INTR = 0x060;
export const SVM_EXIT_NMI = 0x061;
export const SVM_EXIT_SMI = 0x062;
export const SVM_EXIT_INIT = 0x063;
export const SVM_EXIT_VINTR = 0x064;
export const SVM_EXIT_CR0_SEL_WRITE = 0x065;
export const SVM_EXIT_IDTR_READ = 0x066;
export const SVM_EXIT_GDTR_READ = 0x067;
export const SVM_EXIT_LDTR_READ = 0x068;
export const SVM_EXIT_TR_READ = 0x069;
export const SVM_EXIT_IDTR_WRITE = 0x06a;
export const SVM_EXIT_GDTR_WRITE = 0x06b;
export const SVM_EXIT_LDTR_WRITE = 0x06c;
export const SVM_EXIT_TR_WRITE = 0x06d;
export const SVM_EXIT_RDTSC = 0x06e;
export const SVM_EXIT_RDPMC = 0x06f;
export const SVM_EXIT_PUSHF = 0x070;
export const SVM_EXIT_POPF = 0x071;
export const SVM_EXIT_CPUID = 0x072;
export const SVM_EXIT_RSM = 0x073;
export const SVM_EXIT_IRET = 0x074;
export const SVM_EXIT_SWINT = 0x075;
export const SVM_EXIT_INVD = 0x076;
export const SVM_EXIT_PAUSE = 0x077;
export const SVM_EXIT_HLT = 0x078;
export const SVM_EXIT_INVLPG = 0x079;
export const SVM_EXIT_INVLPGA = 0x07a;
export const SVM_EXIT_IOIO = 0x07b;
export const SVM_EXIT_MSR = 0x07c;
export const SVM_EXIT_TASK_SWITCH = 0x07d;
export const SVM_EXIT_FERR_FREEZE = 0x07e;
export const SVM_EXIT_SHUTDOWN = 0x07f;
export const SVM_EXIT_VMRUN = 0x080;
export const SVM_EXIT_VMMCALL = 0x081;
export const SVM_EXIT_VMLOAD = 0x082;
export const SVM_EXIT_VMSAVE = 0x083;
export const SVM_EXIT_STGI = 0x084;
export const SVM_EXIT_CLGI = 0x085;
export const SVM_EXIT_SKINIT = 0x086;
export const SVM_EXIT_RDTSCP = 0x087;
export const SVM_EXIT_ICEBP = 0x088;
export const SVM_EXIT_WBINVD = 0x089;
export const SVM_EXIT_MONITOR = 0x08a;
export const SVM_EXIT_MWAIT = 0x08b;
export const SVM_EXIT_MWAIT_COND = 0x08c;
export const SVM_EXIT_XSETBV = 0x08d;
export const SVM_EXIT_RDPRU = 0x08e;
export const SVM_EXIT_EFER_WRITE_TRAP = 0x08f;
export const SVM_EXIT_INVPCID = 0x0a2;
export const SVM_EXIT_NPF = 0x400;
export const SVM_EXIT_VMGEXIT = 0x403;
/** Only as an error code of #VC: private memory that was not validated. */
export const SVM_EXIT_PAGE_NOT_VALIDATED = 0x404;
/** Left to software: KVM's exit to L1 because of an SMI. */
export const SVM_EXIT_SW = 0xf0000000 | 0;
/** -1 in both halves: VMRUN refused the control block. */
export const SVM_EXIT_ERR = -1;

// EVENTINJ and EXITINTINFO, low half; the error code is the upper half.
export const SVM_EVTINJ_VEC_MASK = 0xff;
export const SVM_EVTINJ_TYPE_SHIFT = 8;
export const SVM_EVTINJ_TYPE_INTR = 0 << 8;
export const SVM_EVTINJ_TYPE_NMI = 2 << 8;
export const SVM_EVTINJ_TYPE_EXEPT = 3 << 8;
export const SVM_EVTINJ_TYPE_SOFT = 4 << 8;
export const SVM_EVTINJ_TYPE_MASK = 7 << 8;
export const SVM_EVTINJ_VALID_ERR = 1 << 11;
export const SVM_EVTINJ_VALID = 1 << 31;

// INT_CTL (0x060).
export const V_TPR_MASK = 0x0f;
export const V_IRQ_MASK = 1 << 8;
export const V_GIF_MASK = 1 << 9;
export const V_NMI_ENABLE_MASK = 1 << 26;
export const V_INTR_PRIO_SHIFT = 16;
export const V_IGN_TPR_MASK = 1 << 20;
export const V_INTR_MASKING_MASK = 1 << 24;
export const V_GIF_ENABLE_MASK = 1 << 25;

export const TLB_CONTROL_DO_NOTHING = 0;
export const TLB_CONTROL_FLUSH_ALL_ASID = 1;
export const TLB_CONTROL_FLUSH_ASID = 3;
export const TLB_CONTROL_FLUSH_ASID_LOCAL = 7;

// EXITINFO1 of an IOIO exit.
export const SVM_IOIO_IN = 1 << 0;
export const SVM_IOIO_STR = 1 << 2;
export const SVM_IOIO_REP = 1 << 3;
export const SVM_IOIO_SIZE_SHIFT = 4;
export const SVM_IOIO_ASIZE_SHIFT = 7;
export const SVM_IOIO_PORT_SHIFT = 16;
