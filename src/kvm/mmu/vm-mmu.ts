/** The MMU's part of a VM (@kvm kvm_host.h struct kvm_arch: tdp_mmu_roots, mmu_valid_gen, n_used_mmu_pages, ...). */
import type { KvmParams } from '../params.ts';
import type { FaultRecorder } from './recorder.ts';
import { ActivePages } from './shadow/active-pages.ts';
import { PageHash } from './shadow/page-hash.ts';
import { PteLists } from './shadow/pte-list.ts';
import { ShadowPage } from './shadow-page.ts';
import { type SpteMasks, SpteWord } from './spte.ts';
import type { TdpIter } from './tdp-iter.ts';
import type { ExternalTables } from './tdp-mmu/mirror.ts';

export class VmMmu {
  /** When it is null the fault path records nothing. */
  recorder: FaultRecorder | null = null;

  /** Masks of the entries this VM's tables are made of; set by initVm. */
  masks!: SpteMasks;
  /** The iterator of the fault path and the one of everything else. */
  faultIter!: TdpIter;
  iter!: TdpIter;
  /** Shadow page of a frame: index into `pages` plus one, 0 for none. */
  pageOfPfn!: Int32Array;

  /** Bits of a gfn that say which tables translate it and are not part of it: a TD's shared bit. @kvm kvm_host.h gfn_direct_bits */
  gfnDirectBits = 0;
  /** Whose tables the mirror pages mirror; null in a VM that has none. */
  external: ExternalTables | null = null;

  /** Roots of the TDP MMU, newest first, invalid ones included until they are freed. */
  readonly tdpMmuRoots: ShadowPage[] = [];
  /** Number of page tables below the roots. */
  tdpMmuPages = 0;
  /** Two-dimensional paging is the TDP MMU's work: kvm.tdp_mmu with nested paging in hardware. Set by initVm. */
  tdpMmuEnabled = true;
  /** Something is or was shadowed, so slots have rmaps and write tracking. @kvm kvm_host.h shadow_root_allocated */
  shadowRootAllocated = false;
  /** Pages of the shadow MMU: by age, and by what they shadow. */
  readonly activePages = new ActivePages();
  readonly pageHash = new PageHash();
  readonly pteLists = new PteLists();
  /** The last shadow page that was zapped took others with it: who walks the list of active pages begins anew. */
  listUnstable = false;
  /** Toggles between 0 and 1 at every fast zap. */
  mmuValidGen = 0;
  /** Shadow pages of the legacy MMU in use. */
  nUsedMmuPages = 0;
  /** Shadow pages of tables of the guest: none under TDP. */
  indirectShadowPages = 0;
  /** Limit of shadow pages, KVM_SET_NR_MMU_PAGES. */
  nMaxMmuPages = 0;
  nRequestedMmuPages = 0;
  /** The NX huge page workaround is on for this VM. */
  nxHugePages = false;
  /** @kvm mmu.h enable_mmio_caching: parameter and hardware both allow MMIO SPTEs. */
  enableMmioCaching = false;
  /** Page tables on whose removal a huge page could follow, the oldest first. @kvm kvm_host.h possible_nx_huge_pages */
  readonly possibleNxHugePages: ShadowPage[] = [];

  /** Result of the entry makers in spte.ts. */
  readonly newSpte = new SpteWord();
  /** Whether dirty-log arming splits huge pages at once (kvm.eager_page_split). */
  readonly eagerPageSplit: boolean;
  readonly pages: ShadowPage[] = [];
  /** Indices of `pages` that are free. */
  readonly freePages: number[] = [];

  constructor(params: KvmParams) {
    this.nxHugePages = params.nxHugePages;
    this.eagerPageSplit = params.eagerPageSplit;
  }

  /** The shadow page in frame `pfn` (@kvm spte.h to_shadow_page). HOT */
  shadowPage(pfn: number): ShadowPage {
    return this.pages[this.pageOfPfn[pfn]! - 1]!;
  }

  /** Takes a frame full of non-present entries and the object that describes it. HOT */
  takePage(pfn: number): ShadowPage {
    const index = this.freePages.length > 0 ? this.freePages.pop()! : this.pages.push(new ShadowPage()) - 1;
    const sp = this.pages[index]!;
    sp.pfn = pfn;
    this.pageOfPfn[pfn] = index + 1;
    return sp;
  }

  /** Gives the object back; the caller frees the frame. */
  dropPage(sp: ShadowPage): void {
    this.freePages.push(this.pageOfPfn[sp.pfn]! - 1);
    this.pageOfPfn[sp.pfn] = 0;
    sp.pfn = -1;
  }
}
