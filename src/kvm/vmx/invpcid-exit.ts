/** INVPCID exits where INVLPG does: under shadow paging (@kvm vmx.c handle_invpcid). */
import { UD_VECTOR } from '../../arch/exceptions.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_INVPCID } from '../x86/cpuid-features.ts';
import { queueException } from '../x86/exceptions.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { handleInvpcid, INVPCID_DESCRIPTOR_BYTES } from '../x86/invpcid.ts';
import { instructionInfo, instructionReg2, operandAddress, registerHi, registerLo } from './nested/memory-operand.ts';

/** The type is in a register, and the descriptor where the instruction information says. @kvm vmx.c handle_invpcid */
export function handleInvpcidExit(vcpu: VcpuState): number {
  if (!guestCpuidHas(vcpu, X86_FEATURE_INVPCID)) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  const info = instructionInfo(vcpu);
  const address = operandAddress(vcpu, info, false, INVPCID_DESCRIPTOR_BYTES);
  if (address === null) return 1;
  const reg = instructionReg2(info);
  return handleInvpcid(vcpu, registerLo(vcpu, reg), registerHi(vcpu, reg), address[0]!, address[1]!);
}
