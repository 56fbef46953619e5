/**
 * Asynchronous page faults of a scene's vCPU: one at a time, the vCPU sleeps until the page is there, and then its fault is done again ahead of
 * it, stage by stage (@kvm async_pf.c kvm_check_async_pf_completion).
 */
import { EAGAIN } from '../../../host/errno.ts';
import type { GupResult } from '../../../host/gup.ts';
import { REQ_APF_READY, type VcpuState } from '../../../kvm/vcpu-state.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { retryWaiting } from '../../../kvm/x86/async-pf.ts';
import type { AsyncPfWork } from '../../../kvm/x86/async-pf-state.ts';
import type { SceneVcpu } from './vcpu.ts';

const found: GupResult = { pfn: -1, writable: false };
const WAITING = 1;
const READY = 2;
const REDONE = 4;
const HALTED = 8;
const GFN_SHIFT = 4;
const ERROR_SHIFT = 8;

/** Lets the vCPU do what it can while the host reads a page: nothing. */
export function enableAsync(vcpu: VcpuState): void {
  vcpu.x86.lapic = {} as typeof vcpu.x86.lapic;
}

/** Workers do not get a page by themselves: an actor of the scene gets it for them. */
export function holdWorkers(vm: VmState): void {
  vm.mm.getUserPagesAside = () => -EAGAIN;
  vm.mm.userfaults.onWake = () => () => {};
}

/** The host has read the page that the vCPU waits for: it is there now, and the vCPU is told. False: it waits for none. */
export function finishIo(vcpu: VcpuState): boolean {
  if (vcpu.x86.asyncPf.waiting.length === 0) return false;
  const { mm } = vcpu.vm;
  const held = mm.getUserPagesAside;
  mm.getUserPagesAside = (hva, flags) => mm.getUserPages(hva, flags, found);
  retryWaiting(vcpu);
  mm.getUserPagesAside = held;
  return true;
}

/** The page that came for the vCPU, null for none. */
export function readyWork(vcpu: VcpuState): AsyncPfWork | null {
  return vcpu.x86.asyncPf.done[0] ?? null;
}

/** The fault was done again: the vCPU wakes up. */
export function endReady(vcpu: VcpuState): void {
  const { asyncPf } = vcpu.x86;
  const work = asyncPf.done.shift()!;
  asyncPf.gfns.delete(work.gfn);
  asyncPf.queued--;
  vcpu.x86.apfHalted = false;
  vcpu.requests &= ~REQ_APF_READY;
}

export function asyncWord(v: SceneVcpu): number {
  const { asyncPf, apfHalted } = v.vcpu.x86;
  const work = asyncPf.waiting[0] ?? asyncPf.done[0];
  const halted = apfHalted ? HALTED : 0;
  if (work === undefined) return halted;
  const where = asyncPf.waiting.length > 0 ? WAITING : READY;
  const g = v.gfns.indexOf(work.gfn);
  return where | (v.redoing ? REDONE : 0) | halted | (g << GFN_SHIFT) | ((work.errorLo & 0xff) << ERROR_SHIFT);
}

export function loadAsync(v: SceneVcpu, word: number): void {
  const { x86 } = v.vcpu;
  const { asyncPf } = x86;
  asyncPf.waiting.length = 0;
  asyncPf.done.length = 0;
  asyncPf.gfns.clear();
  asyncPf.queued = 0;
  asyncPf.nextId = 0;
  x86.apfHalted = (word & HALTED) !== 0;
  v.redoing = (word & REDONE) !== 0;
  if ((word & (WAITING | READY)) === 0) return;
  const gfn = v.gfns[(word >>> GFN_SHIFT) & 7]!;
  const work: AsyncPfWork = {
    wakeupAll: false,
    hva: v.hvaOf(gfn),
    gfn,
    addrLo: gfn * 4096,
    addrHi: 0,
    errorLo: word >>> ERROR_SHIFT,
    errorHi: 0,
    directMap: true,
    token: 0,
    notPresentInjected: false,
  };
  ((word & WAITING) !== 0 ? asyncPf.waiting : asyncPf.done).push(work);
  asyncPf.gfns.add(gfn);
  asyncPf.queued = 1;
}
