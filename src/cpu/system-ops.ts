/**
 * The instructions that are decoded into a record but executed by the system port, by number. "rm" is the ModRM.rm operand: a register
 * (`recordRm`) or memory (`recordIsMemory`, `effectiveAddress`, `recordSegment`); "reg" is `recordReg`; "size" is
 * `recordOperandSize`; "imm" is `recordImmediate`. The decoder has refused LOCK, and register or memory forms that do not exist, with
 * #UD; privilege, mode (CR0.PE, VM86, 64-bit) and feature checks are the port's unless a line says otherwise.
 */

// Moves to and from control, debug and segment registers.
export const SYS_MOV_FROM_CR = 1; // rm register <- CR[reg]; size is 8 in 64-bit mode, else 4
export const SYS_MOV_TO_CR = 2; // CR[reg] <- rm register
export const SYS_MOV_FROM_DR = 3; // rm register <- DR[reg]
export const SYS_MOV_TO_DR = 4; // DR[reg] <- rm register
export const SYS_MOV_FROM_SREG = 5; // rm <- segment register reg; memory takes 16 bits, a register `size` bytes zero-extended
export const SYS_MOV_TO_SREG = 6; // segment register reg <- rm, 16 bits; reg is never CS
export const SYS_PUSH_SREG = 7; // reg, `size` bytes of stack
export const SYS_POP_SREG = 8; // reg, `size` bytes of stack; never CS
export const SYS_LOAD_FAR = 9; // LES LDS LSS LFS LGS: general register reg and segment register imm <- far pointer at rm

// Descriptor tables.
export const SYS_LGDT = 16; // memory: limit 16 bits, base 64 bits (64-bit mode), 32 bits, or 24 bits with size 2
export const SYS_LIDT = 17;
export const SYS_SGDT = 18;
export const SYS_SIDT = 19;
export const SYS_LLDT = 20; // rm, 16 bits
export const SYS_SLDT = 21; // rm; memory 16 bits, register `size`
export const SYS_LTR = 22; // rm, 16 bits
export const SYS_STR = 23; // rm; memory 16 bits, register `size`
export const SYS_LMSW = 24; // rm, 16 bits
export const SYS_SMSW = 25; // rm; memory 16 bits, register `size`
export const SYS_CLTS = 26;
export const SYS_VERR = 27; // rm, 16 bits
export const SYS_VERW = 28;
export const SYS_LAR = 29; // reg <- access rights of selector rm
export const SYS_LSL = 30; // reg <- limit of selector rm
export const SYS_ARPL = 31; // rm, reg; 16 bits; outside 64-bit mode only

// Far transfers, interrupts and system calls. They set RIP themselves and answer STATUS_RELOAD.
export const SYS_JMP_FAR_PTR = 40; // imm: offset (`size`), imm2: selector
export const SYS_JMP_FAR_MEM = 41; // far pointer at rm
export const SYS_CALL_FAR_PTR = 42;
export const SYS_CALL_FAR_MEM = 43;
export const SYS_RET_FAR = 44; // imm: bytes to release
export const SYS_INT = 45; // imm: vector
export const SYS_INT3 = 46;
export const SYS_INT1 = 47;
export const SYS_INTO = 48; // raised only when OF is set: #OF, as a trap
export const SYS_IRET = 49; // size
export const SYS_SYSCALL = 50;
export const SYS_SYSRET = 51; // size 8: to 64-bit code
export const SYS_SYSENTER = 52;
export const SYS_SYSEXIT = 53; // size 8: to 64-bit code
export const SYS_RSM = 54;

// Identification, counters and model-specific registers.
export const SYS_CPUID = 60;
export const SYS_RDMSR = 61;
export const SYS_WRMSR = 62;
export const SYS_RDTSC = 63;
export const SYS_RDTSCP = 64;
export const SYS_RDPMC = 65;
export const SYS_RDPID = 66; // rm register
export const SYS_RDPRU = 67;
export const SYS_SWAPGS = 68;
export const SYS_RDFSBASE = 69; // rm register, size 4 or 8; 64-bit mode only (checked)
export const SYS_RDGSBASE = 70;
export const SYS_WRFSBASE = 71;
export const SYS_WRGSBASE = 72;

// Ports. size 1, 2 or 4. A string form does ONE iteration a call: address size, segment (outs) and F3 are in the record; the port
// updates rSI/rDI and rCX and answers OK when done (or when rCX was 0 at the start), RELOAD with RIP unmoved to be called again.
export const SYS_IN = 80; // accumulator <- port: imm (0 to 255)
export const SYS_IN_DX = 81;
export const SYS_OUT = 82;
export const SYS_OUT_DX = 83;
export const SYS_INS = 84;
export const SYS_OUTS = 85;

// Flags and processor control.
export const SYS_HLT = 90;
export const SYS_CLI = 91;
export const SYS_STI = 92;
export const SYS_PUSHF = 93; // size
export const SYS_POPF = 94; // size
export const SYS_CLAC = 95;
export const SYS_STAC = 96;
export const SYS_PAUSE = 97;
export const SYS_MONITOR = 98;
export const SYS_MWAIT = 99;

// Caches and the TLB.
export const SYS_INVLPG = 100; // memory operand
export const SYS_INVPCID = 101; // reg: type, memory: 16-byte descriptor
export const SYS_INVD = 102;
export const SYS_WBINVD = 103;
export const SYS_CLFLUSH = 104; // memory operand; translated as a read of one byte, when the profile says that it faults
export const SYS_CLFLUSHOPT = 105;
export const SYS_CLWB = 106;
export const SYS_WBNOINVD = 107;

// Extended state.
export const SYS_XGETBV = 110;
export const SYS_XSETBV = 111;
export const SYS_XSAVE = 112; // memory operand; size 8: the 64-bit form
export const SYS_XRSTOR = 113;
export const SYS_XSAVEOPT = 114;
export const SYS_XSAVEC = 115;
export const SYS_XSAVES = 116;
export const SYS_XRSTORS = 117;
export const SYS_RDPKRU = 118;
export const SYS_WRPKRU = 119;

// Virtualization.
export const SYS_VMRUN = 120; // rAX, truncated to the address size
export const SYS_VMLOAD = 121;
export const SYS_VMSAVE = 122;
export const SYS_STGI = 123;
export const SYS_CLGI = 124;
export const SYS_SKINIT = 125;
export const SYS_INVLPGA = 126; // rAX (address size), ECX
export const SYS_VMMCALL = 127;
export const SYS_VMCALL = 128; // 0F 01 C1, the other vendor's hypercall
export const SYS_VMX = 129; // any other VMX instruction: #UD where there is no VMX
export const SYS_TDCALL = 130; // 66 0F 01 CC: #UD but in a TD

// SEV-SNP.
export const SYS_PVALIDATE = 131; // rAX, ECX, EDX
export const SYS_RMPADJUST = 132; // RAX, RCX, RDX
