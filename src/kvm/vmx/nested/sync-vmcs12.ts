/** From the VMCS that ran L2 into L1's (@kvm nested.c sync_vmcs02_to_vmcs12, sync_vmcs02_to_vmcs12_rare). */
import { RIP, RSP } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { MP_STATE_HALTED, MP_STATE_INIT_RECEIVED, type VcpuState } from '../../vcpu-state.ts';
import { isPaePaging } from '../../x86/registers.ts';
import { vmcsRead, vmcsReadHi } from '../vmcs-access.ts';
import { preemptionTimerValue } from './preemption-timer.ts';

const E = F.VMCS_FIELDS;

/** Fields that nobody looks at before L1 does. @kvm nested.c is_vmcs12_ext_field */
const RARE_NARROW = [
  ...[F.VMCS_GUEST_ES_SELECTOR, F.VMCS_GUEST_CS_SELECTOR, F.VMCS_GUEST_SS_SELECTOR, F.VMCS_GUEST_DS_SELECTOR],
  ...[F.VMCS_GUEST_FS_SELECTOR, F.VMCS_GUEST_GS_SELECTOR, F.VMCS_GUEST_LDTR_SELECTOR, F.VMCS_GUEST_TR_SELECTOR],
  ...[F.VMCS_GUEST_ES_LIMIT, F.VMCS_GUEST_CS_LIMIT, F.VMCS_GUEST_SS_LIMIT, F.VMCS_GUEST_DS_LIMIT],
  ...[F.VMCS_GUEST_FS_LIMIT, F.VMCS_GUEST_GS_LIMIT, F.VMCS_GUEST_LDTR_LIMIT, F.VMCS_GUEST_TR_LIMIT],
  ...[F.VMCS_GUEST_GDTR_LIMIT, F.VMCS_GUEST_IDTR_LIMIT, F.VMCS_GUEST_ES_AR_BYTES, F.VMCS_GUEST_DS_AR_BYTES],
  ...[F.VMCS_GUEST_FS_AR_BYTES, F.VMCS_GUEST_GS_AR_BYTES, F.VMCS_GUEST_LDTR_AR_BYTES, F.VMCS_GUEST_TR_AR_BYTES],
];
const RARE_WIDE = [
  ...[F.VMCS_GUEST_ES_BASE, F.VMCS_GUEST_CS_BASE, F.VMCS_GUEST_SS_BASE, F.VMCS_GUEST_DS_BASE],
  ...[F.VMCS_GUEST_FS_BASE, F.VMCS_GUEST_GS_BASE, F.VMCS_GUEST_LDTR_BASE, F.VMCS_GUEST_TR_BASE],
  ...[F.VMCS_GUEST_GDTR_BASE, F.VMCS_GUEST_IDTR_BASE, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS],
];
const EXT_FIELDS: ReadonlySet<number> = new Set([
  ...[E.GUEST_ES_SELECTOR, E.GUEST_CS_SELECTOR, E.GUEST_SS_SELECTOR, E.GUEST_DS_SELECTOR, E.GUEST_FS_SELECTOR],
  ...[E.GUEST_GS_SELECTOR, E.GUEST_LDTR_SELECTOR, E.GUEST_TR_SELECTOR, E.GUEST_ES_LIMIT, E.GUEST_CS_LIMIT],
  ...[E.GUEST_SS_LIMIT, E.GUEST_DS_LIMIT, E.GUEST_FS_LIMIT, E.GUEST_GS_LIMIT, E.GUEST_LDTR_LIMIT, E.GUEST_TR_LIMIT],
  ...[E.GUEST_GDTR_LIMIT, E.GUEST_IDTR_LIMIT, E.GUEST_ES_AR_BYTES, E.GUEST_DS_AR_BYTES, E.GUEST_FS_AR_BYTES],
  ...[E.GUEST_GS_AR_BYTES, E.GUEST_LDTR_AR_BYTES, E.GUEST_TR_AR_BYTES, E.GUEST_ES_BASE, E.GUEST_CS_BASE],
  ...[E.GUEST_SS_BASE, E.GUEST_DS_BASE, E.GUEST_FS_BASE, E.GUEST_GS_BASE, E.GUEST_LDTR_BASE, E.GUEST_TR_BASE],
  ...[E.GUEST_GDTR_BASE, E.GUEST_IDTR_BASE, E.GUEST_PENDING_DBG_EXCEPTIONS, E.GUEST_BNDCFGS],
]);

export function isVmcs12ExtField(encoding: number): boolean {
  return EXT_FIELDS.has(encoding);
}

/** What VMREAD finds only once somebody asks. @kvm nested.c sync_vmcs02_to_vmcs12_rare */
export function syncVmcs12Rare(vcpu: VcpuState): void {
  const { nested, words } = vcpu.vmx;
  const from = nested.vmcs02!.pfn * 1024;
  const v = nested.vmcs12;
  for (const field of RARE_NARROW) v.set(field, words[from + (field >> 2)]!);
  for (const field of RARE_WIDE) v.set64(field, words[from + (field >> 2)]!, words[from + (field >> 2) + 1]!);
  nested.needSyncVmcs02Rare = false;
}

