/** An intercepted #UD: instructions KVM emulates although the processor does not know them (@kvm x86.c handle_ud). */
import { RFLAGS_RF, RIP } from '../../arch/registers.ts';
import { X86EMUL_CONTINUE, X86Exception } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { EMULTYPE_TRAP_UD, EMULTYPE_TRAP_UD_FORCED } from './emul-type.ts';
import { emulateInstruction } from './emulate-instruction.ts';
import { readGuestVirt, userAccess } from './guest-access.ts';
import { getLinearRip, getRflags, ripWrite, setRflags } from './registers.ts';

/** ud2; .ascii "kvm": what precedes an instruction to be emulated, with kvm.force_emulation_prefix. */
const prefix = [0x0f, 0x0b, 0x6b, 0x76, 0x6d];
const FEP_CLEAR_RFLAGS_RF = 2;
const signature = new Uint8Array(5);
const fault = new X86Exception();

/** @kvm x86.c handle_ud */
export function handleUd(vcpu: VcpuState): number {
  let type = EMULTYPE_TRAP_UD;
  if (vcpu.vm.vendor.checkEmulateInstruction(vcpu, type) !== X86EMUL_CONTINUE) return 1;
  const flags = vcpu.vm.params.forceEmulationPrefix;
  if (flags !== 0) {
    const rip = getLinearRip(vcpu);
    const r = readGuestVirt(vcpu, rip[0]!, rip[1]!, signature, 0, prefix.length, userAccess(vcpu), 0, fault);
    if (r === X86EMUL_CONTINUE && prefix.every((byte, i) => signature[i] === byte)) {
      if ((flags & FEP_CLEAR_RFLAGS_RF) !== 0) setRflags(vcpu, getRflags(vcpu) & ~RFLAGS_RF);
      const lo = (vcpu.regs[2 * RIP]! + prefix.length) | 0;
      const carry = lo >>> 0 < prefix.length ? 1 : 0;
      ripWrite(vcpu, lo, (vcpu.regs[2 * RIP + 1]! + carry) | 0);
      type = EMULTYPE_TRAP_UD_FORCED;
    }
  }
  return emulateInstruction(vcpu, 0, 0, type);
}
