/** One fault, explained: what `softkvm explain --json` prints, and what its text and its diagram are made of. docs/cli.md has it as a schema. */
import {
  PFERR_GUEST_ENC_HI,
  PFERR_IMPLICIT_ACCESS_HI,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_SYNTHETIC_MASK_HI,
} from '../../arch/error-code.ts';
import { hi64 } from '../../arch/halves.ts';
import type { KernelLogEntry } from '../../kvm/kernel-log.ts';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import type { RevisionRules } from '../../kvm/mmu/revisions/revision.ts';
import { type CodeKind, decodeCode } from '../decode/decode.ts';
import type { EntryName } from '../fault-machine/fault-input.ts';
import { type Advice, adviceFor } from './advice.ts';
import type { FaultRecord, MmioCacheView, SlotView, StageRecord } from './fault-log.ts';
import { type LeftBy, leftWords } from './left-by.ts';
import type { SpteView } from './spte-words.ts';

export interface CodeView {
  /** As it was reported, hex. */
  readonly value: string;
  readonly kind: CodeKind;
  readonly words: string;
  /** The bits that are set. */
  readonly bits: readonly { readonly bit: number; readonly name: string; readonly meaning: string }[];
  /** What is odd about the code. */
  readonly notes: readonly string[];
  /** Why the described hardware cannot produce it; null when it can, or when nobody said what hardware it is. */
  readonly impossible: string | null;
  /** As the stages saw it, hex; null when no fault object was made. */
  readonly seen: string | null;
  /** Why that is another code, one sentence a change. */
  readonly changes: readonly string[];
}

export interface Explanation {
  readonly revision: string;
  readonly fault: {
    readonly vcpu: number;
    /** The address, of the kind of `addressKind`. */
    readonly gpa: string;
    readonly addressKind: 'gpa' | 'linear' | 'nested-gpa';
    /** Null: the guest's own tables do not map the address. */
    readonly gfn: string | null;
    /** KVM made the fault itself, ahead of an access. */
    readonly prefetch: boolean;
    readonly entry: EntryName;
    /** The vCPU runs L2. */
    readonly nested: boolean;
    /** The fault path takes the access as private. */
    readonly private: boolean;
    readonly translation: 'npt' | 'ept' | 'shadow';
  };
  readonly code: CodeView;
  readonly before: {
    readonly slot: SlotView | null;
    readonly attribute: 'private' | 'shared';
    /** Null: the vCPU had no page table. */
    readonly spte: SpteView | null;
    readonly mmioCache: MmioCacheView | null;
    readonly invalidateSeq: number;
    readonly memslotGeneration: number;
  };
  readonly stages: readonly StageRecord[];
  readonly notReached: readonly string[];
  /** RET_PF_* or an errno, and what decided it. */
  readonly result: { readonly verdict: string | null; readonly words: string };
  readonly after: {
    readonly spte: SpteView | null;
    readonly mmioCache: MmioCacheView | null;
    readonly invalidateSeq: number;
    readonly stats: { readonly [name: string]: number };
    readonly log: readonly KernelLogEntry[];
    /** Signals that the process got. */
    readonly signals: readonly string[];
    /** The work that was queued for a page that has to be read in first. */
    readonly asyncPf: string | null;
    /** What the emulator and the devices did, in words. */
    readonly emulation: readonly string[];
  };
  readonly left: {
    readonly words: readonly string[];
    readonly ret: number | null;
    readonly errno: string | null;
    readonly run: LeftBy['run'];
  };
  readonly advice: Advice;
}

/** What is known of a fault beyond its record. */
export interface About {
  /** The code as the hardware reported it, when the record has another. */
  readonly reported?: bigint;
  readonly kind?: CodeKind;
  readonly impossible?: string | null;
  readonly signals?: readonly string[];
  readonly asyncPf?: string | null;
  readonly entry?: EntryName;
  readonly nested?: boolean;
}

