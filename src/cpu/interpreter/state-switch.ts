/**
 * VMRUN's loads and #VMEXIT's stores as generated code: 64-bit moves between the control block and the state, by the lists that say which
 * (@apm 15.5.1, 15.6). The same moves through typed arrays were a tenth of the cost of a nested page fault. HOT
 */
import { CR0_PE, CS, DS, ES, RAX, RFLAGS_AC, RFLAGS_FIXED, RFLAGS_RF, RSP, SS } from '../../arch/registers.ts';
import {
  V_TPR_MASK,
  VMCB_CPL,
  VMCB_CR0,
  VMCB_CR2,
  VMCB_CR3,
  VMCB_CR4,
  VMCB_CS,
  VMCB_DR6,
  VMCB_DR7,
  VMCB_DS,
  VMCB_EFER,
  VMCB_ES,
  VMCB_EVENT_INJ,
  VMCB_EXIT_CODE,
  VMCB_EXIT_INFO_1,
  VMCB_EXIT_INFO_2,
  VMCB_EXIT_INT_INFO,
  VMCB_G_PAT,
  VMCB_GDTR,
  VMCB_IDTR,
  VMCB_INT_CTL,
  VMCB_INT_STATE,
  VMCB_NESTED_CTL,
  VMCB_RAX,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
  VMCB_TSC_OFFSET,
} from '../../arch/vmcb.ts';
import { STATUS_FLAGS } from '../semantics/flags.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import {
  CPL_AT,
  CR0_AT,
  CR2_AT,
  CR3_AT,
  CR4_AT,
  CR8_AT,
  DR_AT,
  EFER_AT,
  EXIT_CODE_AT,
  EXIT_INFO1_AT,
  EXIT_INFO2_AT,
  FLAGS_OP,
  FLAGS_SRC,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_BASE,
  IDTR_LIMIT,
  INSNS_AT,
  INT_SHADOW_AT,
  PAT_AT,
  RF_RIP_AT,
  RF_SINCE_AT,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_SIZE,
  STATUS_EXIT,
  TSC_OFFSET_AT,
} from '../state.ts';
import { type I32, i32, i64, T_I32 } from '../wasm/code.ts';
import { call, type FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';

/** Beside the statuses of a run: what VMRUN loaded is not what was there. */
export const STATE_CHANGED = -1;

type Pairs = readonly (readonly [vmcb: number, state: number])[];

/** Segment registers: offset in the block, number. */
const SEGMENTS: Pairs = [
  [VMCB_ES, ES],
  [VMCB_CS, CS],
  [VMCB_SS, SS],
  [VMCB_DS, DS],
];
/** 64-bit words that move both ways, and decide about paging, the mode or the consistency of the block. */
const DECISIVE: Pairs = [
  [VMCB_EFER, EFER_AT],
  [VMCB_CR0, CR0_AT],
  [VMCB_CR3, CR3_AT],
  [VMCB_CR4, CR4_AT],
  [VMCB_DR6, DR_AT + 48],
  [VMCB_DR7, DR_AT + 56],
];
/** The others. */
const WORDS: Pairs = [
  [VMCB_GDTR + 8, GDTR_BASE],
  [VMCB_IDTR + 8, IDTR_BASE],
  [VMCB_CR2, CR2_AT],
  [VMCB_RIP, RIP_AT],
  [VMCB_RSP, GPR + RSP * 8],
  [VMCB_RAX, GPR + RAX * 8],
];
/** 32-bit words that move both ways. */
const HALVES: Pairs = [
  [VMCB_GDTR + 4, GDTR_LIMIT],
  [VMCB_IDTR + 4, IDTR_LIMIT],
];

/**
 * (address of the control block) -> whether EFER, a control register, DR6, DR7, CS's attributes, CPL or RFLAGS.AC is not what the state had:
 * loads what VMRUN does.
 */
export function defineLoadGuest(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32], [T_I32], (f) => {
    const block = f.param32(0).get;
    const differ = f.i64(i64.const(0));
    const word = f.i64();
    for (const [from, to] of DECISIVE) {
      f.do(
        word.set(i64.load(block, from)),
        differ.set(i64.or(differ.get, i64.xor(word.get, state64(to)))),
        setState64(to, word.get),
      );
    }
    const mode = f.i32(i32.xor(i32.load16U(block, VMCB_CS + 2), state32(SEG + CS * SEG_SIZE + SEG_ATTR)));
    const note = (difference: I32): void => f.do(mode.set(i32.or(mode.get, difference)));
    for (const [from, n] of SEGMENTS) {
      const to = SEG + n * SEG_SIZE;
      f.do(
        setState32(to + SEG_SELECTOR, i32.load16U(block, from)),
        setState32(to + SEG_ATTR, i32.load16U(block, from + 2)),
        setState32(to + SEG_LIMIT, i32.load(block, from + 4)),
        setState64(to + SEG_BASE, i64.load(block, from + 8)),
      );
    }
    for (const [from, to] of WORDS) f.do(setState64(to, i64.load(block, from)));
    for (const [from, to] of HALVES) f.do(setState32(to, i32.load(block, from)));
    f.do(setState64(TSC_OFFSET_AT, i64.load(block, VMCB_TSC_OFFSET)));
    f.if(i32.and(i32.load(block, VMCB_NESTED_CTL), i32.const(1)), () =>
      f.do(setState64(PAT_AT, i64.load(block, VMCB_G_PAT))),
    );
    // Real mode has CPL 0, whatever the block says.
    const cpl = f.i32(i32.load8U(block, VMCB_CPL));
    f.if(i32.eqz(i32.and(state32(CR0_AT), i32.const(CR0_PE))), () => f.do(cpl.set(i32.const(0))));
    note(i32.xor(cpl.get, state32(CPL_AT)));
    f.do(
      setState32(CPL_AT, cpl.get),
      setState32(CR8_AT, i32.and(i32.load(block, VMCB_INT_CTL), i32.const(V_TPR_MASK))),
      setState32(INT_SHADOW_AT, i32.and(i32.load(block, VMCB_INT_STATE), i32.const(1))),
    );
    const flags = f.i32(i32.or(i32.load(block, VMCB_RFLAGS), i32.const(RFLAGS_FIXED)));
    note(i32.and(i32.xor(flags.get, state32(RFLAGS_AT)), i32.const(RFLAGS_AC)));
    f.do(
      setState32(RFLAGS_AT, i32.and(flags.get, i32.const(~STATUS_FLAGS))),
      setState32(FLAGS_OP, i32.const(0)),
      setState64(FLAGS_SRC, i64.extendU(i32.and(flags.get, i32.const(STATUS_FLAGS)))),
    );
    f.if(i32.and(flags.get, i32.const(RFLAGS_RF)), () =>
      f.do(setState64(RF_RIP_AT, i64.load(block, VMCB_RIP)), setState32(RF_SINCE_AT, state32(INSNS_AT))),
    );
    f.do(i32.or(i64.ne(differ.get, i64.const(0)), i32.ne(mode.get, i32.const(0))));
  });
}

