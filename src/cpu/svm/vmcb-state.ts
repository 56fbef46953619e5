/**
 * The guest's state between the control block and the processor: what VMRUN loads and #VMEXIT stores, and the rest, which VMLOAD and
 * VMSAVE move (@apm 15.5.1, 15.5.2, 15.6).
 */
import { FS, GS, LDTR, RFLAGS_FIXED, RFLAGS_RF, TR } from '../../arch/registers.ts';
import {
  V_TPR_MASK,
  VMCB_CPL,
  VMCB_CSTAR,
  VMCB_DBGCTL,
  VMCB_FS,
  VMCB_G_PAT,
  VMCB_GS,
  VMCB_INT_CTL,
  VMCB_INT_STATE,
  VMCB_KERNEL_GS_BASE,
  VMCB_LDTR,
  VMCB_LSTAR,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_SFMASK,
  VMCB_STAR,
  VMCB_SYSENTER_CS,
  VMCB_SYSENTER_EIP,
  VMCB_SYSENTER_ESP,
  VMCB_TR,
  VMCB_TSC_OFFSET,
} from '../../arch/vmcb.ts';
import {
  CR0_AT,
  CR8_AT,
  CSTAR_AT,
  DBGCTL_AT,
  INSNS_AT,
  INT_SHADOW_AT,
  KERNEL_GS_BASE_AT,
  LSTAR_AT,
  PAT_AT,
  RF_RIP_AT,
  RF_SINCE_AT,
  SFMASK_AT,
  STAR_AT,
  SYSENTER_CS_AT,
  SYSENTER_EIP_AT,
  SYSENTER_ESP_AT,
  TSC_OFFSET_AT,
} from '../state.ts';
import type { Core } from '../system/core.ts';
import { SEG_WORDS, W_CPL, W_SEG } from '../system/words.ts';

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

/** What VMRUN loads. `block` is the control block's first word; `nested` says that nested paging is on. HOT */
export function loadGuest(core: Core, block: number, nested: boolean): void {
  const i32 = core.i32;
  core.code.loadGuest(block << 2);
  load64(i32, block, VMCB_TSC_OFFSET, TSC_OFFSET_AT);
  if (nested) load64(i32, block, VMCB_G_PAT, PAT_AT);
  const protectedMode = (i32[CR0_AT >> 2]! & 1) !== 0;
  i32[W_CPL] = protectedMode ? i32[block + (VMCB_CPL >> 2)]! >>> ((VMCB_CPL & 3) * 8) : 0;
  i32[CR8_AT >> 2] = core.intCtl & V_TPR_MASK;
  i32[INT_SHADOW_AT >> 2] = i32[block + (VMCB_INT_STATE >> 2)]! & 1;
  const flags = i32[block + (VMCB_RFLAGS >> 2)]! | RFLAGS_FIXED;
  core.code.writeRflags(flags);
  if ((flags & RFLAGS_RF) !== 0) {
    load64(i32, block, VMCB_RIP, RF_RIP_AT);
    i32[RF_SINCE_AT >> 2] = i32[INSNS_AT >> 2]!;
  }
}

/** What #VMEXIT stores. HOT */
export function storeGuest(core: Core, block: number, nested: boolean): void {
  const i32 = core.i32;
  core.code.storeGuest(block << 2);
  if (nested) store64(i32, block, VMCB_G_PAT, PAT_AT);
  core.u8[block * 4 + VMCB_CPL] = i32[W_CPL]!;
  i32[block + (VMCB_INT_CTL >> 2)] = (core.intCtl & ~V_TPR_MASK) | (i32[CR8_AT >> 2]! & V_TPR_MASK);
  const state = block + (VMCB_INT_STATE >> 2);
  i32[state] = (i32[state]! & ~1) | (i32[INT_SHADOW_AT >> 2] !== 0 ? 1 : 0);
  i32[block + (VMCB_RFLAGS >> 2)] = core.flags();
  i32[block + (VMCB_RFLAGS >> 2) + 1] = 0;
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

/** VMLOAD: FS, GS, TR, LDTR and the MSRs of system calls. */
export function loadSystem(core: Core, block: number): void {
  for (const [offset, n] of SYSTEM) loadSegment(core.i32, block, offset, n);
  for (const [offset, at] of MSRS) load64(core.i32, block, offset, at);
}

/** VMSAVE. */
export function storeSystem(core: Core, block: number): void {
  for (const [offset, n] of SYSTEM) storeSegment(core.i32, block, offset, n);
  for (const [offset, at] of MSRS) store64(core.i32, block, offset, at);
}
