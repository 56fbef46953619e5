import { describe, expect, it, vi } from 'vitest';
import type { HostSignal } from '../../host/host-signal.ts';
import { KVM_EXIT_INTR } from '../kvm-run.ts';
import { LOCK_MMU_WRITE } from '../locks.ts';
import { mmuInvalidateBegin, mmuInvalidateEnd, mmuInvalidateRangeAdd } from '../notifier.ts';
import { mmuDestroy, uninitVm } from './create.ts';
import type { PageFault } from './fault.ts';
import { vcpuMatchMmioGpa } from './mmio-cache.ts';
import { handleMmioPageFault } from './mmio-page-fault.ts';
import { READ, TestMmu, WRITE } from './mmu.testing.ts';
import { mmuDoPageFault, mmuPageFault } from './page-fault.ts';
import { preFaultMemory } from './pre-fault.ts';
import type { FaultRecorder } from './recorder.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE, RET_PF_FIXED, RET_PF_INVALID, RET_PF_RETRY } from './ret-pf.ts';
import { revisionByName, revisions } from './revisions/index.ts';
import { archFlushShadowAll } from './slot-hooks.ts';

vi.mock('../x86/emulate-instruction.ts', () => ({ emulateInstruction: () => 1 }));

const MB = 1024 * 1024;
const MMIO = 0xd000_0000;

class Recorder implements FaultRecorder {
  readonly lines: string[] = [];
  begin(fault: PageFault): void {
    this.lines.push(`gfn ${fault.gfn.toString(16)}`);
  }
  stage(name: string, verdict: number, reason: string): void {
    this.lines.push(`${name} ${verdict} ${reason}`);
  }
  end(_fault: PageFault, result: number): void {
    this.lines.push(`= ${result}`);
  }
}

