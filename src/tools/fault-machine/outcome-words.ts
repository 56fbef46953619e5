/**
 * An outcome as fourteen int32 words, in which runs leave it: millions are compared without a string or an object being made.
 *
 *   0 verdict      1 RET_PF or errno   2 stage that decided (number of its name)
 *   3 exit reason  4 exit: flags, page, size    5 emulation type, -1 for none
 *   6 SPTE: low bits and kind   7 SPTE: high bits   8 MMIO cache
 *   9 statistics, four bits each   10 log, a bit an entry   11 async page fault   12 signals, #PF, dirty   13 fields
 */
import { errnoName } from '../../host/errno.ts';
import { KVM_EXIT_INTR, KVM_EXIT_MEMORY_FAULT, KVM_MEMORY_EXIT_FLAG_PRIVATE } from '../../kvm/kvm-run.ts';
import { RET_PF_EMULATE, RET_PF_RETRY, retPfName } from '../../kvm/mmu/ret-pf.ts';
import { EMULTYPE_ALLOW_RETRY_PF, EMULTYPE_PF, EMULTYPE_WRITE_PF_TO_SP } from '../../kvm/x86/emul-type.ts';
import type { Names } from './names.ts';
import type { Outcome, OutcomeExit, OutcomeFields } from './outcome.ts';

export const OUTCOME_WORDS = 14;
export const W_VERDICT = 0;
export const W_RET = 1;
export const W_DECIDED = 2;
export const W_EXIT = 3;
export const W_EXIT_DATA = 4;
export const W_EMULATED = 5;
export const W_SPTE_LO = 6;
export const W_SPTE_HI = 7;
export const W_MMIO_CACHE = 8;
export const W_STATS = 9;
export const W_LOG = 10;
export const W_ASYNC = 11;
export const W_SIGNALS = 12;
export const W_FIELDS = 13;

/** Word 0: 1 resume, 0 userspace, a negative errno, and these. */
export const VERDICT_MAPPED = 2;
export const VERDICT_BUG = 3;
/** Word 2 when no stage ran. */
export const DECIDED_BEFORE_STAGES = -1;

export const EXIT_THIS_PAGE = 1 << 8;

/** Word 6: the low half of the entry has its frame bits free; the kind goes there. */
export const SPTE_ABSENT = 1 << 12;
export const SPTE_LEAF = 2 << 12;
export const SPTE_MMIO = 3 << 12;
export const SPTE_OTHER = 4 << 12;
/** No page table is there to have an entry. */
export const SPTE_NO_TABLE = 5 << 12;
const SPTE_KIND = 7 << 12;
export const SPTE_FRAME_HOST = 1 << 16;
export const SPTE_FRAME_GMEM = 1 << 17;
export const SPTE_FRAME_ZERO = 1 << 18;
export const SPTE_GFN_OK = 1 << 19;
export const SPTE_GEN_CURRENT = 1 << 20;
/** What the entry allows, decoded by whoever knows the format. */
export const SPTE_R = 1 << 21;
export const SPTE_W = 1 << 22;
export const SPTE_X = 1 << 23;
export const SPTE_ACCESSED = 1 << 24;
export const SPTE_DIRTY = 1 << 25;
export const SPTE_MMU_WRITABLE = 1 << 26;
export const SPTE_TRACKED = 1 << 27;

export const CACHE_SET = 1;
export const CACHE_THIS_GFN = 2;
export const CACHE_HAS_GVA = 4;
export const CACHE_CURRENT = 8;
export const CACHE_ACCESS_SHIFT = 4;

const STAT_NAMES = [
  'pf_taken',
  'pf_fixed',
  'pf_emulate',
  'pf_spurious',
  'pf_fast',
  'pf_mmio_spte_created',
  'signal_exits',
] as const;

/** Word 11: the queued work's code relation in bits 4 and up. */
export const ASYNC_QUEUED = 1;
export const ASYNC_HALTED = 2;
export const ASYNC_CODE_SHIFT = 4;

export const SIGNALLED = 1;
export const PAGE_DIRTY = 2;
export const GUEST_FAULT = 4;

/** A code against the one that was reported. */
export const CODE_LOW_LOST = 1;
export const CODE_HIGH_LOST = 2;
export const CODE_PRIVATE = 4;
export const CODE_IMPLICIT = 8;
export const CODE_OTHER = 16;
/** Intel without a linear address, in revisions that call that a page-table access. */
export const CODE_GUEST_PAGE = 32;
const CODE_BITS = 6;

