/**
 * Linux 6.12, as of 6.12.117: what the recordings were made on. Linux 6.10 and the fixes to the fault path since, in the order in which
 * they landed. docs/revisions.md has one row for each, and for those that make no difference here.
 */
import { applyPatches } from './chain.ts';
import { setRules } from './edit.ts';
import { linux610 } from './linux-6.10.ts';
import type { Patch, Revision } from './revision.ts';

const linux611: readonly Patch[] = [
  {
    commit: 'b74d002d3d58',
    title: 'Disable fast path if KVM_EXIT_MEMORY_FAULT is needed',
    symptom:
      "a fault whose privacy is not the gfn's goes the slow way, to the memory-fault exit; before, the fast path could call it spurious, for ever",
    carriedBy: 'rule fastPathChecksPrivacy (fast-page-fault.ts)',
    apply: setRules({ fastPathChecksPrivacy: true }),
  },
  {
    commit: '1dfe571c12cf',
    title: 'Add initial SEV-SNP support',
    symptom: 'ENC in an #NPF of an SNP guest makes the fault private; before, there were no SNP guests',
    carriedBy: 'rule snpEncIsPrivate (svm/npf.ts)',
    apply: setRules({ snpEncIsPrivate: true }),
  },
  {
    commit: '6e01b7601dfe',
    title: 'Implement kvm_arch_vcpu_pre_fault_memory()',
    symptom: 'KVM_PRE_FAULT_MEMORY maps memory before it is touched; before, it was an unknown ioctl: EINVAL',
    carriedBy: 'rule hasPreFault (pre-fault.ts, capabilities.ts)',
    apply: setRules({ hasPreFault: true }),
  },
];

/**
 * "Fix multiple #PF RO infinite loop bugs" (message id 20240831001538.336683-1-seanjc@google.com): of its 22 patches, those that change
 * what happens.
 */
const writeProtection: readonly Patch[] = [
  {
    commit: 'f3009482512e',
    title: 'Set PFERR_GUEST_{FINAL,PAGE}_MASK if and only if the GVA is valid',
    symptom:
      "no EPT violation is a final access or one to the guest's page tables any more, because the wrong word is asked for a valid linear address; before, every one was one of the two",
    carriedBy: "rule eptPageBits 'never' (vmx/ept-violation.ts)",
    apply: setRules({ eptPageBits: 'never' }),
  },
  {
    commit: '989a84c93f59',
    title: 'Trigger unprotect logic only on write-protection page faults',
    symptom:
      'only a write to a write-protected page (RET_PF_WRITE_PROTECTED) tries to drop shadows and may be retried natively; before, everything that was to be emulated: read-only memory, MMIO, the APIC access page',
    carriedBy: 'rule writeProtectedVerdict (do-page-fault.ts, page-fault.ts)',
    apply: setRules({ writeProtectedVerdict: true }),
  },
  {
    commit: '2fb2b7877b3a',
    title: 'Skip emulation on page fault iff 1+ SPs were unprotected',
    symptom:
      "a walk of the guest's page tables that could not write one is emulated when no shadow was dropped; before, it was retried for ever",
    carriedBy: 'rule walkRetryNeedsZap (write-protect-fault.ts)',
    apply: setRules({ walkRetryNeedsZap: true }),
  },
  {
    commit: 'c1edcc41c360',
    title: 'Retry to-be-emulated insn in "slow" unprotect path iff sp is zapped',
    symptom:
      'an instruction that writes no page table is emulated when no shadow was dropped; before, it was tried natively once more',
    carriedBy: 'rule retryNeedsZap (native-retry.ts)',
    apply: setRules({ retryNeedsZap: true }),
  },
  {
    commit: '01dd4d319207',
    title: 'Apply retry protection to "fast nTDP unprotect" path',
    symptom: 'a second fault at the same RIP and address is emulated; before, shadows were dropped again and again',
    carriedBy: 'rule retryGuardInFault (write-protect-fault.ts, native-retry.ts)',
    apply: setRules({ retryGuardInFault: true }),
  },
  {
    commit: 'b299c273c06f',
    title: 'Move event re-injection unprotect+retry into common path',
    symptom:
      'an event that waits for reinjection drops shadows only when a write hit a protected page, and the write is then retried; before, every #PF dropped them first',
    carriedBy: 'rule reinjectionOnlyOnWrite (write-protect-fault.ts, handle-page-fault.ts)',
    apply: setRules({ reinjectionOnlyOnWrite: true }),
  },
  {
    commit: '620525739521',
    title: 'Remove manual pfn lookup when retrying #PF after failed emulation',
    symptom:
      'a failed emulation is retried natively without asking for the page; before, not when KVM could not get it',
    carriedBy: 'rule failedRetryNeedsPage (native-retry.ts)',
    apply: setRules({ failedRetryNeedsPage: false }),
  },
  {
    commit: '19ab2c8be070',
    title: 'Check EMULTYPE_WRITE_PF_TO_SP before unprotecting gfn',
    symptom: 'a failed write to a table of its own translation drops no shadow before userspace is told',
    carriedBy: 'rule ownTableFailsFirst (native-retry.ts)',
    apply: setRules({ ownTableFailsFirst: true }),
  },
  {
    commit: 'dabc4ff70c35',
    title: 'Apply retry protection to "unprotect on failure" path',
    symptom: 'a failed emulation that dropped shadows is not retried natively twice in a row',
    carriedBy: "rule failedRetryRemembers 'if-dropped' (native-retry.ts)",
    apply: setRules({ failedRetryRemembers: 'if-dropped' }),
  },
  {
    commit: '4df685664bed',
    title: 'Update retry protection fields when forcing retry on emulation failure',
    symptom: 'the same when there was no shadow to drop; before, the guest looped',
    carriedBy: "rule failedRetryRemembers 'always' (native-retry.ts)",
    apply: setRules({ failedRetryRemembers: 'always' }),
  },
  {
    commit: '98a69b96caca',
    title: 'WARN on MMIO cache hit when emulating write-protected gfn',
    symptom: 'a write-protected page that is in the MMIO cache warns, and drops no shadow',
    carriedBy: 'rule writeProtectedMmioWarns (write-protect-fault.ts)',
    apply: setRules({ writeProtectedMmioWarns: true }),
  },
];

