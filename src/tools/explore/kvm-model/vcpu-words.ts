/** A vCPU of a scene as words, and back. */
import { PFERR_PRIVATE_ACCESS_HI } from '../../../arch/error-code.ts';
import { hiOf, loOf } from '../../../arch/halves.ts';
import { LOCK_MMU_READ } from '../../../kvm/locks.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { isFrozenSpte, isLargePte, isShadowPresent, SPTE_MMU_PRESENT_MASK } from '../../../kvm/mmu/spte.ts';
import type { SceneVcpu } from './vcpu.ts';
import { asyncWord, loadAsync } from './vcpu-async.ts';
import { hasEntry, isFaulting, PHASE_BEGIN, PHASE_CODE, PHASE_DONE, PHASE_IDLE, PHASE_WALK } from './vcpu-phase.ts';

export function saveVcpu(v: SceneVcpu, into: Int32Array, at: number): void {
  const { vcpu, phase, state, gfns } = v;
  const { fault } = vcpu.mmu;
  const { tables } = state;
  const inFault = isFaulting(phase);
  const hasCode = inFault || phase === PHASE_CODE || phase === PHASE_BEGIN;
  const root = vcpu.mmu.mmu.root.pfn;
  let a =
    phase |
    (v.op << 6) |
    ((vcpu.inGuest ? 1 : 0) << 10) |
    ((v.held !== 0 ? 1 : 0) << 11) |
    (v.srcu << 12) |
    ((root === INVALID_ROOT ? 0 : tables.rootIndex(root) + 1) << 13);
  into[at + 1] = vcpu.requests;
  into[at + 2] = 0;
  into[at + 3] = 0;
  into[at + 4] = 0;
  into[at + 5] = 0;
  into[at + 6] = 0;
  if (hasCode) into[at + 2] = v.errorLo | ((v.errorHi & PFERR_PRIVATE_ACCESS_HI) !== 0 ? 0x100 : 0);
  if (inFault) {
    into[at + 3] =
      state.slots.number(fault.slot) |
      ((fault.isPrivate ? 1 : 0) << 6) |
      ((fault.mapWritable ? 1 : 0) << 7) |
      (fault.maxLevel << 8) |
      (fault.reqLevel << 10) |
      (fault.goalLevel << 12) |
      ((fault.mmuSeq === v.vm.mmuInvalidateSeq ? 1 : 0) << 14) |
      ((fault.hugePageDisallowed ? 1 : 0) << 15);
    into[at + 4] = fault.pfn;
  }
  if (hasEntry(phase) || phase === PHASE_WALK) {
    const { iter } = v;
    const linked = tables.isLinked(iter.sptep >>> 10);
    const loose = !linked && !isFrozenSpte(v.vm.memory.i32[iter.sptep]!, v.vm.memory.i32[iter.sptep + 1]!);
    a |= (iter.level << 16) | ((linked ? 0 : 1) << 19) | ((loose ? 1 : 0) << 20);
    if (hasEntry(phase)) {
      const isTable = iter.level > 1 && isShadowPresent(iter.oldLo) && !isLargePte(iter.oldLo);
      const place = isTable ? tables.placeOfTable(iter.oldLo, iter.oldHi) : -1;
      into[at + 5] = isTable ? (iter.oldLo & 0xfff) | ((place + 1) << 12) : iter.oldLo;
      into[at + 6] = isTable ? iter.oldHi & ~0xfffff : iter.oldHi;
    }
  }
  into[at] = a;
  const { mmioGfn, mmioGen, mmioAccess } = vcpu.mmu;
  into[at + 7] = mmioGfn === 0 ? 0 : (gfns.indexOf(mmioGfn) + 1) | (mmioAccess << 4) | ((mmioGen + 1) << 8);
  for (let g = 0; g < gfns.length; g++) into[at + 8 + g] = v.tlb[g]!;
  if (v.sleeps) into[at + 8 + gfns.length] = asyncWord(v);
}

