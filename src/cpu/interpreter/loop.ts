/**
 * The interpreter's loop in WebAssembly: find the record at RIP, call its handler through the table, account, go on with the record
 * that is linked to it. Links stay inside a page, so following one needs no translation; everything else looks RIP up again through
 * the code tag of the TLB. HOT
 */
import { DR6_BS, DR7_BP_EN_MASK } from '../../arch/debug-registers.ts';
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { CS, RFLAGS_TF } from '../../arch/registers.ts';
import {
  CODE_CLEARINGS,
  CODE_SLOTS,
  CODE_TABLE_SIZE,
  CODE_TABLES,
  CODE_TAGS,
  EMPTY_RECORD,
  ONE_OFF_RECORD,
  SLOT_MODE_STEP,
} from '../decode/code-layout.ts';
import {
  RECORD_COMPILED,
  RECORD_HANDLER,
  RECORD_HEAT,
  RECORD_IMM,
  RECORD_INNER,
  RECORD_LENGTH,
  RECORD_NEXT,
  RECORD_TAKEN,
} from '../decode/record.ts';
import {
  LEFT_BEFORE,
  LEFT_MISSED,
  LEFT_NEXT,
  LEFT_TAKEN,
  STATUS_JUMPED,
  STATUS_LEFT,
  STATUS_REFETCH,
  STATUS_REPEAT,
  STATUS_STALE,
  STATUS_TAKEN,
} from '../semantics/handler-status.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import { tlbEntry } from '../semantics/tlb-lookup.ts';
import {
  BREAKPOINT_HITS_AT,
  BUDGET_AT,
  CODE_BASE,
  CODE_MODE_AT,
  DR_AT,
  INT_SHADOW_AT,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SIZE,
  SHADOW_ACTIVE,
  SHADOW_STACK,
  STATUS_BUDGET,
  STATUS_EXCEPTION,
  STATUS_OK,
  STATUS_RELOAD,
  STATUS_RELOAD_TF,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_PAGE,
} from '../state.ts';
import { type I32, type I64, i32, i64, T_I32, T_I64 } from '../wasm/code.ts';
import { call, callIndirect, type FunctionRef, getGlobal, type Label, setGlobal } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';

const ZERO = i32.const(0);

/** () -> the record at RIP, or 0 when the TLB or the decoder does not have it. */
function defineLookup(m: ModuleBuilder): FunctionRef {
  return m.function([], [T_I32], (f) => {
    const mode = f.i32(state32(CODE_MODE_AT));
    const linear = f.i64(state64(RIP_AT));
    f.if(i32.ne(mode.get, i32.const(2)), () => {
      const cs = SEG + CS * SEG_SIZE;
      // A page in which the limit ends is decoded instruction by instruction.
      const base = f.i64(state64(cs + SEG_BASE));
      const at = f.i64(i64.add(linear.get, base.get));
      const pageEnd = i64.sub(i64.or(at.get, i64.const(0xfff)), base.get);
      f.if(i64.gtU(pageEnd, i64.extendU(state32(cs + SEG_LIMIT))), () => f.return(i32.const(0)));
      f.do(linear.set(i64.and(at.get, i64.const(0xffffffff))));
    });
    const entry = f.i32(tlbEntry(linear.get));
    const tag = i64.load(entry.get, TLB_BASE + TLB_CODE_TAG);
    f.if(i64.ne(i64.and(linear.get, i64.const(-4096)), tag), () => f.return(i32.const(0)));
    const page = f.i32(i32.load(entry.get, TLB_BASE + TLB_PAGE));
    const frame = i32.add(i32.shrU(page.get, i32.const(12)), i32.mul(mode.get, i32.const(SLOT_MODE_STEP)));
    const slot = f.i32(i32.and(frame, i32.const(CODE_SLOTS - 1)));
    const wanted = i32.add(i32.add(page.get, mode.get), i32.const(1));
    f.if(i32.ne(i32.load(i32.shl(slot.get, i32.const(2)), CODE_TAGS), wanted), () => f.return(i32.const(0)));
    const inPage = i32.shl(i32.and(i32.wrap(linear.get), i32.const(0xfff)), i32.const(2));
    f.do(i32.load(i32.add(i32.mul(slot.get, i32.const(CODE_TABLE_SIZE)), inPage), CODE_TABLES));
  });
}

