import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_PROT_READ,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../../arch/ept-qualification.ts';
import {
  PFERR_GUEST_ENC_HI,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_USER,
  PFERR_WRITE,
} from '../../../arch/error-code.ts';
import { RIP } from '../../../arch/registers.ts';
import { EFAULT, EINVAL } from '../../../host/errno.ts';
import type { EmulateCtxt } from '../../emulate/ctxt.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import { gfnToMemslot, KVM_MEM_READONLY } from '../../memslots/memslots.ts';
import { mmuInvalidateBegin, mmuInvalidateEnd, mmuInvalidateRangeAdd } from '../../notifier.ts';
import { handleNpf } from '../../svm/npf.ts';
import { KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM } from '../../vm-type.ts';
import { handleEptViolation } from '../../vmx/ept-violation.ts';
import { EMULTYPE_ALLOW_RETRY_PF, EMULTYPE_PF, EMULTYPE_WRITE_PF_TO_SP } from '../../x86/emul-type.ts';
import { retryDecoded, retryFailed } from '../../x86/native-retry.ts';
import { handlePageFault } from '../handle-page-fault.ts';
import { addCutHugePages, zapForAttributes } from '../memory-attributes.ts';
import { MMIO_GVA_ANY, vcpuCacheMmioInfo, vcpuClearMmioInfo } from '../mmio-cache.ts';
import { READ, TestMmu, WRITE } from '../mmu.testing.ts';
import { mmuDoPageFault, mmuPageFault } from '../page-fault.ts';
import { preFaultMemory } from '../pre-fault.ts';
import { RET_PF_FIXED, RET_PF_RETRY, RET_PF_SPURIOUS, RET_PF_WRITE_PROTECTED } from '../ret-pf.ts';
import { ACC_ALL, ROLE_DIRECT } from '../role.ts';
import { remove } from './edit.ts';
import { historyBetween } from './index.ts';
import { linux69 } from './linux-6.9.ts';
import { linux610 } from './linux-6.10.ts';
import { linux612, linux612Patches } from './linux-6.12.ts';
import type { Revision } from './revision.ts';

const MB = 1024 * 1024;
const GPA = 0x3000;
/** What is asked of the emulator and of the shadow pages, and what they answer. */
const world = vi.hoisted(() => ({ emulated: [] as number[], tracked: false, dropped: false, unprotects: 0 }));

vi.mock('../../x86/emulate-instruction.ts', () => ({
  emulateInstruction(_vcpu: unknown, _lo: number, _hi: number, emulType: number) {
    world.emulated.push(emulType);
    return 1;
  },
}));

vi.mock('../page-track.ts', () => ({ gfnIsWriteTracked: () => world.tracked }));

vi.mock('../shadow/unprotect.ts', () => ({
  mmuUnprotectGfnAndRetry(vcpu: TestMmu['vcpu'], lo: number, hi: number, always = false) {
    world.unprotects++;
    if (world.dropped || always) {
      vcpu.x86.lastRetryEipLo = vcpu.regs[2 * RIP]!;
      vcpu.x86.lastRetryEipHi = vcpu.regs[2 * RIP + 1]!;
      vcpu.x86.lastRetryAddrLo = lo;
      vcpu.x86.lastRetryAddrHi = hi;
    }
    return world.dropped;
  },
}));

/** A VM under `revision`, with 4 MiB of memory at 0. */
function machine(revision: Revision, type = 0): TestMmu {
  const t = new TestMmu({ type });
  (t.vm as { revision: Revision }).revision = revision;
  t.slot(0, 0, 4 * MB, { kind: 'thp' });
  t.vcpu.regs[2 * RIP] = 0x1000;
  t.enter();
  return t;
}

/** The revisions on both sides of a fix. */
function around(commit: string): [before: Revision, after: Revision] {
  const steps = historyBetween(linux610, linux612)!;
  const at = steps.findIndex((s) => s.patch.commit === commit);
  return [at === 0 ? linux610 : steps[at - 1]!.revision, steps[at]!.revision];
}

