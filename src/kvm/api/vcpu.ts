/** A virtual processor: the ioctls of a vCPU file descriptor. Every method throws KvmError, with EIO once the VM is dead. */
import { hex } from '../../arch/halves.ts';
import { E2BIG, EINVAL, EIO, ENOTTY, errnoName } from '../../host/errno.ts';
import { encryptArgument, type MemoryEncryptCommand } from '../confidential.ts';
import type { DirtyRingEntry } from '../dirty/dirty-ring.ts';
import { KVM_EXIT_MEMORY_FAULT, type KvmRun } from '../kvm-run.ts';
import { vcpuPreFaultMemory } from '../pre-fault.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { getCpuid2, setCpuid2 } from '../x86/cpuid.ts';
import { vcpuEnableCap } from '../x86/enable-cap.ts';
import { getVcpuEvents, setVcpuEvents, type VcpuEvents } from '../x86/events.ts';
import { setGuestDebug } from '../x86/guest-debug.ts';
import { getLapicState, setLapicState } from '../x86/lapic-state.ts';
import { setMce, setupMce } from '../x86/machine-check.ts';
import { getMpState, setMpState } from '../x86/mp-state.ts';
import { ioctlGetMsr, ioctlSetMsr } from '../x86/msr-ioctl.ts';
import { getNestedState, setNestedState } from '../x86/nested-state.ts';
import { getRegs, setRegs } from '../x86/regs.ts';
import { vcpuIoctlRun } from '../x86/run.ts';
import { injectSmi } from '../x86/smm.ts';
import { getSregs, setSregs } from '../x86/sregs.ts';
import { translate } from '../x86/translate.ts';
import { injectNmi, vcpuInterrupt } from '../x86/user-events.ts';
import { getXcrs, getXsave, setXcrs, setXsave, type Xcr } from '../x86/xsave.ts';
import { u64 } from './arguments.ts';
import { type CpuidEntry2, fromCpuidEntry2, toCpuidEntry2 } from './cpuid-entry.ts';
import { check, KvmError } from './kvm-error.ts';
import type { MsrEntry, Regs, Sregs, Translation } from './registers.ts';
import { readExit, type VcpuExit } from './vcpu-exit.ts';

/** After so much, a signal arrives: KVM_RUN ends with EINTR before it enters the guest again. */
export interface RunLimits {
  /** Exits of the guest to KVM. */
  readonly maxExits?: number;
  /** Instructions that the guest retires. */
  readonly maxInstructions?: number;
  /**
   * The caller has other vCPUs to run on the same processor: instead of waiting KVM_RUN ends with EINTR when the vCPU halts, and also
   * when it has woken another one or spins (PAUSE).
   */
  readonly sharesProcessor?: boolean;
}

/** What ioctl(KVM_RUN) returned, and what it left in kvm_run. */
export interface RunResult {
  readonly ret: 0 | -1;
  /** Name of the errno when `ret` is -1. */
  readonly errno: string | null;
  /** The exit; null when the call failed and left none: only a memory fault comes together with an error. */
  readonly exit: VcpuExit | null;
}

/** What is left of the range, and the result of the ioctl. */
export interface PreFaultResult {
  readonly ret: 0 | -1;
  readonly errno: string | null;
  readonly gpa: number;
  readonly size: number;
}

/** struct kvm_x86_mce: an error as KVM_X86_SET_MCE takes it. */
export interface MachineCheckError {
  readonly bank: number;
  /** IA32_MCi_STATUS, _ADDR and _MISC. */
  readonly status: bigint;
  readonly addr: bigint;
  readonly misc: bigint;
  readonly mcgStatus: bigint;
}

function split(word: number | bigint): [lo: number, hi: number] {
  const value = u64(word);
  return [Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))];
}

/** A vCPU file descriptor. Made by Vm.createVcpu. */
export class Vcpu {
  /** KVM's own state of the vCPU: for tools that look inside. */
  readonly state: VcpuState;

  constructor(state: VcpuState) {
    this.state = state;
  }

  get id(): number {
    return this.state.id;
  }

  /** The page shared with KVM: exits are read from it, and the data of reads go into it. */
  get kvmRun(): KvmRun {
    return this.state.run;
  }

  /** Registers cannot be read or written: an encrypted guest's, once it is launched; a TD's always. */
  get hasHiddenState(): boolean {
    return this.state.svm.sev?.stateProtected === true || this.state.tdx !== null;
  }

  private open(operation: string): VcpuState {
    const vcpu = this.alive(operation);
    if (this.hasHiddenState) throw new KvmError(EINVAL, operation, 'the state is encrypted');
    return vcpu;
  }

