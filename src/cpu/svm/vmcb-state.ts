/** The part of the guest's state that VMLOAD and VMSAVE move (@apm 15.5.2); state-switch.ts has VMRUN's and #VMEXIT's. */
import { FS, GS, LDTR, TR } from '../../arch/registers.ts';
import {
  VMCB_CSTAR,
  VMCB_DBGCTL,
  VMCB_FS,
  VMCB_GS,
  VMCB_KERNEL_GS_BASE,
  VMCB_LDTR,
  VMCB_LSTAR,
  VMCB_SFMASK,
  VMCB_STAR,
  VMCB_SYSENTER_CS,
  VMCB_SYSENTER_EIP,
  VMCB_SYSENTER_ESP,
  VMCB_TR,
} from '../../arch/vmcb.ts';
import {
  CSTAR_AT,
  DBGCTL_AT,
  KERNEL_GS_BASE_AT,
  LSTAR_AT,
  SFMASK_AT,
  STAR_AT,
  SYSENTER_CS_AT,
  SYSENTER_EIP_AT,
  SYSENTER_ESP_AT,
} from '../state.ts';
import type { Core } from '../system/core.ts';
import { SEG_WORDS, W_SEG } from '../system/words.ts';

/** Copies the 64-bit word at byte offset `offset` of the block at word `block` to byte address `at` of the state. HOT */
function load64(i32: Int32Array, block: number, offset: number, at: number): void {
  const from = block + (offset >> 2);
  i32[at >> 2] = i32[from]!;
  i32[(at >> 2) + 1] = i32[from + 1]!;
}

function store64(i32: Int32Array, block: number, offset: number, at: number): void {
  const to = block + (offset >> 2);
  i32[to] = i32[at >> 2]!;
  i32[to + 1] = i32[(at >> 2) + 1]!;
}

function loadSegment(i32: Int32Array, block: number, offset: number, n: number): void {
  const from = block + (offset >> 2);
  const to = W_SEG + n * SEG_WORDS;
  const first = i32[from]!;
  i32[to] = i32[from + 2]!;
  i32[to + 1] = i32[from + 3]!;
  i32[to + 2] = i32[from + 1]!;
  i32[to + 3] = first >>> 16;
  i32[to + 4] = first & 0xffff;
}

function storeSegment(i32: Int32Array, block: number, offset: number, n: number): void {
  const to = block + (offset >> 2);
  const from = W_SEG + n * SEG_WORDS;
  i32[to] = i32[from + 4]! | (i32[from + 3]! << 16);
  i32[to + 1] = i32[from + 2]!;
  i32[to + 2] = i32[from]!;
  i32[to + 3] = i32[from + 1]!;
}

const SYSTEM: readonly (readonly [number, number])[] = [
  [VMCB_FS, FS],
  [VMCB_GS, GS],
  [VMCB_TR, TR],
  [VMCB_LDTR, LDTR],
];
const MSRS: readonly (readonly [number, number])[] = [
  [VMCB_KERNEL_GS_BASE, KERNEL_GS_BASE_AT],
  [VMCB_STAR, STAR_AT],
  [VMCB_LSTAR, LSTAR_AT],
  [VMCB_CSTAR, CSTAR_AT],
  [VMCB_SFMASK, SFMASK_AT],
  [VMCB_SYSENTER_CS, SYSENTER_CS_AT],
  [VMCB_SYSENTER_ESP, SYSENTER_ESP_AT],
  [VMCB_SYSENTER_EIP, SYSENTER_EIP_AT],
  [VMCB_DBGCTL, DBGCTL_AT],
];

/** Bases are extended from the width of linear addresses (@apm 15.5.2). */
function canonicalize(core: Core, at: number): void {
  const unused = core.profile.la57 ? 7 : 16;
  core.i32[at + 1] = (core.i32[at + 1]! << unused) >> unused;
}

/** VMLOAD: FS, GS, TR, LDTR and the MSRs of system calls. */
export function loadSystem(core: Core, block: number): void {
  for (const [offset, n] of SYSTEM) {
    loadSegment(core.i32, block, offset, n);
    canonicalize(core, W_SEG + n * SEG_WORDS);
  }
  for (const [offset, at] of MSRS) load64(core.i32, block, offset, at);
  canonicalize(core, KERNEL_GS_BASE_AT >> 2);
}

/** VMSAVE. */
export function storeSystem(core: Core, block: number): void {
  for (const [offset, n] of SYSTEM) storeSegment(core.i32, block, offset, n);
  for (const [offset, at] of MSRS) store64(core.i32, block, offset, at);
}
