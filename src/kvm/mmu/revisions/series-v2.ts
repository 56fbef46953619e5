/**
 * "KVM: x86/mmu: Page fault and MMIO cleanups", version 2 as posted (message id 20240507155817.3951344-1-pbonzini@redhat.com, May 2024):
 * seventeen patches on Linux 6.9, in the order of the mails.
 */
import { apicAccessPage, apicAccessPageHidden } from '../stages/apic-access-page.ts';
import { invalidSlot } from '../stages/invalid-slot.ts';
import { noslotPfn } from '../stages/noslot-pfn.ts';
import { privateMismatch } from '../stages/private-mismatch.ts';
import { snapshotSequenceAgain } from '../stages/snapshot-sequence.ts';
import { applyPatches } from './chain.ts';
import { editStages, inner, insertBefore, move, remove, replace, setRules } from './edit.ts';
import { linux69 } from './linux-6.9.ts';
import type { Patch, Revision } from './revision.ts';

const privateEmulation: Patch = {
  commit: 'd0bf8e6e440a',
  title: 'Exit to userspace with -EFAULT if private fault hits emulation',
  symptom:
    'a private fault that ends in emulation leaves with a memory-fault exit; before, the emulator ran on private memory',
  carriedBy: 'rules privateEmulationExits, privateEmulationWarns (do-page-fault.ts)',
  apply: setRules({ privateEmulationExits: true, privateEmulationWarns: true }),
};

export const noBitMacros: Patch = {
  commit: '63b6206e2f9a',
  title: 'Remove separate "bit" defines for page fault error code masks',
  symptom: 'none: the permission check forms the same index by other arithmetic',
  carriedBy: 'permission.ts',
  apply: (body) => body,
};

export const sevErrorBits: Patch = {
  commit: '9b62e03e192c',
  title: 'Define more SEV+ page fault error bits/flags for #NPF',
  symptom: 'RMP, ENC, SIZEM and VMPL have names; no check looks at them yet',
  carriedBy: 'rule namesSevErrorBits (decode, explain)',
  apply: setRules({ namesSevErrorBits: true }),
};

export const syntheticInNpf: Patch = {
  commit: 'dee281e4b435',
  title: "Move synthetic PFERR_* sanity checks to SVM's #NPF handler",
  symptom: "synthetic bits are looked for in AMD's #NPF only; before, in every fault that enters the MMU",
  carriedBy: 'rule npfDropsSynthetic (svm/npf.ts, page-fault.ts)',
  apply: setRules({ npfDropsSynthetic: true }),
};

export const fullErrorCode: Patch = {
  commit: 'c9710130ccae',
  title: 'Pass full 64-bit error code when handling page faults',
  symptom:
    'the stages and their trace events see bits 63:32 of the error code; before, the upper half was lost on the way',
  carriedBy: 'rule fullErrorCode (do-page-fault.ts)',
  apply: setRules({ fullErrorCode: true }),
};

export const pfUpperBits: Patch = {
  commit: '7bdbb820fee4',
  title: 'WARN if upper 32 bits of legacy #PF error code are non-zero',
  symptom: 'a legacy #PF with upper bits warns once and loses them; before, they went into the MMU',
  carriedBy: 'rule pfDropsUpperBits (handle-page-fault.ts)',
  apply: setRules({ pfDropsUpperBits: true }),
};

export const privateInCode: Patch = {
  commit: 'b3d5dc629c32',
  title: 'Use synthetic page fault error code to indicate private faults',
  symptom:
    "a fault is private if its code says so; before, if the gfn's attribute said so when the fault object was made, even for MMIO",
  carriedBy: 'rule privateInErrorCode (page-fault.ts, do-page-fault.ts)',
  apply: setRules({ privateInErrorCode: true }),
};

const pageReady: Patch = {
  commit: 'cd389f507003',
  title: 'check for invalid async page faults involving private memory',
  symptom:
    'a page-ready fault is redone with its own code, and not at all when that is private; before, as a shared read',
  carriedBy: 'rule pageReadyKeepsErrorCode (async-pf-ready.ts)',
  apply: setRules({ pageReadyKeepsErrorCode: true }),
};

const privateRsvd: Patch = {
  commit: '07702e5a6d6d',
  title: 'WARN and skip MMIO cache on private, reserved page faults',
  symptom: 'a reserved-bit fault whose code is private warns and fails with a bare EFAULT; before, it was MMIO',
  carriedBy: "rule privateRsvd 'fail' (page-fault.ts)",
  apply: setRules({ privateRsvd: 'fail' }),
};

