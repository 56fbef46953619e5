/** An instruction KVM cannot emulate (@kvm x86.c handle_emulation_failure, prepare_emulation_failure_exit). */
import { GP_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import {
  KVM_EXIT_INTERNAL_ERROR,
  KVM_INTERNAL_ERROR_EMULATION,
  KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
} from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { EMULTYPE_SKIP, EMULTYPE_VMWARE_GP } from './emul-type.ts';
import { queueException, queueExceptionE } from './exceptions.ts';
import { traceEmulateInsn } from './trace-emulate.ts';

/** Words of exit information that follow the flags and the instruction bytes. */
const INFO_WORDS = 5;

/** KVM_EXIT_INTERNAL_ERROR, suberror 1, with `insnSize` instruction bytes when there are any. @kvm x86.c prepare_emulation_failure_exit */
export function prepareEmulationFailureExit(vcpu: VcpuState, insnBytes: Uint8Array | null, insnSize: number): void {
  const run = vcpu.run;
  const info = vcpu.vm.vendor.getExitInfo(vcpu);
  run.exitReason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
  run.emulationFailure.flags = 0;
  let at = 1;
  if (insnBytes !== null && insnSize > 0) {
    at += 2;
    run.emulationFailure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulationFailure.insnSize = insnSize;
    run.emulationFailure.insnBytes.fill(0x90);
    run.emulationFailure.insnBytes.set(insnBytes.subarray(0, insnSize));
  }
  run.internal.setData(at, info.reason, 0);
  run.internal.setData(at + 1, info.info1Lo, info.info1Hi);
  run.internal.setData(at + 2, info.info2Lo, info.info2Hi);
  run.internal.setData(at + 3, info.intrInfo, 0);
  run.internal.setData(at + 4, info.errorCode, 0);
  run.internal.ndata = at + INFO_WORDS;
}

function prepareCtxtFailureExit(vcpu: VcpuState): void {
  const fetch = vcpu.x86.emulateCtxt!.fetch;
  prepareEmulationFailureExit(vcpu, fetch.data, fetch.end);
}

/** #UD for user mode, an exit for everybody who asked for one and for the kernel: 1 or 0. @kvm x86.c handle_emulation_failure */
export function handleEmulationFailure(vcpu: VcpuState, emulType: number): number {
  vcpu.stats.insn_emulation_fail++;
  traceEmulateInsn(vcpu, true);
  if ((emulType & EMULTYPE_VMWARE_GP) !== 0) {
    queueExceptionE(vcpu, GP_VECTOR, 0);
    return 1;
  }
  if (vcpu.vm.x86.exitOnEmulationError || (emulType & EMULTYPE_SKIP) !== 0) {
    prepareCtxtFailureExit(vcpu);
    return 0;
  }
  queueException(vcpu, UD_VECTOR);
  if (!vcpu.guestMode && vcpu.vm.vendor.getCpl(vcpu) === 0) {
    prepareCtxtFailureExit(vcpu);
    return 0;
  }
  return 1;
}
