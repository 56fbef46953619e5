/** One-byte opcodes (@sdm volume 2, table A-2; @kvm emulate.c opcode_table). What has no line here is not emulated. */
import {
  emAad,
  emAam,
  emAdc,
  emAdd,
  emAnd,
  emCmp,
  emCmpR,
  emCwd,
  emDas,
  emDec,
  emImul3op,
  emInc,
  emOr,
  emSalc,
  emSbb,
  emSub,
  emTest,
  emXor,
} from './arithmetic.ts';
import {
  emCall,
  emCallFar,
  emInt,
  emInt3,
  emInto,
  emIret,
  emJcc,
  emJcxz,
  emJmp,
  emJmpFar,
  emLoop,
  emRet,
  emRetFar,
  emRetFarImm,
  emRetNearImm,
} from './control.ts';
import type { Handler } from './ctxt.ts';
import * as icpt from './intercepts.ts';
import {
  emCbw,
  emClc,
  emCld,
  emCmc,
  emLahf,
  emLea,
  emLseg,
  emMov,
  emSahf,
  emStc,
  emStd,
  emXchg,
  emXchgAcc,
} from './moves.ts';
import {
  BYTE_OP,
  guarded,
  IS_BRANCH,
  LOCK,
  MODRM,
  MOV,
  NEAR_BRANCH,
  NO_64,
  NO_WRITE,
  OpcodeMap,
  op,
  PAGE_TABLE,
  PRIV,
  SPLIT_ESCAPE,
  SPLIT_MOD,
  SPLIT_MODE,
  SPLIT_REG,
  STACK,
  STRING,
  split,
  TWO_MEM_OP,
  UNALIGNED,
} from './opcode.ts';
import * as group from './opcode-groups.ts';
import { checkPermIn, checkPermOut, emCli, emIn, emOut, emSti } from './port-io.ts';
import { emEnter, emLeave, emPop, emPopa, emPopf, emPopSreg, emPush, emPusha, emPushf, emPushSreg } from './stack.ts';
import { emHlt, emMovRmSreg, emMovSregRm } from './system.ts';

const map = new OpcodeMap();

/** The six forms of a two-operand arithmetic instruction; only the one with a memory destination may be locked. */
function arithmetic(code: number, execute: Handler, flags: number): void {
  map.pair(code, op('E,G', execute, flags));
  map.pair(code + 2, op('G,E', execute, flags & ~LOCK));
  map.pair(code + 4, op('A,Iz', execute, flags & ~LOCK));
}

arithmetic(0x00, emAdd, LOCK);
arithmetic(0x08, emOr, LOCK | PAGE_TABLE);
arithmetic(0x10, emAdc, LOCK);
arithmetic(0x18, emSbb, LOCK);
arithmetic(0x20, emAnd, LOCK | PAGE_TABLE);
arithmetic(0x28, emSub, LOCK);
arithmetic(0x30, emXor, LOCK);
arithmetic(0x38, emCmp, NO_WRITE);
map.at(0x06, op('implicit,,ES', emPushSreg, STACK | NO_64));
map.at(0x07, op('implicit,,ES', emPopSreg, STACK | NO_64));
map.at(0x0e, op('implicit,,CS', emPushSreg, STACK | NO_64));
map.at(0x16, op('implicit,,SS', emPushSreg, STACK | NO_64));
map.at(0x17, op('implicit,,SS', emPopSreg, STACK | NO_64));
map.at(0x1e, op('implicit,,DS', emPushSreg, STACK | NO_64));
map.at(0x1f, op('implicit,,DS', emPopSreg, STACK | NO_64));
map.at(0x2f, op('A', emDas, BYTE_OP | NO_64));

map.span(0x40, 0x47, op('Z', emInc));
map.span(0x48, 0x4f, op('Z', emDec));
map.span(0x50, 0x57, op(',Z', emPush, STACK));
map.span(0x58, 0x5f, op('Z', emPop, STACK));

map.at(0x60, op('implicit', emPusha, STACK | NO_64));
map.at(0x61, op('implicit', emPopa, STACK | NO_64));
map.at(0x63, split(SPLIT_MODE, group.arplMovsxd, '', MODRM));
map.at(0x68, op(',Iz', emPush, MOV | STACK));
map.at(0x69, op('G,E,Iz', emImul3op));
map.at(0x6a, op(',Ib', emPush, MOV | STACK));
map.at(0x6b, op('G,E,Ib', emImul3op));
map.pair(0x6c, guarded(op('Y,DX', emIn, MOV | STRING | UNALIGNED), icpt.X86_INTERCEPT_INS, checkPermIn));
map.pair(0x6e, guarded(op('DX,X', emOut, STRING), icpt.X86_INTERCEPT_OUTS, checkPermOut));
map.span(0x70, 0x7f, op(',Ib', emJcc, NEAR_BRANCH | IS_BRANCH));

map.at(0x80, split(SPLIT_REG, group.group1, 'E,Iz', BYTE_OP));
map.at(0x81, split(SPLIT_REG, group.group1, 'E,Iz'));
map.at(0x82, split(SPLIT_REG, group.group1, 'E,Iz', BYTE_OP | NO_64));
map.at(0x83, split(SPLIT_REG, group.group1, 'E,Ib'));
map.pair(0x84, op('E,G', emTest, NO_WRITE));
map.pair(0x86, op('E,G', emXchg, LOCK | PAGE_TABLE));
map.pair(0x88, op('E,G', emMov, MOV | PAGE_TABLE));
map.pair(0x8a, op('G,E', emMov, MOV));
map.at(0x8c, op('E', emMovRmSreg, MOV | PAGE_TABLE));
map.at(0x8d, split(SPLIT_MOD, group.lea(op('G,M', emLea))));
map.at(0x8e, op('implicit,Ew', emMovSregRm));
map.at(0x8f, split(SPLIT_REG, group.group1A));

