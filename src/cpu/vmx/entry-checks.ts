/**
 * What VM entry checks before it believes a VMCS (@sdm 28.2.1, 28.3.1). Host state is not modelled, so neither are its checks; of the
 * guest's segments those are made that an unrestricted guest is held to.
 */
import { hasErrorCode } from '../../arch/exceptions.ts';
import { rsvdPhysHi } from '../../arch/paging.ts';
import {
  CR0_CD,
  CR0_NE,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR4_PAE,
  EFER_LMA,
  EFER_LME,
  RFLAGS_FIXED,
  RFLAGS_IF,
  RFLAGS_VM,
} from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import type { Core } from '../system/core.ts';
import type { Allowed, VmxCapabilities } from './capabilities.ts';

/** VM-instruction errors (@sdm 32.4). */
export const VMXERR_ENTRY_INVALID_CONTROL_FIELD = 7;

const RFLAGS_RESERVED = 0xffc08028 | 0;
const TYPE_MASK = 0xf;
const TYPE_ACCESSED = 1;
const S = 1 << 4;
const P = 1 << 7;

class Fields {
  private readonly i32: Int32Array;
  private readonly block: number;

  constructor(i32: Int32Array, block: number) {
    this.i32 = i32;
    this.block = block;
  }

  lo(offset: number): number {
    return this.i32[this.block + (offset >> 2)]!;
  }

  hi(offset: number): number {
    return this.i32[this.block + (offset >> 2) + 1]!;
  }

  /** A physical address that is aligned to a page and exists. */
  isPage(offset: number, physHi: number): boolean {
    return (this.lo(offset) & 0xfff) === 0 && (this.hi(offset) & (physHi | 0xfff00000)) === 0;
  }
}

function allows(value: number, { must, may }: Allowed): boolean {
  return (value & must) === must && (value & ~may) === 0;
}

/** 0, or the VM-instruction error of a VMCS whose controls are no good. */
export function checkControls(core: Core, capabilities: VmxCapabilities, block: number): number {
  const f = new Fields(core.i32, block);
  const physHi = rsvdPhysHi(core.profile.maxPhyAddr);
  const primary = f.lo(F.VMCS_CPU_BASED_VM_EXEC_CONTROL);
  const pin = f.lo(F.VMCS_PIN_BASED_VM_EXEC_CONTROL);
  const useSecondary = (primary & C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) !== 0;
  const secondary = useSecondary ? f.lo(F.VMCS_SECONDARY_VM_EXEC_CONTROL) : 0;
  const has = (control: number): boolean => (secondary & control) !== 0;
  const ok =
    allows(pin, capabilities.pin) &&
    allows(primary, capabilities.primary) &&
    allows(secondary, capabilities.secondary) &&
    allows(f.lo(F.VMCS_VM_ENTRY_CONTROLS), capabilities.entry) &&
    allows(f.lo(F.VMCS_VM_EXIT_CONTROLS), capabilities.exit) &&
    f.lo(F.VMCS_CR3_TARGET_COUNT) >>> 0 <= 4 &&
    ((primary & C.CPU_BASED_USE_MSR_BITMAPS) === 0 || f.isPage(F.VMCS_MSR_BITMAP, physHi)) &&
    ((primary & C.CPU_BASED_USE_IO_BITMAPS) === 0 ||
      (f.isPage(F.VMCS_IO_BITMAP_A, physHi) && f.isPage(F.VMCS_IO_BITMAP_B, physHi))) &&
    ((primary & C.CPU_BASED_TPR_SHADOW) === 0 || f.isPage(F.VMCS_VIRTUAL_APIC_PAGE_ADDR, physHi)) &&
    ((pin & C.PIN_BASED_VIRTUAL_NMIS) === 0 || (pin & C.PIN_BASED_NMI_EXITING) !== 0) &&
    ((primary & C.CPU_BASED_NMI_WINDOW_EXITING) === 0 || (pin & C.PIN_BASED_VIRTUAL_NMIS) !== 0) &&
    (!has(C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) || f.isPage(F.VMCS_APIC_ACCESS_ADDR, physHi)) &&
    (!has(C.SECONDARY_EXEC_UNRESTRICTED_GUEST) || has(C.SECONDARY_EXEC_ENABLE_EPT)) &&
    (!has(C.SECONDARY_EXEC_ENABLE_EPT) || validEptp(core, f, physHi)) &&
    (!has(C.SECONDARY_EXEC_ENABLE_VPID) || f.lo(F.VMCS_VIRTUAL_PROCESSOR_ID) !== 0) &&
    (!has(C.SECONDARY_EXEC_ENABLE_PML) || (has(C.SECONDARY_EXEC_ENABLE_EPT) && f.isPage(F.VMCS_PML_ADDRESS, physHi))) &&
    validInjection(f);
  return ok ? 0 : VMXERR_ENTRY_INVALID_CONTROL_FIELD;
}