/** The coming record's own handler is wanted, whatever was compiled from it on. */
const PLAIN = 1;
/** The record after the coming one is where compiled code may go on: it counts as reached by a transfer. */
const SKIP = 4;
const REJOIN = 2;

/** () -> status: runs until something stops it. `deliver` is that of src/cpu/system/quick-events.ts. */
export function defineRun(m: ModuleBuilder, s: SharedFunctions, deliver: FunctionRef): FunctionRef {
  const lookup = defineLookup(m);
  const handlerType = m.type([T_I32], [T_I32]);

  /**
   * () -> what the coming instruction needs attention for: TF, an interrupt shadow, which becomes active, or enabled breakpoints;
   * negative when one of these is on the instruction.
   */
  const attend = m.function([], [T_I32], (f) => {
    const shadow = state32(INT_SHADOW_AT);
    const armed = f.i32(i32.and(state32(DR_AT + 7 * 8), i32.const(DR7_BP_EN_MASK)));
    f.if(armed.get, () => {
      f.if(call(s.breakpoint), () => f.return(i32.const(-1)));
      f.if(i32.eqz(shadow), () => f.do(setState32(BREAKPOINT_HITS_AT, i32.const(0))));
    });
    f.if(shadow, () => {
      const kind = i32.and(shadow, i32.const(SHADOW_STACK));
      f.do(setState32(INT_SHADOW_AT, i32.or(kind, i32.const(SHADOW_ACTIVE))));
    });
    const tf = i32.and(state32(RFLAGS_AT), i32.const(RFLAGS_TF));
    f.do(i32.or(tf, i32.ne(i32.or(shadow, armed.get), i32.const(0))));
  });
  /** (attention) -> status, after an instruction that retired with attention. */
  const attended = m.function([T_I32], [T_I32], (f) => {
    f.if(i32.and(state32(INT_SHADOW_AT), i32.const(SHADOW_ACTIVE)), () =>
      f.do(setState32(INT_SHADOW_AT, i32.const(0))),
    );
    // A load of SS lets its successor finish before anything traps.
    f.if(i32.eq(state32(INT_SHADOW_AT), i32.const(SHADOW_STACK)), () => f.return(i32.const(STATUS_OK)));
    const traps = f.i32(state32(BREAKPOINT_HITS_AT));
    f.if(i32.and(f.param32(0).get, i32.const(RFLAGS_TF)), () => f.do(traps.set(i32.or(traps.get, i32.const(DR6_BS)))));
    f.if(traps.get, () => {
      f.do(setState32(DR_AT + 6 * 8, i32.or(state32(DR_AT + 6 * 8), traps.get)));
      f.do(setState32(BREAKPOINT_HITS_AT, i32.const(0)));
      f.return(call(s.raise, i32.const(DB_VECTOR), i32.const(-1)));
    });
    f.do(i32.const(STATUS_OK));
  });

  /** (RIP, RIP) -> whether both are in one linear page. */
  const samePage = m.function([T_I64, T_I64], [T_I32], (f) => {
    const [a, b] = [f.param64(0), f.param64(1)];
    f.if(i32.ne(state32(CODE_MODE_AT), i32.const(2)), () => {
      const base = state64(SEG + CS * SEG_SIZE + SEG_BASE);
      f.do(a.set(i64.add(a.get, base)), b.set(i64.add(b.get, base)));
    });
    f.do(i64.ltU(i64.xor(a.get, b.get), i64.const(4096)));
  });

  return m.function([], [T_I32], (f) => {
    const record = f.i32(i32.const(EMPTY_RECORD));
    const next = f.i32();
    const status = f.i32();
    /** Address of the link that led, or should lead, to the next record; 0 for none. */
    const link = f.i32();
    /** RIP of the instruction that holds the link. */
    const before = f.i64();
    const attention = f.i32();
    /** Not to be looked up: the decoder has to see it. */
    const refetch = f.i32();
    /** PLAIN, SKIP or REJOIN after compiled code has left. */
    const plain = f.i32();
    const handler = f.i32();
    const clearings = f.i32();
    const stop = (value: I32): void => {
      f.do(call(s.sync, record.get));
      f.return(value);
    };
    const lookAhead = (): void => {
      f.do(attention.set(call(attend)));
      f.if(i32.ltS(attention.get, i32.const(0)), () => stop(i32.const(STATUS_EXCEPTION)));
    };
    /** Counts the instruction; ends the run when the budget is spent. */
    const retire = (): void => {
      const budget = status;
      f.do(setState32(BUDGET_AT, budget.tee(i32.sub(state32(BUDGET_AT), i32.const(1)))));
      f.if(attention.get, () => {
        f.if(next.tee(call(attended, attention.get)), () => stop(next.get));
        lookAhead();
      });
      f.if(i32.leS(budget.get, i32.const(0)), () => stop(i32.const(STATUS_BUDGET)));
    };
    /** Counts a transfer to `record`. */
    const warm = (): void => {
      f.do(i32.store(record.get, RECORD_HEAT, handler.tee(i32.sub(i32.load(record.get, RECORD_HEAT), i32.const(1)))));
      f.if(i32.eqz(handler.get), () => f.do(call(s.hot, record.get)));
    };
    /** Goes on with the record that `field` of the current one links to, or looks it up and links it. */
    const follow = (field: number, execute: Label, again: Label, distance: I64): void => {
      f.do(link.set(i32.add(record.get, i32.const(field))));
      f.if(next.tee(i32.load(record.get, field)), () => {
        f.do(record.set(next.get));
        if (field === RECORD_TAKEN) warm();
        f.br(execute);
      });
      f.do(before.set(i64.sub(state64(RIP_AT), distance)));
      f.br(again);
    };

    f.do(setGlobal(s.seenBudget, state32(BUDGET_AT)), attention.set(call(attend)));
    f.if(i32.leS(state32(BUDGET_AT), i32.const(0)), () => stop(i32.const(STATUS_BUDGET)));
    f.if(i32.ltS(attention.get, i32.const(0)), () => stop(i32.const(STATUS_EXCEPTION)));
    f.loop((again) => {
      f.do(next.set(i32.const(0)));
      f.if(i32.eqz(refetch.get), () => f.do(next.set(call(lookup))));
      f.if(i32.eqz(next.get), () => {
        f.do(call(s.sync, i32.const(EMPTY_RECORD)), clearings.set(i32.load(ZERO, CODE_CLEARINGS)));
        f.do(next.set(call(s.fetch)));
        f.if(i32.ltU(next.get, i32.const(CODE_BASE)), () => f.return(next.get));
        f.do(refetch.set(ZERO));
        // The record that holds the link may be gone, and one that is not kept is not to be linked.
        const lasts = i32.and(
          i32.eq(clearings.get, i32.load(ZERO, CODE_CLEARINGS)),
          i32.ne(next.get, i32.const(ONE_OFF_RECORD)),
        );
        f.if(i32.eqz(lasts), () => f.do(link.set(ZERO)));
      });
      f.if(link.get, () => {
        f.if(call(samePage, state64(RIP_AT), before.get), () => f.do(i32.store(link.get, 0, next.get)));
      });
      f.do(record.set(next.get), link.set(i32.const(0)));
      warm();
      f.block((ended) =>
        f.loop((execute) => {
          const own = (): void => f.do(handler.set(i32.load(record.get, RECORD_HANDLER)));
          f.if(
            i32.or(attention.get, plain.get),
            () => {
              f.if(i32.eq(plain.get, i32.const(REJOIN)), warm);
              own();
              f.if(i32.or(attention.get, i32.and(plain.get, i32.const(PLAIN))), () => {
                f.if(i32.load(record.get, RECORD_COMPILED), () =>
                  f.do(handler.set(i32.load(record.get, RECORD_INNER))),
                );
              });
              const left = i32.and(plain.get, i32.const(PLAIN | SKIP));
              f.do(plain.set(i32.select(left, i32.const(REJOIN), i32.const(0))));
            },
            own,
          );
          f.do(status.set(callIndirect(handlerType, handler.get, record.get)));
          f.if(i32.eqz(status.get), () => {
            f.do(setState64(RIP_AT, i64.add(state64(RIP_AT), i64.load8U(record.get, RECORD_LENGTH))));
            retire();
            follow(RECORD_NEXT, execute, again, i64.load8U(record.get, RECORD_LENGTH));
          });
          f.if(i32.eq(status.get, i32.const(STATUS_TAKEN)), () => {
            retire();
            follow(RECORD_TAKEN, execute, again, i64.load(record.get, RECORD_IMM));
          });
          f.if(i32.geU(status.get, i32.const(CODE_BASE)), () => {
            const how = i32.and(status.get, i32.const(15));
            f.do(record.set(i32.and(status.get, i32.const(~15))), link.set(i32.const(0)));
            f.if(i32.eq(how, i32.const(LEFT_TAKEN)), () =>
              follow(RECORD_TAKEN, execute, again, i64.load(record.get, RECORD_IMM)),
            );
            f.if(i32.eq(how, i32.const(LEFT_NEXT)), () => {
              f.do(plain.set(i32.const(SKIP)));
              follow(RECORD_NEXT, execute, again, i64.load8U(record.get, RECORD_LENGTH));
            });
            f.if(i32.eq(how, i32.const(LEFT_MISSED)), () => {
              f.if(getGlobal(s.fault), () => {
                f.do(status.set(getGlobal(s.fault)));
                f.br(ended);
              });
            });
            f.do(plain.set(i32.select(i32.ne(how, i32.const(LEFT_BEFORE)), i32.const(PLAIN), i32.const(0))));
            f.br(execute);
          });
        }),
      );
      f.if(i32.eq(status.get, i32.const(STATUS_EXCEPTION)), () => {
        f.do(call(s.sync, record.get));
        f.if(i32.eqz(call(deliver)), () => f.return(i32.const(STATUS_EXCEPTION)));
        f.if(i32.leS(state32(BUDGET_AT), ZERO), () => stop(i32.const(STATUS_BUDGET)));
        lookAhead();
        f.do(link.set(ZERO));
        f.br(again);
      });
      f.if(i32.eq(status.get, i32.const(STATUS_LEFT)), () => {
        f.do(link.set(i32.const(0)));
        f.br(again);
      });
      // The link that led to a stale record goes; the next passage makes it anew.
      f.if(i32.eq(status.get, i32.const(STATUS_STALE)), () => {
        f.if(link.get, () => f.do(i32.store(link.get, 0, i32.const(0))));
        f.do(link.set(i32.const(0)));
        f.br(again);
      });
      f.if(i32.eq(status.get, i32.const(STATUS_REFETCH)), () => {
        f.do(refetch.set(i32.const(1)), link.set(i32.const(0)));
        f.br(again);
      });
      f.if(i32.eq(status.get, i32.const(STATUS_JUMPED)), () => {
        retire();
        f.do(link.set(i32.const(0)));
        f.br(again);
      });
      f.if(i32.eq(status.get, i32.const(STATUS_RELOAD_TF)), () => {
        const other = i32.and(attention.get, i32.const(~RFLAGS_TF));
        f.do(attention.set(i32.or(other, i32.and(state32(RFLAGS_AT), i32.const(RFLAGS_TF)))));
        f.do(status.set(i32.const(STATUS_RELOAD)));
      });
      f.if(i32.or(i32.eq(status.get, i32.const(STATUS_RELOAD)), i32.eq(status.get, i32.const(STATUS_REPEAT))), () => {
        retire();
        lookAhead();
        f.do(link.set(i32.const(0)));
        f.br(again);
      });
      stop(status.get);
    });
    f.unreachable();
  });
}
