/** Statistics of a step in the recorded form: `+name` is what a counter grew by, a plain name is a gauge's value. */

const vmCounters = [
  'mmu_shadow_zapped',
  'mmu_pte_write',
  'mmu_pde_zapped',
  'mmu_flooded',
  'mmu_recycled',
  'mmu_cache_miss',
] as const;
const vmGauges = ['pages_4k', 'pages_2m', 'pages_1g', 'mmu_unsync'] as const;
const vcpuCounters = [
  'pf_taken',
  'pf_fixed',
  'pf_emulate',
  'pf_spurious',
  'pf_fast',
  'pf_mmio_spte_created',
  'pf_guest',
  'invlpg',
  'io_exits',
  'mmio_exits',
  'halt_exits',
  'hypercalls',
  'insn_emulation',
  'insn_emulation_fail',
  'nested_run',
] as const;

/** Every statistic of a VM and its vCPUs at one moment: `vm.x` and `vcpuN.x`. */
export type StatsSnapshot = { readonly [name: string]: number };

type Stats = { readonly [name: string]: number | undefined };

export function snapshot(vm: Stats, vcpus: readonly { readonly id: number; readonly stats: Stats }[]): StatsSnapshot {
  const all: { [name: string]: number } = {};
  for (const name of [...vmCounters, ...vmGauges]) all[`vm.${name}`] = vm[name] ?? 0;
  for (const { id, stats } of vcpus) for (const name of vcpuCounters) all[`vcpu${id}.${name}`] = stats[name] ?? 0;
  return all;
}

/** What a step changed. A gauge is listed while it is not zero, and once more when it becomes zero. */
export function statsChange(before: StatsSnapshot, after: StatsSnapshot): { [name: string]: number } {
  const change: { [name: string]: number } = {};
  for (const [name, value] of Object.entries(after)) {
    const was = before[name] ?? 0;
    if (vmGauges.some((gauge) => name === `vm.${gauge}`)) {
      if (value !== 0 || was !== 0) change[name] = value;
    } else if (value !== was) change[`+${name}`] = value - was;
  }
  return change;
}
