/**
 * MMU notifiers (@kvm kvm_main.c kvm_mmu_notifier_*): the host's memory management tells KVM that host mappings change, KVM removes or
 * ages its own.
 */
import type { MmuNotifier } from '../host/mmu-notifier.ts';
import { runActor } from './actors/actor.ts';
import { Aging, agingStages } from './actors/aging.ts';
import { HvaInvalidation, rangeEndStages, rangeStartStages } from './actors/hva-range.ts';
import { ageGfn, testAgeGfn } from './mmu/notifier-handlers.ts';
import { archFlushShadowAll } from './mmu/slot-hooks.ts';
import type { VmState } from './vm-state.ts';

/** What the VM registers on its process's address space (@kvm kvm_main.c kvm_mmu_notifier_ops). */
export class KvmMmuNotifier implements MmuNotifier {
  /** Invalidations started and not ended. @kvm kvm_host.h kvm->mn_active_invalidate_count */
  activeInvalidateCount = 0;
  private readonly vm: VmState;

  constructor(vm: VmState) {
    this.vm = vm;
  }

  /** @kvm kvm_main.c kvm_mmu_notifier_invalidate_range_start */
  invalidateRangeStart(start: number, end: number): void {
    this.vm.trace.emit('kvm_unmap_hva_range', { start, end });
    runActor(rangeStartStages, new HvaInvalidation(this.vm, start, end));
  }

  /** @kvm kvm_main.c kvm_mmu_notifier_invalidate_range_end */
  invalidateRangeEnd(start: number, end: number): void {
    runActor(rangeEndStages, new HvaInvalidation(this.vm, start, end));
  }

  /** @returns whether a mapping was young. @kvm kvm_main.c kvm_mmu_notifier_clear_flush_young */
  clearFlushYoung(start: number, end: number): boolean {
    this.vm.trace.emit('kvm_age_hva', { start, end });
    return this.age(new Aging(this.vm, start, end, ageGfn, true));
  }

  /** @kvm kvm_main.c kvm_mmu_notifier_clear_young */
  clearYoung(start: number, end: number): boolean {
    this.vm.trace.emit('kvm_age_hva', { start, end });
    return this.age(new Aging(this.vm, start, end, ageGfn, false));
  }

  /** @kvm kvm_main.c kvm_mmu_notifier_test_young */
  testYoung(address: number): boolean {
    this.vm.trace.emit('kvm_test_age_hva', { start: address, end: address });
    return this.age(new Aging(this.vm, address, address + 1, testAgeGfn, false));
  }

  private age(aging: Aging): boolean {
    runActor(agingStages, aging);
    return aging.young;
  }

  /** The process is gone. @kvm kvm_main.c kvm_mmu_notifier_release */
  release(): void {
    archFlushShadowAll(this.vm);
  }
}
