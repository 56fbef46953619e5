/**
 * The processor: one core with SVM or VMX. KVM programs control blocks and page tables in physical memory, enters with `vmrun` or VMX's `enter`,
 * and finds the exit in the control block; neither side calls the other in any other way.
 */

import { PAT_RESET_HI, PAT_RESET_LO } from '../arch/msr.ts';
import type { PhysicalMemory } from '../host/physical-memory.ts';
import { defaultEngine } from './compiler/engine.ts';
import { Interpreter } from './interpreter/interpreter.ts';
import { absentFeatures } from './isa/features.ts';
import type { HardwareProfile } from './profile.ts';
import { Snp } from './snp/snp.ts';
import {
  BUDGET_AT,
  CAPTURED_END,
  FPU_CW_AT,
  GPR,
  INSNS_AT,
  MXCSR_AT,
  PAT_AT,
  QUIRK_MASKMOV_REACHES_ALL,
  QUIRK_PUSHA_UPWARDS,
  QUIRKS_AT,
  SEGMENTS_UNCHECKED_AT,
  STATE_BASE,
  STATE_END,
  XCR0_AT,
  XMM,
  XMM_SIZE,
} from './state.ts';
import { loadSystem, storeSystem } from './svm/vmcb-state.ts';
import { Svm } from './svm/vmrun.ts';
import { Core } from './system/core.ts';
import { Events } from './system/events.ts';
import { Port } from './system/port.ts';
import type { Shutdown } from './system/shutdown.ts';
import { TdxModule } from './tdx/module.ts';
import type { TdxState } from './tdx/module-state.ts';
import { Vmx, type VmxState } from './vmx/vmx.ts';

/** All of the processor that a guest can change, as `capture` copied it. */
export interface ProcessorState {
  readonly bytes: Uint8Array;
  readonly asid: number;
  readonly vmx: VmxState;
  readonly tdx: TdxState;
}

export class Processor {
  readonly memory: PhysicalMemory;
  readonly profile: HardwareProfile;
  readonly interpreter: Interpreter;
  /** General registers: number n has its low half at 2n. RAX and RSP go through the control block. */
  readonly gpr: Int32Array;
  /** The same and RIP behind them, which goes through the control block too. */
  readonly regs: Int32Array;
  /** The sixteen YMM registers, 32 bytes each. */
  readonly xmm: Uint8Array;
  /** Everything from FCW to the last YMM register, as state.ts lays it out: what a switch of vCPUs swaps. */
  readonly fpu: Uint8Array;
  private readonly memoryEnd: number;
  /** INSNS_AT, low half first: short enough to read to be inlined where the readings are many. */
  private readonly clock: Uint32Array;
  private readonly core: Core;
  private readonly svm: Svm;
  /** VMX root operation, on an Intel processor. */
  readonly vmx: Vmx;
  /** The TDX module, where the processor can run one. */
  readonly tdx: TdxModule;

  constructor(memory: PhysicalMemory, profile: HardwareProfile) {
    this.memory = memory;
    this.memoryEnd = memory.frames * 4096;
    this.profile = profile;
    this.core = new Core(memory, profile);
    const events = new Events(this.core);
    this.interpreter = new Interpreter(
      memory,
      new Port(this.core, events),
      defaultEngine(),
      absentFeatures(profile.cpuid),
    );
    this.core.code = this.interpreter;
    if (profile.snp !== undefined) this.core.snp = new Snp(memory, this.core, profile.snp, profile.cpuid);
    this.svm = new Svm(this.core, events, this.interpreter);
    this.vmx = new Vmx(this.core, events, this.interpreter);
    this.tdx = new TdxModule(this.core, this.vmx);
    const buffer = memory.memory.buffer;
    this.gpr = new Int32Array(buffer, GPR, 32);
    this.clock = new Uint32Array(buffer, INSNS_AT, 2);
    this.regs = new Int32Array(buffer, GPR, 34);
    this.xmm = new Uint8Array(buffer, XMM, 16 * XMM_SIZE);
    this.fpu = new Uint8Array(buffer, FPU_CW_AT, STATE_END - FPU_CW_AT);
    memory.setWatchedWrite((pfn) => this.interpreter.invalidateCode(pfn));
    this.reset();
  }

