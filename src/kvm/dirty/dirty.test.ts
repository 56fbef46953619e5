import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EINVAL, ENOENT, ENXIO } from '../../host/errno.ts';
import { makeTestVm } from '../bare-vm.testing.ts';
import { KVM_EXIT_DIRTY_RING_FULL } from '../kvm-run.ts';
import { REQ_DIRTY_RING_SOFT_FULL } from '../vcpu-state.ts';
import { clearDirtyLog, getDirtyLog } from './dirty-bitmap.ts';
import { DirtyRing, dirtyRingCheckRequest } from './dirty-ring.ts';
import { markPageDirty, markVmPageDirty } from './mark-dirty.ts';
import { dirtyRingsReset } from './reset-dirty-rings.ts';

function logged(manual = 0) {
  const t = makeTestVm();
  t.vm.manualDirtyLogProtect = manual;
  const at = BigInt(t.map(0x100000));
  t.slot({ slot: 1, flags: 1, guestPhysAddr: 0x100000n, memorySize: 100n * 4096n, userspaceAddr: at });
  return { ...t, at };
}

describe('dirty bitmap', () => {
  it('whole 64-bit words, byte 0 bit 0 first; reading starts anew', () => {
    const { vm } = logged();
    markVmPageDirty(vm, 0x100);
    markVmPageDirty(vm, 0x109);
    markVmPageDirty(vm, 0x100 + 99);
    markVmPageDirty(vm, 0x100 + 100);
    const log = getDirtyLog(vm, 1) as Uint8Array;
    expect(log).toHaveLength(16);
    expect([...log.entries()].filter(([, b]) => b !== 0)).toEqual([
      [0, 1],
      [1, 2],
      [12, 8],
    ]);
    expect((getDirtyLog(vm, 1) as Uint8Array).every((b) => b === 0)).toBe(true);
  });

  it('with manual protection only a clear clears', () => {
    const { vm } = logged(1);
    for (const page of [0, 1, 64]) markVmPageDirty(vm, 0x100 + page);
    expect((getDirtyLog(vm, 1) as Uint8Array)[0]).toBe(3);
    expect(clearDirtyLog(vm, { slot: 1, firstPage: 64, numPages: 36, bitmap: Uint8Array.of(0xff) })).toBe(0);
    expect(clearDirtyLog(vm, { slot: 1, firstPage: 0, numPages: 64, bitmap: Uint8Array.of(0x0e) })).toBe(0);
    const log = getDirtyLog(vm, 1) as Uint8Array;
    expect([log[0], log[8]]).toEqual([1, 0]);
  });

  it("initially set: exactly the slot's pages", () => {
    const { vm } = logged(3);
    const log = getDirtyLog(vm, 1) as Uint8Array;
    expect([...log]).toEqual([...new Array(12).fill(0xff), 0x0f, 0, 0, 0]);
  });

  it('errors', () => {
    const { vm, slot, at } = logged();
    slot({ slot: 2, guestPhysAddr: 0x800000n, memorySize: 0x1000n, userspaceAddr: at });
    const clear = (slot: number, firstPage: number, numPages: number) =>
      clearDirtyLog(vm, { slot, firstPage, numPages, bitmap: new Uint8Array(16) });
    expect([getDirtyLog(vm, 2), getDirtyLog(vm, 3)]).toEqual([-ENOENT, -ENOENT]);
    expect([getDirtyLog(vm, 2 << 16), getDirtyLog(vm, 0x7ffd)]).toEqual([-EINVAL, -EINVAL]);
    expect([clear(1, 1, 64), clear(1, 128, 0), clear(1, 64, 37), clear(1, 0, 63), clear(2, 1, 64)]).toEqual(
      new Array(5).fill(-EINVAL),
    );
    expect(clear(2, 0, 1)).toBe(-ENOENT);
    expect([clear(1, 0, 64), clear(1, 0, 100), clear(1, 64, 36)]).toEqual([0, 0, 0]);
    vm.dirtyRingSize = 256;
    expect([getDirtyLog(vm, 1), clear(1, 0, 64)]).toEqual([-ENXIO, -ENXIO]);
  });

  it('switching logging off and on gives a fresh bitmap, moving keeps it', () => {
    const { vm, slot, at } = logged();
    const region = { slot: 1, guestPhysAddr: 0x100000n, memorySize: 100n * 4096n, userspaceAddr: at };
    markVmPageDirty(vm, 0x101);
    slot({ ...region, flags: 1, guestPhysAddr: 0x200000n });
    expect((getDirtyLog(vm, 1) as Uint8Array)[0]).toBe(2);
    markVmPageDirty(vm, 0x201);
    slot({ ...region, flags: 0, guestPhysAddr: 0x200000n });
    expect(getDirtyLog(vm, 1)).toBe(-ENOENT);
    slot({ ...region, flags: 1, guestPhysAddr: 0x200000n });
    expect((getDirtyLog(vm, 1) as Uint8Array)[0]).toBe(0);
    expect(vm.slots.nrDirtyLogging).toBe(1);
  });
});

