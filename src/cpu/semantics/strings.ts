/**
 * String instructions. One execution of a repeated one does the iterations that stay inside the pages that it starts in, so that a
 * fault, an interrupt or the end of the budget always finds an iteration boundary; the registers say where to go on.
 */
import { ES, RAX, RCX, RDI, RFLAGS_DF, RSI } from '../../arch/registers.ts';
import { RECORD_FLAGS, RECORD_HAS_REP, RECORD_HAS_REPNE, RECORD_SEGMENT } from '../decode/record.ts';
import { ACCESS_READ, ACCESS_WRITE, RFLAGS_AT, SCRATCH, STATUS_OK } from '../state.ts';
import {
  type I32,
  type I64,
  i32,
  i64,
  loadSigned,
  memoryCopy,
  memoryFill,
  signExtend,
  storeSized,
} from '../wasm/code.ts';
import { call, type FunctionBuilder, getGlobal, type Local32, type Local64 } from '../wasm/function.ts';
import { FL_SUB, storeFlags } from './flags.ts';
import { STATUS_REPEAT } from './handler-status.ts';
import type { SharedFunctions } from './shared-functions.ts';
import { gpr, gprSigned, setGpr, state32 } from './state-access.ts';

export type StringKind = 'movs' | 'stos' | 'lods' | 'scas' | 'cmps';

const C0 = i64.const(0);

/** One of the two pointers of a string instruction. */
interface Side {
  readonly register: number;
  readonly segment: I32;
  readonly access: number;
  readonly offset: Local64;
  readonly linear: Local64;
  readonly pointer: Local32;
}

/** Advances the register of the address size by `delta`. */
function advance(f: FunctionBuilder, mask: Local64, register: number, delta: I64): void {
  const value = f.i64(i64.and(i64.add(gpr(register, 8), delta), mask.get));
  f.if(
    i64.eq(mask.get, i64.const(0xffff)),
    () => f.do(setGpr(register, 2, value.get)),
    () => f.do(setGpr(register, 8, value.get)),
  );
}

