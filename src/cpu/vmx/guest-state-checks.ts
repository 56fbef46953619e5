/**
 * What VM entry checks of the guest's state before it loads it (@sdm 28.3.1). The answers are the exit qualification of the failed entry,
 * or CHECKS_PASSED. No allocation: every entry comes by here.
 */

import { PAE_PDPTE_RSVD_HI, PAE_PDPTE_RSVD_LO, PT_PRESENT_MASK } from '../../arch/paging.ts';
import {
  CR0_CD,
  CR0_NE,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR4_PAE,
  CR4_VMXE,
  EFER_LMA,
  EFER_LME,
  RFLAGS_FIXED,
  RFLAGS_IF,
  RFLAGS_TF,
  RFLAGS_VM,
} from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import type { Core } from '../system/core.ts';

export const CHECKS_PASSED = -1;

const RFLAGS_RESERVED = 0xffc08028 | 0;
const TYPE_MASK = 0xf;
const TYPE_ACCESSED = 1;
const TYPE_READABLE = 2;
const TYPE_CODE = 8;
const S = 1 << 4;
const P = 1 << 7;
const L = 1 << 13;
const DB = 1 << 14;
const G = 1 << 15;
const AR_RESERVED = 0xfffe0f00 | 0;
const AR_V86 = 0xf3;
const SELECTOR_TI = 4;
/** B0 to B3, an enabled breakpoint, BS and RTM: what pending debug exceptions may say. */
const PENDING_DBG_VALID = 0x1500f;
const PENDING_DBG_BS = 1 << 14;
const DEBUGCTL_BTF = 2;

/** ES, SS, DS, FS, GS: words of selector, limit, rights and base; then CS, TR, LDTR by themselves. */
const DATA = Int32Array.from(
  [
    [F.VMCS_GUEST_SS_SELECTOR, F.VMCS_GUEST_SS_LIMIT, F.VMCS_GUEST_SS_AR_BYTES, F.VMCS_GUEST_SS_BASE],
    [F.VMCS_GUEST_DS_SELECTOR, F.VMCS_GUEST_DS_LIMIT, F.VMCS_GUEST_DS_AR_BYTES, F.VMCS_GUEST_DS_BASE],
    [F.VMCS_GUEST_ES_SELECTOR, F.VMCS_GUEST_ES_LIMIT, F.VMCS_GUEST_ES_AR_BYTES, F.VMCS_GUEST_ES_BASE],
    [F.VMCS_GUEST_FS_SELECTOR, F.VMCS_GUEST_FS_LIMIT, F.VMCS_GUEST_FS_AR_BYTES, F.VMCS_GUEST_FS_BASE],
    [F.VMCS_GUEST_GS_SELECTOR, F.VMCS_GUEST_GS_LIMIT, F.VMCS_GUEST_GS_AR_BYTES, F.VMCS_GUEST_GS_BASE],
    [F.VMCS_GUEST_CS_SELECTOR, F.VMCS_GUEST_CS_LIMIT, F.VMCS_GUEST_CS_AR_BYTES, F.VMCS_GUEST_CS_BASE],
  ].flatMap((offsets) => offsets.map((at) => at >> 2)),
);
const FIRST_WITH_WIDE_BASE = 3 * 4;
const LAST_WITH_WIDE_BASE = 5 * 4;
const CS_FIELDS = 5 * 4;
/** Natural-width fields that hold canonical addresses whatever the mode. */
const CANONICAL = Int32Array.from(
  [
    ...[F.VMCS_GUEST_SYSENTER_ESP, F.VMCS_GUEST_SYSENTER_EIP, F.VMCS_GUEST_FS_BASE, F.VMCS_GUEST_GS_BASE],
    ...[F.VMCS_GUEST_TR_BASE, F.VMCS_GUEST_GDTR_BASE, F.VMCS_GUEST_IDTR_BASE],
  ].map((at) => at >> 2),
);

const word = (i32: Int32Array, block: number, offset: number): number => i32[block + (offset >> 2)]!;
const high = (i32: Int32Array, block: number, offset: number): number => i32[block + (offset >> 2) + 1]!;

/** The high half of a canonical address of the processor's widest kind. */
function canonicalHi(core: Core, hi: number): boolean {
  return core.profile.la57 ? (hi << 7) >> 7 === hi : (hi << 16) >> 16 === hi;
}

/** Limit and granularity fit: bits that a page-granular limit cannot have, and ones that it must have. */
function limitFits(limit: number, rights: number): boolean {
  if ((limit & 0xfff) !== 0xfff && (rights & G) !== 0) return false;
  return (limit & 0xfff00000) === 0 || (rights & G) !== 0;
}