function validEptp(core: Core, f: Fields, physHi: number): boolean {
  const lo = f.lo(F.VMCS_EPT_POINTER);
  const memoryType = lo & 7;
  const levels = lo & C.VMX_EPTP_PWL_MASK;
  const adAllowed = core.profile.vmx.eptAdBits ? C.VMX_EPTP_AD_ENABLE_BIT : 0;
  return (
    (memoryType === 0 || memoryType === C.VMX_EPTP_MT_WB) &&
    (levels === C.VMX_EPTP_PWL_4 || (levels === C.VMX_EPTP_PWL_5 && core.profile.vmx.eptFiveLevel)) &&
    (lo & 0xfc0 & ~adAllowed) === 0 &&
    (f.hi(F.VMCS_EPT_POINTER) & (physHi | 0xfff00000)) === 0
  );
}

/** The event to inject exists and fits the mode it is injected into (@sdm 28.2.1.3). */
function validInjection(f: Fields): boolean {
  const info = f.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD);
  if (info >= 0) return true;
  const vector = info & C.INTR_INFO_VECTOR_MASK;
  const type = info & C.INTR_INFO_INTR_TYPE_MASK;
  if (type === 1 << 8 || type === 7 << 8 || (info & 0x7ffff000) !== 0) return false;
  if (type === C.INTR_TYPE_NMI_INTR && vector !== 2) return false;
  if (type === C.INTR_TYPE_HARD_EXCEPTION && vector > 31) return false;
  const protectedMode = (f.lo(F.VMCS_GUEST_CR0) & CR0_PE) !== 0;
  const wantsError = type === C.INTR_TYPE_HARD_EXCEPTION && protectedMode && hasErrorCode(vector);
  if (((info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0) !== wantsError) return false;
  if (wantsError && (f.lo(F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE) & 0xffff8000) !== 0) return false;
  const length = f.lo(F.VMCS_VM_ENTRY_INSTRUCTION_LEN);
  return type < C.INTR_TYPE_SOFT_INTR || (length >= 0 && length <= 15);
}

/** True when VM entry may load the guest's state. */
export function checkGuest(core: Core, block: number, unrestricted: boolean): boolean {
  const f = new Fields(core.i32, block);
  const cr0 = f.lo(F.VMCS_GUEST_CR0);
  const cr4 = f.lo(F.VMCS_GUEST_CR4);
  const long = (f.lo(F.VMCS_VM_ENTRY_CONTROLS) & C.VM_ENTRY_IA32E_MODE) !== 0;
  const fixed = CR0_NE | (unrestricted ? 0 : CR0_PE | CR0_PG);
  if ((cr0 & fixed) !== fixed || f.hi(F.VMCS_GUEST_CR0) !== 0) return false;
  if ((cr0 & CR0_PG) !== 0 && (cr0 & CR0_PE) === 0) return false;
  if ((cr0 & CR0_NW) !== 0 && (cr0 & CR0_CD) === 0) return false;
  const vmxe = 1 << 13;
  if ((cr4 & vmxe) === 0 || (cr4 & ~(core.cr4Known | vmxe)) !== 0 || f.hi(F.VMCS_GUEST_CR4) !== 0) return false;
  if (long && ((cr0 & CR0_PG) === 0 || (cr4 & CR4_PAE) === 0)) return false;
  if ((f.hi(F.VMCS_GUEST_CR3) & (core.walker.physHi | 0xfff00000)) !== 0) return false;
  if ((f.lo(F.VMCS_VM_ENTRY_CONTROLS) & C.VM_ENTRY_LOAD_IA32_EFER) !== 0) {
    const efer = f.lo(F.VMCS_GUEST_IA32_EFER);
    if (((efer & EFER_LMA) !== 0) !== long) return false;
    if ((cr0 & CR0_PG) !== 0 && ((efer & EFER_LME) !== 0) !== long) return false;
  }
  return checkSegments(f) && checkRest(core, block);
}

