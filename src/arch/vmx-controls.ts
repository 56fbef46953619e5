/** The VM-execution, VM-entry and VM-exit controls (@sdm 26.6 to 26.8). */

// Pin-based.
export const PIN_BASED_EXT_INTR_MASK = 1 << 0;
export const PIN_BASED_NMI_EXITING = 1 << 3;
export const PIN_BASED_VIRTUAL_NMIS = 1 << 5;
export const PIN_BASED_VMX_PREEMPTION_TIMER = 1 << 6;
export const PIN_BASED_POSTED_INTR = 1 << 7;

// Primary processor-based.
export const CPU_BASED_INTR_WINDOW_EXITING = 1 << 2;
export const CPU_BASED_USE_TSC_OFFSETTING = 1 << 3;
export const CPU_BASED_HLT_EXITING = 1 << 7;
export const CPU_BASED_INVLPG_EXITING = 1 << 9;
export const CPU_BASED_MWAIT_EXITING = 1 << 10;
export const CPU_BASED_RDPMC_EXITING = 1 << 11;
export const CPU_BASED_RDTSC_EXITING = 1 << 12;
export const CPU_BASED_CR3_LOAD_EXITING = 1 << 15;
export const CPU_BASED_CR3_STORE_EXITING = 1 << 16;
export const CPU_BASED_CR8_LOAD_EXITING = 1 << 19;
export const CPU_BASED_CR8_STORE_EXITING = 1 << 20;
export const CPU_BASED_TPR_SHADOW = 1 << 21;
export const CPU_BASED_NMI_WINDOW_EXITING = 1 << 22;
export const CPU_BASED_MOV_DR_EXITING = 1 << 23;
export const CPU_BASED_UNCOND_IO_EXITING = 1 << 24;
export const CPU_BASED_USE_IO_BITMAPS = 1 << 25;
export const CPU_BASED_MONITOR_TRAP_FLAG = 1 << 27;
export const CPU_BASED_USE_MSR_BITMAPS = 1 << 28;
export const CPU_BASED_MONITOR_EXITING = 1 << 29;
export const CPU_BASED_PAUSE_EXITING = 1 << 30;
export const CPU_BASED_ACTIVATE_SECONDARY_CONTROLS = 1 << 31;

// Secondary processor-based.
export const SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES = 1 << 0;
export const SECONDARY_EXEC_ENABLE_EPT = 1 << 1;
export const SECONDARY_EXEC_DESC = 1 << 2;
export const SECONDARY_EXEC_ENABLE_RDTSCP = 1 << 3;
export const SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE = 1 << 4;
export const SECONDARY_EXEC_ENABLE_VPID = 1 << 5;
export const SECONDARY_EXEC_WBINVD_EXITING = 1 << 6;
export const SECONDARY_EXEC_UNRESTRICTED_GUEST = 1 << 7;
export const SECONDARY_EXEC_APIC_REGISTER_VIRT = 1 << 8;
export const SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY = 1 << 9;
export const SECONDARY_EXEC_PAUSE_LOOP_EXITING = 1 << 10;
export const SECONDARY_EXEC_RDRAND_EXITING = 1 << 11;
export const SECONDARY_EXEC_ENABLE_INVPCID = 1 << 12;
export const SECONDARY_EXEC_ENABLE_VMFUNC = 1 << 13;
export const SECONDARY_EXEC_SHADOW_VMCS = 1 << 14;
export const SECONDARY_EXEC_ENCLS_EXITING = 1 << 15;
export const SECONDARY_EXEC_RDSEED_EXITING = 1 << 16;
export const SECONDARY_EXEC_ENABLE_PML = 1 << 17;
export const SECONDARY_EXEC_ENABLE_XSAVES = 1 << 20;
export const SECONDARY_EXEC_MODE_BASED_EPT_EXEC = 1 << 22;
export const SECONDARY_EXEC_TSC_SCALING = 1 << 25;
export const SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE = 1 << 26;

// VM entry.
export const VM_ENTRY_LOAD_DEBUG_CONTROLS = 1 << 2;
export const VM_ENTRY_IA32E_MODE = 1 << 9;
export const VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL = 1 << 13;
export const VM_ENTRY_LOAD_IA32_PAT = 1 << 14;
export const VM_ENTRY_LOAD_IA32_EFER = 1 << 15;
export const VM_ENTRY_LOAD_BNDCFGS = 1 << 16;