/** @sdm 28.3.1.1 */
function controlRegisters(core: Core, block: number, unrestricted: boolean, long: boolean): boolean {
  const { i32 } = core;
  const cr0 = word(i32, block, F.VMCS_GUEST_CR0);
  const cr4 = word(i32, block, F.VMCS_GUEST_CR4);
  const entry = word(i32, block, F.VMCS_VM_ENTRY_CONTROLS);
  const fixed = CR0_NE | (unrestricted ? 0 : CR0_PE | CR0_PG);
  if ((cr0 & fixed) !== fixed || high(i32, block, F.VMCS_GUEST_CR0) !== 0) return false;
  if ((cr0 & CR0_PG) !== 0 && (cr0 & CR0_PE) === 0) return false;
  if ((cr0 & CR0_NW) !== 0 && (cr0 & CR0_CD) === 0) return false;
  if ((cr4 & CR4_VMXE) === 0 || (cr4 & ~(core.cr4Known | CR4_VMXE)) !== 0) return false;
  if (high(i32, block, F.VMCS_GUEST_CR4) !== 0) return false;
  if (long && ((cr0 & CR0_PG) === 0 || (cr4 & CR4_PAE) === 0)) return false;
  if ((high(i32, block, F.VMCS_GUEST_CR3) & (core.walker.physHi | 0xfff00000)) !== 0) return false;
  if ((entry & C.VM_ENTRY_LOAD_DEBUG_CONTROLS) !== 0 && high(i32, block, F.VMCS_GUEST_DR7) !== 0) return false;
  if ((entry & C.VM_ENTRY_LOAD_IA32_EFER) !== 0) {
    const efer = word(i32, block, F.VMCS_GUEST_IA32_EFER);
    if (((efer & EFER_LMA) !== 0) !== long) return false;
    if ((cr0 & CR0_PG) !== 0 && ((efer & EFER_LME) !== 0) !== long) return false;
  }
  for (let i = 0; i < CANONICAL.length; i++) {
    if (!canonicalHi(core, i32[block + CANONICAL[i]! + 1]!)) return false;
  }
  return true;
}

/** All of a virtual-8086 guest's segments follow from their selectors. */
function virtual8086(i32: Int32Array, block: number): boolean {
  for (let i = 0; i < DATA.length; i += 4) {
    const base = block + DATA[i + 3]!;
    if (i32[base] !== (i32[block + DATA[i]!]! & 0xffff) << 4 || i32[base + 1] !== 0) return false;
    if (i32[block + DATA[i + 1]!] !== 0xffff || i32[block + DATA[i + 2]!] !== AR_V86) return false;
  }
  return true;
}

/** CS, and SS beside it. */
function codeSegment(i32: Int32Array, block: number, unrestricted: boolean, long: boolean): boolean {
  const cs = i32[block + DATA[CS_FIELDS + 2]!]!;
  const ss = i32[block + DATA[2]!]!;
  const type = cs & TYPE_MASK;
  const dpl = (cs >> 5) & 3;
  const stackDpl = (ss >> 5) & 3;
  if (type === 3) {
    if (!unrestricted || dpl !== 0) return false;
  } else if (type === 9 || type === 11) {
    if (dpl !== stackDpl) return false;
  } else if (type === 13 || type === 15) {
    if (dpl > stackDpl) return false;
  } else return false;
  if ((cs & (S | P)) !== (S | P) || (cs & (AR_RESERVED | C.VMX_AR_UNUSABLE)) !== 0) return false;
  if (long && (cs & L) !== 0 && (cs & DB) !== 0) return false;
  if (!limitFits(i32[block + DATA[CS_FIELDS + 1]!]!, cs) || i32[block + DATA[CS_FIELDS + 3]! + 1] !== 0) return false;
  const realMode = (word(i32, block, F.VMCS_GUEST_CR0) & CR0_PE) === 0;
  if ((type === 3 || realMode) && stackDpl !== 0) return false;
  if (unrestricted) return true;
  const rpl = i32[block + DATA[0]!]! & 3;
  return rpl === (i32[block + DATA[CS_FIELDS]!]! & 3) && rpl === stackDpl;
}

/** The other segments of code and data, as far as they are usable. */
function dataSegments(i32: Int32Array, block: number, unrestricted: boolean): boolean {
  for (let i = 0; i < CS_FIELDS; i += 4) {
    const rights = i32[block + DATA[i + 2]!]!;
    if ((rights & C.VMX_AR_UNUSABLE) !== 0) continue;
    const type = rights & TYPE_MASK;
    if (i === 0) {
      if (type !== 3 && type !== 7) return false;
    } else {
      if ((type & TYPE_ACCESSED) === 0) return false;
      if ((type & TYPE_CODE) !== 0 && (type & TYPE_READABLE) === 0) return false;
      // Conforming code may be used from anywhere.
      if (!unrestricted && type <= 11 && ((rights >> 5) & 3) < (i32[block + DATA[i]!]! & 3)) return false;
    }
    if ((rights & (S | P)) !== (S | P) || (rights & AR_RESERVED) !== 0) return false;
    if (!limitFits(i32[block + DATA[i + 1]!]!, rights)) return false;
    const wide = i >= FIRST_WITH_WIDE_BASE && i < LAST_WITH_WIDE_BASE;
    if (!wide && i32[block + DATA[i + 3]! + 1] !== 0) return false;
  }
  return true;
}

