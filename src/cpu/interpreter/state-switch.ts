/**
 * The bulk of VMRUN's loads and #VMEXIT's stores as generated code: 64-bit moves between the control block and the state, by the lists
 * that say which. The same moves through typed arrays were a tenth of the cost of a nested page fault. HOT
 */
import { CS, DS, ES, RAX, RSP, SS } from '../../arch/registers.ts';
import {
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
  VMCB_GDTR,
  VMCB_IDTR,
  VMCB_RAX,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
} from '../../arch/vmcb.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import {
  CR0_AT,
  CR2_AT,
  CR3_AT,
  CR4_AT,
  DR_AT,
  EFER_AT,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_BASE,
  IDTR_LIMIT,
  RIP_AT,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_SIZE,
} from '../state.ts';
import { i32, i64, T_I32 } from '../wasm/code.ts';
import type { FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';

type Pairs = readonly (readonly [vmcb: number, state: number])[];

/** Segment registers: offset in the block, number. */
const SEGMENTS: Pairs = [
  [VMCB_ES, ES],
  [VMCB_CS, CS],
  [VMCB_SS, SS],
  [VMCB_DS, DS],
];
/** 64-bit words that move both ways. */
const WORDS: Pairs = [
  [VMCB_GDTR + 8, GDTR_BASE],
  [VMCB_IDTR + 8, IDTR_BASE],
  [VMCB_EFER, EFER_AT],
  [VMCB_CR0, CR0_AT],
  [VMCB_CR2, CR2_AT],
  [VMCB_CR3, CR3_AT],
  [VMCB_CR4, CR4_AT],
  [VMCB_DR6, DR_AT + 48],
  [VMCB_DR7, DR_AT + 56],
  [VMCB_RIP, RIP_AT],
  [VMCB_RSP, GPR + RSP * 8],
  [VMCB_RAX, GPR + RAX * 8],
];
/** 32-bit words that move both ways. */
const HALVES: Pairs = [
  [VMCB_GDTR + 4, GDTR_LIMIT],
  [VMCB_IDTR + 4, IDTR_LIMIT],
];

/** (address of the control block): loads segments, tables, control and debug registers, RIP, RSP and RAX. */
export function defineLoadGuest(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32], [], (f) => {
    const block = f.param32(0).get;
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
  });
}

/** (to, from): copies the 15 bytes that an instruction has at most. */
export function defineCopyInstruction(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32, T_I32], [], (f) => {
    const [to, from] = [f.param32(0).get, f.param32(1).get];
    f.do(i64.store(to, 0, i64.load(from, 0)), i64.store(to, 7, i64.load(from, 7)));
  });
}

/** (address of the control block): stores what the other loads. */
export function defineStoreGuest(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32], [], (f) => {
    const block = f.param32(0).get;
    for (const [to, n] of SEGMENTS) {
      const from = SEG + n * SEG_SIZE;
      f.do(
        i32.store16(block, to, state32(from + SEG_SELECTOR)),
        i32.store16(block, to + 2, state32(from + SEG_ATTR)),
        i32.store(block, to + 4, state32(from + SEG_LIMIT)),
        i64.store(block, to + 8, state64(from + SEG_BASE)),
      );
    }
    for (const [to, from] of WORDS) f.do(i64.store(block, to, state64(from)));
    for (const [to, from] of HALVES) f.do(i32.store(block, to, state32(from)));
  });
}