/** Word 13. */
export const FIELDS_PRESENT = 1;
export const FIELD_PRIVATE = 2;
export const FIELD_MAP_WRITABLE = 4;
export const FIELD_HAS_SLOT = 8;
export const FIELD_CODE_SHIFT = 4;
export const FIELD_PFN_SHIFT = 10;
export const FIELD_HVA_SHIFT = 15;

/** Values of a pfn field: -pfn for the error values, and these. */
export const PFN_ZERO = 0;
export const PFN_HOST = 16;
export const PFN_GMEM = 17;
export const PFN_OTHER = 18;
const PFN_TEXT: readonly string[] = [
  '0',
  'ERR_FAULT',
  'ERR_HWPOISON',
  'ERR_RO_FAULT',
  'NOSLOT',
  'ERR_SIGPENDING',
  'ERR_NEEDS_IO',
];
export const HVA_ZERO = 0;
export const HVA_BAD = 1;
export const HVA_RO_BAD = 2;
export const HVA_PAGE = 3;
export const HVA_OTHER = 4;
const HVA_TEXT = ['0', 'ERR_BAD', 'ERR_RO_BAD', "the page's address", 'another address'] as const;

/** The words as an outcome. */
export function outcomeOf(words: Int32Array, at: number, names: Names): Outcome {
  const word = (i: number): number => words[at + i]!;
  const emulated = word(W_EMULATED);
  return {
    verdict: verdictText(word(W_VERDICT), emulated),
    ret: retPfText(word(W_RET)),
    exit: exitOf(word(W_EXIT), word(W_EXIT_DATA)),
    emulated: emulated < 0 ? null : emulText(emulated),
    spteAfter: spteText(word(W_SPTE_LO), word(W_SPTE_HI)),
    mmioCache: cacheText(word(W_MMIO_CACHE)),
    stats: statsOf(word(W_STATS)),
    log: names.logLines(word(W_LOG)),
    asyncPf: asyncText(word(W_ASYNC)),
    signals: signalsOf(word(W_SIGNALS)),
    dirty: (word(W_SIGNALS) & PAGE_DIRTY) !== 0,
    fields: fieldsOf(word(W_FIELDS)),
    decidedBy: decidedText(word(W_DECIDED), names),
  };
}

function verdictText(verdict: number, emulated: number): string {
  if (verdict === VERDICT_BUG) return 'bug';
  if (verdict === VERDICT_MAPPED) return 'mapped';
  if (verdict < 0) return errnoName(-verdict);
  if (verdict === 0) return 'userspace';
  return emulated < 0 ? 'resume' : 'emulate';
}

function retPfText(ret: number): string {
  return ret < 0 ? errnoName(-ret) : retPfName(ret);
}

function decidedText(decided: number, names: Names): string {
  if (decided === DECIDED_BEFORE_STAGES) return 'reserved-bits';
  return names.stageName(decided);
}

function exitOf(reason: number, data: number): OutcomeExit | null {
  if (reason === 0) return null;
  if (reason !== KVM_EXIT_MEMORY_FAULT) {
    return {
      reason: reason === KVM_EXIT_INTR ? 'KVM_EXIT_INTR' : `exit ${reason}`,
      isPrivate: false,
      page: null,
      size: 0,
    };
  }
  return {
    reason: 'KVM_EXIT_MEMORY_FAULT',
    isPrivate: (data & KVM_MEMORY_EXIT_FLAG_PRIVATE) !== 0,
    page: (data & EXIT_THIS_PAGE) !== 0 ? 'the faulting page' : 'another page',
    size: data >>> 9,
  };
}

function emulText(type: number): string {
  const names: string[] = [];
  if ((type & EMULTYPE_PF) !== 0) names.push('EMULTYPE_PF');
  if ((type & EMULTYPE_ALLOW_RETRY_PF) !== 0) names.push('EMULTYPE_ALLOW_RETRY_PF');
  if ((type & EMULTYPE_WRITE_PF_TO_SP) !== 0) names.push('EMULTYPE_WRITE_PF_TO_SP');
  return names.join('|');
}

