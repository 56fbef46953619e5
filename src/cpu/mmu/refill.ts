/**
 * The refill of the TLB as generated code: walks of two and of four levels, with and without nested paging, that end well. Whatever else
 * a walk can meet (a fault, an accessed bit to set above the leaf, a page of 1 GiB, protection keys, watched frames) is answered with
 * 0, and the walkers in TypeScript begin anew: nothing has changed but what they would change as well. HOT
 */
import {
  PT_ACCESSED_MASK,
  PT_DIRTY_MASK,
  PT_GLOBAL_MASK,
  PT_PAGE_SIZE_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_FRAME_HI,
} from '../../arch/paging.ts';
import { RMP_ASSIGNED } from '../../arch/rmp.ts';
import { setState32, state32, state64 } from '../semantics/state-access.ts';
import {
  CR3_AT,
  FRAME_CODE,
  FRAME_WATCH,
  FRAME_WRITE,
  FRAMES_AT,
  MMU_ALIGNED_USER,
  MMU_INDEX_AT,
  NESTED_LEVELS_AT,
  NESTED_ROOT_AT,
  NESTED_RSVD_HI_AT,
  NESTED_WALK_CACHE,
  NESTED_WALK_CACHE_USED_AT,
  REFUSED_PAGE_AT,
  RMP_AT,
  TABLE_CACHE,
  TABLE_CACHE_ENTRIES,
  TABLE_CACHE_USED_AT,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_FLAGS,
  TLB_HAS_LARGE_AT,
  TLB_LARGE_AT,
  TLB_LISTED,
  TLB_NO_TAG,
  TLB_PAGE,
  TLB_READ_TAG,
  TLB_USED,
  TLB_USED_COUNT_AT,
  TLB_WRITE_TAG,
  WALK_BLOCKED_AT,
  WALK_CACHE,
  WALK_CACHE_ENTRIES,
  WALK_CACHE_USED_AT,
  WALK_MODE_AT,
  WALK_NESTED_AT,
  WALK_ROLE_AT,
  WALK_ROLE_CACHES,
  WALK_ROLE_PGE,
  WALK_ROLE_PSE,
  WALK_ROLE_SMAP,
  WALK_ROLE_WP,
  WALK_RSVD_HI_AT,
} from '../state.ts';
import { type I32, type I64, i32, i64, T_I32, T_I64 } from '../wasm/code.ts';
import { call, type FunctionBuilder, type FunctionRef, type Local32 } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { LARGE_SHIFT, LARGE_STRETCHES, TLB_GLOBAL, TLB_LARGE } from './tlb.ts';

const c = i32.const;
const ZERO = c(0);
const NONE = c(-1);
const and = (a: I32, mask: number): I32 => i32.and(a, c(mask));
const shr = (a: I32, by: number): I32 => i32.shrU(a, c(by));
const shl = (a: I32, by: number): I32 => i32.shl(a, c(by));
const has = (role: number): I32 => and(state32(WALK_ROLE_AT), role);
/** Entry of a walk cache for stretch `number`: 16 bytes. */
const cacheEntry = (at: number, number: I32): I32 => i32.add(c(at), shl(and(number, WALK_CACHE_ENTRIES - 1), 4));
/** Fields of such an entry, by src/cpu/mmu/walk-cache.ts. */
const TAG_HI = 4;
const TABLE = 8;
const RIGHTS = 12;
const UPPER_RIGHTS = PT_USER_MASK | PT_WRITABLE_MASK;
/** In the answer of a nested walk, beside the frame: a store needs no further walk. */
const WRITABLE = 1 << 24;
/** Bits 20:13 of an entry for 2 MiB: reserved. */
const RSVD_2M = 0x001fe000;
/** Bits 21:13 of a directory entry for 4 MiB: reserved, or high bits of the address, which few have. */
const RSVD_4M = 0x003fe000;

/** The low half of a leaf with its accessed bit, and for a store the dirty bit. */
const marks = (f: FunctionBuilder, lo: Local32, write: I32): Local32 =>
  f.i32(i32.or(lo.get, i32.select(write, c(PT_ACCESSED_MASK | PT_DIRTY_MASK), c(PT_ACCESSED_MASK))));

