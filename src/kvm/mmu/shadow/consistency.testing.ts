/** What must hold of the shadow MMU's books between any two operations. For tests. */
import { KVM_MAX_HUGEPAGE_LEVEL } from '../lpage-info.ts';
import { ROLE_INVALID, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLastSpte, isMmioSpte, isShadowPresent, isWritable, sptePfn } from '../spte.ts';
import { rmapEntries } from './rmap.ts';
import type { TestShadow } from './shadow.testing.ts';
import { pageGetAccess, pageGetGfn, spHasGptes, sptepOf } from './translation.ts';

/** The pages in use. */
function activePages(s: TestShadow): ShadowPage[] {
  const pages: ShadowPage[] = [];
  for (let sp = s.vm.mmu.activePages.newest; sp !== null; sp = sp.older) pages.push(sp);
  return pages;
}

/** What is wrong, in words; empty when nothing is. */
export function shadowInconsistencies(s: TestShadow): string[] {
  const { vm } = s;
  const { mmu } = vm;
  const { i32 } = vm.memory;
  const slot = vm.slots.all(0)[0]!;
  const wrong: string[] = [];
  const pages = activePages(s);
  const parents = new Map<ShadowPage, number[]>();
  const leaves = new Map<string, number[]>();
  const writable = new Set<number>();
  const counts = [0, 0, 0, 0];
  for (const sp of pages) {
    const level = roleLevel(sp.role);
    if ((sp.role & ROLE_INVALID) !== 0) wrong.push(`gfn ${sp.gfn}: an invalid page is active`);
    let unsyncChildren = 0;
    for (let i = 0; i < 512; i++) {
      const sptep = sptepOf(sp, i);
      const lo = i32[sptep]!;
      const hi = i32[sptep + 1]!;
      const bit = sp.unsyncChildBitmap === null ? 0 : (sp.unsyncChildBitmap[i >> 5]! >>> (i & 31)) & 1;
      unsyncChildren += bit;
      if (!isShadowPresent(lo)) {
        if (lo !== 0 && !isMmioSpte(mmu.masks, lo, hi)) wrong.push(`gfn ${sp.gfn} entry ${i}: neither empty nor MMIO`);
        continue;
      }
      if (isLastSpte(lo, level)) {
        const gfn = pageGetGfn(sp, i);
        const key = `${level} ${gfn - (gfn % 512 ** (level - 1))}`;
        leaves.set(key, [...(leaves.get(key) ?? []), sptep]);
        counts[level]!++;
        if (isWritable(lo)) {
          for (let k = 0; k < 512 ** (level - 1); k++) writable.add(gfn + k);
          if ((pageGetAccess(sp, i) & 2) === 0) wrong.push(`gfn ${gfn}: writable without the right`);
        }
        continue;
      }
      const child = mmu.shadowPage(sptePfn(lo, hi));
      parents.set(child, [...(parents.get(child) ?? []), sptep]);
      if ((child.unsync || child.unsyncChildren !== 0) && bit === 0) {
        wrong.push(`gfn ${sp.gfn} entry ${i}: what is unsync below is not marked`);
      }
    }
    if (unsyncChildren !== sp.unsyncChildren) wrong.push(`gfn ${sp.gfn}: ${sp.unsyncChildren} unsync children counted`);
  }
  for (const sp of pages) {
    const found = (parents.get(sp) ?? []).sort().join();
    const known = [...mmu.pteLists.entries(sp.parentPtes)].sort().join();
    if (found !== known) wrong.push(`gfn ${sp.gfn}: parents ${known}, found ${found}`);
    if (spHasGptes(sp) && !sp.unsync && writable.has(sp.gfn))
      wrong.push(`gfn ${sp.gfn}: shadowed, in sync and writable`);
  }
  for (let level = 1; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    const n = 512 ** (level - 1);
    for (let gfn = slot.baseGfn; gfn < slot.baseGfn + slot.npages; gfn += n) {
      const known = [...rmapEntries(vm, slot, gfn, level)].sort().join();
      const found = (leaves.get(`${level} ${gfn}`) ?? []).sort().join();
      if (known !== found) wrong.push(`gfn ${gfn} level ${level}: rmap ${known}, found ${found}`);
    }
  }
  const indirect = pages.filter(spHasGptes);
  if (mmu.indirectShadowPages !== indirect.length) wrong.push(`${mmu.indirectShadowPages} indirect pages counted`);
  const unsync = pages.filter((sp) => sp.unsync).length;
  if (vm.stats.mmu_unsync !== unsync) wrong.push(`${vm.stats.mmu_unsync} unsync pages counted, found ${unsync}`);
  if (vm.stats.pages_4k !== counts[1] || vm.stats.pages_2m !== counts[2]) wrong.push('pages counted otherwise');
  const tracked = new Set(indirect.filter((sp) => roleLevel(sp.role) > 1).map((sp) => sp.gfn));
  if (slot.arch!.gfnWriteTrack.size !== tracked.size) wrong.push('tracked pages are not the upper tables');
  if (vm.log.entries.length !== 0) wrong.push(`kernel log: ${JSON.stringify(vm.log.entries[0])}`);
  return wrong;
}
