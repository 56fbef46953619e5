/** Opcodes after 0f and after 0f 38 (@sdm volume 2, tables; @kvm emulate.c twobyte_table, opcode_map_0f_38). */
import { emBsf, emBsr, emBt, emBtc, emBtr, emBts, emCmpxchg, emImul, emShld, emShrd, emXadd } from './arithmetic.ts';
import { emJcc } from './control.ts';
import * as icpt from './intercepts.ts';
import { emBswap, emCmov, emLseg, emMovsx, emMovzx, emNop, emSetcc } from './moves.ts';
import {
  BIT_OP,
  BYTE_OP,
  EMULATE_ON_UD,
  guarded,
  IS_BRANCH,
  LOCK,
  MODRM,
  MOV,
  NEAR_BRANCH,
  NO_MOD,
  NO_WRITE,
  OP_3264,
  OpcodeMap,
  op,
  PAGE_TABLE,
  PRIV,
  SPLIT_MOD,
  SPLIT_PREFIX,
  SPLIT_REG,
  SPLIT_REG_MOD,
  SRC_WRITE,
  SSE,
  STACK,
  split,
} from './opcode.ts';
import * as group from './opcode-groups.ts';
import { checkCrAccess, checkDrRead, checkDrWrite, checkRdpmc, checkRdtsc } from './permissions.ts';
import { emPopSreg, emPushSreg } from './stack.ts';
import {
  emClts,
  emCpuid,
  emCrRead,
  emCrWrite,
  emDrRead,
  emDrWrite,
  emRdmsr,
  emRdpmc,
  emRdtsc,
  emWbinvd,
  emWrmsr,
} from './system.ts';
import { emRsm, emSyscall, emSysenter, emSysexit } from './system-calls.ts';

const map = new OpcodeMap();
const REGISTER = NO_MOD | OP_3264 | PRIV;

map.at(0x00, split(SPLIT_REG, group.group6));
map.at(0x01, split(SPLIT_REG_MOD, group.group7));
map.at(0x05, op('implicit', emSyscall, EMULATE_ON_UD | IS_BRANCH));
map.at(0x06, guarded(op('implicit', emClts, PRIV), icpt.X86_INTERCEPT_CLTS));
map.at(0x08, guarded(op('implicit', emNop, PRIV), icpt.X86_INTERCEPT_INVD));
map.at(0x09, guarded(op('implicit', emWbinvd, PRIV), icpt.X86_INTERCEPT_WBINVD));
map.at(0x0d, op('implicit,M', emNop));
map.at(0x10, split(SPLIT_PREFIX, group.movu1011, 'G,E', MOV | SSE));
map.at(0x11, split(SPLIT_PREFIX, group.movu1011, 'E,G', MOV | SSE));
map.at(0x18, op('implicit,M', emNop));
// These hint no-ops decode, but executing them fails: only 0d, 18 and 1f are carried out.
map.at(0x19, op('implicit,M', null));
map.span(0x1c, 0x1e, op('implicit,M', null));
map.at(0x1f, op('implicit,M', emNop));

map.at(0x20, guarded(op('E', emCrRead, REGISTER), icpt.X86_INTERCEPT_CR_READ, checkCrAccess));
map.at(0x21, guarded(op('E', emDrRead, REGISTER), icpt.X86_INTERCEPT_DR_READ, checkDrRead));
map.at(0x22, guarded(op(',E', emCrWrite, REGISTER), icpt.X86_INTERCEPT_CR_WRITE, checkCrAccess));
map.at(0x23, guarded(op(',E', emDrWrite, REGISTER), icpt.X86_INTERCEPT_DR_WRITE, checkDrWrite));
map.at(0x28, split(SPLIT_PREFIX, group.mova2829, 'G,E', MOV | SSE));
map.at(0x29, split(SPLIT_PREFIX, group.mova2829, 'E,G', MOV | SSE));
map.at(0x2b, split(SPLIT_PREFIX, group.movnt2b, 'E,G', MOV | SSE));

