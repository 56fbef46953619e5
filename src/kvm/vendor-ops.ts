/** What the vendor module gives to the rest of KVM (@kvm kvm_host.h kvm-x86-ops.h): filled by src/kvm/svm and src/kvm/vmx. */
import type { ConfidentialOps } from './confidential.ts';
import type { EmulateCtxt } from './emulate/ctxt.ts';
import type { DescriptorTable, SegmentDesc } from './emulate/ops.ts';
import type { VcpuState } from './vcpu-state.ts';
import type { NestedOps } from './x86/nested-ops.ts';

/** What the last exit said, halves; one per vendor module, overwritten by every `getExitInfo` (@kvm kvm-x86-ops.h get_exit_info). */
export interface ExitInfo {
  reason: number;
  info1Lo: number;
  info1Hi: number;
  info2Lo: number;
  info2Hi: number;
  intrInfo: number;
  errorCode: number;
}

/** One implementation a VM; KVM calls nothing of a vendor but through it. */
export interface VendorOps {
  readonly name: 'svm' | 'vmx';
  /** Guests of the guest; NO_NESTED where there are none. */
  readonly nested: NestedOps;
  /** Guest paging is done by hardware with a second table (NPT, EPT). */
  readonly tdpEnabled: boolean;
  /** Largest TDP root level: 4 or 5. */
  readonly maxTdpLevel: number;
  /** Largest huge page: 1 = 4K, 2 = 2M, 3 = 1G. */
  readonly maxHugePageLevel: number;
  /** Entries of the processor's log of modified pages, 0 when it has none. @kvm kvm_host.h cpu_dirty_log_size */
  readonly cpuDirtyLogSize: number;
  /** The processor logs modified pages exactly while some slot's are logged. */
  updateCpuDirtyLogging(vcpu: VcpuState): void;
  /** APIC virtualization is there and wanted (@kvm x86.c enable_apicv). */
  readonly apicv: boolean;
  /** The APIC was enabled, disabled, or changed between its modes. */
  setVirtualApicMode(vcpu: VcpuState): void;
  /** The APIC access page may lie elsewhere in the host. */
  setApicAccessPageAddr(vcpu: VcpuState): void;
  /** Absent where the hardware has neither SEV-SNP nor TDX. */
  readonly confidential?: ConfidentialOps;
  /** 0, or a negative errno. */
  vcpuCreate(vcpu: VcpuState): number;
  vcpuFree(vcpu: VcpuState): void;
  vcpuReset(vcpu: VcpuState, initEvent: boolean): void;
  /** The vCPU's registers go into the processor, those of the vCPU that was there before out of it. */
  vcpuLoad(vcpu: VcpuState): void;
  /** Another vCPU gets the processor: what it holds of this one is saved. */
  putContext(vcpu: VcpuState): void;
  /** The processor held another vCPU, or none. */
  takeContext(vcpu: VcpuState): void;
  afterSetCpuid(vcpu: VcpuState): void;
  /** Programs the root table `rootPfn` (nested CR3, or CR3 when there is no TDP). */
  loadMmuPgd(vcpu: VcpuState, rootPfn: number, rootLevel: number): void;
  flushTlbAll(vcpu: VcpuState): void;
  flushTlbCurrent(vcpu: VcpuState): void;
  flushTlbGva(vcpu: VcpuState, lo: number, hi: number): void;
  flushTlbGuest(vcpu: VcpuState): void;
  getCpl(vcpu: VcpuState): number;
  getSegment(vcpu: VcpuState, sreg: number, seg: SegmentDesc): void;
  setSegment(vcpu: VcpuState, sreg: number, seg: SegmentDesc): void;
  /** Base of a segment, halves in `out`. */
  getSegmentBase(vcpu: VcpuState, sreg: number, out: Int32Array): void;
  /** True when CS is a 64-bit code segment (its L bit); `csDb` is its D bit. */
  csL(vcpu: VcpuState): boolean;
  csDb(vcpu: VcpuState): boolean;
  getIdt(vcpu: VcpuState, dt: DescriptorTable): void;
  setIdt(vcpu: VcpuState, dt: DescriptorTable): void;
  getGdt(vcpu: VcpuState, dt: DescriptorTable): void;
  setGdt(vcpu: VcpuState, dt: DescriptorTable): void;
  getRflags(vcpu: VcpuState): number;
  setRflags(vcpu: VcpuState, value: number): void;
  setCr0(vcpu: VcpuState, value: number): void;
  setCr4(vcpu: VcpuState, value: number): void;
  setEfer(vcpu: VcpuState, value: number): void;
  setDr7(vcpu: VcpuState, value: number): void;
  /** What the vendor asks of CR0 and CR4 beyond the architecture. @kvm kvm-x86-ops.h is_valid_cr0, is_valid_cr4 */
  isValidCr0?(vcpu: VcpuState, cr0: number): boolean;
  isValidCr4?(vcpu: VcpuState, cr4: number): boolean;
  /** The guest TSC is the processor's plus `vcpu.x86.tscOffset`, and in guest mode also `vcpu.x86.l2TscOffset`. */
  setTscOffset(vcpu: VcpuState): void;
  /** Debug registers the guest wrote without exits go into KVM's copies. */
  syncDirtyDebugRegs(vcpu: VcpuState): void;
  updateExceptionBitmap(vcpu: VcpuState): void;
  /** @kvm kvm-x86-ops.h get_msr, set_msr: 0, 1 for #GP, or KVM_MSR_RET_UNSUPPORTED; the value read goes into `vcpu.x86.msrValue`. */
  getMsr(vcpu: VcpuState, msr: number, hostInitiated: boolean): number;
  setMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number;
  /** What the guest reaches without exits has to follow the new filter. */
  msrFilterChanged(vcpu: VcpuState): void;
  /** KVM_RUN is about to run the guest: 1, or a negative errno. @kvm kvm-x86-ops.h vcpu_pre_run */
  vcpuPreRun?(vcpu: VcpuState): number;
  /** Enters the guest once. HOT */
  vcpuRun(vcpu: VcpuState, forceImmediateExit: boolean): void;
  /** Handles the exit: 1 resume, 0 to userspace, negative -errno. HOT */
  handleExit(vcpu: VcpuState): number;
  getExitInfo(vcpu: VcpuState): ExitInfo;
  /** The kernel's name of an exit reason, as the `kvm_exit` event prints it. */
  exitReasonName(reason: number): string;
  injectException(vcpu: VcpuState): void;
  injectIrq(vcpu: VcpuState, reinjected: boolean): void;
  injectNmi(vcpu: VcpuState): void;
  cancelInjection(vcpu: VcpuState): void;
  /** 1 allowed, 0 not now, -EBUSY: only after the next entry and exit. */
  smiAllowed(vcpu: VcpuState, forInjection: boolean): number;
  /** State is in `smram` (an SMRAM64 or SMRAM32 image) already: what else an SMI does, in guest mode. 0, else the VM dies. @kvm kvm-x86-ops.h enter_smm */
  enterSmm(vcpu: VcpuState, smram: DataView): number;
  /** RSM, before the state in `smram` is loaded: back into guest mode. 0, else a triple fault. @kvm kvm-x86-ops.h leave_smm */
  leaveSmm(vcpu: VcpuState, smram: DataView): number;
  enableSmiWindow(vcpu: VcpuState): void;
  nmiAllowed(vcpu: VcpuState, forInjection: boolean): number;
  interruptAllowed(vcpu: VcpuState, forInjection: boolean): number;
  enableIrqWindow(vcpu: VcpuState): void;
  enableNmiWindow(vcpu: VcpuState): void;
  getNmiMask(vcpu: VcpuState): boolean;
  setNmiMask(vcpu: VcpuState, masked: boolean): void;
  getIfFlag(vcpu: VcpuState): boolean;
  /** @kvm kvm_host.h apic_init_signal_blocked */
  initSignalBlocked(vcpu: VcpuState): boolean;
  updateCr8Intercept(vcpu: VcpuState, tpr: number, irr: number): void;
  /** @kvm kvm_host.h check_emulate_instruction: X86EMUL_*. */
  checkEmulateInstruction(vcpu: VcpuState, emulType: number): number;
  /**
   * Emulating L2's instruction: L1 may intercept it (X86_INTERCEPT_*) at this stage of it (X86_ICPT_*), and then gets its exit. X86EMUL_*.
   * @kvm kvm-x86-ops.h check_intercept
   */
  checkIntercept(vcpu: VcpuState, ctxt: EmulateCtxt, intercept: number, stage: number): number;
  /** Skips the current instruction: 1 done, 0 went to userspace. */
  skipEmulatedInstruction(vcpu: VcpuState): number;
  /** The vendor's hypercall instruction, three bytes. */
  patchHypercall(out: Uint8Array): void;
  /** Instruction bytes the exit delivered (DecodeAssists): offset of them in `vcpu.vm.memory.u8`, length; length 0 for none. */
  exitInsnLength(vcpu: VcpuState): number;
  exitInsnAddress(vcpu: VcpuState): number;
  getInterruptShadow(vcpu: VcpuState): number;
  setInterruptShadow(vcpu: VcpuState, mask: number): void;
}
