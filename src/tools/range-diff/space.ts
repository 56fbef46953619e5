/** The whole input space of the fault path for two revisions, as a product of dimensions and the rules that make a combination no input. */

import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import {
  contextConstraints,
  IN_PROGRESS_UNMAPS,
  NO_SLOT_NO_INVALIDATION,
  stateConstraints,
} from '../fault-machine/constraints.ts';
import { codeText, entryCodes, type FaultCode } from '../fault-machine/fault-codes.ts';
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

export interface SpaceContext {
  readonly context: FaultContext;
  readonly places: readonly SpacePlace[];
  /** Every code with which a fault can come, by entry. */
  readonly faults: readonly { readonly entry: EntryName; readonly code: FaultCode; readonly offset: number }[];
  readonly offset: number;
  readonly inputs: number;
}

const YES_NO = [true, false] as const;
const yesNo = (value: boolean): string => (value ? 'yes' : 'no');

/** Pagings that the machine can do. */
const MACHINE_PAGINGS = ['tdp'] as const;

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
  private readonly vmTypes: readonly FaultInput['vmType'][];
  private readonly codes: readonly FaultCode[];

  constructor(a: Revision, b: Revision) {
    const excluded = new Set<string>();
    const laterParts = a.rules.snpEncIsPrivate && b.rules.snpEncIsPrivate;
    this.vmTypes = VM_TYPES.filter((v) => v !== 'snp' || laterParts);
    this.entries = ENTRIES.filter((e) => e !== 'pre-fault' || laterParts);
    if (!laterParts)
      excluded.add('SEV-SNP guests and KVM_PRE_FAULT_MEMORY came with Linux 6.11: not both revisions have them');
    for (const paging of PAGINGS)
      if (!(MACHINE_PAGINGS as readonly string[]).includes(paging)) excluded.add(`${paging} paging: not enumerated`);
    this.invalidations = invalidationsOf(a, b, excluded);
    this.codes = this.allCodes();
    this.dims = [
      { name: 'hardware', values: HARDWARE },
      { name: 'VM type', values: this.vmTypes },
      { name: 'paging', values: MACHINE_PAGINGS },
      { name: 'nested', values: YES_NO.map(yesNo).reverse() },
      { name: 'MMIO caching', values: YES_NO.map(yesNo) },
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
    this.contexts = this.allContexts(excluded);
    this.inputs = this.contexts.reduce((n, c) => n + c.inputs, 0);
    this.excluded = [...excluded];
  }

  /** The input at a position that is one. */
  inputAt(index: number): FaultInput {
    const v = this.dims.map((d, i) => Math.floor(index / this.strides[i]!) % d.values.length);
    const code = this.codes[v[6]!]!;
    return {
      hardware: HARDWARE[v[0]!]!,
      vmType: this.vmTypes[v[1]!]!,
      paging: MACHINE_PAGINGS[v[2]!]!,
      nested: v[3] === 1,
      mmioCaching: v[4] === 0,
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

  private allCodes(): FaultCode[] {
    const codes = new Map<string, FaultCode>();
    for (const hardware of HARDWARE)
      for (const vmType of this.vmTypes)
        for (const paging of MACHINE_PAGINGS)
          for (const entry of this.entries)
            for (const code of entryCodes(hardware, vmType, paging, entry)) codes.set(code.text, code);
    return [...codes.values()].sort((x, y) => x.hi - y.hi || (x.lo >>> 0) - (y.lo >>> 0));
  }

  private allContexts(excluded: Set<string>): SpaceContext[] {
    const found: SpaceContext[] = [];
    for (const [h, hardware] of HARDWARE.entries())
      for (const [v, vmType] of this.vmTypes.entries())
        for (const [p, paging] of MACHINE_PAGINGS.entries())
          for (const nested of [false, true])
            for (const mmioCaching of YES_NO) {
              const context: FaultContext = { hardware, vmType, paging, nested, mmioCaching };
              const rule = contextConstraints.find((c) => c.excludes({ ...ordinaryFault, ...context }));
              if (rule !== undefined) {
                excluded.add(rule.words);
                continue;
              }
              const offset =
                h * this.strides[0]! +
                v * this.strides[1]! +
                p * this.strides[2]! +
                (nested ? 1 : 0) * this.strides[3]! +
                (mmioCaching ? 0 : 1) * this.strides[4]!;
              found.push(this.contextOf(context, offset, excluded));
            }
    return found;
  }

  private contextOf(context: FaultContext, offset: number, excluded: Set<string>): SpaceContext {
    const places = this.placesOf(context, excluded);
    const faults = this.entries.flatMap((entry, e) =>
      entryCodes(context.hardware, context.vmType, context.paging, entry).map((code) => ({
        entry,
        code,
        offset: e * this.strides[5]! + this.codes.findIndex((c) => c.text === code.text) * this.strides[6]!,
      })),
    );
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

/** None, in progress, and both kinds before every stage that both revisions have and that runs before mmu_lock is taken. */
function invalidationsOf(a: Revision, b: Revision, excluded: Set<string>): Invalidation[] {
  const inA = unlockedStages(a);
  const inB = unlockedStages(b);
  const shared = inA.filter((name) => inB.includes(name));
  const all = new Set([...a.stages, ...b.stages].map((s) => s.name));
  const single = [...all].filter((n) => !shared.includes(n) && (inA.includes(n) || inB.includes(n)));
  const locked = [...all].filter((n) => !inA.includes(n) && !inB.includes(n));
  if (single.length > 0)
    excluded.add(`an invalidation before ${single.join(', ')}: only one of the two revisions has such a moment`);
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

/** Stages before which mmu_lock is not held. */
function unlockedStages(revision: Revision): string[] {
  const locked = revision.stages.findIndex((s) => s.underMmuLock);
  const names = revision.stages.map((s) => s.name);
  return locked < 0 ? names : names.slice(0, locked + 1);
}

/** For messages. */
export function codeOfInput(input: FaultInput): string {
  return codeText(input.errorLo, input.errorHi);
}
