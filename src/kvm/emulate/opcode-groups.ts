/** Opcodes that share a first byte and differ in ModRM, prefix or mode (@sdm volume 2, tables A-6 and following; @kvm emulate.c). */
import {
  emAdc,
  emAdd,
  emAnd,
  emBt,
  emBtc,
  emBtr,
  emBts,
  emCmp,
  emDec,
  emDivEx,
  emIdivEx,
  emImulEx,
  emInc,
  emMulEx,
  emNeg,
  emNot,
  emOr,
  emRcl,
  emRcr,
  emRol,
  emRor,
  emSar,
  emSbb,
  emShl,
  emShr,
  emSub,
  emTest,
  emXor,
} from './arithmetic.ts';
import { emCallFar, emCallNearAbs, emJmpAbs, emJmpFar } from './control.ts';
import { emFninit, emFnstcw, emFnstsw, emFxrstor, emFxsave } from './fpu.ts';
import * as icpt from './intercepts.ts';
import { emCmpxchg8b, emMov, emMovbe, emMovsxd, emNop } from './moves.ts';
import {
  ALIGNED16,
  BYTE_OP,
  EMULATE_ON_UD,
  guarded,
  INC_SP,
  IS_BRANCH,
  LOCK,
  MMX,
  MODRM,
  MOV,
  notImplemented as N,
  NEAR_BRANCH,
  NO_16,
  NO_WRITE,
  OP_3264,
  type Opcode,
  op,
  PAGE_TABLE,
  PRIV,
  PROT,
  SPLIT_MOD,
  SPLIT_PREFIX,
  SPLIT_RM,
  SRC_WRITE,
  SSE,
  STACK,
  split,
  TWO_MEM_OP,
  UNALIGNED,
  undefinedOpcode,
} from './opcode.ts';
import { checkRdtsc, checkSvme, checkSvmePa } from './permissions.ts';
import { emPop, emPush } from './stack.ts';
import {
  emHypercall,
  emInvlpg,
  emLgdt,
  emLidt,
  emLldt,
  emLmsw,
  emLtr,
  emRdpid,
  emSgdt,
  emSidt,
  emSldt,
  emSmsw,
  emStr,
  emXsetbv,
} from './system.ts';

/** 80 to 83: immediate arithmetic. */
export const group1: readonly Opcode[] = [
  op('', emAdd, LOCK),
  op('', emOr, LOCK | PAGE_TABLE),
  op('', emAdc, LOCK),
  op('', emSbb, LOCK),
  op('', emAnd, LOCK | PAGE_TABLE),
  op('', emSub, LOCK),
  op('', emXor, LOCK),
  op('', emCmp, NO_WRITE),
];

/** 8f. */
export const group1A: readonly Opcode[] = [op('E', emPop, MOV | STACK | INC_SP | TWO_MEM_OP), N, N, N, N, N, N, N];

/** c0, c1, d0 to d3: shifts and rotates by src2. */
export const group2: readonly Opcode[] = [emRol, emRor, emRcl, emRcr, emShl, emShr, emShl, emSar].map((execute) =>
  op('E', execute),
);

/** f6, f7. */
export const group3: readonly Opcode[] = [
  op('E,Iz', emTest, NO_WRITE),
  op('E,Iz', emTest, NO_WRITE),
  op('E', emNot, LOCK),
  op('E', emNeg, LOCK),
  op('AccLo,AccHi,E', emMulEx, SRC_WRITE),
  op('AccLo,AccHi,E', emImulEx, SRC_WRITE),
  op('AccLo,AccHi,E', emDivEx, SRC_WRITE),
  op('AccLo,AccHi,E', emIdivEx, SRC_WRITE),
];

/** fe. */
export const group4: readonly Opcode[] = [
  op('E', emInc, LOCK | BYTE_OP),
  op('E', emDec, LOCK | BYTE_OP),
  N,
  N,
  N,
  N,
  N,
  N,
];

/** ff. */
export const group5: readonly Opcode[] = [
  op('E', emInc, LOCK),
  op('E', emDec, LOCK),
  op(',E', emCallNearAbs, NEAR_BRANCH | IS_BRANCH),
  op('implicit,Mp', emCallFar, IS_BRANCH),
  op(',E', emJmpAbs, NEAR_BRANCH | IS_BRANCH),
  op('implicit,Mp', emJmpFar, IS_BRANCH),
  op(',E', emPush, STACK | TWO_MEM_OP),
  undefinedOpcode,
];

/** 0f 00. */
export const group6: readonly Opcode[] = [
  guarded(op('E', emSldt, PROT), icpt.X86_INTERCEPT_SLDT),
  guarded(op('E', emStr, PROT), icpt.X86_INTERCEPT_STR),
  guarded(op(',Ew', emLldt, PROT | PRIV), icpt.X86_INTERCEPT_LLDT),
  guarded(op(',Ew', emLtr, PROT | PRIV), icpt.X86_INTERCEPT_LTR),
  N,
  N,
  N,
  N,
];

