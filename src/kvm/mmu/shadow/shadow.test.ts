import { beforeEach, describe, expect, it } from 'vitest';
import { CR0_PE, CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PCIDE, CR4_PSE, CR4_SMEP } from '../../../arch/registers.ts';
import { ENOMEM } from '../../../host/errno.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import { checkRequest, REQ_MMU_SYNC } from '../../vcpu-state.ts';
import { mmuInvlpg } from '../invlpg.ts';
import { unmapGfnRange } from '../notifier-handlers.ts';
import { loadPdptrs } from '../pdptrs.ts';
import { RET_PF_EMULATE, RET_PF_FIXED, RET_PF_RETRY, RET_PF_WRITE_PROTECTED } from '../ret-pf.ts';
import { ACC_ALL, roleAccess, roleLevel } from '../role.ts';
import { mmuInvalidatePcid, mmuNewPgd } from '../roots.ts';
import { sptePfn } from '../spte.ts';
import { changeMmuPages } from './recycle.ts';
import { mmuSyncRoots } from './roots.ts';
import { LONG_MODE, RWU, TestShadow } from './shadow.testing.ts';
import { mmuTrackWrite } from './track-write.ts';
import { mmuUnprotectGfnAndRetry } from './unprotect.ts';

const READ = 4;
const WRITE = 6;
const P = 1;
const W = 2;
const U = 4;

let s: TestShadow;

/** The guest's processor changes its entry and KVM's emulator is the one that writes it. */
function emulatedWrite(gpa: number, value: number): void {
  s.write(gpa, value);
  mmuTrackWrite(s.vcpu, gpa, 8);
}

const isWritable = (address: number): boolean => (s.spte(address).oldLo & W) !== 0;

beforeEach(() => {
  s = new TestShadow();
  s.identity();
});

describe('a fault of a guest whose tables are shadowed', () => {
  it('shadows each table on the way, with the role of its level', () => {
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
    for (const [gfn, level] of [
      [0x10, 4],
      [0x11, 3],
      [0x12, 2],
      [0x13, 1],
    ] as const) {
      expect(s.pagesOf(gfn).map((sp) => [roleLevel(sp.role), roleAccess(sp.role)])).toEqual([[level, ACC_ALL]]);
    }
    expect(s.spte(0x5000)).toMatchObject({ level: 1 });
    expect(s.vm.mmu.indirectShadowPages).toBe(4);
  });

  it('gives the guest the fault that its own tables give', () => {
    s.write(0x13000 + 8 * 5, 0);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_RETRY);
    expect(s.vcpu.x86.exception).toMatchObject({ pending: true, vector: 14, errorCode: WRITE });
    expect(s.vcpu.x86.exception.payloadLo).toBe(0x5000);
  });

  it('sets A and D in the guest, and maps a clean page read-only until it is written', () => {
    s.identity(P | W | U);
    s.write(0x5000, 1);
    s.fault(0x5000, READ);
    expect(s.read(0x13000 + 8 * 5) & 0x60).toBe(0x20);
    expect(isWritable(0x5000)).toBe(false);
    s.fault(0x5000, WRITE | P);
    expect(s.read(0x13000 + 8 * 5) & 0x60).toBe(0x60);
    expect(isWritable(0x5000)).toBe(true);
  });

  it('fills the entries around it that the guest has used, and none that it has not', () => {
    s.write(0x13000 + 8 * 6, 0x6000 | (RWU & ~0x20));
    // The host must have a page to give it.
    for (const page of [0, 1, 3, 4, 5, 7]) s.write(page * 0x1000, 1);
    s.fault(0x2000, WRITE);
    expect(s.spte(0x3000).oldLo & (P | 0x20)).toBe(P);
    expect(s.spte(0x6000).oldLo & P).toBe(0);
    // The loop ends at the first that cannot be.
    expect(s.spte(0x7000).oldLo & P).toBe(0);
  });

  it('splits a huge page of the guest into direct pages where the host has small ones', () => {
    expect(s.fault(0x234000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.pagesOf(0x200).map((sp) => [roleLevel(sp.role), (sp.role & 0x80) !== 0])).toEqual([[1, true]]);
    expect(s.spte(0x234000).level).toBe(1);
  });

  it('makes an MMIO entry with the rights of the guest’s tables where there is no slot', () => {
    s.write(0x13000 + 8 * 5, 0x4000_0000 | P | U | 0x20);
    expect(s.fault(0x5000, READ)).toBe(RET_PF_EMULATE);
    expect(s.spte(0x5000).oldLo & (W | U)).toBe(U);
    expect(s.vcpu.mmu).toMatchObject({ mmioGvaLo: 0x5000, mmioGfn: 0x40000 });
  });

  it('lets the guest’s kernel write a read-only page of its users while CR0.WP is clear, and no user read it then', () => {
    s.mode({ ...LONG_MODE, cr0: LONG_MODE.cr0 & ~CR0_WP, cr4: CR4_PAE | CR4_SMEP });
    s.write(0x13000 + 8 * 5, 0x5000 | P | U | 0x60);
    expect(s.fault(0x5000, W | P)).toBe(RET_PF_FIXED);
    const { oldLo, oldHi } = s.spte(0x5000);
    expect(oldLo & (W | U)).toBe(W);
    expect(oldHi >>> 31).toBe(1);
  });
});

