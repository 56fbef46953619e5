/** softkvm's own events as the kernel's text. */
import type { TraceEvent } from '../../kvm/trace/events.ts';

/** Fields that the kernel prints as `0x` and sixteen digits. */
const text = (fields: unknown): string => (fields as { readonly text: string }).text;

/** What the kernel would print of the event, behind its name. */
export function eventText({ event, fields }: TraceEvent): string {
  const f = fields as Readonly<Record<string, string | number | boolean>>;
  switch (event) {
    case 'kvm_entry':
      return `vcpu ${f['vcpu']}, rip ${f['rip']}`;
    case 'kvm_exit':
      return `vcpu ${f['vcpu']} reason ${f['reason']} rip ${f['rip']} info1 ${f['info1']} info2 ${f['info2']} intr_info ${f['intr_info']} error_code ${f['error_code']}`;
    case 'kvm_page_fault':
      return `vcpu ${f['vcpu']} rip ${f['rip']} address ${f['address']} error_code ${f['error_code']}`;
    case 'kvm_mmio':
      return `mmio ${f['type']} len ${f['len']} gpa ${f['gpa']} val ${f['val']}`;
    case 'kvm_fast_mmio':
      return `fast mmio at gpa ${f['gpa']}`;
    case 'kvm_emulate_insn':
      return `${f['csbase']}:${f['rip']}:${spaced(String(f['bytes']))} (${f['mode']})${f['failed'] === true ? ' failed' : ''}`;
    case 'vcpu_match_mmio':
      return `gva ${f['gva']} gpa ${f['gpa']} ${f['op']}`;
    case 'kvm_unmap_hva_range':
      return `mmu notifier unmap range: ${hex(f['start'])} -- ${hex(f['end'])}`;
    case 'kvm_age_hva':
      return `mmu notifier age hva: ${hex(f['start'])} -- ${hex(f['end'])}`;
    case 'kvm_test_age_hva':
      return `mmu notifier test age hva: ${hex(f['start'])}`;
    case 'mark_mmio_spte':
      return `sptep:0 gfn ${bare(f['gfn'])} access ${bare(f['access'])} gen ${bare(f['gen'])}`;
    case 'handle_mmio_page_fault':
      return `addr:${bare(f['addr'])} gfn ${bare(f['gfn'])} access ${bare(f['access'])}`;
    case 'check_mmio_spte':
      return `spte ${bare(f['spte'])} kvm_gen ${bare(f['kvm_gen'])} spte-gen ${bare(f['spte_gen'])} valid ${f['valid']}`;
    case 'fast_page_fault':
      return `vcpu ${f['vcpu']} gva ${bare(f['gva'])} error_code ${f['error_code']} sptep 0 old 0x${bare(f['old'])} new ${bare(f['new'])} spurious ${f['spurious']} fixed ${f['fixed']}`;
    case 'kvm_mmu_set_spte':
      return `gfn ${bare(f['gfn'])} spte ${bare(f['spte'])} (${f['perm']}) level ${f['level']} at 0`;
    case 'kvm_mmu_spte_requested':
      return `gfn ${bare(f['gfn'])} pfn 0 level ${f['level']}`;
    case 'kvm_tdp_mmu_spte_changed':
      return `as id ${f['as_id']} gfn ${bare(f['gfn'])} level ${f['level']} old_spte ${bare(f['old'])} new_spte ${bare(f['new'])}`;
    case 'kvm_mmu_split_huge_page':
      return `gfn ${bare(f['gfn'])} spte ${bare(f['spte'])} level ${f['level']} errno ${f['errno']}`;
    default:
      return text(fields);
  }
}

function bare(value: string | number | boolean | undefined): string {
  return String(value).replace(/^0x/, '');
}

function hex(value: string | number | boolean | undefined): string {
  return `0x${Number(value).toString(16).padStart(14, '0')}`;
}

function spaced(bytes: string): string {
  return bytes.match(/../g)?.join(' ') ?? '';
}