const vmcall = [N, op('', emHypercall, PRIV | EMULATE_ON_UD), N, N, N, N, N, N];
const monitorMwait = [
  guarded(op('', null, PRIV), icpt.X86_INTERCEPT_MONITOR),
  guarded(op('', null, PRIV), icpt.X86_INTERCEPT_MWAIT),
  N,
  N,
  N,
  N,
  N,
  N,
];
const xsetbv = [N, guarded(op('implicit', emXsetbv, PRIV), icpt.X86_INTERCEPT_XSETBV), N, N, N, N, N, N];
const svmInstructions = [
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_VMRUN, checkSvmePa),
  guarded(op('', emHypercall, PROT | EMULATE_ON_UD), icpt.X86_INTERCEPT_VMMCALL),
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_VMLOAD, checkSvmePa),
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_VMSAVE, checkSvmePa),
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_STGI, checkSvme),
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_CLGI, checkSvme),
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_SKINIT, checkSvme),
  guarded(op('', null, PROT | PRIV), icpt.X86_INTERCEPT_INVLPGA, checkSvme),
];
const rdtscp = [N, guarded(op('', null), icpt.X86_INTERCEPT_RDTSCP, checkRdtsc), N, N, N, N, N, N];

const smsw = guarded(op('E', emSmsw, MOV), icpt.X86_INTERCEPT_SMSW);
const lmsw = guarded(op(',Ew', emLmsw, MOV | PRIV), icpt.X86_INTERCEPT_LMSW);

/** 0f 01: memory forms, then register forms. */
export const group7: readonly Opcode[] = [
  guarded(op('E', emSgdt, MOV), icpt.X86_INTERCEPT_SGDT),
  guarded(op('E', emSidt, MOV), icpt.X86_INTERCEPT_SIDT),
  guarded(op(',E', emLgdt, PRIV), icpt.X86_INTERCEPT_LGDT),
  guarded(op(',E', emLidt, PRIV), icpt.X86_INTERCEPT_LIDT),
  smsw,
  N,
  lmsw,
  guarded(op(',M', emInvlpg, BYTE_OP | PRIV), icpt.X86_INTERCEPT_INVLPG),
  split(SPLIT_RM, vmcall),
  split(SPLIT_RM, monitorMwait),
  split(SPLIT_RM, xsetbv),
  split(SPLIT_RM, svmInstructions),
  smsw,
  N,
  lmsw,
  split(SPLIT_RM, rdtscp),
];

/** 0f ba. */
export const group8: readonly Opcode[] = [
  N,
  N,
  N,
  N,
  op('E,Ib', emBt, NO_WRITE),
  op('E,Ib', emBts, LOCK | PAGE_TABLE),
  op('E,Ib', emBtr, LOCK),
  op('E,Ib', emBtc, LOCK | PAGE_TABLE),
];

const rdpid = [N, N, N, guarded(op('E', emRdpid, OP_3264 | EMULATE_ON_UD), icpt.X86_INTERCEPT_RDPID)];

/** 0f c7: memory forms, then register forms. */
export const group9: readonly Opcode[] = [
  N,
  op('Mq', emCmpxchg8b, LOCK | PAGE_TABLE),
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  N,
  split(SPLIT_PREFIX, rdpid),
];

/** c6, c7. */
export const group11: readonly Opcode[] = [
  op('E,Iz', emMov, MOV | PAGE_TABLE),
  ...new Array<Opcode>(7).fill(undefinedOpcode),
];

const clflush = op(',E', emNop, BYTE_OP);

/** 0f ae: memory forms, then register forms. */
export const group15: readonly Opcode[] = [
  op('', emFxsave, MODRM | ALIGNED16),
  op('', emFxrstor, MODRM | ALIGNED16),
  N,
  N,
  N,
  N,
  N,
  split(SPLIT_PREFIX, [clflush, clflush, N, N]),
  ...new Array<Opcode>(8).fill(N),
];

/** A vector move by prefix: none, 66, F2, F3. */
export const movq6f7f: readonly Opcode[] = [op('', emMov, MMX), op('', emMov, SSE), N, op('', emMov, SSE | UNALIGNED)];
const memoryMov = split(SPLIT_MOD, [op('', emMov), N]);
export const movnt2b: readonly Opcode[] = [memoryMov, memoryMov, N, N];
export const movu1011: readonly Opcode[] = [op('', emMov, UNALIGNED), op('', emMov, UNALIGNED), N, N];
export const mova2829: readonly Opcode[] = [op('', emMov), op('', emMov), N, N];
export const movntE7: readonly Opcode[] = [N, op('', emMov, SSE), N, N];

/** A coprocessor opcode that KVM emulates in one form. */
function escapeForm(at: number, row: Opcode): readonly Opcode[] {
  const rows = new Array<Opcode>(8 + 64).fill(N);
  rows[at] = row;
  return rows;
}
export const escapeD9 = escapeForm(7, op('Ew', emFnstcw, MOV));
export const escapeDB = escapeForm(8 + 0xe3 - 0xc0, op('implicit', emFninit));
export const escapeDD = escapeForm(7, op('Ew', emFnstsw, MOV));

/** c3 after 0f: MOVNTI. */
export const movnti: readonly Opcode[] = [op('E,G', emMov, MOV | NO_16), N];

/** 63: ARPL is not emulated, MOVSXD is. */
export const arplMovsxd: readonly Opcode[] = [N, op('G,Ed', emMovsxd, MOV)];

/** 8d. */
export const lea = (execute: Opcode): readonly Opcode[] => [execute, N];

const movbeLoad = split(SPLIT_MOD, [op('G,E', emMovbe, MOV), N]);
const movbeStore = split(SPLIT_MOD, [op('E,G', emMovbe, MOV), N]);
export const movbeF0: readonly Opcode[] = [movbeLoad, movbeLoad, N, N];
export const movbeF1: readonly Opcode[] = [movbeStore, movbeStore, N, N];
