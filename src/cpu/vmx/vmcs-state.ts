/** The guest's state between the VMCS and the processor: what VM entry loads and VM exit stores (@sdm 28.3.2, 29.3). */
import {
  CR0_PG,
  CS,
  DS,
  EFER_LMA,
  EFER_LME,
  ES,
  FS,
  GS,
  LDTR,
  RFLAGS_FIXED,
  RFLAGS_RF,
  RSP,
  SS,
  TR,
} from '../../arch/registers.ts';
import { VMCB_ATTR_P } from '../../arch/vmcb.ts';
import * as F from '../../arch/vmcs.ts';
import {
  GUEST_INTR_STATE_MOV_SS,
  GUEST_INTR_STATE_NMI,
  GUEST_INTR_STATE_SMI,
  GUEST_INTR_STATE_STI,
  VM_ENTRY_IA32E_MODE,
  VM_ENTRY_LOAD_DEBUG_CONTROLS,
  VM_ENTRY_LOAD_IA32_EFER,
  VM_ENTRY_LOAD_IA32_PAT,
  VM_EXIT_SAVE_DEBUG_CONTROLS,
  VM_EXIT_SAVE_IA32_EFER,
  VM_EXIT_SAVE_IA32_PAT,
  VMX_AR_UNUSABLE,
} from '../../arch/vmx-controls.ts';
import {
  CR0_AT,
  CR3_AT,
  CR4_AT,
  DBGCTL_AT,
  DR_AT,
  EFER_AT,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_BASE,
  IDTR_LIMIT,
  INSNS_AT,
  INT_SHADOW_AT,
  PAT_AT,
  PDPTR_AT,
  RF_RIP_AT,
  RF_SINCE_AT,
  RIP_AT,
  SHADOW_STACK,
  SHADOW_STI,
  SYSENTER_CS_AT,
  SYSENTER_EIP_AT,
  SYSENTER_ESP_AT,
} from '../state.ts';
import type { Core } from '../system/core.ts';
import { SEG_WORDS, W_CPL, W_SEG } from '../system/words.ts';

/** Segments: number, and byte offsets of selector, limit, access rights and base in the VMCS. */
const SEGMENTS: readonly (readonly [number, number, number, number, number])[] = [
  [ES, F.VMCS_GUEST_ES_SELECTOR, F.VMCS_GUEST_ES_LIMIT, F.VMCS_GUEST_ES_AR_BYTES, F.VMCS_GUEST_ES_BASE],
  [CS, F.VMCS_GUEST_CS_SELECTOR, F.VMCS_GUEST_CS_LIMIT, F.VMCS_GUEST_CS_AR_BYTES, F.VMCS_GUEST_CS_BASE],
  [SS, F.VMCS_GUEST_SS_SELECTOR, F.VMCS_GUEST_SS_LIMIT, F.VMCS_GUEST_SS_AR_BYTES, F.VMCS_GUEST_SS_BASE],
  [DS, F.VMCS_GUEST_DS_SELECTOR, F.VMCS_GUEST_DS_LIMIT, F.VMCS_GUEST_DS_AR_BYTES, F.VMCS_GUEST_DS_BASE],
  [FS, F.VMCS_GUEST_FS_SELECTOR, F.VMCS_GUEST_FS_LIMIT, F.VMCS_GUEST_FS_AR_BYTES, F.VMCS_GUEST_FS_BASE],
  [GS, F.VMCS_GUEST_GS_SELECTOR, F.VMCS_GUEST_GS_LIMIT, F.VMCS_GUEST_GS_AR_BYTES, F.VMCS_GUEST_GS_BASE],
  [TR, F.VMCS_GUEST_TR_SELECTOR, F.VMCS_GUEST_TR_LIMIT, F.VMCS_GUEST_TR_AR_BYTES, F.VMCS_GUEST_TR_BASE],
  [LDTR, F.VMCS_GUEST_LDTR_SELECTOR, F.VMCS_GUEST_LDTR_LIMIT, F.VMCS_GUEST_LDTR_AR_BYTES, F.VMCS_GUEST_LDTR_BASE],
];
/** The same, flat, in words: five numbers a segment. */
const SEGMENT_WORDS = Int32Array.from(SEGMENTS.flatMap(([n, ...offsets]) => [n, ...offsets.map((at) => at >> 2)]));