  private reset(): void {
    const i32 = this.memory.i32;
    i32[FPU_CW_AT >> 2] = 0x37f;
    i32[MXCSR_AT >> 2] = 0x1f80;
    i32[XCR0_AT >> 2] = 1;
    i32[SEGMENTS_UNCHECKED_AT >> 2] = this.profile.segmentChecks ? 0 : 1;
    i32[QUIRKS_AT >> 2] =
      (this.profile.pushaUpwards ? QUIRK_PUSHA_UPWARDS : 0) |
      (this.profile.maskMoveReachesAll ? QUIRK_MASKMOV_REACHES_ALL : 0);
    i32[PAT_AT >> 2] = PAT_RESET_LO;
    i32[(PAT_AT >> 2) + 1] = PAT_RESET_HI;
  }

  /** Virtual time: instructions retired since the machine started, event deliveries included. */
  get insns(): number {
    const clock = this.clock;
    return clock[1]! * 0x1_0000_0000 + clock[0]!;
  }

  /** SEV-SNP; null on a processor without it. */
  get snp(): Snp | null {
    return this.core.snp;
  }

  /** What was known of the guest of the last SVM_EXIT_SHUTDOWN. */
  get shutdown(): Shutdown | null {
    return this.core.shutdown;
  }

  /** The next `vmrun` takes a physical interrupt (SVM_EXIT_INTR) after at most `instructions`; 0: after event injection at once. */
  setBudget(instructions: number): void {
    this.memory.i32[BUDGET_AT >> 2] = instructions;
  }

  /**
   * Enters the guest of the control block at physical address `vmcbPa` and comes back with its #VMEXIT (@apm 15.5). HOT
   * @throws RangeError when the address is not that of a page of memory
   */
  vmrun(vmcbPa: number): void {
    if ((vmcbPa & 0xfff) !== 0 || vmcbPa >= this.memoryEnd) throw new RangeError(`VMCB at ${vmcbPa}`);
    this.svm.vmrun(vmcbPa);
  }

  /** VMLOAD: FS, GS, TR, LDTR, KERNEL_GS_BASE and the MSRs of SYSCALL and SYSENTER. */
  vmload(vmcbPa: number): void {
    loadSystem(this.core, vmcbPa >>> 2);
  }

  /** VMSAVE: stores what VMLOAD loads. */
  vmsave(vmcbPa: number): void {
    storeSystem(this.core, vmcbPa >>> 2);
  }

  /** INVLPGA: forgets the page of linear address `va` in address space `asid`. */
  invlpga(vaLo: number, vaHi: number, asid: number): void {
    if (asid === this.svm.asid) this.core.tlb.invalidateAddress(vaLo, vaHi);
  }

  /** Forgets every translation. */
  flushTlbAll(): void {
    this.core.tlb.flushAll();
  }

  /** Copies registers, TLB and virtual time. */
  capture(): ProcessorState {
    return {
      bytes: this.memory.u8.slice(STATE_BASE, CAPTURED_END),
      asid: this.svm.asid,
      vmx: this.vmx.capture(),
      tdx: this.tdx.capture(),
    };
  }

  /** Puts a captured state back; what was decoded is forgotten, as memory will have changed too. */
  restore(state: ProcessorState): void {
    this.memory.u8.set(state.bytes, STATE_BASE);
    this.svm.asid = state.asid;
    this.svm.forget();
    this.vmx.restore(state.vmx);
    this.tdx.restore(state.tdx);
    this.core.adoptState();
    this.interpreter.flushDecoded();
  }
}