describe('dirty ring', () => {
  function ringed() {
    const t = makeTestVm();
    t.vm.dirtyRingSize = 256;
    const at = BigInt(t.map(0x800000));
    t.slot({ slot: 1, flags: 1, guestPhysAddr: 0x100000n, memorySize: 0x800000n, userspaceAddr: at });
    const vcpu = t.addVcpu();
    vcpu.dirtyRing = new DirtyRing(0, 256);
    return { ...t, vcpu, ring: vcpu.dirtyRing };
  }

  it('push, harvest, reset', () => {
    const { vm, vcpu, ring, events } = ringed();
    markPageDirty(vcpu, 0x105);
    markPageDirty(vcpu, 0x100);
    markVmPageDirty(vm, 0x101);
    expect(dirtyRingsReset(vm)).toBe(0);
    expect(ring.harvest()).toEqual([
      { slot: 1, offset: 5 },
      { slot: 1, offset: 0 },
    ]);
    expect(ring.harvest()).toEqual([]);
    expect(dirtyRingsReset(vm)).toBe(2);
    expect(
      events.filter((e) => e.event.startsWith('kvm_dirty_ring')).map((e) => (e.fields as { text: string }).text),
    ).toEqual([
      'ring 0: dirty 0x1 reset 0x0 slot 1 offset 0x5 (used 1)',
      'ring 0: dirty 0x2 reset 0x0 slot 1 offset 0x0 (used 2)',
      'ring 0: dirty 0x2 reset 0x0 (used 2)',
      'ring 0: dirty 0x2 reset 0x2 (used 0)',
    ]);
    expect(getDirtyLog(vm, 1)).toBe(-ENXIO);
  });

  it('stops the vCPU 64 entries before it is full, until entries are reset', () => {
    const { vm, vcpu, ring } = ringed();
    for (let i = 0; i < 191; i++) markPageDirty(vcpu, 0x100 + i);
    expect(vcpu.requests & REQ_DIRTY_RING_SOFT_FULL).toBe(0);
    markPageDirty(vcpu, 0x100 + 191);
    for (let i = 0; i < 2; i++) {
      expect(dirtyRingCheckRequest(vcpu)).toBe(true);
      expect(vcpu.run.exitReason).toBe(KVM_EXIT_DIRTY_RING_FULL);
    }
    expect(ring.harvest()).toHaveLength(192);
    expect(dirtyRingCheckRequest(vcpu)).toBe(true);
    expect(dirtyRingsReset(vm)).toBe(192);
    expect(dirtyRingCheckRequest(vcpu)).toBe(false);
    expect(vcpu.requests & REQ_DIRTY_RING_SOFT_FULL).toBe(0);
  });

  it('entries that userspace falsified are ignored', () => {
    const { vm, vcpu, ring } = ringed();
    for (const gfn of [0x100, 0x101, 0x102]) markPageDirty(vcpu, gfn);
    ring.harvest();
    const words = new Uint32Array(ring.bytes.buffer);
    words[1] = 77;
    words[5] = 9 << 16;
    words[10] = 0x10000000;
    expect(dirtyRingsReset(vm)).toBe(3);
  });

  it('no ring: EINVAL', () => {
    expect(dirtyRingsReset(makeTestVm().vm)).toBe(-EINVAL);
  });

  it('any order of pages is reset exactly, page by page', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(300), { maxLength: 40 }), (pages) => {
        const { vm, vcpu, ring } = ringed();
        for (const page of pages) markPageDirty(vcpu, 0x100 + page);
        ring.harvest();
        expect(dirtyRingsReset(vm)).toBe(pages.length);
        expect(ring.used).toBe(0);
      }),
      { seed: 5, numRuns: 30 },
    );
  });
});
