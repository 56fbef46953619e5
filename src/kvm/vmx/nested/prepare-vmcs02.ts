/** The VMCS that runs L2: what L1 wants of it, joined with what KVM wants of every guest (@kvm nested.c prepare_vmcs02_early, prepare_vmcs02). */
import { CR4_UMIP, EFER_LMA, EFER_LME, RIP, RSP } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { setDr } from '../../x86/debug-registers.ts';
import { isPaePaging } from '../../x86/registers.ts';
import { setGuestOwnedBits, umipEmulated, vmxSetCr0, vmxSetCr4, vmxSetEfer } from '../control-registers.ts';
import { vmxSetRflags } from '../events.ts';
import { vmxUpdateExceptionBitmap } from '../init-vmcs.ts';
import { PML_ENTITY_NUM } from '../pml.ts';
import { vmcsWrite, vmcsWrite64 } from '../vmcs-access.ts';
import { nestedLoadCr3, transitionTlbFlush } from './load-cr3.ts';
import { nestedEptInitMmuContext } from './nested-ept.ts';

/** Fields that go over as they are when L1 changed something. @kvm nested.c prepare_vmcs02_rare */
const RARE_NARROW = [
  ...[F.VMCS_GUEST_ES_SELECTOR, F.VMCS_GUEST_CS_SELECTOR, F.VMCS_GUEST_SS_SELECTOR, F.VMCS_GUEST_DS_SELECTOR],
  ...[F.VMCS_GUEST_FS_SELECTOR, F.VMCS_GUEST_GS_SELECTOR, F.VMCS_GUEST_LDTR_SELECTOR, F.VMCS_GUEST_TR_SELECTOR],
  ...[F.VMCS_GUEST_ES_LIMIT, F.VMCS_GUEST_CS_LIMIT, F.VMCS_GUEST_SS_LIMIT, F.VMCS_GUEST_DS_LIMIT],
  ...[F.VMCS_GUEST_FS_LIMIT, F.VMCS_GUEST_GS_LIMIT, F.VMCS_GUEST_LDTR_LIMIT, F.VMCS_GUEST_TR_LIMIT],
  ...[F.VMCS_GUEST_GDTR_LIMIT, F.VMCS_GUEST_IDTR_LIMIT, F.VMCS_GUEST_CS_AR_BYTES, F.VMCS_GUEST_SS_AR_BYTES],
  ...[F.VMCS_GUEST_ES_AR_BYTES, F.VMCS_GUEST_DS_AR_BYTES, F.VMCS_GUEST_FS_AR_BYTES, F.VMCS_GUEST_GS_AR_BYTES],
  ...[F.VMCS_GUEST_LDTR_AR_BYTES, F.VMCS_GUEST_TR_AR_BYTES, F.VMCS_GUEST_SYSENTER_CS],
];
const RARE_WIDE = [
  ...[F.VMCS_GUEST_ES_BASE, F.VMCS_GUEST_CS_BASE, F.VMCS_GUEST_SS_BASE, F.VMCS_GUEST_DS_BASE],
  ...[F.VMCS_GUEST_FS_BASE, F.VMCS_GUEST_GS_BASE, F.VMCS_GUEST_LDTR_BASE, F.VMCS_GUEST_TR_BASE],
  ...[F.VMCS_GUEST_GDTR_BASE, F.VMCS_GUEST_IDTR_BASE, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS],
  ...[F.VMCS_GUEST_SYSENTER_ESP, F.VMCS_GUEST_SYSENTER_EIP],
  ...[F.VMCS_EOI_EXIT_BITMAP0, F.VMCS_EOI_EXIT_BITMAP1, F.VMCS_EOI_EXIT_BITMAP2, F.VMCS_EOI_EXIT_BITMAP3],
];
const PDPTRS = [F.VMCS_GUEST_PDPTR0, F.VMCS_GUEST_PDPTR1, F.VMCS_GUEST_PDPTR2, F.VMCS_GUEST_PDPTR3];

