/** The TSC offset of the VMCB (@kvm svm.c svm_write_tsc_offset). */
import { hiOf, loOf } from '../../arch/halves.ts';
import { VMCB_TSC_OFFSET } from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { vmcb01Write64, vmcbWrite64 } from './vmcb-access.ts';

/** High half of a sum whose low half came out as `low` after `addend` was added. */
function carry(low: number, addend: number): number {
  return low >>> 0 < addend >>> 0 ? 1 : 0;
}

/**
 * The processor counts instructions; what passed while all vCPUs were halted comes on top of the guest's own offset, and in guest mode
 * what L1 wants L2 to be ahead. @kvm svm.c svm_write_tsc_offset
 */
export function svmWriteTscOffset(vcpu: VcpuState): void {
  const { x86, svm } = vcpu;
  const idle = vcpu.vm.x86.idleTime;
  x86.tscIdleTime = idle;
  const lo = (x86.tscOffsetLo + loOf(idle)) | 0;
  const hi = (x86.tscOffsetHi + hiOf(idle) + carry(lo, loOf(idle))) | 0;
  vmcb01Write64(svm, VMCB_TSC_OFFSET, lo, hi);
  if (!vcpu.guestMode) return;
  const l2 = (lo + x86.l2TscOffsetLo) | 0;
  vmcbWrite64(svm, VMCB_TSC_OFFSET, l2, (hi + x86.l2TscOffsetHi + carry(l2, x86.l2TscOffsetLo)) | 0);
}