  private alive(operation: string): VcpuState {
    if (this.state.vm.log.vmBugged) throw new KvmError(EIO, operation, 'the VM is dead');
    return this.state;
  }

  /**
   * KVM_RUN. Completes the previous exit with the data that userspace has left in `kvmRun`, then runs the guest to the next one.
   * @returns ret -1 with EINTR (signal, limit), EFAULT and EHWPOISON (with a memory-fault exit, or without: KVM has no better answer),
   *   EAGAIN (not runnable yet); nothing is thrown for what the guest does
   * @throws KvmError EIO: the VM is dead
   * @kvm x86.c kvm_arch_vcpu_ioctl_run
   */
  run(limits: RunLimits = {}): RunResult {
    const { maxExits = Number.POSITIVE_INFINITY, maxInstructions = Number.POSITIVE_INFINITY } = limits;
    const r = this.ioctlRun(maxInstructions, limits.sharesProcessor === true, maxExits);
    const { run } = this.state;
    if (r < 0) {
      const exit = run.exitReason === KVM_EXIT_MEMORY_FAULT ? readExit(run) : null;
      return { ret: -1, errno: errnoName(r), exit };
    }
    return { ret: 0, errno: null, exit: readExit(run) };
  }

  /**
   * KVM_RUN for a run loop that answers many exits: as `run`, but nothing is allocated. The exit is where the ABI has it, in `kvmRun`.
   * Limits are those of `RunLimits`. HOT
   * @returns 0, or a negative errno
   * @throws KvmError EIO: the VM is dead
   */
  ioctlRun(maxInstructions: number, sharesProcessor: boolean, maxExits = Number.POSITIVE_INFINITY): number {
    const vcpu = this.state;
    if (vcpu.vm.log.vmBugged) throw new KvmError(EIO, 'KVM_RUN', 'the VM is dead');
    vcpu.signalAtExit = vcpu.stats.exits + maxExits;
    vcpu.signalAtInstruction = vcpu.vm.processor.insns + maxInstructions;
    vcpu.haltReturns = sharesProcessor;
    vcpu.handsOver = sharesProcessor && vcpu.vm.vcpus.length > 1;
    const r = vcpuIoctlRun(vcpu);
    vcpu.haltReturns = false;
    vcpu.handsOver = false;
    vcpu.signal = false;
    vcpu.signalAtExit = Number.POSITIVE_INFINITY;
    vcpu.signalAtInstruction = Number.POSITIVE_INFINITY;
    return r;
  }

  /** Sends a signal to the vCPU's thread: the KVM_RUN that is under way, or the next one, ends with EINTR. */
  interrupt(): void {
    this.state.signal = true;
  }

  /** KVM_GET_REGS */
  getRegs(): Regs {
    return getRegs(this.open('KVM_GET_REGS'));
  }

  /** KVM_SET_REGS: a pending exception is dropped. @kvm regs.c __set_regs */
  setRegs(regs: Regs): void {
    setRegs(this.open('KVM_SET_REGS'), regs);
  }

  /** KVM_GET_SREGS */
  getSregs(): Sregs {
    return getSregs(this.open('KVM_GET_SREGS'));
  }

  /** KVM_SET_SREGS. @throws KvmError EINVAL: control registers or EFER that do not fit together @kvm regs.c __set_sregs */
  setSregs(sregs: Sregs): void {
    check(setSregs(this.open('KVM_SET_SREGS'), sregs), 'KVM_SET_SREGS');
  }

  /** KVM_GET_XSAVE: 4096 bytes, XSAVE's standard form. */
  getXsave(): Uint8Array {
    return getXsave(this.open('KVM_GET_XSAVE'));
  }

  /** KVM_SET_XSAVE. @throws KvmError EINVAL: components that there are not, a header or MXCSR with reserved bits */
  setXsave(area: Uint8Array): void {
    check(setXsave(this.open('KVM_SET_XSAVE'), area), 'KVM_SET_XSAVE');
  }

  /** KVM_GET_XCRS */
  getXcrs(): Xcr[] {
    return getXcrs(this.open('KVM_GET_XCRS'));
  }

  /** KVM_SET_XCRS. @throws KvmError EINVAL: XCR0 as the guest may not have it */
  setXcrs(xcrs: readonly Xcr[]): void {
    check(setXcrs(this.open('KVM_SET_XCRS'), xcrs), 'KVM_SET_XCRS');
  }

  /** KVM_GET_CPUID2 */
  getCpuid2(): CpuidEntry2[] {
    return getCpuid2(this.alive('KVM_GET_CPUID2')).map(toCpuidEntry2);
  }

