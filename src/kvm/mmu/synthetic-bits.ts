/** Error code bits that KVM keeps for itself must not come from hardware (@kvm kvm_host.h PFERR_SYNTHETIC_MASK). */
import { PFERR_IMPLICIT_ACCESS_HI, PFERR_SYNTHETIC_MASK_HI } from '../../arch/error-code.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** The code's high half without the synthetic bits that the VM's revision has defined; when any was set, `where` warns of it once. HOT */
export function dropSyntheticBits(vcpu: VcpuState, errorHi: number, where: string): number {
  const { log, revision } = vcpu.vm;
  const mask = revision.rules.privateInErrorCode ? PFERR_SYNTHETIC_MASK_HI : PFERR_IMPLICIT_ACCESS_HI;
  if ((errorHi & mask) === 0) return errorHi;
  log.warnOnOnce(true, where, 'hardware set a synthetic error code bit');
  return errorHi & ~mask;
}