/** The handler of a string instruction with elements of `size` bytes. */
export function stringHandler(f: FunctionBuilder, s: SharedFunctions, kind: StringKind, size: number): void {
  const record = f.param32(0).get;
  const mask = f.i64(call(s.addressMask, record));
  const prefixes = f.i32(i32.and(i32.load8U(record, RECORD_FLAGS), i32.const(RECORD_HAS_REP | RECORD_HAS_REPNE)));
  const left = f.i64(i64.const(1));
  f.if(prefixes.get, () => {
    f.do(left.set(i64.and(gpr(RCX, 8), mask.get)));
    f.if(i64.eqz(left.get), () => f.return(i32.const(STATUS_OK)));
  });
  const backward = f.i32(i32.and(state32(RFLAGS_AT), i32.const(RFLAGS_DF)));
  const step = f.i64(i64.select(backward.get, i64.const(-size), i64.const(size)));
  const side = (register: number, segment: I32, access: number): Side => ({
    register,
    segment,
    access,
    offset: f.i64(i64.and(gpr(register, 8), mask.get)),
    linear: f.i64(),
    pointer: f.i32(),
  });
  const source =
    kind === 'stos' || kind === 'scas' ? undefined : side(RSI, i32.load8U(record, RECORD_SEGMENT), ACCESS_READ);
  const target =
    kind === 'lods'
      ? undefined
      : side(RDI, i32.const(ES), kind === 'movs' || kind === 'stos' ? ACCESS_WRITE : ACCESS_READ);
  const sides = [source, target].filter((x) => x !== undefined);

  // How many elements: not past the end of a page, of the address size, of the segment.
  const n = f.i64(left.get);
  const atMost = (count: I64): void => {
    const c = f.i64(count);
    f.do(n.set(i64.select(i64.ltU(c.get, n.get), c.get, n.get)));
  };
  const segmented = (x: Side, offset: I64): I64 =>
    call(s.segmented, offset, i32.const(size), i32.const(x.access), x.segment);
  for (const x of sides) {
    f.do(x.linear.set(segmented(x, x.offset.get)));
    f.if(getGlobal(s.fault), () => f.return(getGlobal(s.fault)));
    const inPage = i64.and(x.linear.get, i64.const(0xfff));
    f.if(
      backward.get,
      () => {
        atMost(i64.add(i64.divU(inPage, i64.const(size)), i64.const(1)));
        atMost(i64.add(i64.divU(x.offset.get, i64.const(size)), i64.const(1)));
      },
      () => {
        atMost(i64.divU(i64.sub(i64.const(4096), inPage), i64.const(size)));
        atMost(i64.divU(i64.sub(mask.get, x.offset.get), i64.const(size)));
      },
    );
    // An element that crosses into the next page, or wraps, goes alone.
    f.if(i64.gtU(i64.add(inPage, i64.const(size)), i64.const(4096)), () => f.do(n.set(i64.const(1))));
    f.if(i64.eqz(n.get), () => f.do(n.set(i64.const(1))));
  }
  for (const x of sides) {
    f.if(i64.gtU(n.get, i64.const(1)), () => {
      const last = i64.add(x.offset.get, i64.mul(i64.sub(n.get, i64.const(1)), step.get));
      f.i64(segmented(x, last));
      f.if(getGlobal(s.fault), () => f.do(n.set(i64.const(1))));
    });
  }

  const reach = (x: Side): void => {
    const pointer = call(s.access, record, x.linear.get, i32.const(size), i32.const(x.access), x.segment);
    f.if(i32.eqz(x.pointer.tee(pointer)), () => f.return(getGlobal(s.fault)));
  };
  const value = f.i64();
  const stride = f.i32(i32.wrap(step.get));
  const move = (x: Side): void => f.do(x.pointer.set(i32.add(x.pointer.get, stride.get)));
  const done = f.i64(n.get);
  /** Does `body` n times; it says when to stop early. */
  const iterate = (body: (stop: (condition: I32) => void) => void): void => {
    f.do(done.set(C0));
    f.block((end) => {
      f.loop((again) => {
        f.do(done.set(i64.add(done.get, i64.const(1))));
        body((condition) => f.brIf(end, condition));
        f.brIf(again, i64.ltU(done.get, n.get));
      });
    });
  };

  if (source !== undefined && kind !== 'cmps') reach(source);
  if (kind === 'lods') {
    iterate(() => {
      f.do(value.set(loadSigned(size, source!.pointer.get)));
      move(source!);
    });
    f.do(setGpr(RAX, size, value.get));
  } else if (kind === 'movs' || kind === 'stos') {
    // The first element is taken before the target is translated, which may use SCRATCH or fault.
    f.do(value.set(source === undefined ? gprSigned(RAX, size) : loadSigned(size, source.pointer.get)));
    reach(target!);
    f.if(
      i64.eq(n.get, i64.const(1)),
      () => {
        f.do(storeSized(size, target!.pointer.get, 0, value.get));
        f.if(i32.eq(target!.pointer.get, i32.const(SCRATCH)), () => {
          const status = f.i32(call(s.finishWrite, record, target!.linear.get, i32.const(size)));
          f.if(status.get, () => f.return(status.get));
        });
      },
      () => {
        const bytes = f.i32(i32.mul(i32.wrap(n.get), i32.const(size)));
        const plain = (): void =>
          iterate(() => {
            if (source !== undefined) f.do(value.set(loadSigned(size, source.pointer.get)));
            f.do(storeSized(size, target!.pointer.get, 0, value.get));
            if (source !== undefined) move(source);
            move(target!);
          });
        if (kind === 'stos' && size !== 1) {
          plain();
          return;
        }
        // Forward and not onto itself: what memory.copy and memory.fill do.
        const overlaps =
          source === undefined ? i32.const(0) : i32.ltU(i32.sub(target!.pointer.get, source.pointer.get), bytes.get);
        f.if(i32.or(overlaps, backward.get), plain, () =>
          source === undefined
            ? f.do(memoryFill(target!.pointer.get, i32.wrap(value.get), bytes.get))
            : f.do(memoryCopy(target!.pointer.get, source.pointer.get, bytes.get)),
        );
      },
    );
  } else {
    // CMPS and SCAS stop at the first pair that their prefix does not like.
    const left0 = f.i64();
    const right = f.i64();
    reach(target!);
    if (source === undefined) f.do(left0.set(gprSigned(RAX, size)));
    else {
      // The second operand is read first, and taken before the first is translated, which may use SCRATCH.
      f.do(right.set(loadSigned(size, target!.pointer.get)));
      reach(source);
      f.do(left0.set(loadSigned(size, source.pointer.get)));
    }
    iterate((stop) => {
      if (source === undefined) f.do(right.set(loadSigned(size, target!.pointer.get)));
      else {
        f.if(i64.gtU(done.get, i64.const(1)), () => {
          f.do(left0.set(loadSigned(size, source.pointer.get)));
          f.do(right.set(loadSigned(size, target!.pointer.get)));
        });
        move(source);
      }
      move(target!);
      const equal = i64.eq(left0.get, right.get);
      stop(i32.eq(equal, i32.ne(i32.and(prefixes.get, i32.const(RECORD_HAS_REPNE)), i32.const(0))));
    });
    f.do(storeFlags(FL_SUB, signExtend(size, i64.sub(left0.get, right.get)), left0.get, right.get));
    // Without more to do, or stopped: finished.
    const equal = i64.eq(left0.get, right.get);
    const stopped = i32.eq(equal, i32.ne(i32.and(prefixes.get, i32.const(RECORD_HAS_REPNE)), i32.const(0)));
    f.do(value.set(i64.extendU(stopped)));
  }

  for (const x of sides) advance(f, mask, x.register, i64.mul(done.get, step.get));
  f.if(i32.eqz(prefixes.get), () => f.return(i32.const(STATUS_OK)));
  advance(f, mask, RCX, i64.sub(C0, done.get));
  if (kind === 'scas' || kind === 'cmps') f.if(i32.wrap(value.get), () => f.return(i32.const(STATUS_OK)));
  f.do(i32.select(i64.eq(done.get, left.get), i32.const(STATUS_OK), i32.const(STATUS_REPEAT)));
}
