/** INVLPG for shadow tables: the entry for one address is brought in line (@kvm mmu.c __kvm_mmu_invalidate_addr). */
import { LOCK_MMU_WRITE } from '../../locks.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { vcpuClearMmioInfo } from '../mmio-cache.ts';
import type { Mmu } from '../mmu-context.ts';
import { flushRemoteTlbsSptep } from './link.ts';
import { syncSpte } from './sync.ts';
import { sptepToSp } from './translation.ts';
import { ShadowWalk } from './walk.ts';
import { mmuPageZapPte } from './zap-page.ts';

/** @kvm mmu.c __kvm_mmu_invalidate_addr */
export function shadowInvalidateAddr(vcpu: VcpuState, mmu: Mmu, lo: number, hi: number, rootPfn: number): void {
  const vm = vcpu.vm;
  vcpuClearMmioInfo(vcpu, lo, hi);
  if (vm.log.warnOnOnce(mmu !== vcpu.mmu.mmu, '__kvm_mmu_invalidate_addr', 'not the current MMU')) return;
  if (rootPfn < 0) return;
  vm.locks.acquire(LOCK_MMU_WRITE);
  const walk = new ShadowWalk(vm);
  if (walk.startAtRoot(mmu, rootPfn, lo, hi)) {
    do {
      const sp = sptepToSp(vm, walk.sptep);
      if (sp.unsync) {
        const ret = syncSpte(vcpu, sp, walk.index);
        if (ret < 0) mmuPageZapPte(vm, sp, walk.sptep, null);
        if (ret !== 0) flushRemoteTlbsSptep(vm, walk.sptep);
      }
      if (sp.unsyncChildren === 0) break;
    } while (walk.next());
  }
  vm.locks.release(LOCK_MMU_WRITE);
}
