/** Counts what happens between a guest and KVM, by class of fault: from trace events, vCPU statistics and exits. */
import type { TraceEvent, VcpuExit } from '../kvm/api/index.ts';

/** What one class of faults came to. */
export interface FaultCounts {
  /** Nested page faults that KVM was given. */
  faults: number;
  /** SPTEs made for memory, by page size. */
  mapped4k: number;
  mapped2m: number;
  mapped1g: number;
  /** Write faults fixed without mmu_lock. */
  fast: number;
  /** Huge SPTEs split. */
  splits: number;
  /** SPTEs that lost their write permission. */
  writeProtected: number;
  /** SPTEs zapped. */
  zapped: number;
  /** MMIO SPTEs made, found again, and found out of date. */
  mmioMade: number;
  mmioFound: number;
  mmioStale: number;
  /** Instructions that KVM emulated. */
  emulated: number;
  /** Exits to the VMM. */
  exitsMmio: number;
  exitsIo: number;
  exitsHypercall: number;
  exitsMemoryFault: number;
}

export function noFaults(): FaultCounts {
  return {
    faults: 0,
    mapped4k: 0,
    mapped2m: 0,
    mapped1g: 0,
    fast: 0,
    splits: 0,
    writeProtected: 0,
    zapped: 0,
    mmioMade: 0,
    mmioFound: 0,
    mmioStale: 0,
    emulated: 0,
    exitsMmio: 0,
    exitsIo: 0,
    exitsHypercall: 0,
    exitsMemoryFault: 0,
  };
}

const SPTE_WRITABLE = 1n << 1n;
const SPTE_HUGE = 1n << 7n;
const SPTE_MMU_PRESENT = 1n << 11n;

export class FaultAccount {
  /** Where events are counted now. */
  current: FaultCounts = noFaults();

  event(event: TraceEvent): void {
    const c = this.current;
    switch (event.event) {
      case 'kvm_page_fault':
        c.faults++;
        return;
      case 'fast_page_fault':
        c.fast += event.fields.fixed;
        return;
      case 'kvm_mmu_split_huge_page':
        c.splits++;
        return;
      case 'mark_mmio_spte':
        c.mmioMade++;
        return;
      case 'check_mmio_spte':
        if (event.fields.valid === 0) c.mmioStale++;
        return;
      case 'handle_mmio_page_fault':
        c.mmioFound++;
        return;
      case 'kvm_emulate_insn':
        c.emulated++;
        return;
      case 'kvm_tdp_mmu_spte_changed':
        this.spteChanged(event.fields.level, BigInt(event.fields.old), BigInt(event.fields.new));
        return;
      default:
    }
  }

  private spteChanged(level: number, old: bigint, now: bigint): void {
    const c = this.current;
    const isLeaf = (spte: bigint): boolean =>
      (spte & SPTE_MMU_PRESENT) !== 0n && (level === 1 || (spte & SPTE_HUGE) !== 0n);
    if (isLeaf(now) && !isLeaf(old)) {
      if (level === 1) c.mapped4k++;
      else if (level === 2) c.mapped2m++;
      else c.mapped1g++;
    } else if (isLeaf(old) && (now & SPTE_MMU_PRESENT) === 0n) {
      c.zapped++;
    } else if (isLeaf(old) && (old & SPTE_WRITABLE) !== 0n && (now & SPTE_WRITABLE) === 0n) {
      c.writeProtected++;
    }
  }

  exit(exit: VcpuExit): void {
    const c = this.current;
    if (exit.reason === 'mmio') c.exitsMmio++;
    else if (exit.reason === 'io') c.exitsIo++;
    else if (exit.reason === 'hypercall') c.exitsHypercall++;
    else if (exit.reason === 'memory-fault') c.exitsMemoryFault++;
  }
}
