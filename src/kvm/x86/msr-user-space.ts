/** MSR accesses that fail and that userspace wants to answer itself (@kvm x86.c kvm_msr_user_space). */
import { KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR } from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { EMULTYPE_COMPLETE_USER_EXIT, EMULTYPE_NO_DECODE, EMULTYPE_SKIP } from './emul-type.ts';
import { emulateInstruction } from './emulate-instruction.ts';
import { injectGp } from './exceptions.ts';
import { KVM_MSR_RET_FILTERED } from './msr-filter.ts';
import { KVM_MSR_RET_UNSUPPORTED } from './msr-index.ts';
import { writeEdxEax } from './registers.ts';
import { completeInsnGp } from './skip.ts';
import type { CompleteUserspaceIo } from './vcpu-x86.ts';

const KVM_MSR_EXIT_REASON_INVAL = 1 << 0;
const KVM_MSR_EXIT_REASON_UNKNOWN = 1 << 1;
const KVM_MSR_EXIT_REASON_FILTER = 1 << 2;
export const KVM_MSR_EXIT_REASON_VALID_MASK = 7;

/** @kvm x86.c kvm_msr_reason */
function reasonOf(r: number): number {
  if (r === KVM_MSR_RET_UNSUPPORTED) return KVM_MSR_EXIT_REASON_UNKNOWN;
  return r === KVM_MSR_RET_FILTERED ? KVM_MSR_EXIT_REASON_FILTER : KVM_MSR_EXIT_REASON_INVAL;
}

/** True when the exit is prepared; `r` is how the access failed. */
function toUserspace(
  vcpu: VcpuState,
  exitReason: number,
  msr: number,
  lo: number,
  hi: number,
  completion: CompleteUserspaceIo,
  r: number,
): boolean {
  const reason = reasonOf(r);
  if ((vcpu.vm.x86.userSpaceMsrMask & reason) === 0) return false;
  const { run } = vcpu;
  run.exitReason = exitReason;
  run.msr.begin(reason, msr);
  run.msr.setData(lo, hi);
  vcpu.x86.completeUserspaceIo = completion;
  return true;
}

/** @kvm x86.c complete_userspace_rdmsr */
function takeAnswer(vcpu: VcpuState): void {
  const { msr } = vcpu.run;
  if (!msr.error) writeEdxEax(vcpu, msr.dataLo, msr.dataHi);
}

/** An intercepted instruction is over. @kvm x86.c complete_fast_msr_access */
function completeFast(vcpu: VcpuState): number {
  return completeInsnGp(vcpu, vcpu.run.msr.error ? 1 : 0);
}

/** @kvm x86.c complete_fast_rdmsr */
function completeFastRdmsr(vcpu: VcpuState): number {
  takeAnswer(vcpu);
  return completeFast(vcpu);
}

/** An emulated instruction is over. @kvm x86.c complete_emulated_insn_gp */
function completeEmulated(vcpu: VcpuState): number {
  if (vcpu.run.msr.error) {
    injectGp(vcpu, 0);
    return 1;
  }
  return emulateInstruction(vcpu, 0, 0, EMULTYPE_NO_DECODE | EMULTYPE_SKIP | EMULTYPE_COMPLETE_USER_EXIT);
}

/** @kvm x86.c complete_emulated_rdmsr */
function completeEmulatedRdmsr(vcpu: VcpuState): number {
  takeAnswer(vcpu);
  return completeEmulated(vcpu);
}

/** A read failed with `r`: true when userspace is to answer it. */
export function readInUserspace(vcpu: VcpuState, msr: number, r: number, emulated: boolean): boolean {
  const completion = emulated ? completeEmulatedRdmsr : completeFastRdmsr;
  return toUserspace(vcpu, KVM_EXIT_X86_RDMSR, msr, 0, 0, completion, r);
}

/** A write failed with `r`: true when userspace is to answer it. */
export function writeInUserspace(
  vcpu: VcpuState,
  msr: number,
  lo: number,
  hi: number,
  r: number,
  emulated: boolean,
): boolean {
  return toUserspace(vcpu, KVM_EXIT_X86_WRMSR, msr, lo, hi, emulated ? completeEmulated : completeFast, r);
}