/** Secondary controls of KVM's own that mean nothing to L2. */
const NOT_OF_L0 =
  C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES |
  C.SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE |
  C.SECONDARY_EXEC_ENABLE_INVPCID |
  C.SECONDARY_EXEC_ENABLE_RDTSCP |
  C.SECONDARY_EXEC_ENABLE_XSAVES |
  C.SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE |
  C.SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY |
  C.SECONDARY_EXEC_APIC_REGISTER_VIRT |
  C.SECONDARY_EXEC_ENABLE_VMFUNC |
  C.SECONDARY_EXEC_DESC;

/** EFER that L2 starts with, or goes on with. @kvm nested.c nested_vmx_calc_efer */
function calcEfer(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  if (nested.runPending && v.hasEntry(C.VM_ENTRY_LOAD_IA32_EFER)) return v.lo(F.VMCS_GUEST_IA32_EFER);
  const mode = EFER_LMA | EFER_LME;
  return v.hasEntry(C.VM_ENTRY_IA32E_MODE) ? vcpu.efer | mode : vcpu.efer & ~mode;
}

/** @kvm nested.c prepare_vmcs02_constant_state */
function prepareConstantState(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  const { nested } = vmx;
  if (nested.vmcs02Initialized) return;
  nested.vmcs02Initialized = true;
  vmcsWrite64(vmx, F.VMCS_VM_FUNCTION_CONTROL, 0, 0);
  vmcsWrite64(vmx, F.VMCS_MSR_BITMAP, (nested.vmcs02!.msrBitmapPfn * 4096) | 0, 0);
  vmcsWrite64(vmx, F.VMCS_PML_ADDRESS, 0, 0);
  vmcsWrite(vmx, F.VMCS_GUEST_PML_INDEX, PML_ENTITY_NUM - 1);
  vmcsWrite(vmx, F.VMCS_CR3_TARGET_COUNT, 0);
}

/** A word of L1's own VMCS. */
function word01(vcpu: VcpuState, field: number): number {
  return vcpu.vmx.words[vcpu.vmx.vmcs01.pfn * 1024 + (field >> 2)]!;
}

/** @kvm nested.c prepare_vmcs02_early, secondary controls */
function prepareSecondary(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  const v = vmx.nested.vmcs12;
  let control = word01(vcpu, F.VMCS_SECONDARY_VM_EXEC_CONTROL) & ~NOT_OF_L0;
  if (v.has(C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS)) control |= v.lo(F.VMCS_SECONDARY_VM_EXEC_CONTROL);
  control &= ~(C.SECONDARY_EXEC_ENABLE_PML | C.SECONDARY_EXEC_SHADOW_VMCS);
  if (umipEmulated(vcpu) && (v.lo(F.VMCS_GUEST_CR4) & CR4_UMIP) !== 0) control |= C.SECONDARY_EXEC_DESC;
  if ((control & C.SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY) !== 0) {
    vmcsWrite(vmx, F.VMCS_GUEST_INTR_STATUS, v.lo(F.VMCS_GUEST_INTR_STATUS));
  }
  if (!v.has2(C.SECONDARY_EXEC_UNRESTRICTED_GUEST)) control &= ~C.SECONDARY_EXEC_UNRESTRICTED_GUEST;
  vmcsWrite(vmx, F.VMCS_SECONDARY_VM_EXEC_CONTROL, control);
}

