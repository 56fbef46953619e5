import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE } from '../../../arch/registers.ts';
import { runs } from '../../../runs.testing.ts';
import { X86Exception } from '../../emulate/ops.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import { gvaToGpa } from '../guest-walk.ts';
import { mmuInvlpg } from '../invlpg.ts';
import { unmapGfnRange } from '../notifier-handlers.ts';
import { mmuNewPgd } from '../roots.ts';
import { sptePfn } from '../spte.ts';
import { zapAllFast } from '../zap-all-fast.ts';
import { shadowInconsistencies } from './consistency.testing.ts';
import { changeMmuPages } from './recycle.ts';
import { mmuSyncPrevRoots, mmuSyncRoots } from './roots.ts';
import { LONG_MODE, TestShadow } from './shadow.testing.ts';
import { mmuTrackWrite } from './track-write.ts';
import { spHasGptes } from './translation.ts';
import { mmuUnprotectGfnAndRetry } from './unprotect.ts';

/** Tables of the guest, any of which may be used at any level; and pages that are no tables to begin with. */
const TABLES = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15];
const FRAMES = [...TABLES, 0x20, 0x21, 0x22, 0x40000];
/** Entries of a table that are used: with 4 KiB pages of the first 32 KiB, and with 2 MiB pages. */
const ENTRIES = 8;

const frame = fc.constantFrom(...FRAMES);
const flags = fc.constantFrom(0x67, 0x67, 0x67, 0x27, 0x65, 0x63, 0x61, 0x07, 0x00, 0xe7);
const entry = fc.record({
  table: fc.constantFrom(...TABLES),
  index: fc.nat(ENTRIES - 1),
  frame,
  flags,
});
const seldom = fc.constantFrom(0, 0, 0, 0, 1);
/** Addresses that use low entries at every level. */
const address = fc
  .tuple(fc.nat(ENTRIES - 1), seldom, seldom, seldom)
  .map(([l1, l2, l3, l4]) => l1 * 0x1000 + l2 * 0x20_0000 + l3 * 0x4000_0000 + l4 * 0x80_0000_0000);

const operation = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({ kind: fc.constant('touch' as const), address, error: fc.constantFrom(4, 6, 6, 6, 2, 0x14) }),
  },
  // As the processor writes: only where the shadow lets it.
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('write' as const), entry }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('emulate' as const), entry }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('invlpg' as const), address }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('cr3' as const), frame: fc.constantFrom(...TABLES, 0x40000) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unprotect' as const), address }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('invalidate' as const), frame }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('recycle' as const), pages: fc.integer({ min: 1, max: 12 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('zap-all' as const) }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const modes = {
  'four levels': LONG_MODE,
  'without CR0.WP': { ...LONG_MODE, cr0: CR0_PG | CR0_PE },
  'two levels': { cr0: CR0_PG | CR0_PE | CR0_WP, cr4: CR4_PSE, efer: 0 },
  'two levels, no large pages': { cr0: CR0_PG | CR0_PE | CR0_WP, cr4: 0, efer: 0 },
};

class Guest {
  readonly s: TestShadow;
  private readonly bytes: number;

  constructor(mode: (typeof modes)[keyof typeof modes]) {
    this.s = new TestShadow(mode, 2);
    this.bytes = (mode.cr4 & CR4_PAE) !== 0 ? 8 : 4;
    for (const gfn of [...TABLES, 0x20, 0x21, 0x22]) this.s.write(gfn * 4096 + 4088, 0);
    const levels = this.bytes === 8 ? 4 : 2;
    for (let i = 0; i < levels - 1; i++) this.set({ table: TABLES[i]!, index: 0, frame: TABLES[i + 1]!, flags: 0x67 });
    // The guest has its tables mapped, and some that are none yet.
    for (const [index, frame] of TABLES.entries()) this.set({ table: TABLES[levels - 1]!, index, frame, flags: 0x67 });
    this.s.cr3(TABLES[0]! * 4096);
  }

  private gpa(e: { table: number; index: number }): number {
    return e.table * 4096 + e.index * this.bytes;
  }

  private set(e: { table: number; index: number; frame: number; flags: number }): void {
    // A large page is aligned.
    const base = (e.flags & 0x80) !== 0 ? 0 : e.frame * 4096;
    this.s.write(this.gpa(e), base | e.flags, this.bytes);
  }

