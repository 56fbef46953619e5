/** CR0, CR4 and EFER between the guest and the VMCS (@kvm vmx.c vmx_set_cr0, vmx_set_cr4, vmx_set_efer); the guest is unrestricted. */
import {
  CR0_CD,
  CR0_NE,
  CR0_NW,
  CR0_PG,
  CR0_TS,
  CR0_WP,
  CR4_DE,
  CR4_FSGSBASE,
  CR4_MCE,
  CR4_OSFXSR,
  CR4_OSXMMEXCPT,
  CR4_PAE,
  CR4_PCE,
  CR4_PGE,
  CR4_PKE,
  CR4_PVI,
  CR4_SMAP,
  CR4_SMEP,
  CR4_TSD,
  CR4_UMIP,
  CR4_VMXE,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
} from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import { SECONDARY_EXEC_DESC, VM_ENTRY_IA32E_MODE } from '../../arch/vmx-controls.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { guestCr0Valid, hostCr0Valid, nestedCr4Valid } from './nested/consistency-checks.ts';
import { changeEntryControls, changeSecondaryExecControls, vmcsRead, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

const TR_TYPE_MASK = 0xf;
const TR_BUSY_64_TSS = 11;
/** @kvm kvm_cache_regs.h KVM_POSSIBLE_CR4_GUEST_BITS */
const POSSIBLE_CR4_GUEST_BITS =
  CR4_PVI | CR4_DE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PGE | CR4_TSD | CR4_FSGSBASE;

/** @kvm vmx.c vmx_set_efer; what the processor gets is EFER without LME where the guest is not in long mode. */
export function vmxSetEfer(vcpu: VcpuState, value: number): void {
  vcpu.efer = value;
  const long = (value & EFER_LMA) !== 0;
  changeEntryControls(vcpu.vmx, VM_ENTRY_IA32E_MODE, long);
  let efer = long ? value : value & ~EFER_LME;
  // Shadow page tables use NX.
  if (!vcpu.vm.vendor.tdpEnabled) efer |= EFER_NX;
  vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_IA32_EFER, efer, 0);
}

/** @kvm vmx.c enter_lmode: entries to long mode insist on a 64-bit TSS. */
function enterLmode(vcpu: VcpuState): void {
  const ar = vmcsRead(vcpu.vmx, F.VMCS_GUEST_TR_AR_BYTES);
  if ((ar & TR_TYPE_MASK) !== TR_BUSY_64_TSS) {
    vmcsWrite(vcpu.vmx, F.VMCS_GUEST_TR_AR_BYTES, (ar & ~TR_TYPE_MASK) | TR_BUSY_64_TSS);
  }
  vmxSetEfer(vcpu, vcpu.efer | EFER_LMA);
}

/** @kvm vmx.c vmx_set_cr0 */
export function vmxSetCr0(vcpu: VcpuState, cr0: number): void {
  const vmx = vcpu.vmx;
  const oldPaging = (vcpu.cr0 & CR0_PG) !== 0;
  const paging = (cr0 & CR0_PG) !== 0;
  let hwCr0 = (cr0 & ~(CR0_NW | CR0_CD)) | CR0_NE;
  if (!vcpu.vm.vendor.tdpEnabled) hwCr0 |= CR0_PG | CR0_WP;
  vmcsWrite64(vmx, F.VMCS_CR0_READ_SHADOW, cr0, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_CR0, hwCr0, 0);
  vcpu.cr0 = cr0;
  if ((vcpu.efer & EFER_LME) !== 0) {
    if (!oldPaging && paging) enterLmode(vcpu);
    else if (oldPaging && !paging) vmxSetEfer(vcpu, vcpu.efer & ~EFER_LMA);
  }
  if (!vcpu.vm.vendor.tdpEnabled && oldPaging !== paging) vmxSetCr4(vcpu, vcpu.cr4);
}

/** KVM gives a guest UMIP by intercepting its instructions where the processor does not have it. @kvm capabilities.h vmx_umip_emulated */
export function umipEmulated(vcpu: VcpuState): boolean {
  return !vcpu.vm.profile.umip;
}