/** Controls and the event to inject; L2's VMCS is loaded. @kvm nested.c prepare_vmcs02_early */
export function prepareVmcs02Early(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  const { nested } = vmx;
  const v = nested.vmcs12;
  const efer = calcEfer(vcpu);
  if (nested.dirtyVmcs12) {
    prepareConstantState(vcpu);
    vmcsWrite64(vmx, F.VMCS_VMCS_LINK_POINTER, -1, -1);
    vmcsWrite(vmx, F.VMCS_VIRTUAL_PROCESSOR_ID, v.vpid && nested.vpid02 !== 0 ? nested.vpid02 : vmx.vpid);
    for (const field of [F.VMCS_PLE_GAP, F.VMCS_PLE_WINDOW]) vmcsWrite(vmx, field, word01(vcpu, field));
  }
  let pin = word01(vcpu, F.VMCS_PIN_BASED_VM_EXEC_CONTROL);
  pin |= v.lo(F.VMCS_PIN_BASED_VM_EXEC_CONTROL) & ~C.PIN_BASED_VMX_PREEMPTION_TIMER;
  nested.piPending = false;
  if (v.postedIntr) nested.postedIntrNv = v.lo(F.VMCS_POSTED_INTR_NV);
  else {
    nested.postedIntrNv = -1;
    pin &= ~C.PIN_BASED_POSTED_INTR;
  }
  vmcsWrite(vmx, F.VMCS_PIN_BASED_VM_EXEC_CONTROL, pin);
  let primary = word01(vcpu, F.VMCS_CPU_BASED_VM_EXEC_CONTROL);
  primary &= ~(C.CPU_BASED_INTR_WINDOW_EXITING | C.CPU_BASED_NMI_WINDOW_EXITING | C.CPU_BASED_TPR_SHADOW);
  primary |= v.lo(F.VMCS_CPU_BASED_VM_EXEC_CONTROL);
  nested.l1TprThreshold = -1;
  if ((primary & C.CPU_BASED_TPR_SHADOW) !== 0) vmcsWrite(vmx, F.VMCS_TPR_THRESHOLD, v.lo(F.VMCS_TPR_THRESHOLD));
  else primary |= C.CPU_BASED_CR8_LOAD_EXITING | C.CPU_BASED_CR8_STORE_EXITING;
  primary |= C.CPU_BASED_UNCOND_IO_EXITING;
  primary &= ~(C.CPU_BASED_USE_IO_BITMAPS | C.CPU_BASED_USE_MSR_BITMAPS);
  vmcsWrite(vmx, F.VMCS_CPU_BASED_VM_EXEC_CONTROL, primary);
  prepareSecondary(vcpu);
  let entry = word01(vcpu, F.VMCS_VM_ENTRY_CONTROLS);
  entry |= v.lo(F.VMCS_VM_ENTRY_CONTROLS) & ~C.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL;
  entry = (entry & ~C.VM_ENTRY_IA32E_MODE) | C.VM_ENTRY_LOAD_IA32_EFER;
  if ((efer & EFER_LMA) !== 0) entry |= C.VM_ENTRY_IA32E_MODE;
  vmcsWrite(vmx, F.VMCS_VM_ENTRY_CONTROLS, entry);
  vmcsWrite(vmx, F.VMCS_VM_EXIT_CONTROLS, word01(vcpu, F.VMCS_VM_EXIT_CONTROLS));
  if (!nested.runPending) {
    vmcsWrite(vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD, 0);
    return;
  }
  for (const field of [
    F.VMCS_VM_ENTRY_INTR_INFO_FIELD,
    F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE,
    F.VMCS_VM_ENTRY_INSTRUCTION_LEN,
    F.VMCS_GUEST_INTERRUPTIBILITY_INFO,
  ]) {
    vmcsWrite(vmx, field, v.lo(field));
  }
}

/** @kvm nested.c prepare_vmcs02_rare */
function prepareRare(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  const v = vmx.nested.vmcs12;
  const tdp = vcpu.vm.vendor.tdpEnabled;
  for (const field of RARE_NARROW) vmcsWrite(vmx, field, v.lo(field));
  for (const field of RARE_WIDE) vmcsWrite64(vmx, field, v.lo(field), v.hi(field));
  if (tdp) for (const field of PDPTRS) vmcsWrite64(vmx, field, v.lo(field), v.hi(field));
  vmcsWrite(vmx, F.VMCS_PAGE_FAULT_ERROR_CODE_MASK, tdp ? v.lo(F.VMCS_PAGE_FAULT_ERROR_CODE_MASK) : 0);
  vmcsWrite(vmx, F.VMCS_PAGE_FAULT_ERROR_CODE_MATCH, tdp ? v.lo(F.VMCS_PAGE_FAULT_ERROR_CODE_MATCH) : 0);
  // Without it L2 never runs, as a HLT of L1's does not with it.
  vmcsWrite(vmx, F.VMCS_GUEST_ACTIVITY_STATE, C.GUEST_ACTIVITY_ACTIVE);
}