/** 64-bit words that move both ways: offset in the VMCS, address in the state. */
const BOTH: readonly (readonly [number, number])[] = [
  [F.VMCS_GUEST_GDTR_BASE, GDTR_BASE],
  [F.VMCS_GUEST_IDTR_BASE, IDTR_BASE],
  [F.VMCS_GUEST_CR0, CR0_AT],
  [F.VMCS_GUEST_CR3, CR3_AT],
  [F.VMCS_GUEST_CR4, CR4_AT],
  [F.VMCS_GUEST_RIP, RIP_AT],
  [F.VMCS_GUEST_RSP, GPR + RSP * 8],
  [F.VMCS_GUEST_SYSENTER_ESP, SYSENTER_ESP_AT],
  [F.VMCS_GUEST_SYSENTER_EIP, SYSENTER_EIP_AT],
];
const BOTH_WORDS = Int32Array.from(BOTH.flatMap(([field, at]) => [field >> 2, at >> 2]));

function load64(i32: Int32Array, block: number, offset: number, at: number): void {
  i32[at >> 2] = i32[block + (offset >> 2)]!;
  i32[(at >> 2) + 1] = i32[block + (offset >> 2) + 1]!;
}

function store64(i32: Int32Array, block: number, offset: number, at: number): void {
  i32[block + (offset >> 2)] = i32[at >> 2]!;
  i32[block + (offset >> 2) + 1] = i32[(at >> 2) + 1]!;
}

/** Loads the guest's state from the VMCS at word `block`. HOT */
export function loadGuest(core: Core, block: number, ept: boolean): void {
  const i32 = core.i32;
  for (let i = 0; i < BOTH_WORDS.length; i += 2) {
    const from = block + BOTH_WORDS[i]!;
    const to = BOTH_WORDS[i + 1]!;
    i32[to] = i32[from]!;
    i32[to + 1] = i32[from + 1]!;
  }
  for (let i = 0; i < SEGMENT_WORDS.length; i += 5) {
    const to = W_SEG + SEGMENT_WORDS[i]! * SEG_WORDS;
    const rights = i32[block + SEGMENT_WORDS[i + 3]!]!;
    const packed = (rights & 0xff) | ((rights >>> 4) & 0xf00);
    const base = block + SEGMENT_WORDS[i + 4]!;
    i32[to] = i32[base]!;
    i32[to + 1] = i32[base + 1]!;
    i32[to + 2] = i32[block + SEGMENT_WORDS[i + 2]!]!;
    i32[to + 3] = (rights & VMX_AR_UNUSABLE) !== 0 ? packed & ~VMCB_ATTR_P : packed;
    i32[to + 4] = i32[block + SEGMENT_WORDS[i + 1]!]! & 0xffff;
  }
  i32[GDTR_LIMIT >> 2] = i32[block + (F.VMCS_GUEST_GDTR_LIMIT >> 2)]!;
  i32[IDTR_LIMIT >> 2] = i32[block + (F.VMCS_GUEST_IDTR_LIMIT >> 2)]!;
  i32[SYSENTER_CS_AT >> 2] = i32[block + (F.VMCS_GUEST_SYSENTER_CS >> 2)]!;
  i32[(SYSENTER_CS_AT >> 2) + 1] = 0;
  i32[W_CPL] = (i32[block + (F.VMCS_GUEST_SS_AR_BYTES >> 2)]! >>> 5) & 3;
  loadControlled(core, block);
  if (ept) {
    for (let i = 0; i < 4; i++) load64(i32, block, F.VMCS_GUEST_PDPTR0 + 8 * i, PDPTR_AT + 8 * i);
  }
  const state = i32[block + (F.VMCS_GUEST_INTERRUPTIBILITY_INFO >> 2)]!;
  i32[INT_SHADOW_AT >> 2] =
    (state & GUEST_INTR_STATE_MOV_SS) !== 0 ? SHADOW_STACK : (state & GUEST_INTR_STATE_STI) !== 0 ? SHADOW_STI : 0;
  core.nmiBlocked = (state & GUEST_INTR_STATE_NMI) !== 0;
  const flags = i32[block + (F.VMCS_GUEST_RFLAGS >> 2)]! | RFLAGS_FIXED;
  core.code.writeRflags(flags);
  if ((flags & RFLAGS_RF) !== 0) {
    load64(i32, block, F.VMCS_GUEST_RIP, RF_RIP_AT);
    i32[RF_SINCE_AT >> 2] = i32[INSNS_AT >> 2]!;
  }
}

/** What the entry controls say to load, EFER among it. */
function loadControlled(core: Core, block: number): void {
  const i32 = core.i32;
  const entry = i32[block + (F.VMCS_VM_ENTRY_CONTROLS >> 2)]!;
  if ((entry & VM_ENTRY_LOAD_DEBUG_CONTROLS) !== 0) {
    load64(i32, block, F.VMCS_GUEST_DR7, DR_AT + 56);
    load64(i32, block, F.VMCS_GUEST_IA32_DEBUGCTL, DBGCTL_AT);
  }
  if ((entry & VM_ENTRY_LOAD_IA32_PAT) !== 0) load64(i32, block, F.VMCS_GUEST_IA32_PAT, PAT_AT);
  if ((entry & VM_ENTRY_LOAD_IA32_EFER) !== 0) {
    load64(i32, block, F.VMCS_GUEST_IA32_EFER, EFER_AT);
    return;
  }
  const long = (entry & VM_ENTRY_IA32E_MODE) !== 0;
  let efer = i32[EFER_AT >> 2]!;
  efer = long ? efer | EFER_LMA : efer & ~EFER_LMA;
  if ((i32[CR0_AT >> 2]! & CR0_PG) !== 0) efer = long ? efer | EFER_LME : efer & ~EFER_LME;
  i32[EFER_AT >> 2] = efer;
}