/** @kvm vmx.c vmx_set_cr4. The host runs with CR4.MCE set, and in VMX operation. */
export function vmxSetCr4(vcpu: VcpuState, cr4: number): void {
  const vmx = vcpu.vmx;
  let hwCr4 = cr4 | CR4_MCE | CR4_VMXE;
  if (umipEmulated(vcpu)) {
    const wanted = (cr4 & CR4_UMIP) !== 0;
    const ofL1 = vcpu.guestMode && vmx.nested.vmcs12.has2(SECONDARY_EXEC_DESC);
    if (wanted || !ofL1) changeSecondaryExecControls(vmx, SECONDARY_EXEC_DESC, wanted);
    hwCr4 &= ~CR4_UMIP;
  }
  vcpu.cr4 = cr4;
  if (!vcpu.vm.vendor.tdpEnabled) {
    hwCr4 |= CR4_PAE;
    if ((vcpu.cr0 & CR0_PG) === 0) hwCr4 &= ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
  }
  vmcsWrite64(vmx, F.VMCS_CR4_READ_SHADOW, cr4, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_CR4, hwCr4, 0);
}

/** Which bits of CR0 and CR4 the guest owns. @kvm vmx.c set_cr4_guest_host_mask; vmx.h vmx_l1_guest_owned_cr0_bits */
export function setGuestOwnedBits(vcpu: VcpuState): void {
  const vmx = vcpu.vmx;
  const tdp = vcpu.vm.vendor.tdpEnabled;
  vmx.cr0GuestOwnedBits = tdp ? CR0_TS | CR0_WP : CR0_TS;
  vmx.cr4GuestOwnedBits = POSSIBLE_CR4_GUEST_BITS & ~vcpu.x86.cr4GuestRsvdBits & (tdp ? -1 : ~CR4_PGE);
  if (vcpu.guestMode) {
    vmx.cr0GuestOwnedBits &= ~vmx.nested.vmcs12.lo(F.VMCS_CR0_GUEST_HOST_MASK);
    vmx.cr4GuestOwnedBits &= ~vmx.nested.vmcs12.lo(F.VMCS_CR4_GUEST_HOST_MASK);
  }
  vmcsWrite64(vmx, F.VMCS_CR0_GUEST_HOST_MASK, ~vmx.cr0GuestOwnedBits, -1);
  vmcsWrite64(vmx, F.VMCS_CR4_GUEST_HOST_MASK, ~vmx.cr4GuestOwnedBits, -1);
}

/** What the guest changed without an exit goes into KVM's copies. @kvm vmx.c vmx_cache_reg. HOT */
export function cacheControlRegisters(vcpu: VcpuState): void {
  const vmx = vcpu.vmx;
  const own0 = vmx.cr0GuestOwnedBits;
  const own4 = vmx.cr4GuestOwnedBits;
  vcpu.cr0 = (vcpu.cr0 & ~own0) | (vmcsRead(vmx, F.VMCS_GUEST_CR0) & own0);
  vcpu.cr4 = (vcpu.cr4 & ~own4) | (vmcsRead(vmx, F.VMCS_GUEST_CR4) & own4);
}

/** @kvm vmx.c vmx_is_valid_cr0 */
export function vmxIsValidCr0(vcpu: VcpuState, cr0: number): boolean {
  const { nested } = vcpu.vmx;
  if (vcpu.guestMode) return guestCr0Valid(vcpu, nested.vmcs12, cr0, 0);
  return !nested.vmxon || hostCr0Valid(vcpu, cr0, 0);
}

/** @kvm vmx.c vmx_is_valid_cr4 */
export function vmxIsValidCr4(vcpu: VcpuState, cr4: number): boolean {
  if ((cr4 & CR4_VMXE) !== 0 && vcpu.smm) return false;
  return !vcpu.vmx.nested.vmxon || nestedCr4Valid(vcpu, cr4, 0);
}
