import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { revisionByName, revisions } from '../../kvm/mmu/revisions/index.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { contextConstraints, inputImpossible, stateConstraints } from './constraints.ts';
import { entryCodes } from './fault-codes.ts';
import {
  ATTRIBUTES,
  BACKINGS,
  ENTRIES,
  type FaultInput,
  HARDWARE,
  type Invalidation,
  ordinaryFault,
  PAGINGS,
  SLOTS,
  SPTES,
  VM_TYPES,
} from './fault-input.ts';
import { FaultMachine, StageError } from './fault-machine.ts';
import type { FaultContext } from './machine-vm.ts';
import { outcomeDifferences } from './outcome.ts';

const before = revisionByName('linux-6.9');
const v2 = revisionByName('series-v2');
const linux612 = revisionByName('linux-6.12');

const contexts: FaultContext[] = HARDWARE.flatMap((hardware) =>
  VM_TYPES.flatMap((vmType) =>
    PAGINGS.flatMap((paging) =>
      [false, true].flatMap((nested) =>
        [true, false].map((mmioCaching) => ({ hardware, vmType, paging, nested, mmioCaching })),
      ),
    ),
  ),
).filter((c) => !contextConstraints.some((rule) => rule.excludes({ ...ordinaryFault, ...c })));

const machines = new Map<FaultContext, FaultMachine>();
function machineOf(context: FaultContext): FaultMachine {
  let machine = machines.get(context);
  if (machine === undefined) {
    machine = new FaultMachine(context);
    machines.set(context, machine);
  }
  return machine;
}

/** Those before which an invalidation can happen. */
const stages = linux612.stages.slice(0, linux612.stages.findIndex((s) => s.underMmuLock) + 1).map((s) => s.name);
const invalidations: fc.Arbitrary<Invalidation> = fc.oneof(
  fc.record({ kind: fc.constantFrom('none' as const, 'in-progress' as const) }),
  fc.record({
    kind: fc.constantFrom('done-at' as const, 'begun-at' as const),
    stage: fc.constantFrom(...stages),
  }),
);

function inputsOf(context: FaultContext): fc.Arbitrary<FaultInput> {
  return fc
    .constantFrom(...ENTRIES.filter((e) => e !== 'pre-fault' || context.paging === 'tdp'))
    .chain((entry) =>
      fc
        .record({
          code: fc.constantFrom(...entryCodes(context.hardware, context.vmType, context.paging, entry)),
          slot: fc.constantFrom(...SLOTS),
          attribute: fc.constantFrom(...ATTRIBUTES),
          spte: fc.constantFrom(...SPTES),
          backing: fc.constantFrom(...BACKINGS),
          invalidation: invalidations,
        })
        .map(({ code, ...rest }) => ({ ...context, entry, errorLo: code.lo, errorHi: code.hi, ...rest })),
    )
    .filter((input) => inputImpossible(input) === null);
}

const contextInputs = fc
  .constantFrom(...contexts)
  .chain((context) => fc.tuple(fc.constant(context), fc.array(inputsOf(context), { minLength: 1, maxLength: 12 })));

function run(input: Partial<FaultInput>, revision: Revision = linux612) {
  const full = { ...ordinaryFault, ...input };
  const { hardware, vmType, paging, nested, mmioCaching } = full;
  const machine = new FaultMachine({ hardware, vmType, paging, nested, mmioCaching });
  const outcome = machine.run(full, revision);
  machine.close();
  return outcome;
}