/** Stores the guest's state; `rflags` is the image that goes with the exit. HOT */
export function storeGuest(core: Core, block: number, ept: boolean, rflags: number): void {
  const i32 = core.i32;
  for (let i = 0; i < BOTH_WORDS.length; i += 2) {
    const to = block + BOTH_WORDS[i]!;
    const from = BOTH_WORDS[i + 1]!;
    i32[to] = i32[from]!;
    i32[to + 1] = i32[from + 1]!;
  }
  for (let i = 0; i < SEGMENT_WORDS.length; i += 5) {
    const from = W_SEG + SEGMENT_WORDS[i]! * SEG_WORDS;
    const packed = i32[from + 3]!;
    const base = block + SEGMENT_WORDS[i + 4]!;
    const rights = block + SEGMENT_WORDS[i + 3]!;
    i32[base] = i32[from]!;
    i32[base + 1] = i32[from + 1]!;
    i32[block + SEGMENT_WORDS[i + 2]!] = i32[from + 2]!;
    i32[block + SEGMENT_WORDS[i + 1]!] = i32[from + 4]!;
    const kept = (packed & VMCB_ATTR_P) === 0 ? VMX_AR_UNUSABLE | (i32[rights]! & VMCB_ATTR_P) : 0;
    i32[rights] = (packed & 0xff) | ((packed & 0xf00) << 4) | kept;
  }
  const stack = block + (F.VMCS_GUEST_SS_AR_BYTES >> 2);
  i32[stack] = (i32[stack]! & ~0x60) | (i32[W_CPL]! << 5);
  i32[block + (F.VMCS_GUEST_GDTR_LIMIT >> 2)] = i32[GDTR_LIMIT >> 2]!;
  i32[block + (F.VMCS_GUEST_IDTR_LIMIT >> 2)] = i32[IDTR_LIMIT >> 2]!;
  i32[block + (F.VMCS_GUEST_SYSENTER_CS >> 2)] = i32[SYSENTER_CS_AT >> 2]!;
  const exit = i32[block + (F.VMCS_VM_EXIT_CONTROLS >> 2)]!;
  if ((exit & VM_EXIT_SAVE_DEBUG_CONTROLS) !== 0) {
    store64(i32, block, F.VMCS_GUEST_DR7, DR_AT + 56);
    store64(i32, block, F.VMCS_GUEST_IA32_DEBUGCTL, DBGCTL_AT);
  }
  if ((exit & VM_EXIT_SAVE_IA32_PAT) !== 0) store64(i32, block, F.VMCS_GUEST_IA32_PAT, PAT_AT);
  if ((exit & VM_EXIT_SAVE_IA32_EFER) !== 0) store64(i32, block, F.VMCS_GUEST_IA32_EFER, EFER_AT);
  if (ept) {
    for (let i = 0; i < 4; i++) store64(i32, block, F.VMCS_GUEST_PDPTR0 + 8 * i, PDPTR_AT + 8 * i);
  }
  const shadow = i32[INT_SHADOW_AT >> 2]!;
  const state = block + (F.VMCS_GUEST_INTERRUPTIBILITY_INFO >> 2);
  i32[state] =
    (i32[state]! & GUEST_INTR_STATE_SMI) |
    (shadow === 0 ? 0 : (shadow & SHADOW_STACK) !== 0 ? GUEST_INTR_STATE_MOV_SS : GUEST_INTR_STATE_STI) |
    (core.nmiBlocked ? GUEST_INTR_STATE_NMI : 0);
  i32[block + (F.VMCS_GUEST_RFLAGS >> 2)] = rflags;
  i32[block + (F.VMCS_GUEST_RFLAGS >> 2) + 1] = 0;
  // IA-32e mode guest follows EFER.LMA on processors with unrestricted guests.
  const entry = block + (F.VMCS_VM_ENTRY_CONTROLS >> 2);
  const long = (i32[EFER_AT >> 2]! & EFER_LMA) !== 0;
  i32[entry] = long ? i32[entry]! | VM_ENTRY_IA32E_MODE : i32[entry]! & ~VM_ENTRY_IA32E_MODE;
}
