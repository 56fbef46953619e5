import { beforeEach, describe, expect, it } from 'vitest';
import { mmuDoPageFault } from '../do-page-fault.ts';
import { gfnIsWriteTracked } from '../page-track.ts';
import { RET_PF_EMULATE, RET_PF_RETRY } from '../ret-pf.ts';
import { historyBetween } from '../revisions/index.ts';
import { linux610 } from '../revisions/linux-6.10.ts';
import { linux612 } from '../revisions/linux-6.12.ts';
import type { Revision } from '../revisions/revision.ts';
import { roleAccess } from '../role.ts';
import { initMmu } from '../roles.ts';
import { rmapEntries } from './rmap.ts';
import { RWU, TestShadow } from './shadow.testing.ts';
import { sptepToSp } from './translation.ts';

const WRITE = 6;

let s: TestShadow;

/** What `run` answers on the revision before the fix and with it; each time the guest's tables are new and one page is mapped. */
function bothSides<T>(commit: string, run: () => T): [before: T, after: T] {
  const steps = historyBetween(linux610, linux612)!;
  const at = steps.findIndex((step) => step.patch.commit === commit);
  return [steps[at - 1]!.revision, steps[at]!.revision].map((revision) => {
    s = new TestShadow();
    (s.vm as { revision: Revision }).revision = revision;
    s.identity();
    s.fault(0x5000, WRITE);
    return run();
  }) as [T, T];
}

describe('the shadow MMU, where userspace writes the guest’s tables', () => {
  beforeEach(() => {
    s = new TestShadow();
  });

  it('aad885e77496: forgets a mapping that becomes MMIO', () => {
    const answers = bothSides('aad885e77496', () => {
      s.write(0x13000 + 8 * 5, 0x4000_0000 | RWU);
      expect(s.fault(0x5000, WRITE)).toBe(RET_PF_EMULATE);
      return [rmapEntries(s.vm, s.vm.slots.all(0)[0]!, 5, 1).length, s.vm.log.entries.length];
    });
    expect(answers).toEqual([
      [1, 1],
      [0, 0],
    ]);
  });

  it('0cb2af2ea66a: shadows the table that is there now', () => {
    const answers = bothSides('0cb2af2ea66a', () => {
      s.write(0x14000 + 8 * 6, 0x7000 | RWU);
      s.write(0x12000, 0x14000 | RWU);
      s.fault(0x6000, WRITE);
      return sptepToSp(s.vm, s.spte(0x6000).sptep).gfn;
    });
    expect(answers).toEqual([0x13, 0x14]);
  });

  it('81ccda30b4e8: with the rights that the tables above it leave now', () => {
    const answers = bothSides('81ccda30b4e8', () => {
      s.write(0x12000, 0x13000 | (RWU & ~2));
      s.fault(0x6000, 4);
      return roleAccess(sptepToSp(s.vm, s.spte(0x6000).sptep).role);
    });
    expect(answers).toEqual([7, 5]);
  });
});

describe('the shadow MMU', () => {
  it('2abd5287f083: makes room before it looks whether the fault is stale', () => {
    const answers = bothSides('2abd5287f083', () => {
      s.vm.mmu.nMaxMmuPages = s.vm.mmu.nUsedMmuPages;
      s.vm.mmu.mmuValidGen ^= 1;
      expect(mmuDoPageFault(s.vcpu, 0x6000, 0, WRITE, 0, false)).toBe(RET_PF_RETRY);
      return s.vm.stats.mmu_recycled;
    });
    expect(answers).toEqual([0, 3]);
  });

  it('0f38453cdb2e: tracks writes in both address spaces', () => {
    const answers = bothSides('0f38453cdb2e', () => {
      s.t.slot(0x10000, 0, 8 * 1024 * 1024, { hva: s.hva });
      s.vcpu.smm = true;
      initMmu(s.vcpu);
      s.vcpu.mmu.mmu.root.pfn = -1;
      s.fault(0x5000, WRITE);
      const [normal] = s.vm.slots.all(0);
      normal!.arch!.gfnWriteTrack.clear();
      return gfnIsWriteTracked(s.vm, normal!, 0x12);
    });
    expect(answers).toEqual([false, true]);
  });
});