/** @kvm nested.c copy_vmcs02_to_vmcs12_rare */
export function copyVmcs02ToVmcs12Rare(vcpu: VcpuState): void {
  if (vcpu.vmx.nested.needSyncVmcs02Rare) syncVmcs12Rare(vcpu);
}

/** CR0 or CR4 of L2 as L1 has to see it. @kvm nested.c vmcs12_guest_cr0, vmcs12_guest_cr4 */
function guestCr(vcpu: VcpuState, cr: number, mask: number, shadow: number, owned: number): number {
  const { vmx } = vcpu;
  const v = vmx.nested.vmcs12;
  const l1 = v.lo(mask);
  return (vmcsRead(vmx, cr) & owned) | (v.lo(cr) & l1) | (vmcsRead(vmx, shadow) & ~(l1 | owned));
}

/** The VMCS of L2 is loaded. @kvm nested.c sync_vmcs02_to_vmcs12 */
export function syncVmcs12(vcpu: VcpuState): void {
  const { vmx, regs } = vcpu;
  const { nested } = vmx;
  const v = nested.vmcs12;
  nested.needSyncVmcs02Rare = true;
  const { cr0GuestOwnedBits, cr4GuestOwnedBits } = vmx;
  v.set64(
    F.VMCS_GUEST_CR0,
    guestCr(vcpu, F.VMCS_GUEST_CR0, F.VMCS_CR0_GUEST_HOST_MASK, F.VMCS_CR0_READ_SHADOW, cr0GuestOwnedBits),
    0,
  );
  v.set64(
    F.VMCS_GUEST_CR4,
    guestCr(vcpu, F.VMCS_GUEST_CR4, F.VMCS_CR4_GUEST_HOST_MASK, F.VMCS_CR4_READ_SHADOW, cr4GuestOwnedBits),
    0,
  );
  v.set64(F.VMCS_GUEST_RSP, regs[2 * RSP]!, regs[2 * RSP + 1]!);
  v.set64(F.VMCS_GUEST_RIP, regs[2 * RIP]!, regs[2 * RIP + 1]!);
  const wide = (field: number): void => v.set64(field, vmcsRead(vmx, field), vmcsReadHi(vmx, field));
  wide(F.VMCS_GUEST_RFLAGS);
  v.set(F.VMCS_GUEST_CS_AR_BYTES, vmcsRead(vmx, F.VMCS_GUEST_CS_AR_BYTES));
  v.set(F.VMCS_GUEST_SS_AR_BYTES, vmcsRead(vmx, F.VMCS_GUEST_SS_AR_BYTES));
  v.set(F.VMCS_GUEST_INTERRUPTIBILITY_INFO, vmcsRead(vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO));
  let activity = C.GUEST_ACTIVITY_ACTIVE;
  if (vcpu.mpState === MP_STATE_HALTED) activity = C.GUEST_ACTIVITY_HLT;
  else if (vcpu.mpState === MP_STATE_INIT_RECEIVED) activity = C.GUEST_ACTIVITY_WAIT_SIPI;
  v.set(F.VMCS_GUEST_ACTIVITY_STATE, activity);
  if (v.preemptionTimer && v.hasExit(C.VM_EXIT_SAVE_VMX_PREEMPTION_TIMER) && !nested.runPending) {
    v.set(F.VMCS_VMX_PREEMPTION_TIMER_VALUE, preemptionTimerValue(vcpu));
  }
  if (vcpu.vm.vendor.tdpEnabled) {
    wide(F.VMCS_GUEST_CR3);
    if (v.ept && isPaePaging(vcpu)) for (let i = 0; i < 4; i++) wide(F.VMCS_GUEST_PDPTR0 + 8 * i);
  }
  wide(F.VMCS_GUEST_LINEAR_ADDRESS);
  if (v.vid) v.set(F.VMCS_GUEST_INTR_STATUS, vmcsRead(vmx, F.VMCS_GUEST_INTR_STATUS));
  const entry = v.lo(F.VMCS_VM_ENTRY_CONTROLS) & ~C.VM_ENTRY_IA32E_MODE;
  v.set(F.VMCS_VM_ENTRY_CONTROLS, entry | (vmcsRead(vmx, F.VMCS_VM_ENTRY_CONTROLS) & C.VM_ENTRY_IA32E_MODE));
  if (v.hasExit(C.VM_EXIT_SAVE_DEBUG_CONTROLS)) v.set64(F.VMCS_GUEST_DR7, vcpu.x86.dr7, 0);
  if (v.hasExit(C.VM_EXIT_SAVE_IA32_EFER)) v.set64(F.VMCS_GUEST_IA32_EFER, vcpu.efer, 0);
}