/** What `run` answers before and after the fix. */
function bothSides<T>(commit: string, run: (revision: Revision) => T): [before: T, after: T] {
  return around(commit).map((revision) => {
    Object.assign(world, { emulated: [], tracked: false, dropped: false, unprotects: 0 });
    return run(revision);
  }) as [T, T];
}

const RETRY_ALLOWED = EMULTYPE_PF | EMULTYPE_ALLOW_RETRY_PF;
/** A write to a page that is mapped read-only. */
const DENIED_WRITE = PFERR_WRITE | PFERR_PRESENT;
const mov = { d: 0 } as EmulateCtxt;

beforeEach(() => Object.assign(world, { emulated: [], tracked: false, dropped: false, unprotects: 0 }));

describe('Linux 6.10 to 6.12', () => {
  it('changes rules only, and every one that is not there yet in 6.10 at most once', () => {
    expect(linux612.stages).toEqual(linux610.stages);
    const moved = linux612Patches.map((p) => {
      const { rules } = p.apply(linux69);
      return Object.entries(rules).filter(([k, v]) => linux69.rules[k as keyof typeof rules] !== v);
    });
    expect(moved.map((m) => m.length)).toEqual(linux612Patches.map(() => 1));
  });
});

describe('Linux 6.11', () => {
  it('b74d002d3d58: the fast path is not for a fault of the other privacy', () => {
    const answers = bothSides('b74d002d3d58', (revision) => {
      const t = machine(revision, KVM_X86_SW_PROTECTED_VM);
      expect(t.fault(GPA, WRITE)).toBe(RET_PF_FIXED);
      return mmuDoPageFault(t.vcpu, GPA, 0, DENIED_WRITE, PFERR_PRIVATE_ACCESS_HI | PFERR_GUEST_FINAL_HI, false);
    });
    expect(answers).toEqual([RET_PF_SPURIOUS, -EFAULT]);
  });

  it("1dfe571c12cf: ENC makes an SNP guest's fault private", () => {
    const answers = bothSides('1dfe571c12cf', (revision) => {
      const t = machine(revision, KVM_X86_SNP_VM);
      const verdict = handleNpf(t.vcpu, GPA, 0, PFERR_WRITE, PFERR_GUEST_ENC_HI | PFERR_GUEST_FINAL_HI);
      return [verdict, t.vcpu.mmu.fault.isPrivate];
    });
    expect(answers).toEqual([
      [1, false],
      [-EFAULT, true],
    ]);
  });

  it('6e01b7601dfe: KVM_PRE_FAULT_MEMORY', () => {
    const answers = bothSides('6e01b7601dfe', (revision) => preFaultMemory(machine(revision).vcpu, GPA, 4096));
    expect(answers).toEqual([-EINVAL, 4096]);
  });
});

