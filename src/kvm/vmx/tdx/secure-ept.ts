/**
 * The external tables of a TD: the secure EPT, which follows KVM's mirror by SEAMCALLs (@kvm tdx.c tdx_sept_link_private_spt,
 * tdx_sept_set_private_spte, tdx_sept_remove_private_spte, tdx_sept_free_private_spt).
 */
import { PG_LEVEL_4K } from '../../../arch/paging.ts';
import { OPERAND_ID_RCX, TDX_EPT_ENTRY_STATE_INCORRECT, tdxStatus } from '../../../arch/tdx.ts';
import { EBUSY, EINVAL, EIO } from '../../../host/errno.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import type { ExternalTables } from '../../mmu/tdp-mmu/mirror.ts';
import type { VmState } from '../../vm-state.ts';
import * as S from './seamcalls.ts';
import { TD_STATE_RUNNABLE, type VmTdx } from './vm-tdx.ts';

/** A page that was a TD's is cleared before anybody else gets it. @kvm tdx.c tdx_clear_page */
export function tdxClearPage(vm: VmState, pfn: number): void {
  vm.memory.noteWrite(pfn);
  vm.memory.u8.fill(0, pfn * 4096, (pfn + 1) * 4096);
}

/** Takes a page of a TD that is torn down. 0 or -EIO. @kvm tdx.c tdx_reclaim_page */
export function tdxReclaimPage(vm: VmState, tdx: VmTdx, pfn: number): number {
  const err = S.tdhPhymemPageReclaim(vm, tdx, pfn);
  if (vm.log.warnOnOnce(err !== 0, 'tdx_reclaim_page', 'the TDX module keeps the page')) return -EIO;
  tdxClearPage(vm, pfn);
  return 0;
}

export class SecureEpt implements ExternalTables {
  private readonly vm: VmState;
  private readonly tdx: VmTdx;

  constructor(vm: VmState, tdx: VmTdx) {
    this.vm = vm;
    this.tdx = tdx;
  }

  /** @kvm tdx.c tdx_sept_link_private_spt */
  linkSpt(gfn: number, level: number, spt: number): number {
    const { vm, tdx } = this;
    const err = S.tdhMemSeptAdd(vm, tdx, gfn, level, spt);
    if (S.tdxOperandBusy(err)) return -EBUSY;
    return S.tdxBugOn(vm, err, 'TDH_MEM_SEPT_ADD') ? -EIO : 0;
  }

  /** Before the TD can run pages are only noted: KVM_TDX_INIT_MEM_REGION adds them. @kvm tdx.c tdx_sept_set_private_spte */
  setSpte(gfn: number, level: number, pfn: number): number {
    const { vm, tdx } = this;
    if (vm.log.kvmBugOn(level !== PG_LEVEL_4K, 'tdx_sept_set_private_spte', 'a large page')) return -EINVAL;
    vm.host.pages.get(pfn);
    if (tdx.state !== TD_STATE_RUNNABLE) {
      tdx.nrPremapped++;
      return 0;
    }
    const err = S.tdhMemPageAug(vm, tdx, gfn, pfn);
    if (err === 0) return 0;
    vm.host.pages.put(pfn, 1);
    if (S.tdxOperandBusy(err)) return -EBUSY;
    S.tdxBugOn(vm, err, 'TDH_MEM_PAGE_AUG');
    return -EIO;
  }

  /** BLOCK, TRACK, REMOVE. @kvm tdx.c tdx_sept_remove_private_spte */
  removeSpte(gfn: number, level: number, pfn: number): number {
    const { vm, tdx } = this;
    if (vm.log.kvmBugOn(tdx.hkid < 0, 'tdx_sept_remove_private_spte', 'no key')) return -EINVAL;
    if (vm.log.kvmBugOn(level !== PG_LEVEL_4K, 'tdx_sept_remove_private_spte', 'a large page')) return -EINVAL;
    const blocked = this.zap(gfn, pfn);
    if (blocked <= 0) return blocked;
    this.track();
    if (S.tdxBugOn(vm, S.tdhMemPageRemove(vm, tdx, gfn), 'TDH_MEM_PAGE_REMOVE')) return -EIO;
    if (S.tdxBugOn(vm, S.tdhPhymemPageWbinvd(vm, tdx, pfn), 'TDH_PHYMEM_PAGE_WBINVD')) return -EIO;
    tdxClearPage(vm, pfn);
    vm.host.pages.put(pfn, 1);
    return 0;
  }

  /** 1 when the page was blocked, 0 when it was never added, -EIO. @kvm tdx.c tdx_sept_zap_private_spte */
  private zap(gfn: number, pfn: number): number {
    const { vm, tdx } = this;
    const err = S.tdhMemRangeBlock(vm, tdx, gfn);
    const premapped =
      tdx.state !== TD_STATE_RUNNABLE && err === tdxStatus(TDX_EPT_ENTRY_STATE_INCORRECT, OPERAND_ID_RCX);
    if (premapped && !vm.log.kvmBugOn(tdx.nrPremapped === 0, 'tdx_sept_zap_private_spte', 'no page waits')) {
      tdx.nrPremapped--;
      vm.host.pages.put(pfn, 1);
      return 0;
    }
    return S.tdxBugOn(vm, err, 'TDH_MEM_RANGE_BLOCK') ? -EIO : 1;
  }

  /** @kvm tdx.c tdx_track */
  private track(): void {
    const { vm, tdx } = this;
    if (tdx.state !== TD_STATE_RUNNABLE) return;
    vm.locks.assertHeld(LOCK_MMU_WRITE);
    S.tdxBugOn(vm, S.tdhMemTrack(vm, tdx), 'TDH_MEM_TRACK');
  }

  /** Tables go with the TD, after its key. @kvm tdx.c tdx_sept_free_private_spt */
  freeSpt(_gfn: number, _level: number, spt: number): number {
    const { vm, tdx } = this;
    if (vm.log.kvmBugOn(tdx.hkid >= 0, 'tdx_sept_free_private_spt', 'the TD still has its key')) return -EINVAL;
    return tdxReclaimPage(vm, tdx, spt);
  }
}
