/** A page-fault error code, #NPF EXITINFO1 or EPT exit qualification, bit by bit and then in words. */
import {
  EPT_QUALIFICATION_FLAGS,
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_PROT_MASK,
  EPT_VIOLATION_PROT_WRITE,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../arch/ept-qualification.ts';
import {
  PFERR_FETCH,
  PFERR_FLAGS,
  PFERR_GUEST_ENC_HI,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_GUEST_RMP,
  PFERR_GUEST_SIZEM_HI,
  PFERR_GUEST_VMPL_HI,
  PFERR_PK,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_RSVD,
  PFERR_SYNTHETIC_MASK_HI,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import type { Flag } from '../../arch/flags.ts';
import { hi64, join64, lo64 } from '../../arch/halves.ts';
import { unreachable } from '../../arch/unreachable.ts';
import type { RevisionRules } from '../../kvm/mmu/revisions/revision.ts';
import { InputError } from '../input-error.ts';

export type CodeKind = 'pf' | 'npf' | 'ept';

export interface DecodedBit {
  readonly bit: number;
  readonly name: string;
  readonly set: boolean;
  readonly meaning: string;
}

/** What `softkvm decode` prints; with `--json`, this object. */
export interface DecodedCode {
  /** 16-digit hex. */
  readonly code: string;
  readonly kind: CodeKind;
  /** The kind was guessed from the bits. */
  readonly guessed: boolean;
  readonly bits: readonly DecodedBit[];
  /** Set bits that nothing defines, hex, or null. */
  readonly undefinedBits: string | null;
  readonly access: 'read' | 'write' | 'fetch';
  /** One of a closed list of classes. */
  readonly class: FaultClass;
  /** The class in a sentence. */
  readonly words: string;
  /** What KVM does first with such a fault. */
  readonly kvm: string;
  readonly warnings: readonly string[];
}

export type FaultClass =
  | 'not-present'
  | 'permission-write'
  | 'permission-fetch'
  | 'permission'
  | 'reserved-bit'
  | 'protection-key'
  | 'rmp'
  | 'guest-page-table';

const kinds = {
  pf: 'page-fault error code (#PF)',
  npf: 'nested page fault, EXITINFO1 (#NPF)',
  ept: 'EPT violation, exit qualification',
} as const;

/** The long name of a kind of code. */
export function kindName(kind: CodeKind): string {
  return kinds[kind];
}

/** The 64-bit value of `text`, decimal or 0x hex. @throws InputError */
export function parseCode(text: string): bigint {
  const value = /^(0x[0-9a-f]{1,16}|[0-9]{1,20})$/i.test(text) ? BigInt(text) : -1n;
  if (value < 0n || value >> 64n !== 0n)
    throw new InputError(`${text}: expected a code of at most 64 bits, as 0x100000006`);
  return value;
}

/** Bits that a revision without the rule namesSevErrorBits does not know. */
const SEV_BITS_HI = PFERR_GUEST_ENC_HI | PFERR_GUEST_SIZEM_HI | PFERR_GUEST_VMPL_HI;

/**
 * Decodes `code`; `auto` guesses the kind from bits that only one kind has.
 * @param rules of the revision whose names count; all names when it is left out
 */
export function decodeCode(
  code: bigint,
  kind: CodeKind | 'auto',
  rules: Pick<RevisionRules, 'namesSevErrorBits'> = { namesSevErrorBits: true },
): DecodedCode {
  const chosen = kind === 'auto' ? guessKind(code) : kind;
  const decoded = chosen === 'ept' ? decodeEpt(code) : decodePageFault(code, chosen, rules.namesSevErrorBits);
  return { ...decoded, guessed: kind === 'auto' };
}

function isSevFlag(f: Flag): boolean {
  return f.lo === PFERR_GUEST_RMP || (f.hi & SEV_BITS_HI) !== 0;
}

const FLAGS_BEFORE_SEV_NAMES = PFERR_FLAGS.filter((f) => !isSevFlag(f));

function withoutSevName(f: Flag): Flag {
  return isSevFlag(f) ? { ...f, name: `bit ${f.bit}`, meaning: 'not named in this revision' } : f;
}

/** Bits 32 and 33 make a nested fault; bits 7 and 8, undefined in an error code, an EPT violation. */
function guessKind(code: bigint): CodeKind {
  if (code >> 31n !== 0n) return 'npf';
  return (code & 0x1ff80n) !== 0n && (code & 0x8000n) === 0n ? 'ept' : 'pf';
}

type Decoded = Omit<DecodedCode, 'guessed'>;

function decodePageFault(code: bigint, kind: 'pf' | 'npf', namesSevBits: boolean): Decoded {
  const lo = namesSevBits ? lo64(code) : lo64(code) & ~PFERR_GUEST_RMP;
  const hi = namesSevBits ? hi64(code) : hi64(code) & ~SEV_BITS_HI;
  const access = lo & PFERR_FETCH ? 'fetch' : lo & PFERR_WRITE ? 'write' : 'read';
  const cls = classOf(lo, hi);
  return {
    ...common(code, kind, namesSevBits ? PFERR_FLAGS : PFERR_FLAGS.map(withoutSevName)),
    ...(namesSevBits ? {} : { undefinedBits: undefinedText(code, FLAGS_BEFORE_SEV_NAMES) }),
    access,
    class: cls,
    words: pageFaultWords(cls, access, lo, hi, kind),
    kvm: kvmDoes(cls, kind),
    warnings: pageFaultWarnings(lo, hi, kind, code, namesSevBits ? PFERR_FLAGS : FLAGS_BEFORE_SEV_NAMES),
  };
}

function classOf(lo: number, hi: number): FaultClass {
  if (lo & PFERR_RSVD) return 'reserved-bit';
  if (lo & PFERR_GUEST_RMP) return 'rmp';
  if (hi & PFERR_GUEST_PAGE_HI) return 'guest-page-table';
  if (lo & PFERR_PK) return 'protection-key';
  if (!(lo & PFERR_PRESENT)) return 'not-present';
  if (lo & PFERR_FETCH) return 'permission-fetch';
  return lo & PFERR_WRITE ? 'permission-write' : 'permission';
}

function pageFaultWords(cls: FaultClass, access: string, lo: number, hi: number, kind: 'pf' | 'npf'): string {
  const mode = kind === 'npf' ? '' : lo & PFERR_USER ? 'user-mode ' : 'supervisor ';
  const priv =
    hi & PFERR_PRIVATE_ACCESS_HI ? ' of private memory' : hi & PFERR_GUEST_ENC_HI ? ' with the C-bit set' : '';
  const what = `a ${mode}${access}${priv}`;
  switch (cls) {
    case 'reserved-bit':
      return kind === 'npf'
        ? `${what} met a reserved bit in a nested paging entry: how KVM marks an MMIO address (an MMIO SPTE)`
        : `${what} met a reserved bit in a paging entry`;
    case 'rmp':
      return `${what} failed the RMP check: the page's owner, size or VMPL rights do not allow it`;
    case 'guest-page-table':
      return `the processor could not reach the guest's own page tables ${lo & PFERR_PRESENT ? 'with the rights it needs' : '(nothing mapped there)'}`;
    case 'protection-key':
      return `${what} was refused by a protection key`;
    case 'not-present':
      return `${what} found nothing mapped`;
    case 'permission-fetch':
      return `${what} hit a page that may not be executed`;
    case 'permission-write':
      return `${what} hit a page that may not be written`;
    case 'permission':
      return `${what} hit a page whose rights do not allow it`;
    default:
      return unreachable(cls);
  }
}

function kvmDoes(cls: FaultClass, kind: CodeKind): string {
  if (kind === 'pf')
    return 'belongs to the guest under two-dimensional paging; with shadow paging kvm_handle_page_fault walks the guest tables first';
  switch (cls) {
    case 'reserved-bit':
      return 'handle_mmio_page_fault: emulate when the MMIO SPTE is of the current generation, else fault in again';
    case 'rmp':
      return 'sev_handle_rmp_fault: split or smash the RMP entry, or leave with KVM_EXIT_MEMORY_FAULT on a private/shared mismatch';
    case 'guest-page-table':
      return 'kvm_tdp_page_fault on the table page; a page table outside of every slot cannot be emulated';
    case 'permission-write':
      return 'fast_page_fault when the SPTE was write-protected for dirty logging; else the full path (copy-on-write, read-only slot)';
    default:
      return 'kvm_tdp_page_fault: find the slot, fault the host page in, map it';
  }
}

function pageFaultWarnings(lo: number, hi: number, kind: 'pf' | 'npf', code: bigint, flags: readonly Flag[]): string[] {
  const warnings: string[] = [];
  if (hi & PFERR_SYNTHETIC_MASK_HI)
    warnings.push('bits 48 and 49 are synthetic: KVM sets them for itself, hardware never does');
  if (lo & PFERR_RSVD && !(lo & PFERR_PRESENT))
    warnings.push('RSVD without P: silicon always sets both; some emulators leave P clear');
  if (lo & PFERR_FETCH && lo & PFERR_WRITE) warnings.push('FETCH with W: an access is one or the other');
  if (lo & PFERR_PK && lo & PFERR_FETCH)
    warnings.push('PK with FETCH: protection keys do not apply to instruction fetches');
  if (lo & PFERR_PK && !(lo & PFERR_PRESENT)) warnings.push('PK without P: a key is checked only on present pages');
  const final = (hi & PFERR_GUEST_FINAL_HI) !== 0;
  const table = (hi & PFERR_GUEST_PAGE_HI) !== 0;
  if (final && table)
    warnings.push('GUEST_FINAL with GUEST_PAGE: a nested fault is on the final access or on a page table');
  if (kind === 'npf') {
    if (!final && !table)
      warnings.push('neither GUEST_FINAL nor GUEST_PAGE: a nested fault from hardware has one of them');
    if (!(lo & PFERR_USER)) warnings.push('U clear: nested page faults are always reported as user accesses');
    if (hi & (PFERR_GUEST_SIZEM_HI | PFERR_GUEST_VMPL_HI) && !(lo & PFERR_GUEST_RMP))
      warnings.push('SIZEM or VMPL without RMP: they qualify an RMP failure');
  } else if (hi !== 0 || lo & PFERR_GUEST_RMP) warnings.push('bits 31 and up belong to nested page faults, not to #PF');
  const unknown = undefinedBits(code, flags);
  if (unknown !== 0n) warnings.push(`undefined bits are set: 0x${unknown.toString(16)}`);
  return warnings;
}

function decodeEpt(code: bigint): Decoded {
  const lo = lo64(code);
  const access = lo & EPT_VIOLATION_FETCH ? 'fetch' : lo & EPT_VIOLATION_WRITE ? 'write' : 'read';
  const mapped = (lo & EPT_VIOLATION_PROT_MASK) !== 0;
  const onTable = (lo & EPT_VIOLATION_GVA_IS_VALID) !== 0 && !(lo & EPT_VIOLATION_GVA_TRANSLATED);
  const cls: FaultClass = onTable
    ? 'guest-page-table'
    : !mapped
      ? 'not-present'
      : access === 'write' && !(lo & EPT_VIOLATION_PROT_WRITE)
        ? 'permission-write'
        : access === 'fetch'
          ? 'permission-fetch'
          : 'permission';
  const warnings: string[] = [];
  if ((lo & (EPT_VIOLATION_READ | EPT_VIOLATION_WRITE | EPT_VIOLATION_FETCH)) === 0)
    warnings.push('no access bit is set: hardware sets READ, WRITE or FETCH');
  if (lo & EPT_VIOLATION_GVA_TRANSLATED && !(lo & EPT_VIOLATION_GVA_IS_VALID))
    warnings.push('GVA_TRANSLATED without GVA_IS_VALID is undefined');
  if (lo & EPT_VIOLATION_WRITE && lo & EPT_VIOLATION_PROT_WRITE)
    warnings.push('WRITE refused although PROT_WRITE is set: a stale translation, or an entry that changed since');
  const unknown = undefinedBits(code, EPT_QUALIFICATION_FLAGS);
  if (unknown !== 0n) warnings.push(`undefined bits are set: 0x${unknown.toString(16)}`);
  return {
    ...common(code, 'ept', EPT_QUALIFICATION_FLAGS),
    access,
    class: cls,
    words: pageFaultWords(cls, access, mapped ? PFERR_PRESENT : 0, 0, 'npf'),
    kvm: `${kvmDoes(cls, 'ept')}. MMIO arrives as an EPT misconfiguration, not as a violation`,
    warnings,
  };
}

function common(
  code: bigint,
  kind: CodeKind,
  flags: readonly Flag[],
): Pick<Decoded, 'code' | 'kind' | 'bits' | 'undefinedBits'> {
  const lo = lo64(code);
  const hi = hi64(code);
  return {
    code: `0x${code.toString(16).padStart(16, '0')}`,
    kind,
    bits: flags.map((f) => ({ bit: f.bit, name: f.name, set: ((lo & f.lo) | (hi & f.hi)) !== 0, meaning: f.meaning })),
    undefinedBits: undefinedText(code, flags),
  };
}

function undefinedText(code: bigint, flags: readonly Flag[]): string | null {
  const unknown = undefinedBits(code, flags);
  return unknown === 0n ? null : `0x${unknown.toString(16)}`;
}

function undefinedBits(code: bigint, flags: readonly Flag[]): bigint {
  return flags.reduce((rest, f) => rest & ~join64(f.lo, f.hi), code);
}
