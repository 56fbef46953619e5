/** KVM_SET_GUEST_DEBUG (@kvm x86.c kvm_arch_vcpu_ioctl_set_guest_debug). */
import { BP_VECTOR, DB_VECTOR } from '../../arch/exceptions.ts';
import { hi64, lo64 } from '../../arch/halves.ts';
import { EBUSY } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { updateDr7 } from './debug-registers.ts';
import { queueException } from './exceptions.ts';
import * as D from './guest-debug-bits.ts';
import { getLinearRip, getRflags, setRflags } from './registers.ts';

/**
 * 0, or -EBUSY when an exception is pending that the injected one would replace. `debugreg` are DR0 to DR7, for KVM_GUESTDBG_USE_HW_BP.
 * @kvm x86.c kvm_arch_vcpu_ioctl_set_guest_debug
 */
export function setGuestDebug(vcpu: VcpuState, control: number, debugreg: readonly bigint[]): number {
  const x86 = vcpu.x86;
  if ((control & (D.KVM_GUESTDBG_INJECT_DB | D.KVM_GUESTDBG_INJECT_BP)) !== 0) {
    if (x86.exception.pending) return -EBUSY;
    queueException(vcpu, (control & D.KVM_GUESTDBG_INJECT_DB) !== 0 ? DB_VECTOR : BP_VECTOR);
  }
  // Read before the control word changes what of TF is the guest's.
  const rflags = getRflags(vcpu);
  x86.guestDebug = (control & D.KVM_GUESTDBG_ENABLE) !== 0 ? control : 0;
  if ((x86.guestDebug & D.KVM_GUESTDBG_USE_HW_BP) !== 0) {
    for (let i = 0; i < 4; i++) {
      x86.effDb[2 * i] = lo64(debugreg[i] ?? 0n);
      x86.effDb[2 * i + 1] = hi64(debugreg[i] ?? 0n);
    }
    x86.guestDebugDr7 = lo64(debugreg[7] ?? 0n);
  } else {
    x86.effDb.set(x86.db);
  }
  updateDr7(vcpu);
  if ((x86.guestDebug & D.KVM_GUESTDBG_SINGLESTEP) !== 0) {
    const rip = getLinearRip(vcpu);
    x86.singlestepRipLo = rip[0]!;
    x86.singlestepRipHi = rip[1]!;
  }
  setRflags(vcpu, rflags);
  vcpu.vm.vendor.updateExceptionBitmap(vcpu);
  return 0;
}