describe('a table that is shadowed', () => {
  beforeEach(() => s.fault(0x5000, WRITE));

  it('cannot be mapped writable above the lowest level', () => {
    for (const table of [0x10000, 0x11000, 0x12000]) {
      s.fault(table, READ);
      expect(isWritable(table)).toBe(false);
      expect(s.fault(table, WRITE | P)).toBe(RET_PF_WRITE_PROTECTED);
    }
  });

  it('becomes unsync at the lowest, and its entries hold until the guest flushes', () => {
    expect(s.fault(0x13000, WRITE)).toBe(RET_PF_FIXED);
    const [leaf] = s.pagesOf(0x13);
    expect(leaf!.unsync).toBe(true);
    expect(s.vm.stats.mmu_unsync).toBe(1);
    expect(s.pagesOf(0x10)[0]!.unsyncChildren).toBe(1);
    // The guest moves its page; nothing tells KVM.
    s.write(0x13000 + 8 * 5, 0x6000 | RWU);
    const before = s.spte(0x5000);
    expect(before.oldLo & P).toBe(P);
    mmuSyncRoots(s.vcpu);
    expect(leaf!.unsync).toBe(false);
    expect(s.spte(0x5000).oldLo & P).toBe(0);
    expect(isWritable(0x13000)).toBe(false);
    expect(s.vm.stats.mmu_unsync).toBe(0);
  });

  it('stays unsync when it is hung from another entry, which then knows it', () => {
    s.write(0x12010, 0x13000 | RWU);
    s.fault(0x13000, WRITE);
    s.fault(0x405000, READ);
    expect(s.pagesOf(0x13)).toHaveLength(1);
    expect(s.pagesOf(0x13)[0]!.unsync).toBe(true);
    expect(s.pagesOf(0x12)[0]!.unsyncChildren).toBe(2);
    mmuSyncRoots(s.vcpu);
    s.fault(0x5000, WRITE | P);
    expect(s.pagesOf(0x13)[0]!.unsync).toBe(false);
  });

  it('is brought in line for one address by INVLPG', () => {
    s.fault(0x13000, WRITE);
    s.fault(0x15000, WRITE);
    s.write(0x13000 + 8 * 5, 0x6000 | RWU);
    s.write(0x13000 + 8 * 0x15, 0x6000 | RWU);
    mmuInvlpg(s.vcpu, 0x5000, 0);
    expect(s.spte(0x5000).oldLo & P).toBe(0);
    expect(s.spte(0x15000).oldLo & P).toBe(P);
  });

  it('loses rights, not the mapping, where only those changed', () => {
    s.fault(0x13000, WRITE);
    const before = s.spte(0x5000);
    s.write(0x13000 + 8 * 5, 0x5000 | (RWU & ~W));
    mmuSyncRoots(s.vcpu);
    const after = s.spte(0x5000);
    expect(sptePfn(after.oldLo, after.oldHi)).toBe(sptePfn(before.oldLo, before.oldHi));
    expect(after.oldLo & W).toBe(0);
  });

  it('loses the entry that the emulator writes', () => {
    const zapped = s.vm.stats.mmu_pde_zapped;
    emulatedWrite(0x12000, 0);
    expect(s.spte(0x5000)).toMatchObject({ level: 2, oldLo: 0 });
    emulatedWrite(0x12000, 0x14000 | RWU);
    expect(s.vm.stats.mmu_pde_zapped).toBe(zapped + 1);
  });

  it('is given up after three writes without a walk between, and not after a walk', () => {
    emulatedWrite(0x12008, 0);
    emulatedWrite(0x12010, 0);
    s.fault(0x13000, READ);
    emulatedWrite(0x12008, 0);
    emulatedWrite(0x12010, 0);
    expect(s.pagesOf(0x12)).toHaveLength(1);
    emulatedWrite(0x12018, 0);
    expect(s.pagesOf(0x12)).toHaveLength(0);
    expect(s.vm.stats.mmu_flooded).toBe(1);
    expect(s.spte(0x5000).level).toBe(3);
  });

  it('is given up at once after a write that is no entry’s', () => {
    s.write(0x12002, 0, 2);
    mmuTrackWrite(s.vcpu, 0x12002, 2);
    expect(s.pagesOf(0x12)).toHaveLength(0);
  });

  it('is given up where the guest had better write it itself, and that is remembered', () => {
    expect(mmuUnprotectGfnAndRetry(s.vcpu, 0x12000, 0)).toBe(true);
    expect(s.pagesOf(0x12)).toHaveLength(0);
    expect(s.vcpu.x86.lastRetryAddrLo).toBe(0x12000);
    expect(mmuUnprotectGfnAndRetry(s.vcpu, 0x12000, 0)).toBe(false);
  });

  it('keeps huge pages away from where it is', () => {
    const { disallow2m } = s.vm.slots.all(0)[0]!.arch!;
    expect(disallow2m[0]).toBe(4);
    emulatedWrite(0x12002, 0);
    expect(s.vm.mmu.indirectShadowPages).toBeLessThan(4);
    expect(disallow2m[0]).toBe(s.vm.mmu.indirectShadowPages);
  });
});