  run(op: Operation): void {
    const { s } = this;
    const { vm, vcpu } = s;
    switch (op.kind) {
      case 'touch':
        s.fault(this.bytes === 4 ? op.address % 0x1_0000_0000 : op.address, op.error);
        return;
      case 'write': {
        // Through a writable mapping, if there could be one: to a table that nothing keeps in sync.
        const unsync = TABLES.find((gfn) => s.pagesOf(gfn).some((sp) => sp.unsync));
        const table = unsync ?? op.entry.table;
        const guarded = s.pagesOf(table).some((sp) => spHasGptes(sp) && !sp.unsync);
        if (!guarded) this.set({ ...op.entry, table });
        return;
      }
      case 'emulate':
        this.set(op.entry);
        mmuTrackWrite(vcpu, this.gpa(op.entry), this.bytes);
        return;
      case 'invlpg':
        mmuInvlpg(vcpu, op.address | 0, this.bytes === 4 ? 0 : Math.floor(op.address / 0x1_0000_0000));
        return;
      case 'flush':
        mmuSyncRoots(vcpu);
        mmuSyncPrevRoots(vcpu);
        return;
      case 'cr3':
        mmuNewPgd(vcpu, op.frame * 4096, 0);
        s.cr3(op.frame * 4096);
        // Without PCIDs a load of CR3 flushes.
        s.t.enter();
        mmuSyncRoots(vcpu);
        return;
      case 'unprotect':
        s.t.enter();
        mmuUnprotectGfnAndRetry(vcpu, op.address | 0, this.bytes === 4 ? 0 : Math.floor(op.address / 0x1_0000_0000));
        return;
      case 'invalidate': {
        if (op.frame >= 512) return;
        const range = {
          slot: vm.slots.all(0)[0]!,
          start: op.frame,
          end: op.frame + 1,
          attributes: 0,
          attrFilter: 0,
          mayBlock: true,
        };
        vm.locks.acquire(LOCK_MMU_WRITE);
        unmapGfnRange(vm, range);
        vm.locks.release(LOCK_MMU_WRITE);
        return;
      }
      case 'recycle':
        changeMmuPages(vm, op.pages);
        changeMmuPages(vm, 64);
        return;
      default:
        zapAllFast(vm);
        s.t.enter();
    }
  }

  /** After a flush every mapping is one that the guest's tables have. */
  mappingsBeyondTheGuests(): string[] {
    const { s } = this;
    mmuSyncRoots(s.vcpu);
    const wrong: string[] = [];
    const fault = new X86Exception();
    for (let n = 0; n < (this.bytes === 4 ? 2 * ENTRIES : 8 * ENTRIES); n++) {
      const at =
        (n % ENTRIES) * 0x1000 +
        ((n >> 3) & 1) * 0x20_0000 +
        ((n >> 4) & 1) * 0x4000_0000 +
        ((n >> 5) & 1) * 0x80_0000_0000;
      const { level, oldLo, oldHi } = s.spte(at);
      if (level === 0 || (oldLo & 0x801) !== 0x801 || (level > 1 && (oldLo & 0x80) === 0)) continue;
      for (const access of [0, 2]) {
        if (access === 2 && (oldLo & 2) === 0) continue;
        const gpa = gvaToGpa(s.vcpu, at | 0, Math.floor(at / 0x1_0000_0000), access, 0, fault);
        const page = sptePfn(oldLo, oldHi) + (Math.floor(at / 4096) % 512 ** (level - 1));
        const host = gpa < 0 ? -1 : s.vm.mm.userPage(s.hva + gpa, false);
        if (host !== page)
          wrong.push(`0x${at.toString(16)}: frame ${page}, the guest's tables say gpa ${gpa}, frame ${host}`);
      }
    }
    return wrong;
  }
}

describe.each(Object.entries(modes))('the shadow of random tables, %s', (_name, mode) => {
  it('keeps its books, and maps nothing that the guest does not once the guest has flushed', () => {
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 60 }), (operations) => {
        const guest = new Guest(mode);
        for (const op of operations) {
          guest.run(op);
          if (op.kind === 'flush') expect(guest.mappingsBeyondTheGuests()).toEqual([]);
          expect(shadowInconsistencies(guest.s)).toEqual([]);
        }
        expect(guest.mappingsBeyondTheGuests()).toEqual([]);
        expect(shadowInconsistencies(guest.s)).toEqual([]);
      }),
      { numRuns: runs(60) },
    );
  });
});
