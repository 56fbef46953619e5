/** The `kvm_exit` and `kvm_userspace_exit` events (@kvm trace.h, include/trace/events/kvm.h). */
import { hex64 } from '../../arch/flags.ts';
import { RIP } from '../../arch/registers.ts';
import { EINTR } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** @kvm trace.h kvm_exit, kvm_nested_vmexit */
export function traceKvmExit(vcpu: VcpuState, event: 'kvm_exit' | 'kvm_nested_vmexit' = 'kvm_exit'): void {
  const info = vcpu.vm.vendor.getExitInfo(vcpu);
  vcpu.vm.trace.emit(event, {
    vcpu: vcpu.id,
    reason: vcpu.vm.vendor.exitReasonName(info.reason),
    rip: hex64(vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!),
    info1: hex64(info.info1Lo, info.info1Hi),
    info2: hex64(info.info2Lo, info.info2Hi),
    intr_info: hex64(info.intrInfo, 0),
    error_code: hex64(info.errorCode, 0),
  });
}

/** The reasons the event has names for; newer ones are printed as hex. */
const reasons: Record<number, string> = {
  0: 'UNKNOWN',
  1: 'EXCEPTION',
  2: 'IO',
  3: 'HYPERCALL',
  4: 'DEBUG',
  5: 'HLT',
  6: 'MMIO',
  7: 'IRQ_WINDOW_OPEN',
  8: 'SHUTDOWN',
  9: 'FAIL_ENTRY',
  10: 'INTR',
  11: 'SET_TPR',
  12: 'TPR_ACCESS',
  16: 'NMI',
  17: 'INTERNAL_ERROR',
  24: 'SYSTEM_EVENT',
  26: 'IOAPIC_EOI',
  27: 'HYPERV',
  29: 'X86_RDMSR',
  30: 'X86_WRMSR',
};

export function traceUserspaceExit(vcpu: VcpuState, ret: number): void {
  const reason = vcpu.run.exitReason;
  const known = reasons[reason];
  const name = known !== undefined ? `KVM_EXIT_${known}` : `0x${reason.toString(16)}`;
  const text = ret < 0 ? `reason ${ret === -EINTR ? 'restart' : 'error'} (${-ret})` : `reason ${name} (${reason})`;
  vcpu.vm.trace.emit('kvm_userspace_exit', { text });
}
