/** A vCPU under shadow paging as words: where it is, what it has in hand of a fault, its roots, its TLB. */
import { RES_REQUESTS, RES_SRCU } from '../../../kvm/actors/actor.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { entryOfPage } from './guest-tables.ts';
import type { ShadowVcpu } from './vcpu.ts';
import { PHASE_BEGIN, PHASE_CODE, PHASE_STAGE } from './vcpu-phase.ts';

const LEVELS = 4;
const W_PLACE = 0;
const W_REQUESTS = 1;
const W_ERROR = 2;
const W_FAULT = 3;
const W_PFN = 4;
const W_ROOTS = 5;
const W_CR3 = 6;
const W_MMIO = 7;
const W_MMIO_GFN = 8;
const W_EMULATED = 9;
const W_WALK = 10;
const W_TABLES = 11;
const W_PTES = 12;
/** Words besides the TLB's and what is allowed in it. */
export const SHADOW_VCPU_WORDS = W_PTES + 2 * LEVELS;
/** In W_PLACE. */
const IN_GUEST = 1 << 12;
const SWITCHED = 1 << 13;
const SRCU_SHIFT = 14;
const RETRIED = 1 << 16;
/** In W_FAULT. */
const MAP_WRITABLE = 1 << 6;
const SEQUENCE_FRESH = 1 << 7;
const WALKED = 1 << 8;

export function saveShadowVcpu(v: ShadowVcpu, into: Int32Array, at: number): void {
  const { vcpu, state, phase } = v;
  const { mmu } = vcpu.mmu;
  into.fill(0, at, at + SHADOW_VCPU_WORDS);
  into[at + W_PLACE] =
    phase |
    (v.op << 6) |
    (vcpu.inGuest ? IN_GUEST : 0) |
    (v.switched ? SWITCHED : 0) |
    (v.retried ? RETRIED : 0) |
    (v.srcu << SRCU_SHIFT);
  into[at + W_REQUESTS] = vcpu.requests;
  if (phase >= PHASE_STAGE || phase === PHASE_CODE || phase === PHASE_BEGIN) into[at + W_ERROR] = v.errorLo;
  let roots = state.shadow.rootNumber(mmu.root.pfn);
  mmu.prevRoots.forEach((prev, i) => {
    roots |= state.shadow.rootNumber(prev.pfn) << (4 * (i + 1));
  });
  into[at + W_ROOTS] = roots;
  into[at + W_CR3] = v.cr3;
  saveMmio(v, into, at);
  into[at + W_EMULATED] = v.emulatedGpa;
  if (phase >= PHASE_STAGE) saveFault(v, into, at);
  const n = v.tlb.length;
  for (let p = 0; p < n; p++) {
    into[at + SHADOW_VCPU_WORDS + p] = v.tlb[p]!;
    into[at + SHADOW_VCPU_WORDS + n + p] = v.allowed[p]!;
  }
}

function saveMmio(v: ShadowVcpu, into: Int32Array, at: number): void {
  const { mmioGvaLo, mmioGvaHi, mmioGfn, mmioAccess, mmioGen } = v.vcpu.mmu;
  if ((mmioGvaLo | mmioGvaHi) === 0) return;
  const page = mmioGvaHi * 0x100000 + (mmioGvaLo >>> 12);
  into[at + W_MMIO] = (v.state.linearPages.indexOf(page) + 1) | (mmioAccess << 4) | ((mmioGen + 1) << 8);
  into[at + W_MMIO_GFN] = mmioGfn;
}

/** The walk of the guest's tables is kept from its stage on. */
function saveFault(v: ShadowVcpu, into: Int32Array, at: number): void {
  const { vcpu, state, vm } = v;
  const { fault, faultWalker } = vcpu.mmu;
  const walked = v.phase > PHASE_STAGE;
  into[at + W_FAULT] =
    state.slots.number(fault.slot) |
    (fault.mapWritable ? MAP_WRITABLE : 0) |
    (fault.mmuSeq === vm.mmuInvalidateSeq ? SEQUENCE_FRESH : 0) |
    (walked ? WALKED : 0) |
    (fault.maxLevel << 9) |
    (fault.ptAccess << 12);
  into[at + W_PFN] = fault.pfn;
  if (!walked) return;
  let rights = faultWalker.level | (faultWalker.pteAccess << 3);
  let tables = 0;
  for (let i = faultWalker.level - 1; i < LEVELS; i++) {
    rights |= faultWalker.ptAccess[i]! << (6 + 3 * i);
    tables |= (state.guest.tableOf(faultWalker.tableGfn[i]!) + 1) << (4 * i);
    into[at + W_PTES + 2 * i] = faultWalker.ptes[2 * i]!;
    into[at + W_PTES + 2 * i + 1] = faultWalker.ptes[2 * i + 1]!;
  }
  into[at + W_WALK] = rights;
  into[at + W_TABLES] = tables;
}

