/**
 * Brings trace events into the form of the recordings (conformance/README.md, "Normalisation"): what depends on where the host put
 * things, or on when its timer fired, is removed; what KVM decided stays.
 */
import { hex } from '../../arch/halves.ts';
import type { TraceEvent } from '../../kvm/trace/events.ts';
import type { RecordedEvent } from './scenario.ts';

/** Events that no recording keeps. */
const neverKept = new Set(['kvm_entry', 'kvm_msr', 'kvm_cpuid', 'kvm_cr']);
/** Events that only the nested recordings keep. */
const nestedOnly = new Set(['kvm_inj_virq', 'kvm_apic_accept_irq', 'kvm_smm_transition']);
const asyncOrNested = /^kvm_(nested_|async_pf_|try_async_get_page)/;
/** Exits that say something of the host's timer only. */
const timerExits = new Set([
  'interrupt',
  'nmi',
  'vintr',
  'EXTERNAL_INTERRUPT',
  'INTERRUPT_WINDOW',
  'PREEMPTION_TIMER',
  'PAUSE_INSTRUCTION',
]);

const NONPRESENT = 0x8000000000000000n;
const FROZEN = 0x80000000000005a0n;
/** Bits 39:12, where the SPTEs of these machines (40 address bits) hold the host frame. */
const PFN_BITS = 0xfffffff000n;
const MMU_PRESENT = 1n << 11n;

/** Finds which of the scenario's memory objects holds a host virtual address. */
export interface HvaPlaces {
  /** The object and the offset in it, or null for an address outside them all. */
  place(hva: number): { readonly mem: number; readonly off: number } | null;
}

export interface NormaliseOptions {
  readonly places: HvaPlaces;
  readonly vendor: 'amd' | 'intel';
  readonly events: 'base' | 'nested';
  /** The step before ended by its timer: where the signal landed relative to an injection is chance. */
  readonly afterInterrupted: boolean;
  /** Keep this many events at most. */
  readonly limit: number;
}

/** The recorded form of the events of one step, in order. */
export function normaliseTrace(events: readonly TraceEvent[], options: NormaliseOptions): RecordedEvent[] {
  const kept: RecordedEvent[] = [];
  let injected: string | null = null;
  let strip = options.afterInterrupted;
  for (const e of events) {
    if (kept.length >= options.limit && options.limit < 1000) break;
    const name = e.event as string;
    if (neverKept.has(name)) continue;
    if (options.events === 'base' && (nestedOnly.has(name) || asyncOrNested.test(name))) continue;
    let fields: { [field: string]: unknown } = { ...e.fields };
    switch (e.event) {
      case 'kvm_exit':
        if (timerExits.has(e.fields.reason)) continue;
        if ((Number.parseInt(e.fields.intr_info, 16) & 0x80000000) === 0) {
          fields['intr_info'] = '0x0';
          fields['error_code'] = '0x0';
        }
        injected = null;
        break;
      case 'kvm_inj_exception': {
        const again = ' [reinjected]';
        const first = e.fields.text.endsWith(again) ? e.fields.text.slice(0, -again.length) : e.fields.text;
        if (first !== e.fields.text && injected === first) continue;
        injected = first;
        if (strip) fields['text'] = first;
        strip = false;
        break;
      }
      case 'kvm_unmap_hva_range':
      case 'kvm_age_hva':
      case 'kvm_test_age_hva': {
        const place = options.places.place(e.fields.start);
        if (place === null) continue;
        fields = { mem: place.mem, off: hex(place.off), len: hex(e.fields.end - e.fields.start) };
        break;
      }
      case 'kvm_tdp_mmu_spte_changed':
        if (BigInt(e.fields.old) === NONPRESENT && BigInt(e.fields.new) === FROZEN) continue;
        fields['old'] = spteText(e.fields.old, options.vendor);
        fields['new'] = spteText(e.fields.new, options.vendor);
        break;
      case 'fast_page_fault':
        fields['old'] = spteText(e.fields.old, options.vendor);
        fields['new'] = spteText(e.fields.new, options.vendor);
        break;
      case 'kvm_async_pf_completed':
        fields['text'] = e.fields.text.replace(/ address .*/, ' address hva');
        break;
      case 'kvm_mmu_set_spte':
      case 'kvm_mmu_split_huge_page':
        fields['spte'] = spteText(e.fields.spte, options.vendor);
        break;
      default:
        break;
    }
    kept.push({ event: name, fields });
  }
  return mergeRuns(kept).slice(0, options.limit);
}

/** How the recordings print an SPTE: `0x...+pfn`, `mmio:0x...`, or the word itself. */
export function spteText(text: string, vendor: 'amd' | 'intel'): string {
  const spte = BigInt(text);
  if ((spte & MMU_PRESENT) !== 0n) return `${hex(spte & ~PFN_BITS)}+pfn`;
  const mmio = vendor === 'amd' ? (spte >> 51n) & 1n : (spte & 7n) === 6n && spte >> 63n === 0n ? 1n : 0n;
  return mmio === 1n ? `mmio:${hex(spte)}` : hex(spte);
}

/** Eight or more of the same SPTE change over gfns one step apart are one event with `repeat` and `gfn_step`. */
function mergeRuns(events: readonly RecordedEvent[]): RecordedEvent[] {
  const merged: RecordedEvent[] = [];
  for (let i = 0; i < events.length; ) {
    const { length, step } = runFrom(events, i);
    const first = events[i]!;
    if (length >= 8) {
      merged.push({ event: first.event, fields: { ...first.fields, repeat: length, gfn_step: hex(step) } });
      i += length;
    } else {
      merged.push(first);
      i++;
    }
  }
  return merged;
}

function runFrom(events: readonly RecordedEvent[], start: number): { length: number; step: number } {
  const first = events[start]!;
  if (first.event !== 'kvm_tdp_mmu_spte_changed') return { length: 1, step: 0 };
  const gfn = Number(first.fields['gfn']);
  let step = 0;
  let length = 1;
  for (; start + length < events.length; length++) {
    const next = events[start + length]!;
    if (next.event !== first.event || !sameChange(next.fields, first.fields)) break;
    const distance = Number(next.fields['gfn']) - gfn;
    if (length === 1) step = distance;
    if (distance !== step * length || step === 0) break;
  }
  return { length, step };
}

function sameChange(a: RecordedEvent['fields'], b: RecordedEvent['fields']): boolean {
  return a['as_id'] === b['as_id'] && a['level'] === b['level'] && a['old'] === b['old'] && a['new'] === b['new'];
}
