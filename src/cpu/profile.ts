/** Hardware profiles: what the machine underneath can do, as data chosen when a machine is made. */

/** Whose virtualization extension the processor has: SVM or VMX. */
export type CpuVendor = 'amd' | 'intel';

/** What VMX the processor has (@sdm appendix A). */
export interface VmxProfile {
  readonly ept: boolean;
  readonly eptAdBits: boolean;
  readonly eptExecuteOnly: boolean;
  /** Tables of five levels, beside those of four. */
  readonly eptFiveLevel: boolean;
  readonly ept2M: boolean;
  readonly ept1G: boolean;
  readonly vpid: boolean;
  readonly unrestrictedGuest: boolean;
  /** TPR shadow and virtualized accesses to the APIC page. */
  readonly virtualApicAccesses: boolean;
  /** Virtualized APIC registers and interrupt delivery. */
  readonly apicv: boolean;
  readonly pml: boolean;
  /** SEAM and private key ids: a TDX module can be run. */
  readonly tdx: boolean;
}

/** A processor without VMX. */
export const NO_VMX: VmxProfile = {
  ept: false,
  eptAdBits: false,
  eptExecuteOnly: false,
  eptFiveLevel: false,
  ept2M: false,
  ept1G: false,
  vpid: false,
  unrestrictedGuest: false,
  virtualApicAccesses: false,
  apicv: false,
  pml: false,
  tdx: false,
};

/** What of SEV the processor has: all of it up to SNP (CPUID 8000001F). */
export interface SnpProfile {
  /** Bit of a page-table entry that says that the page is encrypted. */
  readonly cBit: number;
  /** Bits of physical address space lost while memory encryption is on. */
  readonly physAddrReduction: number;
  readonly vmpls: number;
  /** Largest ASID of an encrypted guest, and the smallest of one without encrypted state. */
  readonly maxAsid: number;
  readonly minAsidWithoutState: number;
}

/** One machine. The profiles there are: src/cpu/profiles/index.ts. */
export interface HardwareProfile {
  readonly name: string;
  readonly vendor: CpuVendor;
  /** Physical address width of the processor, in bits. */
  readonly maxPhyAddr: number;
  /** VMCB.nRIP is written at exits of intercepted instructions (@apm 15.7.1). */
  readonly nrips: boolean;
  /** The instruction bytes are stored in the VMCB at #NPF and intercepted #PF (@apm 15.8.4). */
  readonly decodeAssists: boolean;
  readonly flushByAsid: boolean;
  readonly vgif: boolean;
  /** #GP for VMRUN, VMLOAD and VMSAVE with some addresses comes before their intercepts (CPUID 8000000A EDX 28 clear). */
  readonly svmAddressErratum: boolean;
  /** The intercept of selective CR0 writes has every LMSW, as the manual says; QEMU looks at what it changes. */
  readonly lmswSelective: boolean;
  /** Number of address space identifiers, CPUID 8000000A EBX. */
  readonly asids: number;
  /** The whole guest TLB is lost at every VMRUN and #VMEXIT. */
  readonly tlbFlushedAtEntry: boolean;
  /** Walks remember the upper levels of the page tables until they are told to forget them. */
  readonly walkCaches: boolean;
  /** CR0.AM and RFLAGS.AC have unaligned accesses of user code refused with #AC; QEMU ignores them. */
  readonly alignmentChecks: boolean;
  /** A reserved-bit fault is reported without P in its error code. */
  readonly rsvdWithoutP: boolean;
  /** The low reserved bits of PAE's page-directory pointers are checked. */
  readonly paePdpteRsvd: boolean;
  /** A walk sets the accessed bit in them, which the manuals have reserved. */
  readonly paePdpteAccessed: boolean;
  /** Error codes of faults on the interrupt table as QEMU computes them: no EXT bit, and 16 times the vector in long mode. */
  readonly idtErrorAsQemu: boolean;
  /** EXITINTINFO calls INT3 and INTO software interrupts, not exceptions. */
  readonly int3AsInterrupt: boolean;
  /** Read-modify-write instructions fault as a load first and as a store only when the load could be done. */
  readonly rmwFaultsAsRead: boolean;
  /** A TSS that is marked busy has no I/O permission map: what QEMU makes of the type that VMRUN loads. */
  readonly busyTssHasNoIoMap: boolean;
  /** PUSHA writes its registers from the lowest address up, and not in the order in which they are pushed. */
  readonly pushaUpwards: boolean;
  /** MASKMOVQ and MASKMOVDQU access memory even with an empty mask. */
  readonly maskMoveReachesAll: boolean;
  /** LGDT, LIDT, far pointers, far RET and IRET read the highest of their words first. */
  readonly readsHighWordFirst: boolean;
  /** An event in real mode is pushed before its vector is read, and not after. */
  readonly realModePushesFirst: boolean;
  /** Outside 64-bit mode a data access is checked against its segment: limit, type, null. QEMU adds the base and no more. */
  readonly segmentChecks: boolean;
  /**
   * Bytes of code, from the instruction that RFLAGS.RF was set for, in which it stays set. QEMU clears it behind a block that it
   * translated: these bytes stand for the straight run of a few instructions.
   */
  readonly resumeFlagReach: number;
  /** EXITINFO1 of an IOIO exit tells the address size of a string instruction. */
  readonly ioAddressSize: boolean;
  /** CLFLUSH and PREFETCH translate their address and can fault in nested paging. */
  readonly cacheHintsFault: boolean;
  readonly vmx: VmxProfile;
  /** Absent: no encrypted guests. */
  readonly snp?: SnpProfile;
  /** The L1 terminal fault bug: speculation reads what a not-present entry points to. */
  readonly l1tf: boolean;
  readonly gbPages: boolean;
  /** Linear addresses of 57 bits; the host runs with five levels of page tables. */
  readonly la57: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly umip: boolean;
  readonly pku: boolean;
  readonly fsgsbase: boolean;
  readonly pcid: boolean;
  readonly cpuid: readonly CpuidEntry[];
}

/** One CPUID leaf, all registers as unsigned 32-bit numbers. */
export interface CpuidEntry {
  readonly leaf: number;
  readonly index: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}