/**
 * (address of the control block, its INT_CTL) -> status of a run, or STATE_CHANGED before one: VMRUN and, with STATUS_EXIT, #VMEXIT of a
 * guest of which nothing has changed that VMRUN has to look at. No event is taken to be under way.
 */
export function defineResume(m: ModuleBuilder, load: FunctionRef, run: FunctionRef, store: FunctionRef): FunctionRef {
  return m.function([T_I32, T_I32], [T_I32], (f) => {
    const block = f.param32(0).get;
    f.if(call(load, block), () => f.return(i32.const(STATE_CHANGED)));
    const status = f.i32(call(run));
    f.if(i32.eq(status.get, i32.const(STATUS_EXIT)), () =>
      f.do(call(store, block, f.param32(1).get, i32.const(0), i32.const(0))),
    );
    f.do(status.get);
  });
}

/** (to, from): copies the 15 bytes that an instruction has at most. */
export function defineCopyInstruction(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32, T_I32], [], (f) => {
    const [to, from] = [f.param32(0).get, f.param32(1).get];
    f.do(i64.store(to, 0, i64.load(from, 0)), i64.store(to, 7, i64.load(from, 7)));
  });
}

/**
 * (address of the control block, its INT_CTL as it stands, the event under way and its error code): stores what #VMEXIT does, all but what
 * tells of the instruction. RFLAGS.RF is stored as the state has it.
 */
export function defineStoreGuest(m: ModuleBuilder, s: SharedFunctions): FunctionRef {
  return m.function([T_I32, T_I32, T_I32, T_I32], [], (f) => {
    const block = f.param32(0).get;
    const control = f.param32(1).get;
    for (const [to, n] of SEGMENTS) {
      const from = SEG + n * SEG_SIZE;
      f.do(
        i32.store16(block, to, state32(from + SEG_SELECTOR)),
        i32.store16(block, to + 2, state32(from + SEG_ATTR)),
        i32.store(block, to + 4, state32(from + SEG_LIMIT)),
        i64.store(block, to + 8, state64(from + SEG_BASE)),
      );
    }
    for (const [to, from] of [...DECISIVE, ...WORDS]) f.do(i64.store(block, to, state64(from)));
    for (const [to, from] of HALVES) f.do(i32.store(block, to, state32(from)));
    f.if(i32.and(i32.load(block, VMCB_NESTED_CTL), i32.const(1)), () =>
      f.do(i64.store(block, VMCB_G_PAT, state64(PAT_AT))),
    );
    const shadow = i32.ne(state32(INT_SHADOW_AT), i32.const(0));
    const tpr = i32.and(state32(CR8_AT), i32.const(V_TPR_MASK));
    const rest = i32.and(state32(RFLAGS_AT), i32.const(~STATUS_FLAGS));
    f.do(
      i32.store8(block, VMCB_CPL, state32(CPL_AT)),
      i32.store(block, VMCB_INT_CTL, i32.or(i32.and(control, i32.const(~V_TPR_MASK)), tpr)),
      i32.store(block, VMCB_INT_STATE, i32.or(i32.and(i32.load(block, VMCB_INT_STATE), i32.const(~1)), shadow)),
      i64.store(block, VMCB_RFLAGS, i64.extendU(i32.or(rest, call(s.flags.status)))),
      i64.store(block, VMCB_EXIT_CODE, i64.extendU(state32(EXIT_CODE_AT))),
      i64.store(block, VMCB_EXIT_INFO_1, state64(EXIT_INFO1_AT)),
      i64.store(block, VMCB_EXIT_INFO_2, state64(EXIT_INFO2_AT)),
      i32.store(block, VMCB_EXIT_INT_INFO, f.param32(2).get),
      i32.store(block, VMCB_EXIT_INT_INFO + 4, f.param32(3).get),
      i64.store(block, VMCB_EVENT_INJ, i64.const(0)),
    );
  });
}
