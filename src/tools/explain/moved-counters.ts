/** Which of KVM's statistics a fault moved. */
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import type { VmState } from '../../kvm/vm-state.ts';

/** Those that tell of memory and of emulation; the others move with every entry and exit. */
const TELLING = /^(pf_|pages_|mmu_|nx_|remote_tlb|tlb_|insn_|mmio_exits|signal_exits)/;

/** The values now, of the vCPU and of its VM. */
export function countersOf(vm: VmState, vcpu: VcpuState): Map<string, number> {
  const counters = new Map<string, number>();
  for (const stats of [vcpu.stats, vm.stats])
    for (const [name, value] of Object.entries(stats)) if (TELLING.test(name)) counters.set(name, value);
  return counters;
}

/** By how much each moved, of those that did. */
export function changesSince(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): { [name: string]: number } {
  const moved: { [name: string]: number } = {};
  for (const [name, value] of after) {
    const by = value - (before.get(name) ?? 0);
    if (by !== 0) moved[name] = by;
  }
  return moved;
}
