/** The flags that describe a fault, as text: typed by a user, or found in a described VM and in a line of a trace. */
import {
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_PROT_MASK,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../arch/ept-qualification.ts';
import {
  PFERR_FETCH,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { hex, join64, lo64 } from '../../arch/halves.ts';
import { PT_WRITABLE_MASK } from '../../arch/paging.ts';
import { InputError } from '../input-error.ts';
import type { TracedFault } from './trace-line.ts';
import type { DescribedSlot, DescribedVm } from './vm-description.ts';

/** Those that take a value. */
export const VALUE_FLAGS = [
  'error-code',
  'gpa',
  'cpu',
  'vm-type',
  'paging',
  'entry',
  'slot',
  'attribute',
  'spte',
  'backing',
  'invalidation',
] as const;
/** Those that do not. */
export const SWITCH_FLAGS = ['no-ept-ad', 'nested', 'no-mmio-caching'] as const;

export type FaultFlags = { readonly [F in (typeof VALUE_FLAGS)[number]]?: string | undefined } & {
  readonly [F in (typeof SWITCH_FLAGS)[number]]?: true | undefined;
};

/** Flags, and in words what was not said and had to be taken for granted. */
export interface FoundFlags {
  readonly flags: FaultFlags;
  readonly assumed: readonly string[];
  /** The line's own code, where it is an exit qualification. */
  readonly qualification: bigint | null;
}

const PAGE = 4096n;
/** Width of the machine's physical addresses. */
export const HOST_BITS = 40n;
/** Where an entry says that KVM may make it writable (@kvm spte.h DEFAULT_SPTE_MMU_WRITABLE, EPT_SPTE_MMU_WRITABLE). */
const MMU_WRITABLE_BIT = 10n;
const EPT_MMU_WRITABLE_BIT = 58n;
const APIC_DEFAULT_BASE = 0xfee00000n;

/** The flags as arguments of a command line. */
export function flagArguments(flags: FaultFlags): string[] {
  const args: string[] = [];
  for (const flag of VALUE_FLAGS) {
    const value = flags[flag];
    if (value !== undefined) args.push(`--${flag}`, value);
  }
  for (const flag of SWITCH_FLAGS) if (flags[flag]) args.push(`--${flag}`);
  return args;
}

/** What `vm` says of the address. */
export function flagsOfVm(vm: DescribedVm, gpa: bigint): FaultFlags {
  const isPrivate = vm.privateRanges.some((r) => covers(r, gpa));
  return {
    cpu: vm.cpu,
    ...(vm.cpu === 'intel' && !vm.eptAd ? { 'no-ept-ad': true } : {}),
    'vm-type': vm.vmType,
    ...(vm.mmioCaching ? {} : { 'no-mmio-caching': true }),
    slot: slotKind(vm, gpa),
    attribute: isPrivate ? 'private' : 'shared',
  };
}

/** The slot of `vm` that covers the address. */
function slotAt(vm: DescribedVm, gpa: bigint): DescribedSlot | null {
  return vm.slots.find((s) => covers(s, gpa)) ?? null;
}

function slotKind(vm: DescribedVm, gpa: bigint): string {
  if (gpa / PAGE === APIC_DEFAULT_BASE / PAGE && vm.apicAccessPage !== 'none')
    return vm.apicAccessPage === 'active' ? 'apic' : 'apic-inhibited';
  const slot = slotAt(vm, gpa);
  if (slot === null) return gpa >> HOST_BITS === 0n ? 'none' : 'none-beyond';
  if (slot.flags.includes('being-changed')) return 'invalid';
  if (slot.guestMemfd) return 'gmem';
  return slot.flags.includes('readonly') ? 'ro' : 'rw';
}

function covers(range: { readonly gpa: number; readonly size: number }, gpa: bigint): boolean {
  return gpa >= BigInt(range.gpa) && gpa < BigInt(range.gpa) + BigInt(range.size);
}

/** The flags that describe the same as `--vm`, typed beside it. @throws InputError */
export function refuseBeside(vm: DescribedVm, typed: FaultFlags): void {
  const both = (['cpu', 'no-ept-ad', 'vm-type', 'no-mmio-caching', 'slot', 'attribute'] as const).find(
    (flag) => typed[flag] !== undefined,
  );
  if (both !== undefined) throw new InputError(`--${both}: expected either --vm ${vm.name} or this flag, found both`);
}

/**
 * What a line of a trace says, and what a kernel that printed it must have seen. `known` is what is known otherwise: it decides what
 * kind of code the line has, and nothing is assumed of what it says.
 */
export function flagsOfTrace(traced: TracedFault, known: FaultFlags): FoundFlags {
  const assumed: string[] = [];
  const ept = known.cpu === 'intel' && known.paging !== 'shadow';
  const take: Take = (flag, value, why) => {
    if (known[flag] !== undefined) return {};
    assumed.push(`--${flag} ${value}: ${why}`);
    return { [flag]: value };
  };
  if (known.paging === 'shadow') assumed.push('the address is a linear one: taken as mapped to the same gpa');
  const gpa = hex(traced.address);
  if (traced.event === 'handle_mmio_page_fault') {
    const code = ept ? MISCONFIG : MMIO_READ;
    assumed.push(`--error-code ${hex(code)}: the event does not say the code; a read that hit an MMIO SPTE`);
    return {
      flags: {
        gpa,
        'error-code': hex(code),
        ...take('slot', 'none', 'an address with an MMIO SPTE has no slot'),
        ...mmioEntry(known, take, 'the event is of an MMIO SPTE'),
      },
      assumed,
      qualification: null,
    };
  }
  const reported = traced.errorCode ?? 0n;
  // On Intel kvm_page_fault has the exit qualification, fast_page_fault the code that KVM made of it.
  const isQualification = ept && traced.event === 'kvm_page_fault';
  const code = isQualification ? codeOfQualification(reported) : reported;
  return {
    flags: { gpa, 'error-code': hex(code), ...entryOf(traced, code, known, take) },
    assumed,
    qualification: isQualification ? reported : null,
  };
}

/** The entry that the access must have met, as far as the described VM can have it. */
function entryOf(traced: TracedFault, code: bigint, known: FaultFlags, take: Take): { [f: string]: string } {
  const lo = lo64(code);
  if ((lo & PFERR_RSVD) !== 0 && traced.oldSpte === null)
    return {
      ...mmioEntry(known, take, 'the code has RSVD, which an MMIO SPTE causes'),
      ...take('slot', 'none', 'the code has RSVD: an address with an MMIO SPTE has no slot'),
    };
  if (!mayBeMapped(known)) return {};
  const logged = (known.slot ?? 'rw') === 'rw' && known.attribute !== 'private';
  if (traced.oldSpte !== null && (lo64(traced.oldSpte) & 1) !== 0)
    return knownEntry(traced.oldSpte, known, logged, take);
  if ((lo & PFERR_PRESENT) === 0) return {};
  return logged && (lo & PFERR_WRITE) !== 0
    ? take('spte', 'write-protected', 'the code is of a write to a page that is mapped')
    : take('spte', 'present', 'the code is of a page that is mapped');
}

/** `fast_page_fault` says what the entry was. */
function knownEntry(old: bigint, known: FaultFlags, logged: boolean, take: Take): { [f: string]: string } {
  const why = `the line's old SPTE is ${hex(old)}`;
  if ((lo64(old) & PT_WRITABLE_MASK) !== 0) return take('spte', 'present', why);
  const mmuWritable = ((old >> (known.cpu === 'intel' ? EPT_MMU_WRITABLE_BIT : MMU_WRITABLE_BIT)) & 1n) !== 0n;
  if (mmuWritable) return take('spte', logged ? 'write-protected' : 'present', why);
  const readOnly = `${why}: not to be made writable`;
  return {
    ...take('spte', 'present', why),
    ...(known.slot === undefined ? take('slot', 'ro', readOnly) : {}),
    ...(logged && known.slot !== undefined
      ? take('backing', 'read-only', `${readOnly}, and the slot is read-write`)
      : {}),
  };
}

/** Where a slot is the MMIO entry is older than the slot; where no entry can be, none is taken. */
function mmioEntry(known: FaultFlags, take: Take, why: string): { [f: string]: string } {
  const slot = known.slot ?? 'none';
  if (slot === 'none-beyond' || known['no-mmio-caching']) return {};
  return slot === 'none' ? take('spte', 'mmio', why) : take('spte', 'mmio-stale', `${why}, and there is a slot now`);
}

function mayBeMapped(known: FaultFlags): boolean {
  const slot = known.slot ?? 'rw';
  if (known.attribute === 'private') return slot === 'gmem';
  return ['rw', 'ro', 'gmem', 'apic', 'internal'].includes(slot);
}

/** Takes a flag for granted that is not known, and says why. */
type Take = (flag: 'slot' | 'spte' | 'backing', value: string, why: string) => { [f: string]: string };

/** Read, RSVD and P, on the guest's final access. */
const MMIO_READ = 0x10000000dn;
/** What KVM makes of an EPT misconfiguration. */
const MISCONFIG = 0x8n;

/** The error code that KVM makes of an EPT violation's exit qualification (@kvm vmx.c __vmx_handle_ept_violation). */
export function codeOfQualification(qualification: bigint): bigint {
  const q = lo64(qualification);
  const lo =
    (q & EPT_VIOLATION_READ ? PFERR_USER : 0) |
    (q & EPT_VIOLATION_WRITE ? PFERR_WRITE : 0) |
    (q & EPT_VIOLATION_FETCH ? PFERR_FETCH : 0) |
    (q & EPT_VIOLATION_PROT_MASK ? PFERR_PRESENT : 0);
  const onFinal = (q & EPT_VIOLATION_GVA_TRANSLATED) !== 0;
  const hi = (q & EPT_VIOLATION_GVA_IS_VALID) === 0 ? 0 : onFinal ? PFERR_GUEST_FINAL_HI : PFERR_GUEST_PAGE_HI;
  return join64(lo, hi);
}
