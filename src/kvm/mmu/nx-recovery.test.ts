import { describe, expect, it } from 'vitest';
import { runNxRecovery } from '../actors/nx-recovery.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../memslots/memslots.ts';
import { defaultParams } from '../params.ts';
import { REQ_TLB_FLUSH } from '../vcpu-state.ts';
import { FETCH, READ, TestMmu } from './mmu.testing.ts';
import { nxRecoveryPeriodMs } from './nx-recovery.ts';

const MB = 1024 * 1024;

describe('the period of recovery', () => {
  it('halves the number in an hour unless a period is given', () => {
    const on = { ...defaultParams, nxHugePages: true };
    expect(nxRecoveryPeriodMs(defaultParams)).toBe(0);
    expect(nxRecoveryPeriodMs({ ...on, nxHugePagesRecoveryRatio: 0 })).toBe(0);
    expect(nxRecoveryPeriodMs(on)).toBe(60_000);
    expect(nxRecoveryPeriodMs({ ...on, nxHugePagesRecoveryRatio: 100_000 })).toBe(1000);
    expect(nxRecoveryPeriodMs({ ...on, nxHugePagesRecoveryPeriodMs: 7 })).toBe(7);
  });
});

describe('recovery of NX huge pages', () => {
  /** Two huge pages, both executed, hence split. */
  function split(ratio: number) {
    const t = new TestMmu({ params: { nxHugePages: true, nxHugePagesRecoveryRatio: ratio } });
    t.slot(0, 4 * MB, 4 * MB, { kind: 'thp' });
    t.fault(4 * MB, FETCH);
    t.fault(6 * MB, FETCH);
    expect([t.vm.stats.nx_lpage_splits, t.vm.stats.pages_4k]).toEqual([2, 2]);
    return t;
  }

  it('takes a part, the oldest first, and flushes', () => {
    const t = split(60);
    t.traceOn();
    t.vcpu.requests = 0;
    runNxRecovery(t.vm);
    expect(t.takeTrace().slice(0, 2)).toEqual([
      'kvm_tdp_mmu_spte_changed 0 0x400 2 0x827+pfn 0x8000000000000000',
      'kvm_mmu_prepare_zap_page sp gen 0 gfn 400 l1 8-byte q0 direct wux nxe ad root 0 sync',
    ]);
    expect(t.vcpu.requests & REQ_TLB_FLUSH).toBe(REQ_TLB_FLUSH);
    expect([t.vm.stats.nx_lpage_splits, t.vm.stats.pages_4k]).toEqual([1, 1]);
    t.fault(4 * MB, READ);
    expect(t.vm.stats.pages_2m).toBe(1);
    expect([t.vm.locks.held, t.vm.locks.srcuDepth]).toEqual([0, 0]);
  });

  it('takes all with a ratio of 1, none with 0', () => {
    const all = split(1);
    runNxRecovery(all.vm);
    expect([all.vm.stats.nx_lpage_splits, all.vm.stats.pages_4k]).toEqual([0, 0]);
    const none = split(0);
    none.vcpu.requests = 0;
    runNxRecovery(none.vm);
    expect([none.vm.stats.nx_lpage_splits, none.vcpu.requests]).toEqual([2, 0]);
  });

  it('leaves a page of a dirty-logged slot where it is, and forgets it', () => {
    const t = split(1);
    const hva = t.vm.slots.sets[0]!.idToMemslot(0)!.userspaceAddr;
    t.slot(0, 4 * MB, 4 * MB, { hva, flags: KVM_MEM_LOG_DIRTY_PAGES });
    t.vcpu.requests = 0;
    runNxRecovery(t.vm);
    expect([t.vm.stats.nx_lpage_splits, t.vm.stats.pages_4k, t.vcpu.requests]).toEqual([0, 2, 0]);
  });

  it('warns of a page table that the slot left behind, where only the leaves of a slot go', () => {
    const t = split(1);
    t.vm.x86.disabledQuirks = 1 << 7;
    t.slot(1, 16 * MB, MB, { flags: KVM_MEM_LOG_DIRTY_PAGES });
    t.slot(0, 4 * MB, 0);
    const said: string[] = [];
    t.vm.log.warnOnOnce = (condition, where) => {
      if (condition) said.push(where);
      return condition;
    };
    runNxRecovery(t.vm);
    expect(said).toEqual(['kvm_recover_nx_huge_pages', 'kvm_recover_nx_huge_pages']);
    expect(t.vm.stats.nx_lpage_splits).toBe(0);
  });
});