/** In the order in which they landed upstream. */
const stable: readonly Patch[] = [
  {
    commit: '9129633d568e',
    title: 'Prevent installing hugepages when mem attributes are changing',
    symptom:
      'while attributes change, faults beside the range retry if the change cuts a huge page they are in; before, they could map that huge page over mixed attributes',
    carriedBy: 'rule attributesHoldHugePages (memory-attributes.ts)',
    apply: setRules({ attributesHoldHugePages: true }),
  },
  {
    commit: 'd0164c161923',
    title: 'Fix check for valid GVA on an EPT violation',
    symptom:
      "an EPT violation with a linear address is a final access or one to the guest's page tables again, and one without is neither",
    carriedBy: "rule eptPageBits 'gva-valid' (vmx/ept-violation.ts)",
    apply: setRules({ eptPageBits: 'gva-valid' }),
  },
];

/** The shadow MMU, where a guest's tables change behind KVM's back: userspace writes them, or another address space maps them. */
const shadowStable: readonly Patch[] = [
  {
    commit: 'aad885e77496',
    title: 'Drop/zap existing present SPTE even when creating an MMIO SPTE',
    symptom: 'an entry that maps memory is emptied before it becomes an MMIO entry; before, the rmap kept it',
    carriedBy: 'rule mmioDropsPresent (shadow/set-spte.ts)',
    apply: setRules({ mmioDropsPresent: true }),
  },
  {
    commit: '0cb2af2ea66a',
    title: "Use a child shadow page again only if it is for the guest table's gfn",
    symptom: 'a table that was exchanged is shadowed anew; before, mappings went into the shadow of the old one',
    carriedBy: 'rule childMatchesGfn (shadow/get-page.ts)',
    apply: setRules({ childMatchesGfn: true }),
  },
  {
    commit: '81ccda30b4e8',
    title: 'Use a child shadow page again only if its role is right',
    symptom: 'a table whose rights were changed above it is shadowed anew; before, its entries kept the old rights',
    carriedBy: 'rule childMatchesRole (shadow/get-page.ts)',
    apply: setRules({ childMatchesRole: true }),
  },
  {
    commit: '2abd5287f083',
    title: 'Make room for shadow pages before checking for a stale fault',
    symptom: 'what had to go for want of room is seen by the check; before, it went after the check, a root among it',
    carriedBy: 'rule roomBeforeStale (do-page-fault.ts, stages/map.ts)',
    apply: setRules({ roomBeforeStale: true }),
  },
  {
    commit: '0f38453cdb2e',
    title: 'Check write tracking in all address spaces',
    symptom: 'a table that is shadowed for SMM alone is protected outside of it, too, and the reverse',
    carriedBy: 'rule tracksBothSpaces (page-track.ts)',
    apply: setRules({ tracksBothSpaces: true }),
  },
];

/** In the order in which they landed. */
export const linux612Patches: readonly Patch[] = [...linux611, ...writeProtection, ...stable, ...shadowStable];

export const linux612: Revision = applyPatches(linux610, linux612Patches, 'linux-6.12', 'Linux 6.12');