describe('pages that go', () => {
  it('were there while the host had memory for them', () => {
    s.t.enter();
    const { pages } = s.vm.host;
    const taken: number[] = [];
    while (pages.freeFrames > 4) taken.push(pages.allocPage());
    expect(s.fault(0x5000, WRITE)).toBe(-ENOMEM);
    for (const pfn of taken) pages.freePage(pfn);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
  });

  it('make room for others, the oldest first; roots in use stay', () => {
    s.fault(0x5000, WRITE);
    changeMmuPages(s.vm, 1);
    expect(s.vm.mmu.nUsedMmuPages).toBe(1);
    expect(s.pagesOf(0x10)).toHaveLength(1);
    changeMmuPages(s.vm, 64);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.vm.stats.mmu_recycled).toBe(3);
  });

  it('are as many as are left, when more had to go than the limit asked for', () => {
    s.fault(0x5000, WRITE);
    s.fault(0x13000, WRITE);
    changeMmuPages(s.vm, 3);
    expect(s.vm.mmu).toMatchObject({ nUsedMmuPages: 2, nMaxMmuPages: 2 });
  });

  it('take their entries out of the rmap: an invalidation finds what is mapped, and only that', () => {
    s.fault(0x5000, WRITE);
    const slot = s.vm.slots.all(0)[0]!;
    const range = { slot, start: 5, end: 6, attributes: 0, attrFilter: 0, mayBlock: true };
    s.vm.locks.acquire(LOCK_MMU_WRITE);
    expect(unmapGfnRange(s.vm, range)).toBe(true);
    expect(unmapGfnRange(s.vm, range)).toBe(false);
    s.vm.locks.release(LOCK_MMU_WRITE);
    expect(s.spte(0x5000).oldLo & P).toBe(0);
    expect(s.vm.stats.pages_4k).toBe(0);
  });

  it('are all that there was when the slot is deleted', () => {
    s.fault(0x5000, WRITE);
    s.t.slot(0, 0, 0);
    expect(s.vm.mmu.indirectShadowPages).toBe(0);
    expect(s.vm.stats.pages_4k).toBe(0);
    s.t.enter();
    expect(s.vm.mmu.nUsedMmuPages).toBe(0);
    // CR3 points nowhere now: nothing is mapped, and the guest gets its fault.
    expect(s.vcpu.mmu.mmu.root.pfn).toBe(s.vm.host.zero.small);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_RETRY);
  });
});

