/**
 * KVM's trace events as text (@kvm trace.h, mmu/mmutrace.h, include/trace/events/kvm.h): first as Linux 6.12 prints them, then as older
 * kernels did, and as `trace-cmd report` does, which has its own printers for some.
 */
import { EventSchema } from './template.ts';

const EXIT_TAIL = 'info1 0x{info1:016x} info2 0x{info2:016x} intr_info 0x{intr_info:08x} error_code 0x{error_code:08x}';
const ENTRY_TAIL = ' intr_info 0x{intr_info:08x} error_code 0x{error_code:08x}';
const NESTED_EXIT = 'vcpu {vcpu:d} reason {reason} rip 0x{rip:x} ';

const KVM: Readonly<Record<string, readonly string[]>> = {
  kvm_entry: [
    `vcpu {vcpu:d}, rip 0x{rip:x}${ENTRY_TAIL}`,
    'vcpu {vcpu:d}, rip 0x{rip:x}',
    'vcpu {vcpu:d} rip 0x{rip:x}',
    'vcpu {vcpu:d}',
  ],
  kvm_exit: [
    `vcpu {vcpu:d} reason {reason} rip 0x{rip:x} ${EXIT_TAIL}`,
    'vcpu {vcpu:d} reason {reason} rip 0x{rip:x} info1 0x{info1:x} info2 0x{info2:x}',
    'vcpu {vcpu:d} reason {reason} rip 0x{rip:x} info {info1:x} {info2:x}',
    'reason {reason} rip 0x{rip:x} info {info1:x} {info2:x}',
    'reason {reason} rip 0x{rip:x}',
  ],
  kvm_page_fault: [
    'vcpu {vcpu:d} rip 0x{rip:x} address 0x{address:016x} error_code 0x{error_code:x}',
    'address {address:x} error_code {error_code:x}',
  ],
  kvm_mmio: ['mmio {type} len {len:d} gpa 0x{gpa:x} val 0x{val:x}'],
  kvm_fast_mmio: ['fast mmio at gpa 0x{gpa:x}'],
  kvm_emulate_insn: ['{csbase:x}:{rip:x}:{bytes} ({mode}){failed}', '{csbase:x}:{rip:x}: {bytes}'],
  vcpu_match_mmio: ['gva {gva:#x} gpa {gpa:#x} {op} {match}'],
  kvm_userspace_exit: ['reason {reason} ({code:d})'],
  kvm_pio: [
    'pio_{direction} at 0x{port:x} size {size:d} count {count:d} val 0x{val:x} {more}',
    'pio_{direction} at 0x{port:x} size {size:d} count {count:d} val 0x{val:x}',
    'pio_{direction} at 0x{port:x} size {size:d} count {count:d}',
  ],
  kvm_hypercall: ['nr 0x{nr:x} a0 0x{a0:x} a1 0x{a1:x} a2 0x{a2:x} a3 0x{a3:x}'],
  kvm_inj_exception: ['{exception}'],
  kvm_inj_virq: ['{kind} 0x{vector:x}{again}', 'irq {vector:d}'],
  kvm_msr: ['msr_{direction} {msr:x} = 0x{data:x}{exception}'],
  kvm_cr: ['cr_{direction} {cr:x} = 0x{val:x}'],
  kvm_cpuid: ['func {func:x} idx {idx:x} rax {rax:x} rbx {rbx:x} rcx {rcx:x} rdx {rdx:x}, cpuid entry {entry}'],
  kvm_apic: ['apic_{direction} {register} = 0x{val:x}'],
  kvm_apic_accept_irq: ['apicid {apicid:x} vec {vector:d} ({mode}|{trigger})'],
  kvm_eoi: ['apicid {apicid:x} vector {vector:d}'],
  kvm_set_irq: ['gsi {gsi:d} level {level:d} source {source:d}'],
  kvm_smm_transition: ['vcpu {vcpu:d}: {direction} SMM, smbase 0x{smbase:x}'],
  kvm_pml_full: ['vcpu {vcpu:d}: PML full'],
  kvm_vcpu_wakeup: ['{kind} time {time:d} ns, polling {polling}'],
  kvm_halt_poll_ns: ['vcpu {vcpu:d}: halt_poll_ns {now:d} ({change} {before:d})'],
  kvm_fpu: ['{direction}'],
  kvm_nested_vmexit: [`${NESTED_EXIT}${EXIT_TAIL}`],
  kvm_nested_vmexit_inject: [
    'reason: {reason} ext_inf1: 0x{info1:016x} ext_inf2: 0x{info2:016x} ext_int: 0x{intr_info:08x} ext_int_err: 0x{error_code:08x}',
  ],
  kvm_unmap_hva_range: ['mmu notifier unmap range: {start:#016x} -- {end:#016x}'],
  kvm_age_hva: ['mmu notifier age hva: {start:#016x} -- {end:#016x}'],
  kvm_test_age_hva: ['mmu notifier test age hva: {start:#016x}'],
  kvm_dirty_ring_push: [
    'ring {ring:d}: dirty 0x{dirty:x} reset 0x{reset:x} slot {slot:d} offset 0x{offset:x} (used {used:d})',
  ],
  kvm_dirty_ring_reset: ['ring {ring:d}: dirty 0x{dirty:x} reset 0x{reset:x} (used {used:d})'],
  kvm_dirty_ring_exit: ['vcpu {vcpu:d}'],
  kvm_try_async_get_page: ['gva = {gva:#x}, gfn = {gfn:#x}'],
  kvm_async_pf_repeated_fault: ['gva = {gva:#x}, gfn = {gfn:#x}'],
  kvm_async_pf_not_present: ['token {token:#x} gva {gva:#x}'],
  kvm_async_pf_ready: ['token {token:#x} gva {gva:#x}'],
  kvm_async_pf_completed: ['gva {gva:#x} address {address:#x}'],
  kvm_rmp_fault: [
    'vcpu {vcpu:d} gpa {gpa:016x} pfn 0x{pfn:x} error_code 0x{error_code:x} rmp_level {rmp_level:d} psmash_ret {psmash_ret:d}',
  ],
  kvm_vmgexit_enter: ['vcpu {vcpu:d}, exit_reason {reason:x}, exit_info1 {info1:x}, exit_info2 {info2:x}'],
  kvm_vmgexit_exit: ['vcpu {vcpu:d}, exit_reason {reason:x}, exit_info1 {info1:x}, exit_info2 {info2:x}'],
  kvm_vmgexit_msr_protocol_enter: ['vcpu {vcpu:d}, ghcb_gpa {ghcb:016x}'],
  kvm_vmgexit_msr_protocol_exit: ['vcpu {vcpu:d}, ghcb_gpa {ghcb:016x}, result {result:d}'],
};