export const privacyFirst: Patch = {
  commit: '44f42ef37deb',
  title: 'Move private vs. shared check above slot validity checks',
  symptom:
    'a mismatch on a missing, dying or internal slot leaves with a memory-fault exit; before, the slot decided: MMIO, retry, emulate',
  carriedBy: 'stage private-mismatch, right after snapshot-sequence',
  apply: editStages((s) => insertBefore(remove(s, 'private-mismatch'), 'invalidation-precheck', privateMismatch)),
};

export const onlyApicPage: Patch = {
  commit: '5bd74f6eecd5',
  title: "Don't force emulation of L2 accesses to non-APIC internal slots",
  symptom:
    "L2 may map KVM's other internal slots (TSS, identity map); before, its accesses to them were emulated as MMIO",
  carriedBy: 'stage apic-access-page in place of internal-slots',
  apply: editStages((s) => replace(s, 'internal-slots', inner(apicAccessPageHidden))),
};

export const noPrivateMmio: Patch = {
  commit: 'bde9f9d27e2b',
  title: 'Explicitly disallow private accesses to emulated MMIO',
  symptom: 'a private access without a slot leaves with a memory-fault exit; before, it could become MMIO',
  carriedBy: 'rule noSlotPrivateExits (noslot-fault.ts)',
  apply: setRules({ noSlotPrivateExits: true }),
};

export const slotChecksOut: Patch = {
  commit: 'cd272fc439b5',
  title: 'Move slot checks from __kvm_faultin_pfn() to kvm_faultin_pfn()',
  symptom:
    'the slot checks come before the invalidation pre-check: the APIC access page is emulated even while its range is being invalidated',
  carriedBy: 'stages invalid-slot, apic-access-page, before invalidation-precheck',
  apply: editStages((s) =>
    move(
      replace(replace(s, 'invalid-slot', invalidSlot), 'apic-access-page', apicAccessPageHidden),
      'invalidation-precheck',
      'fault-in-private',
    ),
  ),
};

export const noSlotFirst: Patch = {
  commit: 'f6adeae81f35',
  title: 'Handle no-slot faults at the beginning of kvm_faultin_pfn()',
  symptom:
    'faults without slot skip the page lookup; and the sequence is snapshot a second time after the slot checks, which forgets an attribute change in between',
  carriedBy: 'stages no-slot, before invalid-slot, and snapshot-sequence-again, before invalidation-precheck',
  apply: editStages((s) =>
    insertBefore(
      replace(move(s, 'no-slot', 'invalid-slot'), 'apic-access-page', apicAccessPage),
      'invalidation-precheck',
      snapshotSequenceAgain,
    ),
  ),
};

export const noSlotHva: Patch = {
  commit: '36d4492765fe',
  title: 'Set kvm_page_fault.hva to KVM_HVA_ERR_BAD for "no slot" faults',
  symptom: 'the hva of a fault without slot is KVM_HVA_ERR_BAD; before, it was left at 0, a legal address',
  carriedBy: 'rule noSlotSetsHva (noslot-fault.ts)',
  apply: setRules({ noSlotSetsHva: true }),
};

export const errorValuesFirst: Patch = {
  commit: 'f3310e622f77',
  title: "Initialize kvm_page_fault's pfn and hva to error values",
  symptom: 'a fault that leaves early has error values in pfn and hva; before, 0, which are a frame and an address',
  carriedBy: 'rule faultStartsWithErrors (fault.ts)',
  apply: setRules({ faultStartsWithErrors: true }),
};

export const noslotPfnCheck: Patch = {
  commit: '2b1f435505ae',
  title: "Sanity check that __kvm_faultin_pfn() doesn't create noslot pfns",
  symptom:
    'a slot whose lookup answers "no slot" warns and becomes MMIO; before, the TDP MMU mapped host frame 0 read-only',
  carriedBy: 'stage noslot-pfn',
  apply: editStages((s) => insertBefore(s, 'invalidation-recheck', noslotPfn)),
};

/** In the order of the mails: patch n of 17 is at n - 1. */
export const seriesV2Patches: readonly Patch[] = [
  privateEmulation,
  noBitMacros,
  sevErrorBits,
  syntheticInNpf,
  fullErrorCode,
  pfUpperBits,
  privateInCode,
  pageReady,
  privateRsvd,
  privacyFirst,
  onlyApicPage,
  noPrivateMmio,
  slotChecksOut,
  noSlotFirst,
  noSlotHva,
  errorValuesFirst,
  noslotPfnCheck,
];

export const seriesV2: Revision = applyPatches(
  linux69,
  seriesV2Patches,
  'series-v2',
  'the series, version 2 as posted (May 2024)',
);

/** The patches of version 2 that version 1 lacks or has otherwise. */
export const seriesV2Changes = { privateEmulation, pageReady, privateRsvd } as const;