describe('the fault path', () => {
  it('tells a recorder what every stage said', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    const recorder = new Recorder();
    t.vm.mmu.recorder = recorder;
    expect(t.fault(0x3000, WRITE)).toBe(RET_PF_FIXED);
    expect(recorder.lines.map((l) => l.split(' ')[0])).toEqual([
      'gfn',
      ...revisionByName('linux-6.12').stages.map((s) => s.name),
      '=',
    ]);
    expect(recorder.lines).toContain(`private-mismatch ${RET_PF_CONTINUE} the access is shared, and so is the gfn`);
  });

  it('tells of a reserved-bit fault and of what followed as one fault', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.fault(MMIO, WRITE);
    const recorder = new Recorder();
    t.vm.mmu.recorder = recorder;
    const rsvd = 0xd;
    const told = (gpa: number): string[] => {
      recorder.lines.length = 0;
      expect(mmuPageFault(t.vcpu, gpa | 0, 0, rsvd, 1)).toBe(1);
      return recorder.lines
        .filter((l) => /^(gfn|reserved|map|=)/.test(l))
        .map((l) => l.split(' ').slice(0, 2).join(' '));
    };
    expect(told(MMIO)).toEqual(['gfn d0000', `reserved-bits ${RET_PF_EMULATE}`, `= ${RET_PF_EMULATE}`]);
    expect(told(0x1000)).toEqual(['gfn 1', `reserved-bits ${RET_PF_RETRY}`, `= ${RET_PF_RETRY}`]);
    t.slot(1, 8 * MB, 2 * MB);
    expect(told(MMIO)).toEqual([
      'gfn d0000',
      `reserved-bits ${RET_PF_INVALID}`,
      `map ${RET_PF_EMULATE}`,
      `= ${RET_PF_EMULATE}`,
    ]);
  });

  it('has each stage once, the locked ones last', () => {
    for (const { stages } of revisions) {
      expect(new Set(stages.map((s) => s.name)).size).toBe(stages.length);
      const firstLocked = stages.findIndex((s) => s.underMmuLock);
      expect(stages.slice(firstLocked).every((s) => s.underMmuLock)).toBe(true);
    }
    expect(() => revisionByName('linux-2.6')).toThrow(/unknown revision linux-2.6; known: linux-6.9, series-v1/);
  });

  it('retries while the gfn is being invalidated, and only then', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateBegin(t.vm);
    mmuInvalidateRangeAdd(t.vm, 3, 4);
    t.vm.locks.release(LOCK_MMU_WRITE);
    expect(t.fault(0x3000, WRITE)).toBe(RET_PF_RETRY);
    expect(t.fault(0x4000, WRITE)).toBe(RET_PF_FIXED);
    t.vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateEnd(t.vm);
    t.vm.locks.release(LOCK_MMU_WRITE);
    expect(t.fault(0x3000, WRITE)).toBe(RET_PF_FIXED);
  });

  it('retries with a root that was invalidated', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.slot(1, 8 * MB, 2 * MB);
    t.enter();
    t.slot(1, 8 * MB, 0);
    expect(mmuDoPageFault(t.vcpu, 0x1000, 0, WRITE, 1, false)).toBe(RET_PF_RETRY);
    expect(t.fault(0x1000, WRITE)).toBe(RET_PF_FIXED);
  });

  it('knows MMIO from the cache, then from the entry, until the slots change', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    expect(t.fault(MMIO, WRITE)).toBe(RET_PF_EMULATE);
    expect(vcpuMatchMmioGpa(t.vcpu, MMIO + 8)).toBe(true);
    t.traceOn();
    const again = (): number => handleMmioPageFault(t.vcpu, MMIO | 0, 0, true);
    expect(again()).toBe(RET_PF_EMULATE);
    expect(t.takeTrace()).toEqual([]);
    t.fault(MMIO + 0x1000, READ);
    t.takeTrace();
    expect(again()).toBe(RET_PF_EMULATE);
    expect(t.takeTrace().map((l) => l.split(' ')[0])).toEqual(['check_mmio_spte', 'handle_mmio_page_fault']);
    t.slot(1, 8 * MB, 2 * MB);
    expect(again()).toBe(RET_PF_INVALID);
    expect(vcpuMatchMmioGpa(t.vcpu, MMIO)).toBe(false);
    expect(t.fault(0x1000, WRITE)).toBe(RET_PF_FIXED);
    expect(handleMmioPageFault(t.vcpu, 0x1000, 0, true)).toBe(RET_PF_RETRY);
  });

  it('sends a signal for poisoned memory and stops for it', () => {
    const t = new TestMmu();
    const hva = t.slot(0, 0, 2 * MB);
    t.fault(0x1000, WRITE);
    t.vm.mm.madvise(hva + 0x1000, 0x1000, 'hwpoison');
    t.vm.mm.takeSignals();
    expect(t.fault(0x1000, WRITE)).toBe(RET_PF_RETRY);
    const expected: HostSignal = { signal: 7, code: 'MCEERR_AR', address: hva + 0x1000, lsb: 12 };
    expect(t.vm.mm.takeSignals()).toEqual([expected]);
    expect(t.vcpu.signalPending).toBe(true);
  });

  it('waits for a page that has to come from elsewhere, until a signal', () => {
    const t = new TestMmu();
    const hva = t.slot(0, 0, 2 * MB);
    t.vm.mm.userfaultRegister(hva, 2 * MB, 'block');
    expect(t.fault(0x1000, WRITE)).toBe(-4);
    expect([t.vcpu.run.exitReason, t.vcpu.stats.signal_exits]).toEqual([KVM_EXIT_INTR, 1]);
  });

  it('maps ahead of access, as far as one entry reaches', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    const hva = t.slot(1, 4 * MB, 4 * MB, { kind: 'thp' });
    t.vm.mm.write(hva, new Uint8Array([1]));
    expect(preFaultMemory(t.vcpu, 0x1000, 0x5000)).toBe(0x1000);
    expect(preFaultMemory(t.vcpu, 4 * MB + 0x3000, 8 * MB)).toBe(2 * MB - 0x3000);
    expect(preFaultMemory(t.vcpu, MMIO, 0x1000)).toBe(-2);
    expect(t.vcpu.stats.pf_taken).toBe(0);
  });

  it('does not map ahead below a root that went stale: only a signal ends the call', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.slot(1, 4 * MB, 2 * MB);
    expect(preFaultMemory(t.vcpu, 0x1000, 0x1000)).toBe(0x1000);
    t.slot(1, 0, 0);
    expect(preFaultMemory(t.vcpu, 0x1000, 0x1000)).toBe(-4);
  });

  it('gives every page table back when the VM goes', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.fault(0x1000, WRITE);
    const before = t.vm.host.pages.freeFrames;
    t.fault(MMIO, WRITE);
    archFlushShadowAll(t.vm);
    mmuDestroy(t.vcpu);
    uninitVm(t.vm);
    // Four tables of the first fault, and nothing of the second.
    expect(t.vm.host.pages.freeFrames).toBe(before + 4);
    expect(t.vm.log.entries).toEqual([]);
  });
});