const KVMMMU: Readonly<Record<string, readonly string[]>> = {
  kvm_mmu_pagetable_walk: ['addr {addr:x} pferr {pferr:x} {flags}'],
  kvm_mmu_paging_element: ['pte {pte:x} level {level:d}'],
  kvm_mmu_walker_error: ['pferr {pferr:x} {flags}'],
  kvm_mmu_set_accessed_bit: ['gpa {gpa:x}'],
  kvm_mmu_set_dirty_bit: ['gpa {gpa:x}'],
  kvm_mmu_get_page: ['{text}'],
  kvm_mmu_sync_page: ['{text}'],
  kvm_mmu_unsync_page: ['{text}'],
  kvm_mmu_prepare_zap_page: ['{text}'],
  mark_mmio_spte: ['sptep:{sptep} gfn {gfn:x} access {access:x} gen {gen:x}'],
  handle_mmio_page_fault: ['addr:{addr:x} gfn {gfn:x} access {access:x}'],
  check_mmio_spte: ['spte {spte:x} kvm_gen {kvm_gen:x} spte-gen {spte_gen:x} valid {valid:d}'],
  fast_page_fault: [
    'vcpu {vcpu:d} gva {gva:x} error_code {error_code} sptep {sptep} old {old:#x} new {new:x} spurious {spurious:d} fixed {fixed:d}',
  ],
  kvm_mmu_zap_all_fast: ['kvm-mmu-valid-gen {gen:d} used_pages {used:x}'],
  kvm_mmu_set_spte: ['gfn {gfn:x} spte {spte:x} ({perm}) level {level:d} at {sptep:x}'],
  kvm_mmu_spte_requested: ['gfn {gfn:x} pfn {pfn:x} level {level:d}'],
  kvm_tdp_mmu_spte_changed: ['as id {as_id:d} gfn {gfn:x} level {level:d} old_spte {old:x} new_spte {new:x}'],
  kvm_mmu_split_huge_page: ['gfn {gfn:x} spte {spte:x} level {level:d} errno {errno:d}'],
};

/** All events, by number. */
export const schemas: readonly EventSchema[] = [
  ...Object.entries(KVM).map(([name, spellings]) => ['kvm', name, spellings] as const),
  ...Object.entries(KVMMMU).map(([name, spellings]) => ['kvmmmu', name, spellings] as const),
].map(([group, name, spellings], id) => new EventSchema(id, group, name, spellings));

const byName = new Map(schemas.map((s) => [s.name, s]));

/** The schema of an event; @throws Error for a name that is in none of the tables: a mistake of the caller's. */
export function schemaOf(name: string): EventSchema {
  const schema = byName.get(name);
  if (schema === undefined) throw new Error(`no event ${name}`);
  return schema;
}

/** Slots of the table by hash; no two events share one. */
const SLOTS = 4096;
const slots: (EventSchema | null)[] = new Array<EventSchema | null>(SLOTS).fill(null);
const encoded = schemas.map((s) => new TextEncoder().encode(s.name));

/** HOT */
function hash(bytes: Uint8Array, from: number, to: number): number {
  let h = to - from;
  for (let i = from; i < to; i++) h = Math.imul(h ^ bytes[i]!, 0x01000193);
  return (h ^ (h >>> 15)) & (SLOTS - 1);
}

for (const schema of schemas) {
  const name = encoded[schema.id]!;
  let at = hash(name, 0, name.length);
  while (slots[at] !== null) at = (at + 1) & (SLOTS - 1);
  slots[at] = schema;
}

/** The event that is called as these bytes say; null for one that is not of KVM. HOT */
export function schemaAt(bytes: Uint8Array, from: number, to: number): EventSchema | null {
  for (let at = hash(bytes, from, to); ; at = (at + 1) & (SLOTS - 1)) {
    const schema = slots[at]!;
    if (schema === null) return null;
    const name = encoded[schema.id]!;
    if (name.length !== to - from) continue;
    let i = 0;
    while (i < name.length && bytes[from + i] === name[i]) i++;
    if (i === name.length) return schema;
  }
}
