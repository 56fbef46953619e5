import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as L from './locks.ts';

describe('Locks', () => {
  it('takes locks in order only', () => {
    const locks = new L.Locks();
    locks.acquire(L.LOCK_SLOTS);
    locks.acquire(L.LOCK_SLOTS_ARCH);
    locks.acquire(L.LOCK_MMU_WRITE);
    expect(() => locks.acquire(L.LOCK_MMU_READ)).toThrow(/mmu_lock \(read\) taken while holding .*mmu_lock \(write\)/);
    expect(() => locks.acquire(L.LOCK_SLOTS)).toThrow(/slots_lock/);
    expect(() => locks.acquire(L.LOCK_VM)).toThrow(/kvm->lock/);
    locks.release(L.LOCK_MMU_WRITE);
    locks.acquire(L.LOCK_MMU_READ);
    expect(() => locks.assertHeld(L.LOCK_MMU_WRITE)).toThrow(/must be held/);
    locks.assertHeld(L.LOCK_MMU);
    expect(() => locks.assertNotHeld(L.LOCK_MMU)).toThrow();
    expect(() => locks.release(L.LOCK_VM)).toThrow(/not held/);
  });

  it('are in docs/locking.md in their order', () => {
    const document = fs.readFileSync(new URL('../../docs/locking.md', import.meta.url), 'utf8');
    const rows = [...document.matchAll(/^\| `([^`]+)` \| `LOCK_/gm)].map((row) => row[1]);
    expect(rows.join(', ')).toBe(L.lockNames(-1));
  });

  it('counts srcu sections', () => {
    const locks = new L.Locks();
    expect(() => locks.assertSrcuHeld()).toThrow();
    locks.srcuReadLock();
    locks.srcuReadLock();
    locks.srcuReadUnlock();
    locks.assertSrcuHeld();
    locks.srcuReadUnlock();
    expect(() => locks.srcuReadUnlock()).toThrow();
  });
});
