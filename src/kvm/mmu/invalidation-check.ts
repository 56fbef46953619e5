/** The unlocked question that a fault asks before and after its page is fetched: was the gfn invalidated since the snapshot? */
import { mmuInvalidateRetryGfnUnsafe } from '../notifier.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { PageFault } from './fault.ts';
import { RET_PF_CONTINUE, RET_PF_RETRY } from './ret-pf.ts';

/** RET_PF_RETRY when it was, RET_PF_CONTINUE otherwise; MMIO is never invalidated. @kvm kvm_host.h mmu_invalidate_retry_gfn_unsafe. HOT */
export function retryIfInvalidated(vcpu: VcpuState, fault: PageFault): number {
  if (fault.slot === null) return RET_PF_CONTINUE;
  return mmuInvalidateRetryGfnUnsafe(vcpu.vm, fault.mmuSeq, fault.gfn) ? RET_PF_RETRY : RET_PF_CONTINUE;
}