// VM exit.
export const VM_EXIT_SAVE_DEBUG_CONTROLS = 1 << 2;
export const VM_EXIT_HOST_ADDR_SPACE_SIZE = 1 << 9;
export const VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL = 1 << 12;
export const VM_EXIT_ACK_INTR_ON_EXIT = 1 << 15;
export const VM_EXIT_SAVE_IA32_PAT = 1 << 18;
export const VM_EXIT_LOAD_IA32_PAT = 1 << 19;
export const VM_EXIT_SAVE_IA32_EFER = 1 << 20;
export const VM_EXIT_LOAD_IA32_EFER = 1 << 21;
export const VM_EXIT_SAVE_VMX_PREEMPTION_TIMER = 1 << 22;
export const VM_EXIT_CLEAR_BNDCFGS = 1 << 23;

// Interruptibility state.
export const GUEST_INTR_STATE_STI = 1 << 0;
export const GUEST_INTR_STATE_MOV_SS = 1 << 1;
export const GUEST_INTR_STATE_SMI = 1 << 2;
export const GUEST_INTR_STATE_NMI = 1 << 3;

// Activity state.
export const GUEST_ACTIVITY_ACTIVE = 0;
export const GUEST_ACTIVITY_HLT = 1;
export const GUEST_ACTIVITY_SHUTDOWN = 2;
export const GUEST_ACTIVITY_WAIT_SIPI = 3;

// Interruption information: of entries, exits and IDT vectoring.
export const INTR_INFO_VECTOR_MASK = 0xff;
export const INTR_INFO_INTR_TYPE_MASK = 7 << 8;
export const INTR_TYPE_EXT_INTR = 0 << 8;
export const INTR_TYPE_RESERVED = 1 << 8;
export const INTR_TYPE_NMI_INTR = 2 << 8;
export const INTR_TYPE_HARD_EXCEPTION = 3 << 8;
export const INTR_TYPE_SOFT_INTR = 4 << 8;
export const INTR_TYPE_PRIV_SW_EXCEPTION = 5 << 8;
export const INTR_TYPE_SOFT_EXCEPTION = 6 << 8;
export const INTR_TYPE_OTHER_EVENT = 7 << 8;
export const INTR_INFO_DELIVER_CODE_MASK = 1 << 11;
export const INTR_INFO_UNBLOCK_NMI = 1 << 12;
export const INTR_INFO_RESVD_BITS_MASK = 0x7ffff000;
export const INTR_INFO_VALID_MASK = 1 << 31;

// Access rights of a segment: bits 7:0 and 15:12 as in the descriptor, and one of VMX.
export const VMX_AR_UNUSABLE = 1 << 16;

// EPT pointer.
export const VMX_EPTP_MT_MASK = 7;
export const VMX_EPTP_MT_UC = 0;
export const VMX_EPTP_MT_WB = 6;
export const VMX_EPTP_PWL_MASK = 7 << 3;
export const VMX_EPTP_PWL_4 = 3 << 3;
export const VMX_EPTP_PWL_5 = 4 << 3;
export const VMX_EPTP_AD_ENABLE_BIT = 1 << 6;

// Exit qualification of a control-register access.
export const CR_ACCESS_TO_CR = 0 << 4;
export const CR_ACCESS_FROM_CR = 1 << 4;
export const CR_ACCESS_CLTS = 2 << 4;
export const CR_ACCESS_LMSW = 3 << 4;

// Exit qualification of a port access.
export const VMX_IO_IN = 1 << 3;
export const VMX_IO_STRING = 1 << 4;
export const VMX_IO_REP = 1 << 5;
export const VMX_IO_IMMEDIATE = 1 << 6;

/** What a VMX instruction leaves in RFLAGS: nothing, CF, or ZF. */
export const VM_SUCCEED = 0;
export const VM_FAIL_INVALID = 1;
export const VM_FAIL_VALID = 2;

// VM-instruction errors (@sdm 32.4).
export const VMXERR_VMCLEAR_INVALID_ADDRESS = 2;
export const VMXERR_VMCLEAR_VMXON_POINTER = 3;
export const VMXERR_VMLAUNCH_NONCLEAR_VMCS = 4;
export const VMXERR_VMRESUME_NONLAUNCHED_VMCS = 5;
export const VMXERR_ENTRY_INVALID_CONTROL_FIELD = 7;
export const VMXERR_ENTRY_INVALID_HOST_STATE_FIELD = 8;
export const VMXERR_VMPTRLD_INVALID_ADDRESS = 9;
export const VMXERR_VMPTRLD_VMXON_POINTER = 10;
export const VMXERR_VMPTRLD_INCORRECT_VMCS_REVISION_ID = 11;
export const VMXERR_UNSUPPORTED_VMCS_COMPONENT = 12;
export const VMXERR_VMWRITE_READ_ONLY_VMCS_COMPONENT = 13;
export const VMXERR_VMXON_IN_VMX_ROOT_OPERATION = 15;
export const VMXERR_ENTRY_EVENTS_BLOCKED_BY_MOV_SS = 26;
export const VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID = 28;

