/** The whole input space of the fault path for two revisions, as a product of dimensions and the rules that make a combination no input. */

import {
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_GUEST_RMP,
  PFERR_RSVD,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import {
  contextConstraints,
  IN_PROGRESS_UNMAPS,
  NO_SLOT_NO_INVALIDATION,
  stateConstraints,
} from '../fault-machine/constraints.ts';
import { entryCodes, type FaultCode } from '../fault-machine/fault-codes.ts';
import {
  ATTRIBUTES,
  BACKINGS,
  ENTRIES,
  type EntryName,
  type FaultInput,
  HARDWARE,
  type Invalidation,
  ordinaryFault,
  PAGINGS,
  SLOTS,
  SPTES,
  VM_TYPES,
} from '../fault-machine/fault-input.ts';
import { invalidationText } from '../fault-machine/input-text.ts';
import type { FaultContext } from '../fault-machine/machine-vm.ts';
import type { Dimension } from './space-result.ts';

/** A gfn with its state, and which invalidations can meet it. */
export interface SpacePlace {
  readonly slot: FaultInput['slot'];
  readonly attribute: FaultInput['attribute'];
  readonly spte: FaultInput['spte'];
  readonly backing: FaultInput['backing'];
  /** Index of the state's values in the space. */
  readonly offset: number;
  /** Positions in `invalidations`. */
  readonly invalidations: readonly number[];
}

export interface SpaceFault {
  readonly entry: EntryName;
  readonly code: FaultCode;
  /** Codes of one kind follow each other. They differ in P, in what kind of read it is and in where it was made. */
  readonly kind: string;
  readonly offset: number;
}

export interface SpaceContext {
  readonly context: FaultContext;
  readonly places: readonly SpacePlace[];
  /** Every code with which a fault can come, by entry. */
  readonly faults: readonly SpaceFault[];
  readonly offset: number;
  readonly inputs: number;
}

const yesNo = (value: boolean): string => (value ? 'yes' : 'no');

/** The values that contexts have, each dimension's in the order of its list. */
interface ContextValues {
  readonly hardware: readonly FaultInput['hardware'][];
  readonly vmTypes: readonly FaultInput['vmType'][];
  readonly pagings: readonly FaultInput['paging'][];
  readonly nested: readonly boolean[];
  readonly caching: readonly boolean[];
}

export class Space {
  readonly dims: readonly Dimension[];
  readonly contexts: readonly SpaceContext[];
  /** The values of the last dimension. */
  readonly invalidations: readonly Invalidation[];
  readonly size: number;
  readonly inputs: number;
  readonly excluded: readonly string[];
  private readonly strides: readonly number[];
  private readonly entries: readonly EntryName[];
  private readonly values: ContextValues;
  private readonly codes: readonly FaultCode[];

  constructor(a: Revision, b: Revision, only: (context: FaultContext) => boolean = () => true) {
    const excluded = new Set<string>();
    const laterParts = a.rules.snpEncIsPrivate && b.rules.snpEncIsPrivate;
    this.entries = ENTRIES.filter((e) => e !== 'pre-fault' || laterParts);
    if (!laterParts)
      excluded.add('SEV-SNP guests and KVM_PRE_FAULT_MEMORY came with Linux 6.11: not both revisions have them');
    const possible = contextsOf(laterParts, excluded);
    const contexts = possible.filter(only);
    if (contexts.length < possible.length) excluded.add('hardware, VM types and settings that were not asked for');
    this.values = valuesOf(contexts);
    this.invalidations = invalidationsOf(a, b, excluded);
    this.codes = allCodes(contexts, this.entries);
    const { hardware, vmTypes, pagings, nested, caching } = this.values;
    this.dims = [
      { name: 'hardware', values: hardware },
      { name: 'VM type', values: vmTypes },
      { name: 'paging', values: pagings },
      { name: 'nested', values: nested.map(yesNo) },
      { name: 'MMIO caching', values: caching.map(yesNo) },
      { name: 'entry', values: this.entries },
      { name: 'error code', values: this.codes.map((c) => c.text) },
      { name: 'slot', values: SLOTS },
      { name: 'attribute', values: ATTRIBUTES },
      { name: 'SPTE', values: SPTES },
      { name: 'backing', values: BACKINGS },
      { name: 'invalidation', values: this.invalidations.map(invalidationText) },
    ];
    const strides: number[] = [];
    let size = 1;
    for (let d = this.dims.length - 1; d >= 0; d--) {
      strides[d] = size;
      size *= this.dims[d]!.values.length;
    }
    this.strides = strides;
    this.size = size;
    this.contexts = contexts.map((context) => this.contextOf(context, excluded));
    this.inputs = this.contexts.reduce((n, c) => n + c.inputs, 0);
    this.excluded = [...excluded];
  }

  /** The input at a position that is one. */
  inputAt(index: number): FaultInput {
    const v = this.dims.map((d, i) => Math.floor(index / this.strides[i]!) % d.values.length);
    const code = this.codes[v[6]!]!;
    return {
      hardware: this.values.hardware[v[0]!]!,
      vmType: this.values.vmTypes[v[1]!]!,
      paging: this.values.pagings[v[2]!]!,
      nested: this.values.nested[v[3]!]!,
      mmioCaching: this.values.caching[v[4]!]!,
      entry: this.entries[v[5]!]!,
      errorLo: code.lo,
      errorHi: code.hi,
      slot: SLOTS[v[7]!]!,
      attribute: ATTRIBUTES[v[8]!]!,
      spte: SPTES[v[9]!]!,
      backing: BACKINGS[v[10]!]!,
      invalidation: this.invalidations[v[11]!]!,
    };
  }

  private contextOf(context: FaultContext, excluded: Set<string>): SpaceContext {
    const { values, strides } = this;
    const offset =
      values.hardware.indexOf(context.hardware) * strides[0]! +
      values.vmTypes.indexOf(context.vmType) * strides[1]! +
      values.pagings.indexOf(context.paging) * strides[2]! +
      values.nested.indexOf(context.nested) * strides[3]! +
      values.caching.indexOf(context.mmioCaching) * strides[4]!;
    const places = this.placesOf(context, excluded);
    const faults = this.entries.flatMap((entry, e) =>
      entryCodes(context.hardware, context.vmType, context.paging, entry).map((code) => ({
        entry,
        code,
        kind: `${entry} ${kindOf(code)}`,
        offset: e * this.strides[5]! + this.codes.findIndex((c) => c.text === code.text) * this.strides[6]!,
      })),
    );
    faults.sort((x, y) => (x.kind < y.kind ? -1 : x.kind > y.kind ? 1 : x.offset - y.offset));
    const each = places.reduce((n, p) => n + p.invalidations.length, 0);
    return { context, places, faults, offset, inputs: each * faults.length };
  }

  private placesOf(context: FaultContext, excluded: Set<string>): SpacePlace[] {
    const places: SpacePlace[] = [];
    for (const [s, slot] of SLOTS.entries())
      for (const [t, attribute] of ATTRIBUTES.entries())
        for (const [b, backing] of BACKINGS.entries())
          for (const [e, spte] of SPTES.entries()) {
            const state = { ...ordinaryFault, ...context, slot, attribute, backing, spte };
            const rule = stateConstraints.find((c) => c.excludes(state));
            if (rule !== undefined) {
              excluded.add(rule.words);
              continue;
            }
            places.push({
              slot,
              attribute,
              spte,
              backing,
              offset: s * this.strides[7]! + t * this.strides[8]! + e * this.strides[9]! + b * this.strides[10]!,
              invalidations: this.invalidationsAt(slot, spte, excluded),
            });
          }
    return places;
  }

  private invalidationsAt(slot: FaultInput['slot'], spte: FaultInput['spte'], excluded: Set<string>): number[] {
    const all = this.invalidations.map((_, i) => i);
    if (slot === 'none' || slot === 'none-beyond') {
      excluded.add(NO_SLOT_NO_INVALIDATION);
      return [0];
    }
    if (spte === 'absent' || spte === 'mmio' || spte === 'mmio-stale') return all;
    excluded.add(IN_PROGRESS_UNMAPS);
    return all.filter((i) => this.invalidations[i]!.kind !== 'in-progress');
  }
}

/** Whether it is a write, reserved bits, encryption, bits that are KVM's own or too many, no linear address. */
function kindOf(code: FaultCode): string {
  const { lo, hi } = code;
  const where = PFERR_GUEST_FINAL_HI | PFERR_GUEST_PAGE_HI;
  return `${lo & (PFERR_WRITE | PFERR_RSVD | PFERR_GUEST_RMP)} ${hi & ~where} ${(hi & where) === 0}`;
}

/** Every context that can be. */
function contextsOf(laterParts: boolean, excluded: Set<string>): FaultContext[] {
  const vmTypes = VM_TYPES.filter((v) => v !== 'snp' || laterParts);
  const all = HARDWARE.flatMap((hardware) =>
    vmTypes.flatMap((vmType) =>
      PAGINGS.flatMap((paging) =>
        [false, true].flatMap((nested) =>
          [true, false].map((mmioCaching) => ({ hardware, vmType, paging, nested, mmioCaching })),
        ),
      ),
    ),
  );
  return all.filter((context) => {
    const rule = contextConstraints.find((c) => c.excludes({ ...ordinaryFault, ...context }));
    if (rule !== undefined) excluded.add(rule.words);
    return rule === undefined;
  });
}

function valuesOf(contexts: readonly FaultContext[]): ContextValues {
  const used = <T>(all: readonly T[], of: (c: FaultContext) => T): T[] =>
    all.filter((value) => contexts.some((c) => of(c) === value));
  return {
    hardware: used(HARDWARE, (c) => c.hardware),
    vmTypes: used(VM_TYPES, (c) => c.vmType),
    pagings: used(PAGINGS, (c) => c.paging),
    nested: used([false, true], (c) => c.nested),
    caching: used([true, false], (c) => c.mmioCaching),
  };
}

/** Every code that occurs, in numerical order. */
function allCodes(contexts: readonly FaultContext[], entries: readonly EntryName[]): FaultCode[] {
  const codes = new Map<string, FaultCode>();
  for (const { hardware, vmType, paging } of contexts)
    for (const entry of entries)
      for (const code of entryCodes(hardware, vmType, paging, entry)) codes.set(code.text, code);
  return [...codes.values()].sort((x, y) => x.hi - y.hi || (x.lo >>> 0) - (y.lo >>> 0));
}

/** None, in progress, and both kinds before every stage that both revisions have and that runs before mmu_lock is taken. */
function invalidationsOf(a: Revision, b: Revision, excluded: Set<string>): Invalidation[] {
  const inA = unlockedStages(a);
  const inB = unlockedStages(b);
  const shared = inPlace(inA, inB);
  const all = new Set([...a.stages, ...b.stages].map((s) => s.name));
  const single = [...all].filter((n) => !shared.includes(n) && (inA.includes(n) || inB.includes(n)));
  const locked = [...all].filter((n) => !inA.includes(n) && !inB.includes(n));
  if (single.length > 0)
    excluded.add(
      `an invalidation before ${single.join(', ')}: not a moment that both revisions have at the same place`,
    );
  if (locked.length > 0) excluded.add(`an invalidation before ${locked.join(', ')}: mmu_lock is held`);
  return [
    { kind: 'none' },
    { kind: 'in-progress' },
    ...shared.flatMap((stage): Invalidation[] => [
      { kind: 'done-at', stage },
      { kind: 'begun-at', stage },
    ]),
  ];
}

/** Names that keep their place from one list to the other: those without which no list of names that is in both is as long. */
function inPlace(a: readonly string[], b: readonly string[]): string[] {
  const longest = commonSubsequence(a, b);
  return longest.filter((name) => {
    const others = (names: readonly string[]): string[] => names.filter((n) => n !== name);
    return commonSubsequence(others(a), others(b)).length < longest.length;
  });
}

/** The longest list of names that both lists have in the same order: a stage that moved is another moment in each. */
function commonSubsequence(a: readonly string[], b: readonly string[]): string[] {
  const best: string[][][] = a.map(() => []);
  const at = (i: number, j: number): string[] => {
    if (i >= a.length || j >= b.length) return [];
    const known = best[i]![j];
    if (known !== undefined) return known;
    let found: string[];
    if (a[i] === b[j]) found = [a[i]!, ...at(i + 1, j + 1)];
    else {
      const [skipA, skipB] = [at(i + 1, j), at(i, j + 1)];
      found = skipA.length >= skipB.length ? skipA : skipB;
    }
    best[i]![j] = found;
    return found;
  };
  return at(0, 0);
}

/** Stages before which mmu_lock is not held. */
function unlockedStages(revision: Revision): string[] {
  const locked = revision.stages.findIndex((s) => s.underMmuLock);
  const names = revision.stages.map((s) => s.name);
  return locked < 0 ? names : names.slice(0, locked + 1);
}