/** (guest frame, write) -> host frame and WRITABLE, or -1 */
function defineNestedWalk(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32, T_I32], [T_I32], (f) => {
    const gfn = f.param32(0);
    const write = f.param32(1).get;
    const fail = (condition: I32): void => f.if(condition, () => f.return(NONE));
    fail(i32.ltS(gfn.get, ZERO));
    const known = f.i32(cacheEntry(NESTED_WALK_CACHE, shr(gfn.get, 9)));
    const tag = f.i32(i32.or(and(gfn.get, ~0x1ff), c(1)));
    const table = f.i32(state32(NESTED_ROOT_AT));
    const allowed = f.i32(c(UPPER_RIGHTS));
    const noExecute = f.i32(ZERO);
    const level = f.i32(state32(NESTED_LEVELS_AT));
    const fresh = f.i32(has(WALK_ROLE_CACHES));
    const hit = i32.and(i32.eq(i32.load(known.get), tag.get), i32.eq(i32.load(known.get, TAG_HI), table.get));
    f.if(i32.and(i32.ne(fresh.get, ZERO), hit), () => {
      f.do(table.set(i32.load(known.get, TABLE)), allowed.set(i32.load(known.get, RIGHTS)));
      f.do(noExecute.set(allowed.get), level.set(c(1)), fresh.set(ZERO));
    });
    const at = f.i32();
    const lo = f.i32();
    const hi = f.i32();
    f.loop((again) => {
      fail(i32.geU(table.get, state32(FRAMES_AT)));
      const shift = i32.mul(i32.sub(level.get, c(1)), c(9));
      const index = and(i32.wrap(i64.shrU(i64.extendU(gfn.get), i64.extendU(shift))), 511);
      f.do(at.set(i32.or(shl(table.get, 12), shl(index, 3))));
      f.do(lo.set(i32.load(at.get)), hi.set(i32.load(at.get, 4)));
      fail(i32.eqz(and(lo.get, PT_PRESENT_MASK)));
      fail(i32.and(hi.get, i32.or(state32(NESTED_RSVD_HI_AT), c(PT64_FRAME_HI))));
      f.if(i32.and(i32.eq(level.get, c(1)), i32.ne(fresh.get, ZERO)), () => {
        const rights = i32.or(and(allowed.get, UPPER_RIGHTS), and(noExecute.get, 0x80000000));
        f.do(i32.store(known.get, 0, tag.get), i32.store(known.get, TAG_HI, state32(NESTED_ROOT_AT)));
        f.do(i32.store(known.get, TABLE, table.get), i32.store(known.get, RIGHTS, rights));
        f.do(setState32(NESTED_WALK_CACHE_USED_AT, c(1)));
      });
      f.do(allowed.set(i32.and(allowed.get, lo.get)), noExecute.set(i32.or(noExecute.get, hi.get)));
      f.do(table.set(shr(lo.get, 12)));
      f.if(i32.and(i32.gtU(level.get, c(1)), i32.eqz(and(lo.get, PT_PAGE_SIZE_MASK))), () => {
        fail(i32.eqz(and(lo.get, PT_ACCESSED_MASK)));
        f.do(level.set(i32.sub(level.get, c(1))));
        f.br(again);
      });
    });
    f.if(i32.gtU(level.get, c(1)), () => {
      fail(i32.or(i32.gtU(level.get, c(2)), and(lo.get, RSVD_2M)));
      f.do(table.set(i32.or(and(table.get, ~0x1ff), and(gfn.get, 0x1ff))));
    });
    fail(i32.eqz(and(allowed.get, PT_USER_MASK)));
    f.if(write, () => fail(i32.eqz(and(allowed.get, PT_WRITABLE_MASK))));
    fail(i32.geU(table.get, state32(FRAMES_AT)));
    // A page that is not the hypervisor's is looked at more closely (src/cpu/snp).
    f.if(state32(RMP_AT), () => fail(and(i32.load(i32.add(state32(RMP_AT), shl(table.get, 4))), RMP_ASSIGNED)));
    const marked = marks(f, lo, write);
    f.if(i32.ne(marked.get, lo.get), () => f.do(i32.store(at.get, 0, marked.get)));
    const writable = i32.and(and(allowed.get, PT_WRITABLE_MASK), and(shr(marked.get, 5), PT_WRITABLE_MASK));
    f.do(i32.or(table.get, i32.select(writable, c(WRITABLE), ZERO)));
  });
}