describe('roots', () => {
  /** A second space that shares the first's lower tables. */
  function secondSpace(): void {
    s.write(0x20000, 0x11000 | RWU);
  }

  function moveToCr3(gpa: number): void {
    mmuNewPgd(s.vcpu, gpa, 0);
    s.cr3(gpa);
    s.t.enter();
  }

  it('are kept when CR3 changes, and shared tables shadowed once', () => {
    secondSpace();
    s.fault(0x5000, WRITE);
    const first = s.vcpu.mmu.mmu.root.pfn;
    moveToCr3(0x20000);
    expect(s.vcpu.mmu.mmu.root.pfn).not.toBe(first);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.pagesOf(0x13)).toHaveLength(1);
    moveToCr3(0x10000);
    expect(s.vcpu.mmu.mmu.root.pfn).toBe(first);
  });

  it('are synced when their PCID is flushed, or given up when another has it', () => {
    secondSpace();
    s.mode({ ...LONG_MODE, cr4: LONG_MODE.cr4 | CR4_PCIDE });
    s.cr3(0x10001);
    s.fault(0x5000, WRITE);
    moveToCr3(0x20002);
    s.vcpu.requests = 0;
    mmuInvalidatePcid(s.vcpu, 2);
    expect(checkRequest(s.vcpu, REQ_MMU_SYNC)).toBe(true);
    expect(s.vcpu.mmu.mmu.prevRoots[0]!.pfn).toBeGreaterThan(0);
    mmuInvalidatePcid(s.vcpu, 1);
    expect(s.vcpu.mmu.mmu.prevRoots[0]!.pfn).toBe(-1);
  });

  it('of a guest with five levels have five', () => {
    s.mode({ ...LONG_MODE, cr4: CR4_PAE | CR4_LA57 });
    s.write(0x20000, 0x10000 | RWU);
    s.cr3(0x20000);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
    expect([0x20, 0x10, 0x13].map((gfn) => roleLevel(s.pagesOf(gfn)[0]!.role))).toEqual([5, 4, 1]);
  });

  it('of a PAE guest are its four directories', () => {
    s.mode({ cr0: CR0_PG | CR0_PE | CR0_WP, cr4: CR4_PAE, efer: 0 });
    for (let i = 0; i < 4; i++) s.write(0x20000 + 8 * i, i === 1 ? 0 : 0x21000 + (i << 12) + P);
    s.write(0x21000, 0x13000 | RWU);
    s.write(0x24000 + 8 * 511, 0x13000 | RWU);
    s.cr3(0x20000);
    expect(loadPdptrs(s.vcpu, 0x20000, 0)).toBe(true);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.fault(0xffe05000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.fault(0x40000000, WRITE)).toBe(RET_PF_RETRY);
    expect([0x21, 0x23, 0x24].map((gfn) => s.pagesOf(gfn)[0]!.rootCount)).toEqual([1, 1, 1]);
    expect(s.pagesOf(0x13)).toHaveLength(1);
  });

  it('of a guest with two levels are four quarters of its directory, and each of its tables is two pages', () => {
    s.mode({ cr0: CR0_PG | CR0_PE | CR0_WP, cr4: CR4_PSE, efer: 0 });
    s.write(0x20000, 0x21000 | RWU, 4);
    s.write(0x20000 + 4 * 1023, 0x400000 | 0x80 | RWU, 4);
    s.write(0x21000 + 4 * 5, 0x5000 | RWU, 4);
    s.write(0x21000 + 4 * 517, 0x6000 | RWU, 4);
    s.cr3(0x20000);
    expect(s.fault(0x5000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.fault(0x205000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.fault(0xffc05000, WRITE)).toBe(RET_PF_FIXED);
    expect(s.pagesOf(0x20).map((sp) => sp.role & 0x60)).toEqual([0x60, 0x40, 0x20, 0]);
    expect(s.pagesOf(0x21).map((sp) => sp.role & 0x60)).toEqual([0x20, 0]);
    // The emulator writes one entry of the directory: two of the shadow go.
    s.write(0x20000, 0, 4);
    mmuTrackWrite(s.vcpu, 0x20000, 4);
    expect([s.spte(0x5000).level, s.spte(0x205000).level]).toEqual([2, 2]);
    expect(s.spte(0xffc05000).level).toBe(1);
  });
});
