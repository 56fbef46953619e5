/** A revision of the fault path: which stages run, in what order, and under which rules. */
import type { VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';

/** One check or action of the fault path, with the words that explain its verdict. */
export interface FaultStage {
  /** The file's own name, which explain prints. */
  readonly name: string;
  /** The kernel function that decides the same. */
  readonly kvmFunction: string;
  /** mmu_lock is held from the first such stage to the end of the fault: for read in the TDP MMU, for write in the shadow MMU. */
  readonly underMmuLock: boolean;
  /** RET_PF_CONTINUE to go on, another RET_PF_* or a negative errno to stop. HOT */
  readonly run: (vcpu: VcpuState, fault: PageFault) => number;
  /** Why `run` gave `verdict`, in one sentence. Called only when a recorder listens. */
  readonly explain: (vcpu: VcpuState, fault: PageFault, verdict: number) => string;
}

/** Rules outside the list of stages, or inside one of them, that differ between revisions. The comment says what `true` means. */
export interface RevisionRules {
  // Entry.
  /** A private fault that ends in emulation leaves with a memory-fault exit (d0bf8e6e440a). */
  readonly privateEmulationExits: boolean;
  /** ... and says so in the kernel log (v2 of the series). */
  readonly privateEmulationWarns: boolean;
  /** ENC, SIZEM, VMPL and RMP have names (9b62e03e192c): for those who read the code, no check looks at them. */
  readonly namesSevErrorBits: boolean;
  /** The #NPF handler warns of synthetic bits and drops them; otherwise the MMU's entry does, for every vendor (dee281e4b435). */
  readonly npfDropsSynthetic: boolean;
  /** Bits 63:32 of the error code reach the stages (c9710130ccae). */
  readonly fullErrorCode: boolean;
  /** A legacy #PF with bits 63:32 is warned about and loses them (7bdbb820fee4). */
  readonly pfDropsUpperBits: boolean;
  /** Whether a fault is private is PRIVATE_ACCESS in its code; otherwise it is the gfn's attribute when the fault object is made (b3d5dc629c32). */
  readonly privateInErrorCode: boolean;
  /** In an SNP guest, ENC in an #NPF means PRIVATE_ACCESS (Linux 6.11). */
  readonly snpEncIsPrivate: boolean;
  /**
   * A reserved-bit fault on a private access is ordinary MMIO; or warns and skips the MMIO path, as version 1 of the series; or warns and
   * fails with a bare EFAULT (07702e5a6d6d).
   */
  readonly privateRsvd: 'mmio' | 'skip' | 'fail';
  /** A page-ready fault is redone with the code of the first fault, and not at all if that was private; otherwise with code 0 (cd389f507003). */
  readonly pageReadyKeepsErrorCode: boolean;
  // No slot.
  /** A private access without a slot leaves with a memory-fault exit (bde9f9d27e2b). */
  readonly noSlotPrivateExits: boolean;
  /** The hva of a fault without slot becomes KVM_HVA_ERR_BAD (36d4492765fe). */
  readonly noSlotSetsHva: boolean;
  /** pfn and hva start as error values rather than 0 (f3310e622f77). */
  readonly faultStartsWithErrors: boolean;
  // Linux 6.11.
  /** The fast path is not for a fault whose privacy is not the gfn's (b74d002d3d58). */
  readonly fastPathChecksPrivacy: boolean;
  /** KVM_PRE_FAULT_MEMORY exists (6e01b7601dfe). */
  readonly hasPreFault: boolean;
  // Linux 6.12: writes to write-protected pages.
  /**
   * When an EPT violation is said to be a final access or one to the guest's page tables: always, by one bit of the qualification; never,
   * because f3009482512e asked the wrong word whether the linear address is valid; or if it is valid (d0164c161923).
   */
  readonly eptPageBits: 'always' | 'never' | 'gva-valid';
  /** Write protection is a verdict of its own; otherwise it is RET_PF_EMULATE, and whatever is emulated is treated alike (989a84c93f59). */
  readonly writeProtectedVerdict: boolean;
  /** A walk that could not write a guest page table is retried only if a shadow was dropped (2fb2b7877b3a). */
  readonly walkRetryNeedsZap: boolean;
  /** A decoded instruction is retried natively only if a shadow was dropped (c1edcc41c360). */
  readonly retryNeedsZap: boolean;
  /** The fault handler looks whether RIP and address were retried before; otherwise the emulator does (01dd4d319207). */
  readonly retryGuardInFault: boolean;
  /** An event that waits for reinjection drops shadows only after a write to a protected page; otherwise before every #PF (b299c273c06f). */
  readonly reinjectionOnlyOnWrite: boolean;
  /** A failed emulation is retried natively only if the page can be had; 620525739521 took the lookup out. */
  readonly failedRetryNeedsPage: boolean;
  /** A failed write to a table of its own translation drops no shadow (19ab2c8be070). */
  readonly ownTableFailsFirst: boolean;
  /** When a failed emulation that is retried natively counts as retried: dabc4ff70c35 remembers it if a shadow was dropped, 4df685664bed always. */
  readonly failedRetryRemembers: 'never' | 'if-dropped' | 'always';
  /** A write-protected page in the MMIO cache warns and is emulated; otherwise it only is not retried (98a69b96caca). */
  readonly writeProtectedMmioWarns: boolean;
  // Linux 6.12 stable.
  /** A change of attributes invalidates the huge pages that it cuts as a whole (9129633d568e). */
  readonly attributesHoldHugePages: boolean;
  /** The shadow MMU empties a present entry before it writes an MMIO one over it (aad885e77496). */
  readonly mmioDropsPresent: boolean;
  /** The page below an entry is used again only if it shadows the table that the guest has there now (0cb2af2ea66a) ... */
  readonly childMatchesGfn: boolean;
  /** ... with the rights it has there now (81ccda30b4e8). */
  readonly childMatchesRole: boolean;
  /** The shadow MMU makes room before it asks whether the fault is stale (2abd5287f083). */
  readonly roomBeforeStale: boolean;
  /** A page is write-tracked if it is in either address space (0f38453cdb2e). */
  readonly tracksBothSpaces: boolean;
  /** Room is made at the cost of roots in use, too: no Linux of these does so, but see docs/revisions.md, 20. */
  readonly reclaimTakesRoots?: boolean;
  // Map.
  /** An entry that allows the access already is left alone, even if this fault would make a lesser one (386d69f9f29b, Linux 6.13). */
  readonly keepsAllowingEntries?: boolean;
}

/** One version of the fault path. */
export interface Revision {
  readonly name: string;
  readonly title: string;
  /** Stages of a fault after the fault object is made, in order. The last never continues. */
  readonly stages: readonly FaultStage[];
  readonly rules: RevisionRules;
}

/** One change of the fault path: a patch of the series, or a later fix. */
export interface Patch {
  /** The short commit id in Linux, or the message id of what was only mailed. */
  readonly commit: string;
  /** The commit's subject line, without prefix; our words where only what the commit does is known. */
  readonly title: string;
  /** What it changed, to be seen from outside, in one sentence. */
  readonly symptom: string;
  /** Where it is in this source: the stage or rule that carries it. */
  readonly carriedBy: string;
  readonly apply: (before: RevisionBody) => RevisionBody;
}

/** What a patch changes. */
export type RevisionBody = Pick<Revision, 'stages' | 'rules'>;