/** (guest frame of a table) -> host frame, or -1 */
function defineTableFrame(m: ModuleBuilder, nestedWalk: FunctionRef): FunctionRef {
  return m.function([T_I32], [T_I32], (f) => {
    const gfn = f.param32(0);
    f.if(i32.eqz(state32(WALK_NESTED_AT)), () =>
      f.return(i32.select(i32.ltU(gfn.get, state32(FRAMES_AT)), gfn.get, NONE)),
    );
    const entry = f.i32(i32.add(c(TABLE_CACHE), shl(and(gfn.get, TABLE_CACHE_ENTRIES - 1), 4)));
    f.if(i32.eq(i32.load(entry.get), gfn.get), () => f.return(i32.load(entry.get, 4)));
    const pfn = f.i32(call(nestedWalk, gfn.get, c(1)));
    f.if(i32.ltS(pfn.get, ZERO), () => f.return(NONE));
    f.do(pfn.set(and(pfn.get, WRITABLE - 1)));
    f.do(i32.store(entry.get, 0, gfn.get), i32.store(entry.get, 4, pfn.get), setState32(TABLE_CACHE_USED_AT, c(1)));
    f.do(pfn.get);
  });
}

/** (linear address, access: ACCESS_READ, _WRITE or _RMW) -> host pointer, or 0: fills the TLB for the current MMU context. */
export function defineRefill(m: ModuleBuilder): FunctionRef {
  const nestedWalk = defineNestedWalk(m);
  const tableFrame = defineTableFrame(m, nestedWalk);
  return m.function([T_I64, T_I32], [T_I32], (f) => {
    const linear = f.param64(0);
    const access = f.param32(1).get;
    const fail = (condition: I32): void => f.if(condition, () => f.return(ZERO));
    const mode = f.i32(state32(WALK_MODE_AT));
    fail(i32.or(i32.eqz(mode.get), state32(WALK_BLOCKED_AT)));
    const index = f.i32(state32(MMU_INDEX_AT));
    fail(i32.eq(index.get, c(MMU_ALIGNED_USER)));
    const va = f.i32(i32.wrap(linear.get));
    fail(i32.eq(i32.or(and(va.get, ~0xfff), c(1)), state32(REFUSED_PAGE_AT)));
    const vaHi = f.i32(i32.wrap(i64.shrU(linear.get, i64.const(32))));
    const gfn = f.i32();
    const host = f.i32();
    const at = f.i32();
    const lo = f.i32();
    const hi = f.i32();
    const allowed = f.i32(c(UPPER_RIGHTS));
    const flags = f.i32(ZERO);
    const table = (): void => {
      f.do(host.set(call(tableFrame, gfn.get)));
      fail(i32.ltS(host.get, ZERO));
    };
    const goTo = (offset: I32): void => f.do(at.set(i32.or(shl(host.get, 12), offset)), lo.set(i32.load(at.get)));
    const present = (): void => fail(i32.eqz(and(lo.get, PT_PRESENT_MASK)));

    f.if(
      i32.eq(mode.get, c(2)),
      () => {
        fail(vaHi.get);
        f.do(gfn.set(shr(state32(CR3_AT), 12)));
        table();
        goTo(shl(shr(va.get, 22), 2));
        present();
        f.do(allowed.set(lo.get));
        const isLarge = i32.and(i32.ne(has(WALK_ROLE_PSE), ZERO), i32.ne(and(lo.get, PT_PAGE_SIZE_MASK), ZERO));
        f.if(
          isLarge,
          () => {
            fail(and(lo.get, RSVD_4M));
            f.do(gfn.set(i32.or(shl(shr(lo.get, 22), 10), and(shr(va.get, 12), 0x3ff))), flags.set(c(TLB_LARGE)));
          },
          () => {
            fail(i32.eqz(and(lo.get, PT_ACCESSED_MASK)));
            f.do(gfn.set(shr(lo.get, 12)));
            table();
            goTo(and(shr(va.get, 10), 0xffc));
            present();
            f.do(gfn.set(shr(lo.get, 12)), allowed.set(i32.and(allowed.get, lo.get)));
          },
        );
      },
      () => {
        const signed = i64.shrS(i64.shl(linear.get, i64.const(16)), i64.const(16));
        fail(i64.ne(signed, linear.get));
        const known = f.i32(cacheEntry(WALK_CACHE, shr(va.get, 21)));
        const tag = f.i32(i32.or(and(va.get, ~0x1fffff), c(1)));
        const fresh = f.i32(has(WALK_ROLE_CACHES));
        const noExecute = f.i32(ZERO);
        const level = f.i32(c(4));
        const hit = i32.and(i32.eq(i32.load(known.get), tag.get), i32.eq(i32.load(known.get, TAG_HI), vaHi.get));
        const frame = (value: I64): I32 => i32.wrap(i64.and(i64.shrU(value, i64.const(12)), i64.const(0xffffffff)));
        f.if(
          i32.and(i32.ne(fresh.get, ZERO), hit),
          () => {
            f.do(host.set(i32.load(known.get, TABLE)), allowed.set(i32.load(known.get, RIGHTS)));
            f.do(noExecute.set(allowed.get), level.set(c(1)), fresh.set(ZERO));
          },
          () => {
            f.do(gfn.set(frame(state64(CR3_AT))));
            fail(and(state32(CR3_AT + 4), PT64_FRAME_HI & ~0x7ff));
            table();
          },
        );
        f.loop((again) => {
          const shift = i32.add(i32.mul(level.get, c(9)), c(3));
          goTo(shl(and(i32.wrap(i64.shrU(linear.get, i64.extendU(shift))), 511), 3));
          f.do(hi.set(i32.load(at.get, 4)));
          f.if(i32.and(i32.eq(level.get, c(1)), i32.ne(fresh.get, ZERO)), () => {
            const rights = i32.or(and(allowed.get, UPPER_RIGHTS), and(noExecute.get, 0x80000000));
            f.do(i32.store(known.get, 0, tag.get), i32.store(known.get, TAG_HI, vaHi.get));
            f.do(i32.store(known.get, TABLE, host.get), i32.store(known.get, RIGHTS, rights));
            f.do(setState32(WALK_CACHE_USED_AT, c(1)));
          });
          present();
          // Frames of guests whose numbers have more than 31 bits are rare.
          fail(i32.and(hi.get, i32.or(state32(WALK_RSVD_HI_AT), c(PT64_FRAME_HI & ~0x7ff))));
          f.do(allowed.set(i32.and(allowed.get, lo.get)), noExecute.set(i32.or(noExecute.get, hi.get)));
          f.do(gfn.set(i32.or(shl(hi.get, 20), shr(lo.get, 12))));
          f.if(i32.gtU(level.get, c(1)), () => {
            f.if(
              and(lo.get, PT_PAGE_SIZE_MASK),
              () => {
                fail(i32.or(i32.gtU(level.get, c(2)), and(lo.get, RSVD_2M)));
                f.do(flags.set(c(TLB_LARGE)));
                f.do(gfn.set(i32.or(and(gfn.get, ~0x1ff), and(shr(va.get, 12), 0x1ff))));
              },
              () => {
                fail(i32.eqz(and(lo.get, PT_ACCESSED_MASK)));
                table();
                f.do(level.set(i32.sub(level.get, c(1))));
                f.br(again);
              },
            );
          });
        });
      },
    );

    // The leaf.
    const user = f.i32(i32.eq(index.get, c(1)));
    const userPage = f.i32(and(allowed.get, PT_USER_MASK));
    f.if(
      userPage.get,
      () => f.if(i32.eqz(index.get), () => fail(has(WALK_ROLE_SMAP))),
      () => fail(user.get),
    );
    const supervisor = i32.eqz(i32.or(user.get, has(WALK_ROLE_WP)));
    const writable = f.i32(i32.or(i32.ne(and(allowed.get, PT_WRITABLE_MASK), ZERO), supervisor));
    f.if(access, () => fail(i32.eqz(writable.get)));
    const marked = marks(f, lo, access);
    f.if(i32.ne(marked.get, lo.get), () => {
      fail(i32.load8U(shr(at.get, 12), FRAME_WATCH));
      f.do(i32.store(at.get, 0, marked.get));
    });
    const isGlobal = i32.and(i32.ne(has(WALK_ROLE_PGE), ZERO), i32.ne(and(lo.get, PT_GLOBAL_MASK), ZERO));
    f.do(flags.set(i32.or(flags.get, i32.select(isGlobal, c(TLB_GLOBAL), ZERO))));
    f.do(writable.set(i32.and(writable.get, and(shr(marked.get, 6), 1))));

    // The access itself.
    const pfn = host;
    f.if(
      state32(WALK_NESTED_AT),
      () => {
        f.do(pfn.set(call(nestedWalk, gfn.get, i32.ne(access, ZERO))));
        fail(i32.ltS(pfn.get, ZERO));
        f.do(writable.set(i32.and(writable.get, i32.ne(and(pfn.get, WRITABLE), ZERO))));
        f.do(pfn.set(and(pfn.get, WRITABLE - 1)));
      },
      () => {
        fail(i32.geU(gfn.get, state32(FRAMES_AT)));
        f.do(pfn.set(gfn.get));
      },
    );
    const watched = f.i32(i32.load8U(pfn.get, FRAME_WATCH));
    const hasCode = f.i32(i32.load8U(pfn.get, FRAME_CODE));
    f.if(
      access,
      () => fail(i32.or(watched.get, i32.and(writable.get, hasCode.get))),
      () => f.if(i32.or(watched.get, hasCode.get), () => f.do(writable.set(ZERO))),
    );

    // The entry, as Tlb.insert makes it.
    const number = f.i32(i32.add(i32.mul(index.get, c(TLB_ENTRIES)), and(shr(va.get, 12), TLB_ENTRIES - 1)));
    const slot = f.i32(i32.add(c(TLB_BASE), i32.mul(number.get, c(TLB_ENTRY_SIZE))));
    const tag = f.i64(i64.and(linear.get, i64.const(-4096)));
    const page = f.i32(shl(pfn.get, 12));
    const moved = f.i32(i32.ne(i32.load(slot.get, TLB_PAGE), page.get));
    const keep = (field: number): void => {
      const other = i64.ne(i64.load(slot.get, field), tag.get);
      f.if(i32.or(moved.get, other), () => f.do(i32.store(slot.get, field, c(TLB_NO_TAG))));
    };
    f.do(i64.store(slot.get, TLB_READ_TAG, tag.get));
    f.if(
      writable.get,
      () => {
        f.do(i64.store(slot.get, TLB_WRITE_TAG, tag.get));
        f.do(i32.store8(pfn.get, FRAME_WRITE, c(1)));
      },
      () => keep(TLB_WRITE_TAG),
    );
    keep(TLB_CODE_TAG);
    f.do(i32.store(slot.get, TLB_PAGE, page.get), i32.store(slot.get, TLB_FLAGS, flags.get));
    f.if(and(flags.get, TLB_LARGE), () => {
      f.do(setState32(TLB_HAS_LARGE_AT, c(1)));
      f.do(i32.store8(and(shr(va.get, LARGE_SHIFT), LARGE_STRETCHES - 1), TLB_LARGE_AT, c(1)));
    });
    f.if(i32.eqz(i32.load8U(number.get, TLB_LISTED)), () => {
      const count = state32(TLB_USED_COUNT_AT);
      f.do(i32.store8(number.get, TLB_LISTED, c(1)), i32.store(shl(count, 2), TLB_USED, shr(slot.get, 2)));
      f.do(setState32(TLB_USED_COUNT_AT, i32.add(count, c(1))));
    });
    f.do(setState32(REFUSED_PAGE_AT, ZERO));
    f.do(i32.or(page.get, and(va.get, 0xfff)));
  });
}