/** Exit qualification of an entry that failed on guest state (@sdm 28.8). */
export const ENTRY_FAIL_DEFAULT = 0;
export const ENTRY_FAIL_PDPTE = 2;
export const ENTRY_FAIL_NMI = 3;
export const ENTRY_FAIL_VMCS_LINK_PTR = 4;

// IA32_VMX_EPT_VPID_CAP (@sdm A.10), low half: EPT; high half: VPID.
export const VMX_EPT_EXECUTE_ONLY_BIT = 1 << 0;
export const VMX_EPT_PAGE_WALK_4_BIT = 1 << 6;
export const VMX_EPT_PAGE_WALK_5_BIT = 1 << 7;
export const VMX_EPTP_UC_BIT = 1 << 8;
export const VMX_EPTP_WB_BIT = 1 << 14;
export const VMX_EPT_2MB_PAGE_BIT = 1 << 16;
export const VMX_EPT_1GB_PAGE_BIT = 1 << 17;
export const VMX_EPT_INVEPT_BIT = 1 << 20;
export const VMX_EPT_AD_BIT = 1 << 21;
export const VMX_EPT_EXTENT_CONTEXT_BIT = 1 << 25;
export const VMX_EPT_EXTENT_GLOBAL_BIT = 1 << 26;
export const VMX_VPID_INVVPID_BIT = 1 << 0;
/** INVVPID of all four types. */
export const VMX_VPID_EXTENT_SUPPORTED_MASK = 0xf00;
/** Types of INVEPT and INVVPID. */
export const VMX_EPT_EXTENT_CONTEXT = 1;
export const VMX_EPT_EXTENT_GLOBAL = 2;
export const VMX_VPID_EXTENT_INDIVIDUAL_ADDR = 0;
export const VMX_VPID_EXTENT_ALL_CONTEXT = 2;

// Bits that are always 1 where the "true" capability MSRs are not asked (@sdm A.3 to A.5).
export const PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR = 0x16;
export const CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR = 0x0401e172;
export const VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR = 0x00036dff;
export const VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR = 0x000011ff;

// IA32_VMX_BASIC (@sdm A.1), high half.
export const VMX_BASIC_MEM_TYPE_WB_HI = 6 << 18;
export const VMX_BASIC_32BIT_PHYS_ADDR_ONLY_HI = 1 << 16;
export const VMX_BASIC_DUAL_MONITOR_TREATMENT_HI = 1 << 17;
export const VMX_BASIC_INOUT_HI = 1 << 22;
export const VMX_BASIC_TRUE_CTLS_HI = 1 << 23;

// IA32_VMX_MISC (@sdm A.6).
export const VMX_MISC_PREEMPTION_TIMER_RATE_MASK = 0x1f;
export const VMX_MISC_SAVE_EFER_LMA = 1 << 5;
export const VMX_MISC_ACTIVITY_HLT = 1 << 6;
export const VMX_MISC_ACTIVITY_SHUTDOWN = 1 << 7;
export const VMX_MISC_ACTIVITY_WAIT_SIPI = 1 << 8;
export const VMX_MISC_INTEL_PT = 1 << 14;
export const VMX_MISC_RDMSR_IN_SMM = 1 << 15;
export const VMX_MISC_VMXOFF_BLOCK_SMI = 1 << 28;
export const VMX_MISC_VMWRITE_SHADOW_RO_FIELDS = 1 << 29;
export const VMX_MISC_ZERO_LEN_INS = 1 << 30;
/** The list of MSRs of an entry or exit holds at most this many times the field of IA32_VMX_MISC plus one. */
export const VMX_MISC_MSR_LIST_MULTIPLIER = 512;

/** VM functions: EPTP switching is number 0. */
export const VMX_VMFUNC_EPTP_SWITCHING = 1 << 0;
export const VMFUNC_EPTP_ENTRIES = 512;

// IA32_FEATURE_CONTROL.
export const FEAT_CTL_LOCKED = 1 << 0;
export const FEAT_CTL_VMX_ENABLED_INSIDE_SMX = 1 << 1;
export const FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX = 1 << 2;