/** Explains a recorded fault that left by `left` (null: the guest went on). */
export function explanationOf(fault: FaultRecord, left: LeftBy | null, about: About = {}): Explanation {
  return {
    revision: fault.revision,
    fault: {
      vcpu: fault.vcpu,
      gpa: fault.gpa,
      addressKind: fault.addressKind,
      gfn: fault.gfn,
      prefetch: fault.prefetch,
      entry: about.entry ?? (fault.prefetch ? 'page-ready' : 'fault'),
      nested: about.nested ?? false,
      private: fault.privateAccess,
      translation: fault.translation,
    },
    code: codeView(fault, about),
    before: {
      slot: fault.slot,
      attribute: fault.attribute,
      spte: fault.spteBefore,
      mmioCache: fault.mmioCacheBefore,
      invalidateSeq: fault.invalidateSeq,
      memslotGeneration: fault.memslotGeneration,
    },
    stages: [...fault.stages, ...afterStages(fault, left, about)],
    notReached: fault.notReached,
    result: {
      verdict: left?.bug ? 'BUG' : (fault.verdict ?? fault.stages.at(-1)?.verdict ?? null),
      words: unasked(fault, about, left) ?? outcomeSentence(fault),
    },
    after: {
      spte: fault.spteAfter,
      mmioCache: fault.mmioCache,
      invalidateSeq: fault.invalidateSeqAfter,
      stats: fault.stats,
      log: fault.log,
      signals: about.signals ?? [],
      asyncPf: about.asyncPf ?? null,
      emulation: emulationWords(fault),
    },
    left: {
      words: leftWords(fault, left),
      ret: left?.ret ?? null,
      errno: left?.errno ?? null,
      run: left?.run ?? null,
    },
    advice: adviceFor(fault, left, walkRetried(fault, left, about)),
  };
}

/** What came of a fault, in one sentence. */
export function outcomeSentence(fault: FaultRecord): string {
  const last = fault.stages.at(-1);
  if (last !== undefined) return `${last.name}: ${last.reason}`;
  const mmio = fault.events.find((e) => e.event === 'check_mmio_spte');
  if (mmio?.event === 'check_mmio_spte')
    return mmio.fields.valid
      ? 'the MMIO SPTE is of the current generation: emulated at once'
      : 'the MMIO SPTE is of an old generation: faulted in again';
  if (fault.events.some((e) => e.event === 'handle_mmio_page_fault')) return 'an MMIO SPTE was hit: emulated at once';
  return 'answered before the list of stages';
}

/** Why no stage was asked of a fault that KVM makes itself; null for any other. */
function unasked(fault: FaultRecord, about: About, left: LeftBy | null): string | null {
  if (fault.stages.length > 0) return null;
  if (about.entry === 'page-ready') return 'KVM did not redo the fault';
  if (about.entry !== 'pre-fault') return null;
  if (left?.errno === 'EINVAL') return `${fault.revision} has no KVM_PRE_FAULT_MEMORY`;
  return 'KVM_PRE_FAULT_MEMORY was refused before a fault was made';
}

/** The processor's own write to a page table of the guest cannot be emulated: older revisions repeat the access whatever came of it. */
function walkRetried(fault: FaultRecord, left: LeftBy | null, about: About): boolean {
  const wanted = fault.verdict === 'RET_PF_EMULATE' || fault.verdict === 'RET_PF_WRITE_PROTECTED';
  return about.entry === 'fault' && left === null && wanted;
}

/** What was decided behind the list of stages. */
function afterStages(fault: FaultRecord, left: LeftBy | null, about: About): StageRecord[] {
  if (left?.bug)
    return [
      {
        name: 'map',
        kvmFunction: 'kvm_tdp_mmu_map',
        verdict: 'BUG',
        reason: 'the entry that is there maps another frame: it would be replaced without having been zapped',
      },
    ];
  if (walkRetried(fault, left, about))
    return [
      {
        name: 'page-table-write',
        kvmFunction: 'kvm_mmu_page_fault',
        verdict: 'RET_PF_RETRY',
        reason: 'the processor was writing a page table of the guest: the access is repeated, not emulated',
      },
    ];
  if (fault.verdict !== 'EFAULT' || fault.stages.at(-1)?.verdict !== 'RET_PF_EMULATE') return [];
  return [
    {
      name: 'private-emulation',
      kvmFunction: 'kvm_mmu_do_page_fault',
      verdict: 'EFAULT',
      reason: 'emulation never touches private memory: a memory-fault exit instead',
    },
  ];
}

