/**
 * What VM entry checks of the controls before it believes a VMCS (@sdm 28.2.1). Host state is not modelled, so neither are its checks: the
 * host below KVM is this program.
 */
import { injectsErrorCode } from '../../arch/exceptions.ts';
import { numberOf } from '../../arch/halves.ts';
import { rsvdPhysHi } from '../../arch/paging.ts';
import { CR0_PE } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import type { Core } from '../system/core.ts';
import type { Allowed, VmxCapabilities } from './capabilities.ts';

/** VM-instruction errors (@sdm 32.4). */
export const VMXERR_ENTRY_INVALID_CONTROL_FIELD = 7;

/** The task priority in the virtual-APIC page. */
const VIRTUAL_TPR = 0x80;

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
    ((primary & C.CPU_BASED_TPR_SHADOW) === 0 ||
      (f.isPage(F.VMCS_VIRTUAL_APIC_PAGE_ADDR, physHi) && validTpr(core, f, secondary))) &&
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

/** The threshold is a priority class, and not above the one that the guest has (@sdm 28.2.1.1). */
function validTpr(core: Core, f: Fields, secondary: number): boolean {
  if ((secondary & C.SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY) !== 0) return true;
  const threshold = f.lo(F.VMCS_TPR_THRESHOLD);
  if ((threshold & ~0xf) !== 0) return false;
  if ((secondary & C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES) !== 0) return true;
  const page = numberOf(f.lo(F.VMCS_VIRTUAL_APIC_PAGE_ADDR), f.hi(F.VMCS_VIRTUAL_APIC_PAGE_ADDR));
  if (page / 4096 >= core.memory.frames) return true;
  return threshold <= ((core.i32[(page + VIRTUAL_TPR) >>> 2]! >>> 4) & 15);
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
  if (type === C.INTR_TYPE_RESERVED || (info & C.INTR_INFO_RESVD_BITS_MASK) !== 0) return false;
  // A pending exit of the trap flag.
  if (type === C.INTR_TYPE_OTHER_EVENT) return vector === 0 && (info & C.INTR_INFO_DELIVER_CODE_MASK) === 0;
  if (type === C.INTR_TYPE_NMI_INTR && vector !== 2) return false;
  if (type === C.INTR_TYPE_HARD_EXCEPTION && vector > 31) return false;
  const protectedMode = (f.lo(F.VMCS_GUEST_CR0) & CR0_PE) !== 0;
  const wantsError = type === C.INTR_TYPE_HARD_EXCEPTION && protectedMode && injectsErrorCode(vector);
  if (((info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0) !== wantsError) return false;
  if (wantsError && (f.lo(F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE) & 0xffff0000) !== 0) return false;
  const length = f.lo(F.VMCS_VM_ENTRY_INSTRUCTION_LEN);
  return type < C.INTR_TYPE_SOFT_INTR || (length >= 0 && length <= 15);
}