export function loadVcpu(v: SceneVcpu, from: Int32Array, at: number): void {
  const { vcpu, state, gfns, vm } = v;
  const a = from[at]!;
  const phase = a & 63;
  if (v.sleeps) loadAsync(v, from[at + 8 + gfns.length]!);
  v.phase = phase;
  v.op = (a >>> 6) & 15;
  vcpu.inGuest = (a & (1 << 10)) !== 0;
  v.held = (a & (1 << 11)) !== 0 ? LOCK_MMU_READ : 0;
  v.srcu = (a >>> 12) & 1;
  const root = (a >>> 13) & 7;
  vcpu.mmu.mmu.root.pfn = root === 0 ? INVALID_ROOT : vm.mmu.tdpMmuRoots[root - 1]!.pfn;
  vcpu.requests = from[at + 1]!;
  const code = from[at + 2]!;
  v.errorLo = code & 0xff;
  v.errorHi =
    (phase === PHASE_DONE || phase === PHASE_IDLE ? 0 : v.walkErrorHi) |
    ((code & 0x100) !== 0 ? PFERR_PRIVATE_ACCESS_HI : 0);
  const inFault = isFaulting(phase);
  if (inFault) {
    const { fault } = vcpu.mmu;
    const { kind, gfn } = v.current;
    const f = from[at + 3]!;
    const gpa = gfn * 4096;
    const rules = vm.revision.rules;
    const prefetch = kind === 'pre-fault' || kind === 'page-ready';
    const hi = rules.fullErrorCode ? v.errorHi : 0;
    fault.reset(loOf(gpa), hiOf(gpa), v.errorLo, hi, prefetch, rules.faultStartsWithErrors);
    fault.isTdp = true;
    fault.inTdpMmu = true;
    fault.nxHugePageWorkaroundEnabled = vm.mmu.nxHugePages;
    fault.slot = state.slots.slot(f & 63);
    fault.isPrivate = (f & 64) !== 0;
    fault.mapWritable = (f & 128) !== 0;
    fault.maxLevel = (f >>> 8) & 3;
    fault.reqLevel = (f >>> 10) & 3;
    fault.goalLevel = (f >>> 12) & 3;
    fault.mmuSeq = (f & (1 << 14)) !== 0 ? vm.mmuInvalidateSeq : -1;
    fault.hugePageDisallowed = (f & (1 << 15)) !== 0;
    fault.pfn = from[at + 4]!;
  }
  if (hasEntry(phase) || phase === PHASE_WALK) loadIter(v, from, at, a);
  const mmio = from[at + 7]!;
  vcpu.mmu.mmioGfn = mmio === 0 ? 0 : gfns[(mmio & 15) - 1]!;
  vcpu.mmu.mmioAccess = (mmio >>> 4) & 15;
  vcpu.mmu.mmioGen = mmio === 0 ? -1 : (mmio >>> 8) - 1;
  for (let g = 0; g < gfns.length; g++) v.tlb[g] = from[at + 8 + g]!;
}

function loadIter(v: SceneVcpu, from: Int32Array, at: number, a: number): void {
  const { iter, vm, state } = v;
  const { tables } = state;
  const { gfn } = v.current;
  const level = (a >>> 16) & 7;
  const cutOff = (a & (1 << 19)) !== 0;
  if (cutOff) {
    const loose = (a & (1 << 20)) !== 0;
    iter.start(vm.mmu.shadowPage(loose ? tables.looseFrame(level) : tables.cutOffFrame(level)), 1, gfn);
  } else {
    iter.start(vm.mmu.shadowPage(v.vcpu.mmu.mmu.root.pfn), 1, gfn);
    while (iter.level > level) if (!iter.stepDown()) throw new Error('a walk does not find its place again');
  }
  let lo = from[at + 5]!;
  let hi = from[at + 6]!;
  if ((a & 63) === PHASE_WALK) {
    // A table was just hung here.
    lo = SPTE_MMU_PRESENT_MASK;
    hi = 0;
  } else if (level > 1 && isShadowPresent(lo) && !isLargePte(lo)) {
    const place = (lo >>> 12) - 1;
    const pfn = place < 0 ? 0 : tables.frameOf(place);
    lo = (lo & 0xfff) | (pfn << 12);
    hi |= Math.floor(pfn / 0x100000);
  }
  iter.oldLo = lo;
  iter.oldHi = hi;
}