function emulationWords(fault: FaultRecord): string[] {
  return fault.events.flatMap((e) => {
    if (e.event === 'kvm_emulate_insn')
      return [`emulated ${e.fields.bytes} at rip 0x${e.fields.rip}${e.fields.failed ? ' (failed)' : ''}`];
    if (e.event === 'kvm_mmio')
      return [`device ${e.fields.type} of ${e.fields.len} bytes at ${e.fields.gpa}, value ${e.fields.val}`];
    return [];
  });
}

function codeView(fault: FaultRecord, about: About): CodeView {
  const value = about.reported ?? BigInt(fault.errorCode);
  const kind = about.kind ?? kindOf(fault, value);
  const decoded = decodeCode(value, kind, rulesOf(fault.revision));
  return {
    value: `0x${value.toString(16)}`,
    kind,
    words: decoded.words,
    bits: decoded.bits.filter((b) => b.set).map(({ bit, name, meaning }) => ({ bit, name, meaning })),
    notes: notesOf(fault, about, kind, decoded.warnings),
    impossible: about.impossible ?? null,
    seen: fault.pathCode,
    changes: fault.pathCode === null ? [] : codeChanges(fault, value, BigInt(fault.pathCode), kind),
  };
}

/** Rules of a revision of KVM's; a user's own knows all names. */
function rulesOf(name: string): RevisionRules | undefined {
  try {
    return revisionByName(name).rules;
  } catch {
    return undefined;
  }
}

/** A code that KVM made is not odd for what nested-paging hardware would do; of one that is impossible it is said already. */
function notesOf(fault: FaultRecord, about: About, kind: CodeKind, warnings: readonly string[]): readonly string[] {
  if (fault.prefetch || (fault.translation === 'ept' && kind === 'npf')) return [];
  return about.impossible ? warnings.filter((w) => w.startsWith('undefined bits')) : warnings;
}

function kindOf(fault: FaultRecord, value: bigint): CodeKind {
  return fault.translation === 'shadow' && value >> 32n === 0n ? 'pf' : 'npf';
}

/** What KVM did to the code on its way to the stages. */
function codeChanges(fault: FaultRecord, reported: bigint, seen: bigint, kind: CodeKind): string[] {
  if (kind === 'ept') return [`KVM translates the exit qualification into error code 0x${seen.toString(16)}`];
  const changes: string[] = [];
  const added = seen & ~reported;
  const lost = reported & ~seen;
  if (hi64(added) & PFERR_PRIVATE_ACCESS_HI)
    changes.push(
      hi64(reported) & PFERR_GUEST_ENC_HI
        ? 'bit 49  PRIVATE_ACCESS: added by KVM on entry, because ENC is set in an SNP guest'
        : "bit 49  PRIVATE_ACCESS: added by KVM on entry, because the gfn's attribute is private",
    );
  if (lost === 0n) return changes;
  if ((hi64(lost) & PFERR_SYNTHETIC_MASK_HI) !== 0) {
    const names = [
      hi64(lost) & PFERR_IMPLICIT_ACCESS_HI ? 'IMPLICIT_ACCESS' : '',
      hi64(lost) & PFERR_PRIVATE_ACCESS_HI ? 'PRIVATE_ACCESS' : '',
    ].filter((name) => name !== '');
    changes.push(`${names.join(' and ')}: dropped by KVM, hardware has no say in synthetic bits`);
  }
  if (lost >> 32n !== 0n && seen >> 32n === 0n)
    changes.push(`bits 63:32 (0x${(reported >> 32n).toString(16)}) do not reach the stages of ${fault.revision}`);
  return changes;
}