/** TR and LDTR, and what every usable segment of code and data must be. */
function checkSegments(f: Fields): boolean {
  const tr = f.lo(F.VMCS_GUEST_TR_AR_BYTES);
  const type = tr & TYPE_MASK;
  if ((tr & (C.VMX_AR_UNUSABLE | S)) !== 0 || (tr & P) === 0 || (type !== 3 && type !== 11)) return false;
  const ldtr = f.lo(F.VMCS_GUEST_LDTR_AR_BYTES);
  if ((ldtr & C.VMX_AR_UNUSABLE) === 0 && ((ldtr & (TYPE_MASK | S)) !== 2 || (ldtr & P) === 0)) return false;
  const cs = f.lo(F.VMCS_GUEST_CS_AR_BYTES);
  if ((cs & (C.VMX_AR_UNUSABLE | S | P)) !== (S | P) || (cs & TYPE_ACCESSED) === 0) return false;
  const others = [
    F.VMCS_GUEST_SS_AR_BYTES,
    F.VMCS_GUEST_DS_AR_BYTES,
    F.VMCS_GUEST_ES_AR_BYTES,
    F.VMCS_GUEST_FS_AR_BYTES,
    F.VMCS_GUEST_GS_AR_BYTES,
  ];
  for (const at of others) {
    const rights = f.lo(at);
    if ((rights & C.VMX_AR_UNUSABLE) !== 0) continue;
    if ((rights & (S | P)) !== (S | P) || (rights & TYPE_ACCESSED) === 0) return false;
  }
  return true;
}

/** The part of the guest's state that nearly every exit changes: RFLAGS, and what is no register. HOT */
export function checkRest(core: Core, block: number): boolean {
  const f = new Fields(core.i32, block);
  const long = (f.lo(F.VMCS_VM_ENTRY_CONTROLS) & C.VM_ENTRY_IA32E_MODE) !== 0;
  const flags = f.lo(F.VMCS_GUEST_RFLAGS);
  if ((flags & RFLAGS_RESERVED) !== 0 || (flags & RFLAGS_FIXED) === 0 || f.hi(F.VMCS_GUEST_RFLAGS) !== 0) return false;
  if (long && (flags & RFLAGS_VM) !== 0) return false;
  const info = f.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD);
  const external = info < 0 && (info & C.INTR_INFO_INTR_TYPE_MASK) === C.INTR_TYPE_EXT_INTR;
  if (external && (flags & RFLAGS_IF) === 0) return false;
  const activity = f.lo(F.VMCS_GUEST_ACTIVITY_STATE);
  const state = f.lo(F.VMCS_GUEST_INTERRUPTIBILITY_INFO);
  const both = C.GUEST_INTR_STATE_STI | C.GUEST_INTR_STATE_MOV_SS;
  if (activity > C.GUEST_ACTIVITY_HLT || (state & both) === both || (state & ~0xf) !== 0) return false;
  if ((state & C.GUEST_INTR_STATE_STI) !== 0 && (flags & RFLAGS_IF) === 0) return false;
  if (external && (state & both) !== 0) return false;
  return f.lo(F.VMCS_VMCS_LINK_POINTER) === -1 && f.hi(F.VMCS_VMCS_LINK_POINTER) === -1;
}