describe('Linux 6.12: writes to write-protected pages', () => {
  it.each([
    ['f3009482512e', [PFERR_GUEST_FINAL_HI, PFERR_GUEST_PAGE_HI], [0, 0]],
    ['d0164c161923', [0, 0], [PFERR_GUEST_FINAL_HI, 0]],
  ])('%s: what an EPT violation says of the access, with a linear address and without', (commit, before, after) => {
    const qualification = EPT_VIOLATION_READ | EPT_VIOLATION_WRITE | EPT_VIOLATION_PROT_READ;
    const answers = bothSides(commit, (revision) => {
      const t = machine(revision);
      const { fault } = t.vcpu.mmu;
      return [EPT_VIOLATION_GVA_IS_VALID | EPT_VIOLATION_GVA_TRANSLATED, 0].map((gva) => {
        handleEptViolation(t.vcpu, GPA, 0, qualification | gva);
        expect(fault.errorLo).toBe(PFERR_USER | PFERR_WRITE | PFERR_PRESENT);
        return fault.errorHi;
      });
    });
    expect(answers).toEqual([before, after]);
  });

  it('989a84c93f59: a write to a read-only slot is emulated and not offered for a retry', () => {
    const answers = bothSides('989a84c93f59', (revision) => {
      const t = machine(revision);
      t.slot(1, 16 * MB, MB, { flags: KVM_MEM_READONLY });
      t.enter();
      expect(mmuPageFault(t.vcpu, 16 * MB, 0, WRITE, PFERR_GUEST_FINAL_HI)).toBe(1);
      return world.emulated;
    });
    expect(answers).toEqual([[RETRY_ALLOWED], [EMULTYPE_PF]]);
  });

  it('989a84c93f59: a private write to a tracked page is no longer an exit: it has another verdict', () => {
    const answers = bothSides('989a84c93f59', (revision) => {
      const t = machine(revision, KVM_X86_SW_PROTECTED_VM);
      world.tracked = true;
      return mmuDoPageFault(t.vcpu, GPA, 0, DENIED_WRITE, PFERR_PRIVATE_ACCESS_HI | PFERR_GUEST_FINAL_HI, false);
    });
    expect(answers).toEqual([-EFAULT, RET_PF_WRITE_PROTECTED]);
  });

  it('989a84c93f59: a write that is retried is not counted as emulated', () => {
    const answers = bothSides('989a84c93f59', (revision) => {
      const t = machine(revision);
      Object.assign(world, { tracked: true, dropped: true });
      mmuPageFault(t.vcpu, GPA, 0, DENIED_WRITE, PFERR_GUEST_PAGE_HI);
      return [t.vcpu.stats.pf_emulate, world.emulated.length];
    });
    expect(answers).toEqual([
      [1, 0],
      [0, 0],
    ]);
  });

  it('2fb2b7877b3a: a walk that could not write is emulated when there was nothing to drop', () => {
    const answers = bothSides('2fb2b7877b3a', (revision) => {
      const t = machine(revision);
      world.tracked = true;
      expect(mmuPageFault(t.vcpu, GPA, 0, DENIED_WRITE, PFERR_GUEST_PAGE_HI)).toBe(1);
      return world.emulated;
    });
    expect(answers).toEqual([[], [RETRY_ALLOWED]]);
  });

  it('c1edcc41c360: an instruction is emulated when there was nothing to drop', () => {
    const answers = bothSides('c1edcc41c360', (revision) =>
      retryDecoded(machine(revision).vcpu, GPA, 0, RETRY_ALLOWED, mov),
    );
    expect(answers).toEqual([true, false]);
  });

  it('01dd4d319207: what was retried for the same address is emulated the second time', () => {
    const answers = bothSides('01dd4d319207', (revision) => {
      const t = machine(revision);
      Object.assign(world, { tracked: true, dropped: true });
      for (let i = 0; i < 3; i++) mmuPageFault(t.vcpu, GPA, 0, DENIED_WRITE, PFERR_GUEST_PAGE_HI);
      return [world.unprotects, world.emulated];
    });
    expect(answers).toEqual([
      [3, []],
      [1, [EMULTYPE_PF, EMULTYPE_PF]],
    ]);
  });

  it('b299c273c06f: an event that waits drops shadows only after a write that was denied', () => {
    const answers = bothSides('b299c273c06f', (revision) => {
      // The guest has no tables here: what its own walk says is left out.
      const t = machine({ ...revision, stages: remove(revision.stages, 'guest-walk') });
      t.vcpu.mmu.mmu.rootRole &= ~ROLE_DIRECT;
      t.vcpu.x86.interruptInjected = true;
      world.dropped = true;
      handlePageFault(t.vcpu, PFERR_PRESENT | PFERR_USER, 0, GPA, 0);
      const afterRead = world.unprotects;
      vcpuClearMmioInfo(t.vcpu, MMIO_GVA_ANY, MMIO_GVA_ANY);
      Object.assign(world, { tracked: true, emulated: [] });
      handlePageFault(t.vcpu, DENIED_WRITE, 0, GPA, 0);
      return [afterRead, world.unprotects, world.emulated];
    });
    expect(answers).toEqual([
      [1, 2, [RETRY_ALLOWED]],
      [0, 1, []],
    ]);
  });

  it('620525739521: a failed emulation is retried whatever is behind the address', () => {
    const answers = bothSides('620525739521', (revision) =>
      retryFailed(machine(revision).vcpu, 64 * MB, 0, RETRY_ALLOWED),
    );
    expect(answers).toEqual([false, true]);
  });

  it('620525739521: the page is the one that the guest’s tables lead to, where they are shadowed', () => {
    const answers = bothSides('620525739521', (revision) => {
      const t = machine(revision);
      t.vcpu.mmu.mmu.rootRole &= ~ROLE_DIRECT;
      return [retryFailed(t.vcpu, GPA, 0, RETRY_ALLOWED), retryFailed(t.vcpu, 64 * MB, 0, RETRY_ALLOWED)];
    });
    expect(answers).toEqual([
      [true, false],
      [true, true],
    ]);
  });

  it('19ab2c8be070: a failed write to a table of its own translation drops nothing', () => {
    const answers = bothSides('19ab2c8be070', (revision) => {
      const retried = retryFailed(machine(revision).vcpu, GPA, 0, RETRY_ALLOWED | EMULTYPE_WRITE_PF_TO_SP);
      return [retried, world.unprotects];
    });
    expect(answers).toEqual([
      [false, 1],
      [false, 0],
    ]);
  });

  it.each([
    ['dabc4ff70c35', true],
    ['4df685664bed', false],
  ])('%s: a failed emulation that is retried counts as retried', (commit, dropped) => {
    const answers = bothSides(commit, (revision) => {
      const t = machine(revision);
      world.dropped = dropped;
      expect(retryFailed(t.vcpu, GPA, 0, RETRY_ALLOWED)).toBe(true);
      return t.vcpu.x86.lastRetryAddrLo;
    });
    expect(answers).toEqual([0, GPA]);
  });

  it('98a69b96caca: a write-protected page in the MMIO cache warns and drops nothing', () => {
    const answers = bothSides('98a69b96caca', (revision) => {
      const t = machine(revision);
      Object.assign(world, { tracked: true, dropped: true });
      vcpuCacheMmioInfo(t.vcpu, 0, 0, GPA / 4096, ACC_ALL);
      mmuPageFault(t.vcpu, GPA, 0, DENIED_WRITE, PFERR_GUEST_PAGE_HI);
      return [world.unprotects, world.emulated, t.vm.log.entries.length];
    });
    expect(answers).toEqual([
      [1, [], 0],
      [0, [EMULTYPE_PF], 1],
    ]);
  });
});

describe('Linux 6.12 stable', () => {
  it('9129633d568e: no huge page beside a change of attributes that cuts it', () => {
    const answers = bothSides('9129633d568e', (revision) => {
      const t = machine(revision, KVM_X86_SW_PROTECTED_VM);
      const { vm } = t;
      const range = {
        slot: gfnToMemslot(vm, 0)!,
        start: 5,
        end: 6,
        attributes: 8,
        attrFilter: 0,
        mayBlock: true,
      };
      vm.locks.acquire(LOCK_MMU_WRITE);
      mmuInvalidateBegin(vm);
      mmuInvalidateRangeAdd(vm, range.start, range.end);
      addCutHugePages(vm, range);
      zapForAttributes(vm, range);
      vm.locks.release(LOCK_MMU_WRITE);
      const verdict = t.fault(GPA, READ);
      vm.locks.acquire(LOCK_MMU_WRITE);
      mmuInvalidateEnd(vm);
      vm.locks.release(LOCK_MMU_WRITE);
      return [verdict, vm.stats.pages_2m];
    });
    expect(answers).toEqual([
      [RET_PF_FIXED, 1],
      [RET_PF_RETRY, 0],
    ]);
  });
});
