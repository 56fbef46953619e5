/** Moving past an instruction, and the single step that may end there (@kvm x86.c kvm_skip_emulated_instruction). */
import { DR6_ACTIVE_LOW, DR6_BS } from '../../arch/debug-registers.ts';
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { RFLAGS_TF } from '../../arch/registers.ts';
import { KVM_EXIT_DEBUG } from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { injectGp, queueExceptionP } from './exceptions.ts';
import { KVM_GUESTDBG_SINGLESTEP } from './guest-debug-bits.ts';
import { getLinearRip } from './registers.ts';

/** One instruction is done and TF was set: userspace's business, or the guest's #DB. @kvm x86.c kvm_vcpu_do_singlestep */
export function doSinglestep(vcpu: VcpuState): number {
  if ((vcpu.x86.guestDebug & KVM_GUESTDBG_SINGLESTEP) !== 0) {
    const run = vcpu.run;
    run.debug.setDr6(DR6_BS | DR6_ACTIVE_LOW);
    const rip = getLinearRip(vcpu);
    run.debug.setPc(rip[0]!, rip[1]!);
    run.debug.exception = DB_VECTOR;
    run.exitReason = KVM_EXIT_DEBUG;
    return 0;
  }
  queueExceptionP(vcpu, DB_VECTOR, DR6_BS, 0);
  return 1;
}

/** 1 to go on, 0 to userspace. @kvm x86.c kvm_skip_emulated_instruction */
export function skipEmulatedInstruction(vcpu: VcpuState): number {
  const rflags = vcpu.vm.vendor.getRflags(vcpu);
  if (vcpu.vm.vendor.skipEmulatedInstruction(vcpu) === 0) return 0;
  return (rflags & RFLAGS_TF) !== 0 ? doSinglestep(vcpu) : 1;
}

/** @kvm x86.c kvm_complete_insn_gp */
export function completeInsnGp(vcpu: VcpuState, err: number): number {
  if (err !== 0) {
    injectGp(vcpu, 0);
    return 1;
  }
  return skipEmulatedInstruction(vcpu);
}