describe('the fault machine', () => {
  it('gives every input the same outcome twice, in any order, after any others', () => {
    fc.assert(
      fc.property(contextInputs, fc.constantFrom(...revisions), ([context, inputs], revision) => {
        const machine = machineOf(context);
        const known = inputs.filter((i) => !('stage' in i.invalidation) || has(revision, i.invalidation.stage));
        const first = known.map((input) => machine.run(input, revision));
        const again = [...known].reverse().map((input) => machine.run(input, revision));
        expect(again.reverse()).toEqual(first);
      }),
      { numRuns: 300 },
    );
  });

  it('can make every state that is one', () => {
    for (const context of contexts) {
      const machine = machineOf(context);
      const [code] = entryCodes(context.hardware, context.vmType, context.paging, 'fault');
      for (const slot of SLOTS)
        for (const attribute of ATTRIBUTES)
          for (const backing of BACKINGS)
            for (const spte of SPTES) {
              const state = { ...ordinaryFault, ...context, slot, attribute, backing, spte };
              if (stateConstraints.some((rule) => rule.excludes(state))) continue;
              const input = { ...state, errorLo: code!.lo, errorHi: code!.hi };
              expect(machine.run(input, linux612).verdict).not.toBe('bug');
            }
    }
  });

  it('says why a state cannot be', () => {
    expect(() => run({ attribute: 'private' })).toThrow(/only a VM type with private memory/);
    expect(() => run({ slot: 'none', spte: 'present' })).toThrow(/a present entry maps a slot's page/);
    expect(() => run({ hardware: 'ept', vmType: 'sev' })).toThrow(/AMD's/);
    expect(() => run({ slot: 'none', invalidation: { kind: 'in-progress' } })).toThrow(/where there is no slot/);
    expect(() => run({ invalidation: { kind: 'done-at', stage: 'nowhere' } })).toThrow(
      /no stage nowhere: it has guest-walk, /,
    );
    expect(() => run({ invalidation: { kind: 'done-at', stage: 'map' } })).toThrow(/mmu_lock is held when stage map/);
  });

  it('maps, retries, emulates and exits as the state says', () => {
    expect(run({})).toMatchObject({
      verdict: 'resume',
      ret: 'RET_PF_FIXED',
      spteAfter: 'rwx host page accessed dirty',
    });
    expect(run({ slot: 'none' })).toMatchObject({ verdict: 'emulate', spteAfter: 'MMIO, current' });
    expect(run({ slot: 'none', mmioCaching: false })).toMatchObject({ verdict: 'emulate', spteAfter: 'absent' });
    expect(run({ slot: 'none', spte: 'mmio', errorLo: 0xf })).toMatchObject({ verdict: 'emulate', fields: null });
    expect(run({ slot: 'ro' })).toMatchObject({ verdict: 'emulate', mmioCache: 'empty', decidedBy: 'error-pfn' });
    expect(run({ slot: 'invalid' })).toMatchObject({ verdict: 'resume', ret: 'RET_PF_RETRY' });
    expect(run({ backing: 'absent' })).toMatchObject({ verdict: 'EFAULT', exit: null });
    expect(run({ backing: 'poisoned' })).toMatchObject({ verdict: 'resume', signals: ['SIGBUS MCEERR_AR'] });
    expect(run({ backing: 'would-block' }).asyncPf).toMatch(/^queued/);
    expect(run({ spte: 'write-protected', errorLo: 7 })).toMatchObject({ decidedBy: 'fast-path', dirty: true });
    expect(run({ slot: 'apic', nested: true })).toMatchObject({ verdict: 'emulate', spteAfter: 'MMIO, current' });
    expect(run({ hardware: 'ept-no-ad', spte: 'access-tracked', errorLo: 4 })).toMatchObject({
      verdict: 'resume',
      decidedBy: 'fast-path',
      spteAfter: 'r-x host page (may be made writable)',
    });
    expect(run({ vmType: 'sw-protected', slot: 'gmem', attribute: 'private' })).toMatchObject({
      verdict: 'resume',
      spteAfter: 'rwx guest_memfd page accessed dirty',
    });
    expect(run({ vmType: 'sw-protected', slot: 'none', attribute: 'private' })).toMatchObject({
      verdict: 'EFAULT',
      exit: { reason: 'KVM_EXIT_MEMORY_FAULT', isPrivate: true, page: 'the faulting page', size: 4096 },
    });
    expect(run({ vmType: 'snp', slot: 'gmem', errorHi: 5 }).exit).toMatchObject({ isPrivate: true });
    expect(run({ entry: 'pre-fault', errorLo: 0, errorHi: 0 })).toMatchObject({ verdict: 'mapped' });
  });

  it('shadows the guest under shadow paging', () => {
    const shadow = { paging: 'shadow', errorLo: 2, errorHi: 0 } as const;
    expect(run(shadow)).toMatchObject({ verdict: 'resume', spteAfter: 'rwx host page accessed dirty' });
    expect(run({ ...shadow, slot: 'none' })).toMatchObject({
      verdict: 'emulate',
      spteAfter: 'MMIO, current',
      mmioCache: 'the gfn and its gva, access 6',
    });
    expect(run({ ...shadow, slot: 'none', spte: 'mmio', errorLo: 0xb })).toMatchObject({ decidedBy: 'reserved-bits' });
    expect(run({ ...shadow, spte: 'present', errorLo: 1 })).toMatchObject({ verdict: 'resume' });
    expect(run({ ...shadow, errorHi: 4 }).log).toEqual(['kvm_handle_page_fault: a #PF error code has upper bits']);
    expect(run({ ...shadow, errorHi: 4 }, before).log).toEqual([]);
  });

  it('notices an invalidation only after the snapshot', () => {
    const at = (stage: string) => run({ invalidation: { kind: 'done-at', stage } });
    expect(at('snapshot-sequence').spteAfter).toBe('rwx host page accessed dirty');
    expect(at('invalidation-precheck').decidedBy).toBe('invalidation-precheck');
    expect(at('error-pfn').decidedBy).toBe('invalidation-recheck');
    expect(at(stages.at(-1)!).decidedBy).toBe('stale-check');
    expect(run({ invalidation: { kind: 'in-progress' } }).decidedBy).toBe('invalidation-precheck');
  });

  it('loses an attribute change between the two snapshots of series-v2, and no other revision does', () => {
    const lost = { invalidation: { kind: 'done-at', stage: 'private-mismatch' } } as const;
    expect(run(lost, v2).ret).toBe('RET_PF_FIXED');
    expect(run(lost, revisionByName('linux-6.10')).ret).toBe('RET_PF_RETRY');
    expect(run(lost, linux612).ret).toBe('RET_PF_RETRY');
  });

  it('to the end: a fault that was sent back comes again, and what it does not meet comes after it', () => {
    const machine = new FaultMachine(ordinaryFault);
    const end = (input: Partial<FaultInput>) => machine.run({ ...ordinaryFault, ...input }, linux612, true);
    expect(end({ invalidation: { kind: 'done-at', stage: 'error-pfn' } }).spteAfter).toBe(
      'rwx host page accessed dirty',
    );
    expect(end({ invalidation: { kind: 'begun-at', stage: 'error-pfn' } }).ret).toBe('RET_PF_RETRY');
    const late = { spte: 'present', errorLo: 7, invalidation: { kind: 'done-at', stage: 'error-pfn' } } as const;
    expect(end(late)).toMatchObject({ ret: 'RET_PF_SPURIOUS', decidedBy: 'fast-path', spteAfter: 'absent' });
    expect(machine.run({ ...ordinaryFault, ...late }, linux612).spteAfter).toBe('rwx host page accessed dirty');
  });

  it('stops where the kernel would stop: the bug that row 17 turns into a warning', () => {
    const lied = { backing: 'noslot-pfn', spte: 'present' } as const;
    expect(run(lied, before).verdict).toBe('bug');
    expect(run(lied, v2)).toMatchObject({ verdict: 'emulate', log: [expect.stringContaining('gave no page')] });
  });

  it('names the stage that throws', () => {
    const broken: Revision = {
      ...linux612,
      name: 'broken',
      stages: linux612.stages.map((s) =>
        s.name !== 'error-pfn'
          ? s
          : {
              ...s,
              run: () => {
                throw new Error('no');
              },
            },
      ),
    };
    const machine = new FaultMachine(ordinaryFault);
    const good = machine.run(ordinaryFault, linux612);
    expect(() => machine.run(ordinaryFault, broken)).toThrow(StageError);
    expect(() => machine.run(ordinaryFault, broken)).toThrow('revision broken, stage error-pfn: no');
    expect(machine.run(ordinaryFault, linux612)).toEqual(good);
  });

  it('compares outcomes by level, whoever decided', () => {
    const input = { vmType: 'sw-protected', slot: 'invalid', attribute: 'private' } as const;
    const [was, is] = [run(input, before), run(input, v2)];
    const found = outcomeDifferences(was, is).map((d) => `${d.level} ${d.field}`);
    expect(found).toEqual(['field fields.errorCode', 'field fields.pfn', 'field fields.hva']);
    expect(outcomeDifferences(is, { ...is, decidedBy: 'nobody' })).toEqual([]);
  });
});

function has(revision: Revision, stage: string): boolean {
  return revision.stages.some((s) => s.name === stage);
}