/** TR, LDTR, GDTR and IDTR. */
function systemSegments(core: Core, block: number, long: boolean): boolean {
  const { i32 } = core;
  const tr = word(i32, block, F.VMCS_GUEST_TR_AR_BYTES);
  const type = tr & TYPE_MASK;
  if (type !== 11 && (long || type !== 3)) return false;
  if ((tr & (S | P)) !== P || (tr & (AR_RESERVED | C.VMX_AR_UNUSABLE)) !== 0) return false;
  if (!limitFits(word(i32, block, F.VMCS_GUEST_TR_LIMIT), tr)) return false;
  if ((word(i32, block, F.VMCS_GUEST_TR_SELECTOR) & SELECTOR_TI) !== 0) return false;
  const ldtr = word(i32, block, F.VMCS_GUEST_LDTR_AR_BYTES);
  if ((ldtr & C.VMX_AR_UNUSABLE) === 0) {
    if ((ldtr & (TYPE_MASK | S | P)) !== (2 | P) || (ldtr & AR_RESERVED) !== 0) return false;
    if (!limitFits(word(i32, block, F.VMCS_GUEST_LDTR_LIMIT), ldtr)) return false;
    if ((word(i32, block, F.VMCS_GUEST_LDTR_SELECTOR) & SELECTOR_TI) !== 0) return false;
    if (!canonicalHi(core, high(i32, block, F.VMCS_GUEST_LDTR_BASE))) return false;
  }
  const limits = word(i32, block, F.VMCS_GUEST_GDTR_LIMIT) | word(i32, block, F.VMCS_GUEST_IDTR_LIMIT);
  return (limits & 0xffff0000) === 0;
}

/** @sdm 28.3.1.4 */
function ripAndRflags(core: Core, block: number, long: boolean): boolean {
  const { i32 } = core;
  const ripHi = high(i32, block, F.VMCS_GUEST_RIP);
  const code64 = long && (word(i32, block, F.VMCS_GUEST_CS_AR_BYTES) & L) !== 0;
  if (code64 ? !canonicalHi(core, ripHi) : ripHi !== 0) return false;
  const flags = word(i32, block, F.VMCS_GUEST_RFLAGS);
  if ((flags & RFLAGS_RESERVED) !== 0 || (flags & RFLAGS_FIXED) === 0) return false;
  if (high(i32, block, F.VMCS_GUEST_RFLAGS) !== 0) return false;
  const protectedMode = (word(i32, block, F.VMCS_GUEST_CR0) & CR0_PE) !== 0;
  return (flags & RFLAGS_VM) === 0 || (!long && protectedMode);
}

/** Activity, interruptibility and what the entry injects (@sdm 28.3.1.5). */
function nonRegisterState(core: Core, block: number): number {
  const { i32 } = core;
  const flags = word(i32, block, F.VMCS_GUEST_RFLAGS);
  const info = word(i32, block, F.VMCS_VM_ENTRY_INTR_INFO_FIELD);
  const type = info < 0 ? info & C.INTR_INFO_INTR_TYPE_MASK : -1;
  const external = type === C.INTR_TYPE_EXT_INTR;
  const activity = word(i32, block, F.VMCS_GUEST_ACTIVITY_STATE);
  const state = word(i32, block, F.VMCS_GUEST_INTERRUPTIBILITY_INFO);
  const both = C.GUEST_INTR_STATE_STI | C.GUEST_INTR_STATE_MOV_SS;
  const bad = C.ENTRY_FAIL_DEFAULT;
  if (external && (flags & RFLAGS_IF) === 0) return bad;
  if (activity < 0 || activity > C.GUEST_ACTIVITY_HLT) return bad;
  if (activity === C.GUEST_ACTIVITY_HLT) {
    if ((word(i32, block, F.VMCS_GUEST_SS_AR_BYTES) & 0x60) !== 0) return bad;
    if (
      type === C.INTR_TYPE_SOFT_INTR ||
      type === C.INTR_TYPE_PRIV_SW_EXCEPTION ||
      type === C.INTR_TYPE_SOFT_EXCEPTION
    ) {
      return bad;
    }
  }
  if (activity !== C.GUEST_ACTIVITY_ACTIVE && (state & both) !== 0) return bad;
  if ((state & both) === both || (state & ~0xf) !== 0 || (state & C.GUEST_INTR_STATE_SMI) !== 0) return bad;
  if ((state & C.GUEST_INTR_STATE_STI) !== 0 && (flags & RFLAGS_IF) === 0) return bad;
  if (external && (state & both) !== 0) return bad;
  if (type === C.INTR_TYPE_NMI_INTR) {
    if ((state & C.GUEST_INTR_STATE_MOV_SS) !== 0) return bad;
    const virtualNmis = (word(i32, block, F.VMCS_PIN_BASED_VM_EXEC_CONTROL) & C.PIN_BASED_VIRTUAL_NMIS) !== 0;
    if (virtualNmis && (state & C.GUEST_INTR_STATE_NMI) !== 0) return bad;
  }
  return pendingDebug(i32, block, flags, (state & both) !== 0 || activity === C.GUEST_ACTIVITY_HLT);
}