function spteText(lo: number, hi: number): string {
  const kind = lo & SPTE_KIND;
  if (kind === SPTE_ABSENT) return 'absent';
  if (kind === SPTE_NO_TABLE) return 'no table';
  if (kind === SPTE_MMIO) {
    const gfn = (lo & SPTE_GFN_OK) !== 0 ? '' : ', of another gfn';
    return `MMIO, ${(lo & SPTE_GEN_CURRENT) !== 0 ? 'current' : 'stale'}${gfn}`;
  }
  if (kind !== SPTE_LEAF) return `0x${(hi >>> 0).toString(16)}:${(lo & 0xfff).toString(16)}`;
  const rights = `${(lo & SPTE_R) !== 0 ? 'r' : '-'}${(lo & SPTE_W) !== 0 ? 'w' : '-'}${(lo & SPTE_X) !== 0 ? 'x' : '-'}`;
  const frame =
    (lo & SPTE_FRAME_GMEM) !== 0
      ? 'guest_memfd page'
      : (lo & SPTE_FRAME_HOST) !== 0
        ? 'host page'
        : (lo & SPTE_FRAME_ZERO) !== 0
          ? 'host frame 0'
          : 'another frame';
  const marks = [
    (lo & SPTE_ACCESSED) !== 0 ? ' accessed' : '',
    (lo & SPTE_DIRTY) !== 0 ? ' dirty' : '',
    (lo & SPTE_MMU_WRITABLE) !== 0 && (lo & SPTE_W) === 0 ? ' (may be made writable)' : '',
    (lo & SPTE_TRACKED) !== 0 ? ' (access-tracked)' : '',
  ];
  return `${rights} ${frame}${marks.join('')}`;
}

function cacheText(word: number): string {
  if ((word & CACHE_SET) === 0) return 'empty';
  const gfn = (word & CACHE_THIS_GFN) !== 0 ? 'the gfn' : 'another gfn';
  const gva = (word & CACHE_HAS_GVA) !== 0 ? ' and its gva' : '';
  const stale = (word & CACHE_CURRENT) !== 0 ? '' : ', stale';
  return `${gfn}${gva}, access ${word >>> CACHE_ACCESS_SHIFT}${stale}`;
}

function statsOf(word: number): Record<string, number> {
  const stats: Record<string, number> = {};
  STAT_NAMES.forEach((name, i) => {
    const moved = (word >>> (4 * i)) & 15;
    if (moved !== 0) stats[name] = moved;
  });
  return stats;
}

function signalsOf(word: number): string[] {
  const signals = (word & SIGNALLED) !== 0 ? ['SIGBUS MCEERR_AR'] : [];
  return (word & GUEST_FAULT) !== 0 ? [...signals, '#PF for the guest'] : signals;
}

function codeText(relation: number): string {
  const low = (relation & CODE_LOW_LOST) !== 0;
  const high = (relation & CODE_HIGH_LOST) !== 0;
  let text = low && high ? '0' : low ? 'bits 63:32 only' : high ? 'bits 31:0 only' : 'as reported';
  if ((relation & CODE_OTHER) !== 0) text = 'another';
  if ((relation & CODE_GUEST_PAGE) !== 0) text += ' with GUEST_PAGE';
  if ((relation & CODE_PRIVATE) !== 0) text += ' with PRIVATE_ACCESS';
  if ((relation & CODE_IMPLICIT) !== 0) text += ' with IMPLICIT_ACCESS';
  return text;
}

function asyncText(word: number): string | null {
  if (word === 0) return null;
  if ((word & ASYNC_QUEUED) === 0) return 'vCPU halted';
  return `queued, error code ${codeText(word >>> ASYNC_CODE_SHIFT)}${(word & ASYNC_HALTED) !== 0 ? ', vCPU halted' : ''}`;
}

function fieldsOf(word: number): OutcomeFields | null {
  if ((word & FIELDS_PRESENT) === 0) return null;
  const pfn = (word >>> FIELD_PFN_SHIFT) & 31;
  return {
    isPrivate: (word & FIELD_PRIVATE) !== 0,
    errorCode: codeText((word >>> FIELD_CODE_SHIFT) & ((1 << CODE_BITS) - 1)),
    pfn: pfn === PFN_HOST ? 'host page' : pfn === PFN_GMEM ? 'guest_memfd page' : (PFN_TEXT[pfn] ?? 'another frame'),
    hva: HVA_TEXT[((word >>> FIELD_HVA_SHIFT) & 7) as 0],
    mapWritable: (word & FIELD_MAP_WRITABLE) !== 0,
    hasSlot: (word & FIELD_HAS_SLOT) !== 0,
  };
}

/** What a reserved-bit fault that no stage saw was answered with, from what came of it. */
export function retOfReservedBits(verdict: number, emulated: number): number {
  if (verdict < 0) return verdict;
  return emulated >= 0 ? RET_PF_EMULATE : RET_PF_RETRY;
}