  /** KVM_SET_CPUID2. @throws KvmError EINVAL: changed after KVM_RUN, or an impossible address width; E2BIG */
  setCpuid2(entries: readonly CpuidEntry2[]): void {
    const r = setCpuid2(this.alive('KVM_SET_CPUID2'), entries.map(fromCpuidEntry2));
    check(r, 'KVM_SET_CPUID2', `${entries.length} entries`);
  }

  /** KVM_GET_MSRS: fills `data` of the entries, up to the first MSR that cannot be read. @returns how many */
  getMsrs(entries: readonly MsrEntry[]): number {
    const vcpu = this.alive('KVM_GET_MSRS');
    for (const [i, entry] of entries.entries()) {
      const data = ioctlGetMsr(vcpu, entry.index >>> 0);
      if (data === null) return i;
      entry.data = data;
    }
    return entries.length;
  }

  /** KVM_SET_MSRS: up to the first MSR that refuses its value. @returns how many */
  setMsrs(entries: readonly MsrEntry[]): number {
    const vcpu = this.alive('KVM_SET_MSRS');
    for (const [i, entry] of entries.entries()) {
      if (!ioctlSetMsr(vcpu, entry.index >>> 0, u64(entry.data))) return i;
    }
    return entries.length;
  }

  /** KVM_GET_VCPU_EVENTS */
  getVcpuEvents(): VcpuEvents {
    return getVcpuEvents(this.alive('KVM_GET_VCPU_EVENTS'));
  }

  /** KVM_SET_VCPU_EVENTS. @throws KvmError EINVAL: flags, or events that cannot be together */
  setVcpuEvents(events: VcpuEvents): void {
    check(setVcpuEvents(this.alive('KVM_SET_VCPU_EVENTS'), events), 'KVM_SET_VCPU_EVENTS');
  }

  /**
   * KVM_INTERRUPT: an external interrupt from userspace's interrupt controller; wait for `readyForInterruptInjection` of kvm_run first.
   * @throws KvmError EINVAL: vector; ENXIO: the interrupt controllers are KVM's
   */
  injectInterrupt(vector: number): void {
    check(vcpuInterrupt(this.alive('KVM_INTERRUPT'), vector), 'KVM_INTERRUPT', `vector ${vector}`);
  }

  /** KVM_NMI */
  nmi(): void {
    injectNmi(this.alive('KVM_NMI'));
  }

  /** KVM_SMI: at the next entry the vCPU goes into system management mode. */
  smi(): void {
    injectSmi(this.alive('KVM_SMI'));
  }

  /** KVM_X86_SETUP_MCE: IA32_MCG_CAP. @throws KvmError EINVAL: no banks or too many, bits that are not supported */
  setupMce(cap: number | bigint): void {
    const [lo, hi] = split(cap);
    check(setupMce(this.alive('KVM_X86_SETUP_MCE'), lo, hi), 'KVM_X86_SETUP_MCE', hex(cap));
  }

  /**
   * KVM_X86_SET_MCE: puts an error into a bank; one that was not corrected raises #MC, or shuts a guest down that cannot take it.
   * @throws KvmError EINVAL: no such bank, or a status that is not valid
   */
  setMce(error: MachineCheckError): void {
    const [statusLo, statusHi] = split(error.status);
    const [addrLo, addrHi] = split(error.addr);
    const [miscLo, miscHi] = split(error.misc);
    const [mcgStatusLo, mcgStatusHi] = split(error.mcgStatus);
    const { bank } = error;
    const record = { bank, statusLo, statusHi, addrLo, addrHi, miscLo, miscHi, mcgStatusLo, mcgStatusHi };
    check(setMce(this.alive('KVM_X86_SET_MCE'), record), 'KVM_X86_SET_MCE', `bank ${bank}`);
  }

  /**
   * KVM_GET_NESTED_STATE: struct kvm_nested_state with its data, for a buffer of `size` bytes.
   * @throws KvmError E2BIG: `size` is too small, EINVAL: no nested virtualization
   */
  getNestedState(size = 128 + 2 * 4096): Uint8Array {
    const out = new Uint8Array(size);
    const r = getNestedState(this.alive('KVM_GET_NESTED_STATE'), out);
    check(Math.min(r, 0), 'KVM_GET_NESTED_STATE');
    if (r > size) throw new KvmError(E2BIG, 'KVM_GET_NESTED_STATE', `${r} bytes needed`);
    return out.subarray(0, r);
  }

  /**
   * KVM_SET_NESTED_STATE: after the vCPU's other registers but before those that KVM_SET_REGS writes.
   * @throws KvmError EINVAL: no state that there can be; EFAULT: it is longer than what was given
   */
  setNestedState(state: Uint8Array): void {
    check(setNestedState(this.alive('KVM_SET_NESTED_STATE'), state), 'KVM_SET_NESTED_STATE');
  }