function pendingDebug(i32: Int32Array, block: number, flags: number, held: boolean): number {
  const pending = word(i32, block, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS);
  if ((pending & ~PENDING_DBG_VALID) !== 0) return C.ENTRY_FAIL_DEFAULT;
  if (high(i32, block, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS) !== 0) return C.ENTRY_FAIL_DEFAULT;
  if (!held) return CHECKS_PASSED;
  // A single step that the shadow holds off is pending, and none otherwise.
  const debugctl = word(i32, block, F.VMCS_GUEST_IA32_DEBUGCTL);
  const steps = (flags & RFLAGS_TF) !== 0 && (debugctl & DEBUGCTL_BTF) === 0;
  return ((pending & PENDING_DBG_BS) !== 0) === steps ? CHECKS_PASSED : C.ENTRY_FAIL_DEFAULT;
}

/** With EPT the PDPTEs of a PAE guest are in the VMCS (@sdm 28.3.1.6). */
function pdptesValid(core: Core, block: number, long: boolean): boolean {
  const { i32 } = core;
  const cr0 = word(i32, block, F.VMCS_GUEST_CR0);
  const pae = (word(i32, block, F.VMCS_GUEST_CR4) & CR4_PAE) !== 0;
  if (long || (cr0 & CR0_PG) === 0 || !pae) return true;
  if ((core.secondaryControls & C.SECONDARY_EXEC_ENABLE_EPT) === 0) return true;
  for (let i = 0; i < 4; i++) {
    const at = block + ((F.VMCS_GUEST_PDPTR0 + 8 * i) >> 2);
    const lo = i32[at]!;
    if ((lo & PT_PRESENT_MASK) === 0) continue;
    if ((lo & PAE_PDPTE_RSVD_LO) !== 0 || (i32[at + 1]! & (core.walker.physHi | PAE_PDPTE_RSVD_HI)) !== 0) return false;
  }
  return true;
}

/** The part of the guest's state that nearly every exit changes: RIP, RFLAGS, and what is no register. HOT */
export function checkRest(core: Core, block: number): number {
  const { i32 } = core;
  const long = (word(i32, block, F.VMCS_VM_ENTRY_CONTROLS) & C.VM_ENTRY_IA32E_MODE) !== 0;
  if (!ripAndRflags(core, block, long)) return C.ENTRY_FAIL_DEFAULT;
  const state = nonRegisterState(core, block);
  if (state !== CHECKS_PASSED) return state;
  const link = word(i32, block, F.VMCS_VMCS_LINK_POINTER) & high(i32, block, F.VMCS_VMCS_LINK_POINTER);
  return link === -1 ? CHECKS_PASSED : C.ENTRY_FAIL_VMCS_LINK_PTR;
}

/** CHECKS_PASSED, or the exit qualification of an entry that fails on the state in the VMCS at word `block`. HOT */
export function checkGuest(core: Core, block: number, unrestricted: boolean): number {
  const { i32 } = core;
  const long = (word(i32, block, F.VMCS_VM_ENTRY_CONTROLS) & C.VM_ENTRY_IA32E_MODE) !== 0;
  if (!controlRegisters(core, block, unrestricted, long)) return C.ENTRY_FAIL_DEFAULT;
  const v86 = (word(i32, block, F.VMCS_GUEST_RFLAGS) & RFLAGS_VM) !== 0;
  if (v86) {
    if (!virtual8086(i32, block)) return C.ENTRY_FAIL_DEFAULT;
  } else if (!codeSegment(i32, block, unrestricted, long) || !dataSegments(i32, block, unrestricted)) {
    return C.ENTRY_FAIL_DEFAULT;
  }
  if (!systemSegments(core, block, long)) return C.ENTRY_FAIL_DEFAULT;
  const rest = checkRest(core, block);
  if (rest !== CHECKS_PASSED) return rest;
  return pdptesValid(core, block, long) ? CHECKS_PASSED : C.ENTRY_FAIL_PDPTE;
}
