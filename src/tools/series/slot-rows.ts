/** Rows about which check of the slot runs where: 10 to 17. */
import type { Demonstration, Side } from './demonstration.ts';
import { machineCase } from './machine-case.ts';
import { secondSnapshotCase } from './second-snapshot-case.ts';
import { onlyFieldsDiffer, onlyTheApicPageDiffers } from './space-equality.ts';

const FINAL = 1 << 0;
const WRITE = 0x6;
const RESERVED = 0xd;

export const slotRows: readonly Demonstration[] = [
  {
    row: 10,
    differs: 'privacy is checked before the slot: a mismatch on a missing or dying slot exits; before: MMIO, retry',
    purpose:
      'Whether an access matches its attribute does not depend on slots, so the VMM hears of a mismatch at once and every time, whatever happens to the slot meanwhile.',
    cases: [
      machineCase({
        setting:
          'A slot is being deleted. The guest makes a shared access to a gfn of it that is private: in this VM a reserved-bit fault on an old MMIO entry, which is never private.',
        input: {
          vmType: 'sw-protected',
          slot: 'invalid',
          attribute: 'private',
          spte: 'mmio-stale',
          errorLo: RESERVED,
          errorHi: FINAL,
        },
        holds: (o) => o.verdict === 'EFAULT' && o.exit?.isPrivate === false && o.decidedBy === 'private-mismatch',
      }),
      machineCase({
        setting: 'The same access by L2, where there is no slot at all.',
        input: {
          vmType: 'sw-protected',
          nested: true,
          slot: 'none',
          attribute: 'private',
          spte: 'mmio-stale',
          errorLo: RESERVED,
          errorHi: FINAL,
        },
        holds: (o) => o.verdict === 'EFAULT' && o.exit?.isPrivate === false && o.emulated === null,
      }),
    ],
    equality: null,
  },
  {
    row: 11,
    differs: "L2 may map KVM's TSS and identity-map slots; before: its accesses to them were emulated as MMIO",
    purpose:
      'Only the APIC access page must not be seen by L2; the other internal slots are memory like any other, and emulating accesses to them was slow and wrong.',
    cases: [
      machineCase({
        setting: "L1 runs a nested guest, and L2 writes to the gfn of KVM's TSS slot.",
        input: { hardware: 'ept', nested: true, slot: 'internal', errorLo: WRITE, errorHi: FINAL },
        holds: (o) => o.ret === 'RET_PF_FIXED' && o.emulated === null && o.spteAfter.includes('host page'),
      }),
    ],
    equality: null,
  },
  {
    row: 12,
    differs: 'a private access that has no slot exits before anything is cached; before: it became MMIO',
    purpose:
      'Emulated MMIO is shared by definition: a private access must not leave an MMIO entry behind, nor its address in the MMIO cache.',
    cases: [
      machineCase({
        setting:
          "L2 writes, privately, to the gfn of KVM's APIC access page, which is hidden from it as if there were no slot.",
        input: {
          vmType: 'sw-protected',
          nested: true,
          slot: 'apic',
          attribute: 'private',
          errorLo: WRITE,
          errorHi: FINAL,
        },
        holds: (o) =>
          o.verdict === 'EFAULT' && o.exit?.isPrivate === true && o.mmioCache === 'empty' && o.spteAfter === 'absent',
      }),
    ],
    equality: null,
  },
  {
    row: 13,
    differs: 'slot checks come before the invalidation pre-check; all else is equal',
    purpose:
      'What needs no page from the host should not wait for the host: emulated accesses to the APIC page go on while its range is being invalidated, as the message of the patch announces.',
    cases: [
      machineCase({
        setting:
          "APIC virtualization is inhibited, and the range of KVM's APIC access page is being invalidated. The guest writes to its APIC.",
        input: { slot: 'apic-inhibited', invalidation: { kind: 'in-progress' }, errorLo: WRITE, errorHi: FINAL },
        holds: (o) => o.verdict === 'emulate' && o.decidedBy === 'apic-access-page',
      }),
    ],
    equality: onlyTheApicPageDiffers,
  },
  {
    row: 14,
    differs: 'no slot is answered at the start of fault-in; before: after the page lookup. Exits and state are equal',
    purpose:
      'Everything after the check can rely on a slot. (That it also reads mmu_invalidate_seq a second time was an accident.)',
    cases: [
      machineCase({
        setting: 'The guest writes where there is no slot: the first access to an emulated device.',
        input: { slot: 'none', errorLo: WRITE, errorHi: FINAL },
        holds: (_outcome, side) => comesBefore(side, 'no-slot', 'fault-in-shared'),
      }),
      secondSnapshotCase,
    ],
    equality: onlyFieldsDiffer,
  },
  {
    row: 15,
    differs: 'fault->hva of a fault without slot is KVM_HVA_ERR_BAD; before: 0',
    purpose: '0 is a legal address on x86: whoever looks at the hva of such a fault must see that there is none.',
    cases: [
      machineCase({
        setting: 'The guest writes where there is no slot.',
        input: { slot: 'none', errorLo: WRITE, errorHi: FINAL },
        holds: (o) => o.fields?.hva === 'ERR_BAD',
      }),
    ],
    equality: null,
  },
  {
    row: 16,
    differs: 'fault->pfn and fault->hva start as error values; before: 0',
    purpose:
      'A frame that is used by mistake before it is known then has reserved bits set and kills the VM, rather than giving the guest physical page 0 of the host.',
    cases: [
      machineCase({
        setting: 'A fault that leaves early, before any page is looked up: its slot is being deleted.',
        input: { slot: 'invalid', errorLo: WRITE, errorHi: FINAL },
        holds: (o) => o.fields?.pfn === 'ERR_FAULT' && o.fields.hva === 'ERR_BAD',
      }),
    ],
    equality: null,
  },
  {
    row: 17,
    differs: 'a slot whose lookup yields "no slot": WARN and MMIO; before: host frame 0 mapped read-only',
    purpose:
      'A pfn of "no slot" out of a slot is a bug elsewhere; better a warning and an MMIO exit than a mapping of whatever the number happens to mean.',
    cases: [
      machineCase({
        setting:
          'A bug is put in: the page lookup of a good slot answers KVM_PFN_NOSLOT, as for a slot that turned invalid under it.',
        input: { slot: 'rw', backing: 'noslot-pfn', errorLo: WRITE, errorHi: FINAL },
        holds: (o) =>
          o.verdict === 'emulate' &&
          o.log.some((line) => line.startsWith('kvm_faultin_pfn:')) &&
          !mapsFrame(o.spteAfter),
      }),
    ],
    equality: null,
  },
];

/** Stage `first` was asked, and stage `second` later or not at all. */
function comesBefore(side: Side, first: string, second: string): boolean {
  const at = side.stages.findIndex((stage) => stage.name === first);
  const then = side.stages.findIndex((stage) => stage.name === second);
  return at >= 0 && (then < 0 || at < then);
}

function mapsFrame(spte: string): boolean {
  return spte.includes('frame') || spte.includes('page');
}