map.at(0x90, guarded(op('Z,A', emXchgAcc), icpt.X86_INTERCEPT_PAUSE));
map.span(0x91, 0x97, op('Z,A', emXchgAcc));
map.at(0x98, op('A', emCbw));
map.at(0x99, op('implicit,A', emCwd));
map.at(0x9a, op(',Ap', emCallFar, NO_64 | IS_BRANCH));
map.at(0x9c, guarded(op('implicit', emPushf, STACK), icpt.X86_INTERCEPT_PUSHF));
map.at(0x9d, guarded(op('implicit', emPopf, STACK), icpt.X86_INTERCEPT_POPF));
map.at(0x9e, op('implicit', emSahf));
map.at(0x9f, op('implicit', emLahf));

map.pair(0xa0, op('A,O', emMov, MOV));
map.pair(0xa2, op('O,A', emMov, MOV | PAGE_TABLE));
map.pair(0xa4, op('Y,X', emMov, MOV | STRING | TWO_MEM_OP));
map.pair(0xa6, op('Y,X', emCmpR, STRING | NO_WRITE | TWO_MEM_OP));
map.pair(0xa8, op('A,Iz', emTest, NO_WRITE));
map.pair(0xaa, op('Y,A', emMov, MOV | STRING));
map.pair(0xac, op('A,X', emMov, MOV | STRING));
map.pair(0xae, op('Y,A', emCmpR, STRING | NO_WRITE));
map.span(0xb0, 0xb7, op('Z,Iz', emMov, MOV | BYTE_OP));
map.span(0xb8, 0xbf, op('Z,Iv', emMov, MOV));

map.pair(0xc0, split(SPLIT_REG, group.group2, ',,Ib'));
map.at(0xc2, op('implicit,Iw', emRetNearImm, NEAR_BRANCH | IS_BRANCH));
map.at(0xc3, op('implicit', emRet, NEAR_BRANCH | IS_BRANCH));
map.at(0xc4, op('G,Mp,ES', emLseg, NO_64));
map.at(0xc5, op('G,Mp,DS', emLseg, NO_64));
map.pair(0xc6, split(SPLIT_REG, group.group11));
map.at(0xc8, op(',Iw,Ib', emEnter, STACK | IS_BRANCH));
map.at(0xc9, op('', emLeave, STACK | IS_BRANCH));
map.at(0xca, op('implicit,Iw', emRetFarImm, IS_BRANCH));
map.at(0xcb, op('implicit', emRetFar, IS_BRANCH));
map.at(0xcc, op('implicit', emInt3, IS_BRANCH));
map.at(0xcd, guarded(op(',Ib', emInt, IS_BRANCH), icpt.X86_INTERCEPT_INTN));
map.at(0xce, op('implicit', emInto, NO_64 | IS_BRANCH));
map.at(0xcf, guarded(op('implicit', emIret, IS_BRANCH), icpt.X86_INTERCEPT_IRET));

map.pair(0xd0, split(SPLIT_REG, group.group2, ',,1'));
map.pair(0xd2, split(SPLIT_REG, group.group2, ',,CL'));
map.at(0xd4, op('A,Iub', emAam, NO_64));
map.at(0xd5, op('A,Iub', emAad, NO_64));
map.at(0xd6, op('A', emSalc, BYTE_OP | NO_64));
map.at(0xd7, op('A,XLAT', emMov, BYTE_OP));
map.at(0xd9, split(SPLIT_ESCAPE, group.escapeD9));
map.at(0xdb, split(SPLIT_ESCAPE, group.escapeDB));
map.at(0xdd, split(SPLIT_ESCAPE, group.escapeDD));

map.span(0xe0, 0xe2, op(',Ib', emLoop, NEAR_BRANCH | IS_BRANCH));
map.at(0xe3, op(',Ib', emJcxz, NEAR_BRANCH | IS_BRANCH));
map.pair(0xe4, guarded(op('A,Iub', emIn), icpt.X86_INTERCEPT_IN, checkPermIn));
map.pair(0xe6, guarded(op('Iub,A', emOut), icpt.X86_INTERCEPT_OUT, checkPermOut));
map.at(0xe8, op(',Iz', emCall, NEAR_BRANCH | IS_BRANCH));
map.at(0xe9, op('implicit,Iz', emJmp, NEAR_BRANCH | IS_BRANCH));
map.at(0xea, op(',Ap', emJmpFar, NO_64 | IS_BRANCH));
map.at(0xeb, op('implicit,Ib', emJmp, NEAR_BRANCH | IS_BRANCH));
map.pair(0xec, guarded(op('A,DX', emIn), icpt.X86_INTERCEPT_IN, checkPermIn));
map.pair(0xee, guarded(op('DX,A', emOut), icpt.X86_INTERCEPT_OUT, checkPermOut));

map.at(0xf1, guarded(op('implicit', null), icpt.X86_INTERCEPT_ICEBP));
map.at(0xf4, guarded(op('implicit', emHlt, PRIV), icpt.X86_INTERCEPT_HLT));
map.at(0xf5, op('implicit', emCmc));
map.pair(0xf6, split(SPLIT_REG, group.group3));
map.at(0xf8, op('implicit', emClc));
map.at(0xf9, op('implicit', emStc));
map.at(0xfa, op('implicit', emCli));
map.at(0xfb, op('implicit', emSti));
map.at(0xfc, op('implicit', emCld));
map.at(0xfd, op('implicit', emStd));
map.at(0xfe, split(SPLIT_REG, group.group4));
map.at(0xff, split(SPLIT_REG, group.group5));

/** Indexed by the opcode byte. */
export const opcodeTable = map.rows;
