/** The way of one fault as a list of steps: what both diagrams draw. */

import { ADDRESS_KINDS, slotLine } from './explain-text.ts';
import type { Explanation } from './explanation.ts';

/** How a step ended: the fault went on, was not asked any more, or left with a page, to the emulator, to try again, or with an error. */
export type StepTone = 'pass' | 'skipped' | 'mapped' | 'emulate' | 'retry' | 'error';

export interface DiagramStep {
  /** From 1, in the order of the revision. */
  readonly number: number;
  readonly name: string;
  readonly kvmFunction: string;
  /** `continue`, RET_PF_*, an errno; empty for a step that was not asked. */
  readonly verdict: string;
  readonly reason: string;
  readonly tone: StepTone;
}

export interface Diagram {
  readonly title: string;
  readonly subtitle: string;
  /** Names of the code's bits. */
  readonly bits: readonly string[];
  readonly before: readonly (readonly [label: string, text: string])[];
  readonly steps: readonly DiagramStep[];
  /** Tone of the outcome: that of the step that decided. */
  readonly tone: StepTone;
  readonly outcome: string;
  readonly after: readonly (readonly [label: string, text: string])[];
}

export function diagramOf(e: Explanation): Diagram {
  const asked = e.stages.map((s, i) => ({
    number: i + 1,
    name: s.name,
    kvmFunction: s.kvmFunction,
    verdict: s.verdict === 'RET_PF_CONTINUE' ? 'continue' : s.verdict,
    reason: s.reason,
    tone: toneOf(s.verdict),
  }));
  const skipped = e.notReached.map((name, i) => ({
    number: asked.length + i + 1,
    name,
    kvmFunction: '',
    verdict: '',
    reason: '',
    tone: 'skipped' as const,
  }));
  return {
    title: `${ADDRESS_KINDS[e.fault.addressKind]} ${e.fault.gpa}, ${e.code.kind === 'ept' ? 'exit qualification' : 'error code'} ${e.code.value}`,
    subtitle: `${e.revision}: ${e.code.words}${e.code.impossible === null ? '' : ` (impossible: ${e.code.impossible})`}`,
    bits: [...e.code.bits.map((b) => b.name), ...addedBits(e)],
    before: [
      ['slot', slotLine(e)],
      ['attribute', e.before.attribute],
      ['SPTE', e.before.spte === null ? 'no page table yet' : e.before.spte.words],
      ['sequence', `${e.before.invalidateSeq}, memslot generation ${e.before.memslotGeneration}`],
    ],
    steps: [...asked, ...skipped],
    tone: asked.at(-1)?.tone ?? 'pass',
    outcome: sentence(e.left.words[0] ?? ''),
    after: afterOf(e),
  };
}

/** `not at all: the guest went on` is `The guest went on` where nothing says "left" before it. */
function sentence(words: string): string {
  const said = words.replace(/^not at all: /, '').replace(/^to the /, 'goes to the ');
  return `${said.charAt(0).toUpperCase()}${said.slice(1)}`;
}

function addedBits(e: Explanation): string[] {
  return e.code.changes.some((c) => c.includes('PRIVATE_ACCESS: added')) ? ['+PRIVATE_ACCESS'] : [];
}

function afterOf(e: Explanation): [string, string][] {
  const { before, after } = e;
  const stats = Object.entries(after.stats).map(([name, by]) => `${name} ${by > 0 ? '+' : ''}${by}`);
  const rows: [string, string | null][] = [
    ['kvm_run', e.left.words.length > 1 ? e.left.words.slice(1).join('; ') : null],
    ['result', e.result.verdict ?? e.result.words],
    ['SPTE', after.spte === null || after.spte.spte === before.spte?.spte ? 'unchanged' : after.spte.words],
    [
      'MMIO cache',
      after.mmioCache === null ? null : `gfn ${after.mmioCache.gfn}, generation ${after.mmioCache.generation}`,
    ],
    ['sequence', after.invalidateSeq === before.invalidateSeq ? null : `moved to ${after.invalidateSeq}`],
    ['statistics', stats.length === 0 ? null : stats.join(', ')],
    ['kernel log', after.log.length === 0 ? null : after.log.map((l) => `${l.where}: ${l.message}`).join('; ')],
    ['signals', after.signals.length === 0 ? null : after.signals.join(', ')],
    ['async page', after.asyncPf],
    ['emulation', after.emulation.length === 0 ? null : after.emulation.join('; ')],
    ['VMM', e.advice.vmm],
    ['otherwise', e.advice.otherwise],
  ];
  return rows.filter((row): row is [string, string] => row[1] !== null);
}

function toneOf(verdict: string): StepTone {
  switch (verdict) {
    case 'RET_PF_CONTINUE':
    case 'RET_PF_INVALID':
      return 'pass';
    case 'RET_PF_FIXED':
    case 'RET_PF_SPURIOUS':
      return 'mapped';
    case 'RET_PF_RETRY':
      return 'retry';
    case 'RET_PF_EMULATE':
    case 'RET_PF_WRITE_PROTECTED':
      return 'emulate';
    default:
      return 'error';
  }
}