export function loadShadowVcpu(v: ShadowVcpu, from: Int32Array, at: number): void {
  const { vcpu, state, vm } = v;
  const { mmu } = vcpu.mmu;
  const place = from[at + W_PLACE]!;
  v.phase = place & 63;
  v.op = (place >>> 6) & 63;
  vcpu.inGuest = (place & IN_GUEST) !== 0;
  v.switched = (place & SWITCHED) !== 0;
  v.srcu = (place >>> SRCU_SHIFT) & 1;
  v.retried = (place & RETRIED) !== 0;
  vcpu.requests = from[at + W_REQUESTS]!;
  v.errorLo = from[at + W_ERROR]!;
  const roots = from[at + W_ROOTS]!;
  [mmu.root, ...mmu.prevRoots].forEach((root, i) => {
    root.pfn = state.shadow.rootFrame((roots >>> (4 * i)) & 15);
    const isPage = root.pfn !== INVALID_ROOT && root.pfn !== vm.host.zero.small;
    root.pgd = isPage ? vm.mmu.shadowPage(root.pfn).gfn * 4096 : 0;
  });
  vcpu.cr3Lo = from[at + W_CR3]! * 4096;
  loadMmio(v, from, at);
  v.emulatedGpa = from[at + W_EMULATED]!;
  if (v.phase >= PHASE_STAGE) loadFault(v, from, at);
  const n = v.tlb.length;
  for (let p = 0; p < n; p++) {
    v.tlb[p] = from[at + SHADOW_VCPU_WORDS + p]!;
    v.allowed[p] = from[at + SHADOW_VCPU_WORDS + n + p]!;
  }
}

function loadMmio(v: ShadowVcpu, from: Int32Array, at: number): void {
  const { mmu } = v.vcpu;
  const word = from[at + W_MMIO]!;
  const page = word === 0 ? 0 : v.state.linearPages[(word & 15) - 1]!;
  mmu.mmioGvaLo = (page * 4096) | 0;
  mmu.mmioGvaHi = Math.floor(page / 0x100000);
  mmu.mmioAccess = (word >>> 4) & 15;
  mmu.mmioGen = word === 0 ? -1 : (word >>> 8) - 1;
  mmu.mmioGfn = from[at + W_MMIO_GFN]!;
}

function loadFault(v: ShadowVcpu, from: Int32Array, at: number): void {
  const { vcpu, state, vm } = v;
  const { fault, faultWalker } = vcpu.mmu;
  const word = from[at + W_FAULT]!;
  fault.reset(v.addrLo, v.addrHi, v.errorLo, 0, false, vm.revision.rules.faultStartsWithErrors);
  fault.nxHugePageWorkaroundEnabled = vm.mmu.nxHugePages;
  fault.slot = state.slots.slot(word & 63);
  fault.mapWritable = (word & MAP_WRITABLE) !== 0;
  fault.mmuSeq = (word & SEQUENCE_FRESH) !== 0 ? vm.mmuInvalidateSeq : -1;
  fault.maxLevel = (word >>> 9) & 7;
  fault.ptAccess = (word >>> 12) & 7;
  fault.pfn = from[at + W_PFN]!;
  if ((word & WALKED) === 0) return;
  const rights = from[at + W_WALK]!;
  const tables = from[at + W_TABLES]!;
  faultWalker.level = rights & 7;
  faultWalker.maxLevel = LEVELS;
  faultWalker.pteAccess = (rights >>> 3) & 7;
  for (let i = faultWalker.level - 1; i < LEVELS; i++) {
    faultWalker.ptAccess[i] = (rights >>> (6 + 3 * i)) & 7;
    faultWalker.tableGfn[i] = state.guest.tables[((tables >>> (4 * i)) & 15) - 1]!.gfn;
    faultWalker.offset[i] = entryOfPage(v.page, i + 1) * 8;
    faultWalker.ptes[2 * i] = from[at + W_PTES + 2 * i]!;
    faultWalker.ptes[2 * i + 1] = from[at + W_PTES + 2 * i + 1]!;
  }
  faultWalker.gfn = state.guest.leafGfn(faultWalker, v.page);
  fault.gfn = faultWalker.gfn;
}

/** Resources in which two states of the vCPU differ; `own`: it took the step itself. */
export function changedShadowVcpu(v: ShadowVcpu, a: Int32Array, b: Int32Array, at: number, own: boolean): number {
  const differ = (w: number, bits = -1): boolean => ((a[at + w]! ^ b[at + w]!) & bits) !== 0;
  let mask = 0;
  if (differ(W_REQUESTS)) mask |= RES_REQUESTS;
  let guest = differ(W_PLACE, IN_GUEST);
  for (let w = SHADOW_VCPU_WORDS; w < v.words; w++) if (differ(w)) guest = true;
  if (guest) mask |= v.state.guestBits;
  if (differ(W_PLACE, 3 << SRCU_SHIFT)) mask |= RES_SRCU;
  if (own) return mask;
  const others = differ(W_PLACE, 0xfff) || differ(W_ERROR) || differ(W_FAULT, ~SEQUENCE_FRESH) || differ(W_EMULATED);
  return others && !guest ? -1 : mask;
}