  /** KVM_GET_MP_STATE: KVM_MP_STATE_* */
  getMpState(): number {
    return getMpState(this.alive('KVM_GET_MP_STATE'));
  }

  /** KVM_SET_MP_STATE. @throws KvmError EINVAL */
  setMpState(state: number): void {
    check(setMpState(this.alive('KVM_SET_MP_STATE'), state), 'KVM_SET_MP_STATE', `state ${state}`);
  }

  /** KVM_SET_GUEST_DEBUG: `control` KVM_GUESTDBG_*; debug registers for KVM_GUESTDBG_USE_HW_BP. @throws KvmError EBUSY, EINVAL */
  setGuestDebug(debug: { control: number; debugreg?: readonly bigint[] }): void {
    const r = setGuestDebug(this.open('KVM_SET_GUEST_DEBUG'), debug.control, debug.debugreg ?? []);
    check(r, 'KVM_SET_GUEST_DEBUG', `control ${hex(debug.control)}`);
  }

  /** KVM_GET_LAPIC: 1024 bytes, a register every 16. @throws KvmError EINVAL: no APIC in KVM */
  getLapic(): Uint8Array {
    const page = getLapicState(this.alive('KVM_GET_LAPIC'));
    if (typeof page === 'number') throw new KvmError(page, 'KVM_GET_LAPIC');
    return page;
  }

  /** KVM_SET_LAPIC. @throws KvmError EINVAL: no APIC in KVM */
  setLapic(page: Uint8Array): void {
    check(setLapicState(this.alive('KVM_SET_LAPIC'), page), 'KVM_SET_LAPIC');
  }

  /** KVM_TRANSLATE: as a supervisor's implicit read; `writeable` and `usermode` are constants. @kvm x86.c kvm_arch_vcpu_ioctl_translate */
  translate(gva: number | bigint): Translation {
    return translate(this.alive('KVM_TRANSLATE'), u64(gva));
  }

  /**
   * KVM_PRE_FAULT_MEMORY: maps the range for the vCPU as reads would.
   * @returns the rest of the range; ret 0 when at least one page was mapped. Errno: EINVAL (flags, alignment, range), EINTR, ENOENT
   *   (no slot), EFAULT, EHWPOISON
   * @kvm kvm_main.c kvm_vcpu_pre_fault_memory
   */
  preFaultMemory(range: { gpa: number | bigint; size: number | bigint; flags?: number | bigint }): PreFaultResult {
    const left = { gpa: u64(range.gpa), size: u64(range.size) };
    const vcpu = this.alive('KVM_PRE_FAULT_MEMORY');
    const r = vcpuPreFaultMemory(vcpu, left, u64(range.flags ?? 0));
    // The signal that ended it is taken on the way back to userspace.
    vcpu.signal = false;
    const rest = { gpa: Number(left.gpa), size: Number(left.size) };
    return r < 0 ? { ret: -1, errno: errnoName(r), ...rest } : { ret: 0, errno: null, ...rest };
  }

  /** Harvests the dirty ring as a userspace does: its new entries, each marked for `Vm.resetDirtyRings`. */
  dirtyRingEntries(): DirtyRingEntry[] {
    return this.state.dirtyRing === null ? [] : this.state.dirtyRing.harvest();
  }

  /**
   * KVM_MEMORY_ENCRYPT_OP on the vCPU, which TDX has.
   * @throws KvmError ENOTTY: a VM of another kind; else as Vm.memoryEncryptOp
   * @kvm x86.c kvm_arch_vcpu_ioctl
   */
  memoryEncryptOp(command: MemoryEncryptCommand): void {
    const vcpu = this.alive('KVM_MEMORY_ENCRYPT_OP');
    const r = vcpu.vm.vendor.confidential?.vcpuMemoryEncryptOp?.(vcpu, command) ?? -ENOTTY;
    check(r, 'KVM_MEMORY_ENCRYPT_OP', encryptArgument(command));
  }

  /** KVM_ENABLE_CAP on the vCPU. @throws KvmError EINVAL */
  enableCap(cap: number, flags = 0, args: readonly (number | bigint)[] = []): number {
    const r = vcpuEnableCap(this.alive('KVM_ENABLE_CAP'), cap, flags, args.map(u64));
    return check(r, 'KVM_ENABLE_CAP', `capability ${cap}, flags ${hex(flags)}`);
  }

  /** The vCPU's binary statistics, by the kernel's names. */
  stats(): Record<string, number> {
    return { ...this.state.stats };
  }
}