map.at(0x30, guarded(op('implicit', emWrmsr, PRIV), icpt.X86_INTERCEPT_WRMSR));
map.at(0x31, guarded(op('implicit', emRdtsc), icpt.X86_INTERCEPT_RDTSC, checkRdtsc));
map.at(0x32, guarded(op('implicit', emRdmsr, PRIV), icpt.X86_INTERCEPT_RDMSR));
map.at(0x33, guarded(op('implicit', emRdpmc), icpt.X86_INTERCEPT_RDPMC, checkRdpmc));
map.at(0x34, op('implicit', emSysenter, EMULATE_ON_UD | IS_BRANCH));
map.at(0x35, op('implicit', emSysexit, PRIV | EMULATE_ON_UD | IS_BRANCH));
map.span(0x40, 0x4f, op('G,E', emCmov));

map.at(0x6f, split(SPLIT_PREFIX, group.movq6f7f, 'G,E', MOV));
map.at(0x7f, split(SPLIT_PREFIX, group.movq6f7f, 'E,G', MOV));
map.span(0x80, 0x8f, op(',Iz', emJcc, NEAR_BRANCH | IS_BRANCH));
map.span(0x90, 0x9f, op('E', emSetcc, MOV | BYTE_OP));

map.at(0xa0, op(',,FS', emPushSreg, STACK));
map.at(0xa1, op(',,FS', emPopSreg, STACK));
map.at(0xa2, guarded(op('implicit', emCpuid), icpt.X86_INTERCEPT_CPUID));
map.at(0xa3, op('E,G', emBt, BIT_OP | NO_WRITE));
map.at(0xa4, op('E,G,Ib', emShld));
map.at(0xa5, op('E,G,CL', emShld));
map.at(0xa8, op(',,GS', emPushSreg, STACK));
map.at(0xa9, op(',,GS', emPopSreg, STACK));
map.at(0xaa, guarded(op('implicit', emRsm, EMULATE_ON_UD), icpt.X86_INTERCEPT_RSM));
map.at(0xab, op('E,G', emBts, BIT_OP | LOCK | PAGE_TABLE));
map.at(0xac, op('E,G,Ib', emShrd));
map.at(0xad, op('E,G,CL', emShrd));
map.at(0xae, split(SPLIT_REG_MOD, group.group15));
map.at(0xaf, op('G,E', emImul));
map.pair(0xb0, op('E,G', emCmpxchg, LOCK | PAGE_TABLE | SRC_WRITE));
map.at(0xb2, op('G,Mp,SS', emLseg));
map.at(0xb3, op('E,G', emBtr, BIT_OP | LOCK));
map.at(0xb4, op('G,Mp,FS', emLseg));
map.at(0xb5, op('G,Mp,GS', emLseg));
map.at(0xb6, op('G,Eb', emMovzx, MOV));
map.at(0xb7, op('G,Ew', emMovzx, MOV));
map.at(0xba, split(SPLIT_REG, group.group8, '', BIT_OP));
map.at(0xbb, op('E,G', emBtc, BIT_OP | LOCK | PAGE_TABLE));
map.at(0xbc, op('G,E', emBsf));
map.at(0xbd, op('G,E', emBsr));
map.at(0xbe, op('G,Eb', emMovsx, MOV));
map.at(0xbf, op('G,Ew', emMovsx, MOV));
map.pair(0xc0, op('E,G', emXadd, LOCK | SRC_WRITE));
map.at(0xc3, split(SPLIT_MOD, group.movnti));
map.at(0xc7, split(SPLIT_REG_MOD, group.group9));
map.span(0xc8, 0xcf, op('Z', emBswap));
map.at(0xe7, split(SPLIT_PREFIX, group.movntE7, 'E,G', MOV));

/** Indexed by the byte after 0f. */
export const twobyteTable = map.rows;

const map38 = new OpcodeMap();
map38.at(0xf0, split(SPLIT_PREFIX, group.movbeF0, '', EMULATE_ON_UD | MODRM));
map38.at(0xf1, split(SPLIT_PREFIX, group.movbeF1, '', EMULATE_ON_UD | MODRM));

/** Indexed by the byte after 0f 38. */
export const opcodeMap0f38 = map38.rows;
