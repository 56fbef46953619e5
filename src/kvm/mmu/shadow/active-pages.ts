/** The shadow pages in use, from the newest to the oldest (@kvm kvm_host.h active_mmu_pages). */
import type { ShadowPage } from '../shadow-page.ts';

/** A list through the pages' own `newer` and `older`. */
export class ActivePages {
  newest: ShadowPage | null = null;
  oldest: ShadowPage | null = null;

  add(sp: ShadowPage): void {
    sp.newer = null;
    sp.older = this.newest;
    if (this.newest === null) this.oldest = sp;
    else this.newest.newer = sp;
    this.newest = sp;
  }

  remove(sp: ShadowPage): void {
    if (sp.newer === null) this.newest = sp.older;
    else sp.newer.older = sp.older;
    if (sp.older === null) this.oldest = sp.newer;
    else sp.older.newer = sp.newer;
    sp.newer = null;
    sp.older = null;
  }
}
