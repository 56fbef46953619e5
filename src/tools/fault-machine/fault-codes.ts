/**
 * The error codes that hardware can produce, as a finite list for each kind of hardware; and a few that it must never produce, which
 * KVM's own checks are about.
 *
 * #NPF (@apm 15.25.6, 15.36.10): U is always set, nested table walks are user accesses; an access to the guest's page tables is always a
 * write (@apm 15.25.5); a reserved bit is only found in a present entry. EPT (@sdm table 28-7, as @kvm vmx.c handle_ept_violation
 * translates it): what was asked for, present or not, and where; a misconfiguration (@sdm 29.3.3.1) is RSVD alone. Legacy #PF: @sdm 4.7.
 */
import {
  PFERR_FETCH,
  PFERR_FLAGS,
  PFERR_GUEST_ENC_HI,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_GUEST_RMP,
  PFERR_GUEST_SIZEM_HI,
  PFERR_GUEST_VMPL_HI,
  PFERR_IMPLICIT_ACCESS_HI,
  PFERR_PK,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_RSVD,
  PFERR_SGX,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import type { EntryName, Hardware, PagingName, VmTypeName } from './fault-input.ts';

export interface FaultCode {
  readonly lo: number;
  readonly hi: number;
  /** `0x100000006` */
  readonly text: string;
  /** What the code says, in words. */
  readonly words: string;
  /** Null, or why no hardware produces it although the machine can be given it. */
  readonly impossible: string | null;
}

const SYNTHETIC = "bits 48 and 49 are KVM's own: no hardware sets them, and KVM checks that";
const UPPER_PF = 'the error code of a #PF has 32 bits: no hardware sets more, and KVM checks that';

/** `0x100000006` */
export function codeText(lo: number, hi: number): string {
  return hi === 0
    ? `0x${(lo >>> 0).toString(16)}`
    : `0x${(hi >>> 0).toString(16)}${(lo >>> 0).toString(16).padStart(8, '0')}`;
}

function words(lo: number, hi: number): string {
  const set = PFERR_FLAGS.filter((f) => (f.bit < 32 ? (lo >>> f.bit) & 1 : (hi >>> (f.bit - 32)) & 1) !== 0);
  return set.length === 0 ? 'a read, nothing mapped' : set.map((f) => f.name).join(' ');
}

function code(lo: number, hi: number, impossible: string | null = null): FaultCode {
  return { lo, hi, text: codeText(lo, hi), words: words(lo, hi), impossible };
}

const READ = 0;
const ACCESSES = [READ, PFERR_WRITE, PFERR_FETCH] as const;
const OUTCOMES = [0, PFERR_PRESENT, PFERR_PRESENT | PFERR_RSVD] as const;

function npfCodes(vmType: VmTypeName): FaultCode[] {
  const codes: FaultCode[] = [];
  const encrypted = vmType === 'sev' || vmType === 'snp' ? [0, PFERR_GUEST_ENC_HI] : [0];
  for (const enc of encrypted) {
    for (const present of OUTCOMES) {
      for (const access of ACCESSES) codes.push(code(PFERR_USER | access | present, PFERR_GUEST_FINAL_HI | enc));
      codes.push(code(PFERR_USER | PFERR_WRITE | present, PFERR_GUEST_PAGE_HI | enc));
    }
    if (vmType === 'snp') codes.push(...rmpCodes(enc));
  }
  return codes;
}

/** The RMP check fails on a page that the nested tables map. */
function rmpCodes(enc: number): FaultCode[] {
  const codes: FaultCode[] = [];
  const lo = PFERR_USER | PFERR_PRESENT | PFERR_GUEST_RMP;
  for (const why of [0, PFERR_GUEST_SIZEM_HI, PFERR_GUEST_VMPL_HI]) {
    for (const access of ACCESSES) codes.push(code(lo | access, PFERR_GUEST_FINAL_HI | enc | why));
    if (why !== PFERR_GUEST_SIZEM_HI) codes.push(code(lo | PFERR_WRITE, PFERR_GUEST_PAGE_HI | enc | why));
  }
  return codes;
}

function eptCodes(hasAdBits: boolean): FaultCode[] {
  const codes: FaultCode[] = [];
  const rmw = PFERR_USER | PFERR_WRITE;
  for (const present of [0, PFERR_PRESENT]) {
    for (const access of [PFERR_USER, PFERR_WRITE, rmw, PFERR_FETCH])
      codes.push(code(access | present, PFERR_GUEST_FINAL_HI));
    // With A/D bits, every access to the guest's page tables counts as a write.
    if (!hasAdBits) codes.push(code(PFERR_USER | present, PFERR_GUEST_PAGE_HI));
    codes.push(code(rmw | present, PFERR_GUEST_PAGE_HI));
    // No linear address: the PDPTEs that MOV to CR3 loads.
    codes.push(code(PFERR_USER | present, 0));
  }
  codes.push(code(PFERR_RSVD, 0));
  return codes;
}

function pfCodes(): FaultCode[] {
  const codes: FaultCode[] = [];
  for (const user of [0, PFERR_USER]) {
    for (const present of OUTCOMES) {
      for (const access of ACCESSES) codes.push(code(user | access | present, 0));
    }
  }
  return codes;
}

function flaggedCodes(paging: PagingName): FaultCode[] {
  if (paging === 'shadow') return [code(PFERR_WRITE, PFERR_GUEST_ENC_HI, UPPER_PF)];
  const write = PFERR_USER | PFERR_WRITE;
  return [
    code(write, PFERR_GUEST_FINAL_HI | PFERR_IMPLICIT_ACCESS_HI, SYNTHETIC),
    code(write, PFERR_GUEST_FINAL_HI | PFERR_PRIVATE_ACCESS_HI, SYNTHETIC),
    code(write | PFERR_PRESENT | PFERR_RSVD, PFERR_GUEST_FINAL_HI | PFERR_PRIVATE_ACCESS_HI, SYNTHETIC),
  ];
}

const lists = new Map<string, readonly FaultCode[]>();

/** Every code that this hardware can produce there, and then the impossible ones that KVM checks for. */
export function hardwareCodes(hardware: Hardware, vmType: VmTypeName, paging: PagingName): readonly FaultCode[] {
  const key = `${hardware} ${vmType} ${paging}`;
  let codes = lists.get(key);
  if (codes === undefined) {
    const possible =
      paging === 'shadow' ? pfCodes() : hardware === 'npt' ? npfCodes(vmType) : eptCodes(hardware === 'ept');
    codes = [...possible, ...flaggedCodes(paging)];
    lists.set(key, codes);
  }
  return codes;
}

/** Null, or in one sentence why this hardware cannot produce the code there. */
export function codeImpossible(
  hardware: Hardware,
  vmType: VmTypeName,
  paging: PagingName,
  lo: number,
  hi: number,
): string | null {
  const listed = hardwareCodes(hardware, vmType, paging).find((c) => c.lo === lo && c.hi === hi);
  if (listed !== undefined) return listed.impossible;
  return whyNot(hardware, vmType, paging, lo, hi);
}

function whyNot(hardware: Hardware, vmType: VmTypeName, paging: PagingName, lo: number, hi: number): string {
  const has = (mask: number): boolean => (lo & mask) === mask;
  const hasHi = (mask: number): boolean => (hi & mask) === mask;
  if (paging === 'shadow') {
    if (hi !== 0) return UPPER_PF;
    if (has(PFERR_PK) || has(PFERR_SGX)) return 'protection keys and SGX do not apply to shadow page tables';
  } else if ((hi & (PFERR_IMPLICIT_ACCESS_HI | PFERR_PRIVATE_ACCESS_HI)) !== 0) return SYNTHETIC;
  if (has(PFERR_WRITE | PFERR_FETCH)) return 'an access is a write or an instruction fetch, not both';
  if (paging === 'shadow') return 'a reserved bit (RSVD) is found in a present entry, so P would be set';
  if (hasHi(PFERR_GUEST_FINAL_HI | PFERR_GUEST_PAGE_HI))
    return 'the access was the final one or one to a page table, not both';
  if (has(PFERR_PK) || has(PFERR_SGX)) return 'PK and SGX belong to #PF, not to nested page faults';
  if (hardware !== 'npt') return whyNotEpt(hardware, lo, hi);
  if (!hasHi(PFERR_GUEST_FINAL_HI) && !hasHi(PFERR_GUEST_PAGE_HI))
    return '#NPF always says whether the final access faulted (GUEST_FINAL) or one to a page table (GUEST_PAGE)';
  if (!has(PFERR_USER)) return 'nested table walks are user accesses: U is always set';
  if (has(PFERR_RSVD) && !has(PFERR_PRESENT))
    return 'a reserved bit (RSVD) is found in a present entry, so P would be set';
  if (hasHi(PFERR_GUEST_PAGE_HI) && has(PFERR_FETCH)) return 'page tables are not fetched as instructions';
  if (hasHi(PFERR_GUEST_PAGE_HI) && !has(PFERR_WRITE)) return "every access to the guest's page tables is a write";
  if (hasHi(PFERR_GUEST_ENC_HI) && vmType !== 'sev' && vmType !== 'snp')
    return 'ENC needs a guest with a C-bit: SEV or SEV-SNP';
  const snp = PFERR_GUEST_SIZEM_HI | PFERR_GUEST_VMPL_HI;
  if ((has(PFERR_GUEST_RMP) || (hi & snp) !== 0) && vmType !== 'snp') return 'RMP, SIZEM and VMPL need a SEV-SNP guest';
  if ((hi & snp) !== 0 && !has(PFERR_GUEST_RMP)) return 'SIZEM and VMPL come with RMP';
  if (has(PFERR_GUEST_RMP)) return 'the RMP check is made on a present page, and fails for one reason';
  return 'the code has bits that are not defined';
}

function whyNotEpt(hardware: Hardware, lo: number, hi: number): string {
  const amd = PFERR_GUEST_ENC_HI | PFERR_GUEST_SIZEM_HI | PFERR_GUEST_VMPL_HI;
  if ((hi & amd) !== 0 || (lo & PFERR_GUEST_RMP) !== 0) return "ENC, RMP, SIZEM and VMPL are AMD's";
  if ((lo & PFERR_RSVD) !== 0) return 'an EPT misconfiguration is RSVD and nothing else';
  const asked = lo & (PFERR_USER | PFERR_WRITE | PFERR_FETCH);
  if (asked === 0) return 'an EPT violation says what was asked for: U (read), W or FETCH';
  if ((lo & PFERR_FETCH) !== 0 && asked !== PFERR_FETCH) return 'a fetch is neither a read nor a write';
  if ((hi & PFERR_GUEST_PAGE_HI) !== 0) {
    if ((lo & PFERR_FETCH) !== 0) return 'page tables are not fetched as instructions';
    return hardware === 'ept'
      ? "with EPT A/D bits, an access to the guest's page tables is a read and a write"
      : "without EPT A/D bits, an access to the guest's page tables is a read, or a read and a write";
  }
  if (hi === 0) return 'only loads of PDPTEs have no linear address, and they are reads';
  return 'the code has bits that are not defined';
}

/** The codes with which a fault of this entry can come: of a page-ready fault, those that can have been queued; none before a fault. */
export function entryCodes(
  hardware: Hardware,
  vmType: VmTypeName,
  paging: PagingName,
  entry: EntryName,
): readonly FaultCode[] {
  if (entry === 'pre-fault') return paging === 'shadow' ? [] : [code(0, 0)];
  const codes = hardwareCodes(hardware, vmType, paging);
  if (entry === 'fault') return codes;
  // KVM's check of queued work is about one that is private.
  const isPrivateWork = (c: FaultCode): boolean => (c.hi & PFERR_PRIVATE_ACCESS_HI) !== 0 && (c.lo & PFERR_RSVD) === 0;
  return codes.filter((c) => c.impossible === null || isPrivateWork(c));
}
