/** Giving up roots, the current and the previous ones (@kvm mmu.c kvm_mmu_free_roots). */
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../locks.ts';
import type { VmState } from '../vm-state.ts';
import { INVALID_ROOT, type Mmu, NUM_PREV_ROOTS } from './mmu-context.ts';
import { isDummyRoot, rootToSp } from './obsolete.ts';
import { ROLE_DIRECT, ROLE_INVALID } from './role.ts';
import { commitZapPage, prepareZapPage } from './shadow/zap-page.ts';
import type { ShadowPage } from './shadow-page.ts';
import { sptePfn } from './spte.ts';
import { putRoot } from './tdp-mmu/roots.ts';

/** Which roots of an MMU, as bits: the current one. */
export const MMU_ROOT_CURRENT = 1 << 0;
/** The bit of the previous root `index`. */
export function mmuRootPrevious(index: number): number {
  return 2 << index;
}
/** The current root and all previous ones. */
export const MMU_ROOTS_ALL = (2 << NUM_PREV_ROOTS) - 1;

/** @kvm mmu.c mmu_free_root_page */
function freeRootPage(vm: VmState, pfn: number, invalid: ShadowPage[]): void {
  if (pfn < 0) return;
  const sp = rootToSp(vm, pfn);
  if (sp === null) return;
  if (sp.tdpMmuPage) {
    putRoot(vm, sp);
    return;
  }
  sp.rootCount--;
  if (sp.rootCount === 0 && (sp.role & ROLE_INVALID) !== 0) prepareZapPage(vm, sp, invalid);
}

/** The current root of a PAE guest is the four page directories. */
function freePaeRoots(vm: VmState, mmu: Mmu, invalid: ShadowPage[]): void {
  const i32 = vm.memory.i32;
  for (let i = 0; i < 4; i++) {
    const at = (mmu.paeRoot << 10) | (i << 1);
    if ((i32[at]! | i32[at + 1]!) === 0) continue;
    freeRootPage(vm, sptePfn(i32[at]!, i32[at + 1]!), invalid);
    i32[at] = 0;
    i32[at + 1] = 0;
  }
}

/** Puts the roots that `which` names. @kvm mmu.c kvm_mmu_free_roots */
export function mmuFreeRoots(vm: VmState, mmu: Mmu, which: number): void {
  const { root, prevRoots } = mmu;
  const freeCurrent = (which & MMU_ROOT_CURRENT) !== 0 && root.pfn !== INVALID_ROOT;
  const freePrevious = prevRoots.some((prev, i) => (which & mmuRootPrevious(i)) !== 0 && prev.pfn !== INVALID_ROOT);
  if (!freeCurrent && !freePrevious) return;
  const lock = vm.mmu.tdpMmuEnabled && (mmu.rootRole & ROLE_DIRECT) !== 0 ? LOCK_MMU_READ : LOCK_MMU_WRITE;
  const invalid: ShadowPage[] = [];
  vm.locks.acquire(lock);
  prevRoots.forEach((prev, i) => {
    if ((which & mmuRootPrevious(i)) === 0) return;
    freeRootPage(vm, prev.pfn, invalid);
    prev.pfn = INVALID_ROOT;
  });
  if (freeCurrent) {
    if (rootToSp(vm, root.pfn) !== null) freeRootPage(vm, root.pfn, invalid);
    else if (!isDummyRoot(vm, root.pfn) && mmu.paeRoot >= 0) freePaeRoots(vm, mmu, invalid);
    root.pfn = INVALID_ROOT;
    root.pgd = 0;
  }
  commitZapPage(vm, invalid);
  vm.locks.release(lock);
}

/** The vCPU's reference to the mirror root, which it keeps until it goes. @kvm mmu.c kvm_mmu_destroy */
export function freeMirrorRoot(vm: VmState, mmu: Mmu): void {
  if (mmu.mirrorRoot === INVALID_ROOT) return;
  vm.locks.acquire(LOCK_MMU_READ);
  putRoot(vm, vm.mmu.shadowPage(mmu.mirrorRoot));
  vm.locks.release(LOCK_MMU_READ);
  mmu.mirrorRoot = INVALID_ROOT;
}
