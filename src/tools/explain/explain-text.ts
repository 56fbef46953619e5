/** One fault in words, from its record. */

import {
  APIC_ACCESS_PAGE_PRIVATE_MEMSLOT,
  IDENTITY_PAGETABLE_PRIVATE_MEMSLOT,
  TSS_PRIVATE_MEMSLOT,
} from '../../kvm/memslots/memslot.ts';
import { type CodeView, type Explanation, explanationOf } from './explanation.ts';
import type { FaultRecord, MmioCacheView, SlotView } from './fault-log.ts';
import type { LeftBy } from './left-by.ts';
import type { SpteView } from './spte-words.ts';
import { wrap } from './wrap.ts';

/** Columns of a line of prose, after the label. */
const PROSE = 100;

/** The lines of an explanation of a recorded fault, without colour. */
export function explanationLines(fault: FaultRecord, left: LeftBy | null): string[] {
  return textOf(explanationOf(fault, left));
}

/** The lines of an explanation, without colour. */
export function textOf(e: Explanation): string[] {
  return [
    `${openingWords(e)} ${ADDRESS_KINDS[e.fault.addressKind]} ${e.fault.gpa} (${e.fault.gfn === null ? 'no gfn' : `gfn ${e.fault.gfn}`}), vCPU ${e.fault.vcpu}, ${e.revision}`,
    ...codeLines(e.code),
    ...labelled('slot', [slotLine(e)]),
    ...labelled('attribute', [e.before.attribute]),
    ...labelled('SPTE', [spteLine(e.before.spte)]),
    ...labelled('sequence', [
      `mmu_invalidate_seq ${e.before.invalidateSeq}, memslot generation ${e.before.memslotGeneration}`,
    ]),
    ...(e.before.mmioCache === null ? [] : labelled('MMIO cache', [cacheWords(e.before.mmioCache)])),
    '',
    ...stageLines(e),
    '',
    ...resultLines(e),
    ...labelled('left', e.left.words),
    ...labelled('VMM', wrap(e.advice.vmm, PROSE)),
    ...labelled('otherwise', wrap(e.advice.otherwise, PROSE)),
  ];
}

export const ADDRESS_KINDS = { gpa: 'gpa', linear: 'linear address', 'nested-gpa': 'nested gpa' } as const;

export function slotLine(e: Explanation): string {
  return e.fault.gfn === null ? "unknown: the guest's own tables do not map the address" : slotWords(e.before.slot);
}

function openingWords(e: Explanation): string {
  if (e.fault.entry === 'pre-fault') return 'KVM_PRE_FAULT_MEMORY asked for';
  if (e.fault.prefetch) return 'KVM faulted in';
  return `${e.fault.nested ? 'The nested guest (L2)' : 'The guest'} touched`;
}

/** `  label      text`, the lines after the first aligned with it. */
export function labelled(label: string, lines: readonly string[]): string[] {
  return lines.map((line, i) => `  ${(i === 0 ? label : '').padEnd(10)} ${line}`);
}

function codeLines(code: CodeView): string[] {
  return [
    `  ${code.kind === 'ept' ? 'qualification' : 'error code'} ${code.value}: ${code.words}`,
    ...code.bits.map((b) => `    bit ${String(b.bit).padStart(2)}  ${b.name}: ${b.meaning}`),
    ...code.changes.map((c) => `    ${c}`),
    ...code.notes.map((w) => `    note: ${w}`),
    ...(code.impossible === null
      ? []
      : [`    impossible: ${code.impossible}`, '    Explained anyway: this is what KVM would do with it.']),
  ];
}

/** Slots that KVM makes for itself. */
const OWN_SLOTS: ReadonlyMap<number, string> = new Map([
  [TSS_PRIVATE_MEMSLOT, "KVM's TSS"],
  [APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, "KVM's APIC access page"],
  [IDENTITY_PAGETABLE_PRIVATE_MEMSLOT, "KVM's identity map"],
]);

function slotWords(slot: SlotView | null): string {
  if (slot === null) return 'none: no memory slot covers the address';
  const kinds = [
    slot.readonly ? 'read-only' : 'read-write',
    slot.dirtyLogging ? 'dirty logging' : '',
    slot.guestMemfd ? 'with guest_memfd' : '',
    slot.beingChanged ? 'being deleted or moved' : '',
  ];
  const own = OWN_SLOTS.get(slot.id);
  return `${slot.id}${own === undefined ? '' : ` (${own})`} at ${slot.gpa}, ${slot.bytes / 1024} KiB, ${kinds.filter((k) => k !== '').join(', ')}`;
}

function spteLine(spte: SpteView | null): string {
  return spte === null ? 'the vCPU has no page table yet' : `${spte.spte}, level ${spte.level}: ${spte.words}`;
}

function cacheWords(cache: MmioCacheView): string {
  return `gfn ${cache.gfn}, generation ${cache.generation}`;
}

function stageLines(e: Explanation): string[] {
  if (e.stages.length === 0) return [`  No stage ran: ${e.result.words}.`];
  const width = Math.max(...e.stages.map((s) => s.name.length));
  const verdict = Math.max(...e.stages.map((s) => s.verdict.length));
  return [
    ...e.stages.map(
      (s, i) =>
        `  ${String(i + 1).padStart(2)}. ${s.name.padEnd(width)}  ${s.verdict.padEnd(verdict)}  ${s.reason}${s.kvmFunction === '' ? '' : ` [${s.kvmFunction}]`}`,
    ),
    ...(e.notReached.length === 0 ? [] : ['', ...labelled('not asked', wrap(e.notReached.join(', '), PROSE))]),
  ];
}

function resultLines(e: Explanation): string[] {
  const { before, after } = e;
  const same = before.spte?.spte === after.spte?.spte && before.spte?.level === after.spte?.level;
  const stats = Object.entries(after.stats).map(([name, by]) => `${name} ${by > 0 ? '+' : ''}${by}`);
  return [
    ...labelled('result', [e.result.verdict ?? e.result.words]),
    ...(after.spte === null ? [] : labelled('SPTE', [same ? 'unchanged' : spteLine(after.spte)])),
    ...(after.invalidateSeq === before.invalidateSeq
      ? []
      : labelled('sequence', [`mmu_invalidate_seq moved to ${after.invalidateSeq}: an invalidation ran meanwhile`])),
    ...(after.mmioCache === null ? [] : labelled('MMIO cache', [cacheChange(before.mmioCache, after.mmioCache)])),
    ...(stats.length === 0 ? [] : labelled('statistics', wrap(stats.join(', '), PROSE))),
    ...labelled(
      'kernel log',
      after.log.map((entry) => `${LOG_KINDS[entry.kind]} ${entry.where}: ${entry.message}`),
    ),
    ...labelled('signals', after.signals),
    ...(after.asyncPf === null ? [] : labelled('async page', [after.asyncPf])),
    ...labelled('emulation', after.emulation),
  ];
}

const LOG_KINDS = { warn: 'WARN_ON_ONCE', pr_warn: 'warning', bug: 'KVM_BUG_ON' } as const;

function cacheChange(before: MmioCacheView | null, after: MmioCacheView): string {
  const same = before !== null && before.gfn === after.gfn && before.generation === after.generation;
  return same ? 'unchanged' : `${cacheWords(after)}: remembered by this fault`;
}
