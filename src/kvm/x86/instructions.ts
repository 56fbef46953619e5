/** Instructions that exit and need no decoding: HLT, MONITOR, MWAIT, RDPMC, XSETBV (@kvm x86.c). */
import { UD_VECTOR } from '../../arch/exceptions.ts';
import { RAX, RCX, RDX } from '../../arch/registers.ts';
import { KVM_EXIT_HLT } from '../kvm-run.ts';
import { MP_STATE_HALTED, type VcpuState } from '../vcpu-state.ts';
import { setXcr } from './control-registers.ts';
import { X86_FEATURE_MWAIT } from './cpuid-features.ts';
import { injectGp, queueException } from './exceptions.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { vcpuHasEvents } from './inject-events.ts';
import { skipEmulatedInstruction } from './skip.ts';
import { hasQuirk, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS } from './vm-x86.ts';

/** The vCPU waits for an event: in KVM with its own APIC, else userspace does the waiting. @kvm x86.c __kvm_emulate_halt */
export function emulateHaltNoskip(vcpu: VcpuState): number {
  vcpu.stats.halt_exits++;
  if (vcpu.x86.lapic !== null) {
    if (!vcpuHasEvents(vcpu)) vcpu.mpState = MP_STATE_HALTED;
    return 1;
  }
  vcpu.run.exitReason = KVM_EXIT_HLT;
  return 0;
}

/** @kvm x86.c kvm_emulate_halt */
export function emulateHalt(vcpu: VcpuState): number {
  const ret = skipEmulatedInstruction(vcpu);
  return emulateHaltNoskip(vcpu) !== 0 && ret !== 0 ? 1 : 0;
}

/** MONITOR and MWAIT do nothing, unless the quirk that says so is off. @kvm x86.c kvm_emulate_monitor_mwait */
export function emulateMonitorMwait(vcpu: VcpuState): number {
  if (!hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS) && !guestCpuidHas(vcpu, X86_FEATURE_MWAIT)) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  return skipEmulatedInstruction(vcpu);
}

/** No performance counters are virtualized. @kvm x86.c kvm_emulate_rdpmc */
export function emulateRdpmc(vcpu: VcpuState): number {
  injectGp(vcpu, 0);
  return 1;
}

/** @kvm x86.c kvm_emulate_xsetbv */
export function emulateXsetbv(vcpu: VcpuState): number {
  const { regs } = vcpu;
  const refused =
    vcpu.vm.vendor.getCpl(vcpu) !== 0 || setXcr(vcpu, regs[2 * RCX]!, regs[2 * RAX]!, regs[2 * RDX]!) !== 0;
  if (refused) {
    injectGp(vcpu, 0);
    return 1;
  }
  return skipEmulatedInstruction(vcpu);
}