/** The guest's state; the vCPU is in guest mode. 0, or the exit qualification of a failed entry plus one. @kvm nested.c prepare_vmcs02 */
export function prepareVmcs02(vcpu: VcpuState, fromVmentry: boolean): number {
  const { vmx } = vcpu;
  const { nested } = vmx;
  const v = nested.vmcs12;
  const loadPdptrs12 = nested.dirtyVmcs12;
  if (nested.dirtyVmcs12) {
    prepareRare(vcpu);
    nested.dirtyVmcs12 = false;
  }
  if (nested.runPending && v.hasEntry(C.VM_ENTRY_LOAD_DEBUG_CONTROLS)) {
    setDr(vcpu, 7, v.lo(F.VMCS_GUEST_DR7), v.hi(F.VMCS_GUEST_DR7));
    // Nothing of it is virtualized.
    vmcsWrite64(vmx, F.VMCS_GUEST_IA32_DEBUGCTL, 0, 0);
  } else {
    setDr(vcpu, 7, vcpu.x86.dr7, 0);
    vmcsWrite64(vmx, F.VMCS_GUEST_IA32_DEBUGCTL, nested.preVmenterDebugctl, 0);
  }
  vmxSetRflags(vcpu, v.lo(F.VMCS_GUEST_RFLAGS));
  vmcsWrite64(vmx, F.VMCS_GUEST_RFLAGS, v.lo(F.VMCS_GUEST_RFLAGS), v.hi(F.VMCS_GUEST_RFLAGS));
  vmxUpdateExceptionBitmap(vcpu);
  setGuestOwnedBits(vcpu);
  if (nested.runPending && v.hasEntry(C.VM_ENTRY_LOAD_IA32_PAT)) {
    vcpu.x86.patLo = v.lo(F.VMCS_GUEST_IA32_PAT);
    vcpu.x86.patHi = v.hi(F.VMCS_GUEST_IA32_PAT);
  }
  vmcsWrite64(vmx, F.VMCS_GUEST_IA32_PAT, vcpu.x86.patLo, vcpu.x86.patHi);
  vcpu.vm.vendor.setTscOffset(vcpu);
  transitionTlbFlush(vcpu, true);
  if (v.ept) nestedEptInitMmuContext(vcpu);
  vmxSetCr0(vcpu, v.lo(F.VMCS_GUEST_CR0));
  vmcsWrite64(vmx, F.VMCS_CR0_READ_SHADOW, v.readCr0(), 0);
  vmxSetCr4(vcpu, v.lo(F.VMCS_GUEST_CR4));
  vmcsWrite64(vmx, F.VMCS_CR4_READ_SHADOW, v.readCr4(), 0);
  // Setting CR0 may have touched LMA: what counts is what L1 says.
  vmxSetEfer(vcpu, calcEfer(vcpu));
  const cr3 = F.VMCS_GUEST_CR3;
  const failed = nestedLoadCr3(vcpu, v.lo(cr3), v.hi(cr3), v.ept, fromVmentry);
  if (failed !== 0) return failed;
  if (vcpu.vm.vendor.tdpEnabled) vmcsWrite64(vmx, cr3, v.lo(cr3), v.hi(cr3));
  if (loadPdptrs12 && v.ept && isPaePaging(vcpu)) {
    PDPTRS.forEach((field, i) => {
      vmcsWrite64(vmx, field, v.lo(field), v.hi(field));
      vcpu.mmu.walkMmu.pdptrs[2 * i] = v.lo(field);
      vcpu.mmu.walkMmu.pdptrs[2 * i + 1] = v.hi(field);
    });
  }
  vcpu.regs[2 * RSP] = v.lo(F.VMCS_GUEST_RSP);
  vcpu.regs[2 * RSP + 1] = v.hi(F.VMCS_GUEST_RSP);
  vcpu.regs[2 * RIP] = v.lo(F.VMCS_GUEST_RIP);
  vcpu.regs[2 * RIP + 1] = v.hi(F.VMCS_GUEST_RIP);
  return 0;
}
