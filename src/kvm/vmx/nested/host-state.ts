/** L1's state after a VM exit: what its VMCS says of the host (@kvm nested.c load_vmcs12_host_state, nested_vmx_restore_host_state). */
import {
  CS,
  DS,
  EFER_LMA,
  EFER_LME,
  ES,
  FS,
  GS,
  LDTR,
  RFLAGS_FIXED,
  RIP,
  RSP,
  SS,
  TR,
} from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { emptySegment } from '../../emulate/ctxt.ts';
import { mmuResetContext } from '../../mmu/roles.ts';
import { makeRequest, REQ_TRIPLE_FAULT, type VcpuState } from '../../vcpu-state.ts';
import { setDr } from '../../x86/debug-registers.ts';
import { KVM_GUESTDBG_USE_HW_BP } from '../../x86/guest-debug-bits.ts';
import { isPaePaging } from '../../x86/registers.ts';
import { setGuestOwnedBits, vmxSetCr0, vmxSetCr4, vmxSetEfer } from '../control-registers.ts';
import { vmxSetInterruptShadow, vmxSetRflags } from '../events.ts';
import { savePdptrs } from '../run.ts';
import { vmxSetSegment } from '../segments.ts';
import { vmcsRead, vmcsReadHi, vmcsWrite, vmcsWrite64 } from '../vmcs-access.ts';
import { nestedEptUninitMmuContext, nestedLoadCr3, transitionTlbFlush } from './load-cr3.ts';
import { loadMsrs, restoreLoadedMsrs } from './msr-lists.ts';
import type { Vmcs12 } from './vmcs12.ts';

const DR7_FIXED = 0x400;

/** L1 cannot go on. @kvm nested.c nested_vmx_abort */
export function nestedVmxAbort(vcpu: VcpuState): void {
  makeRequest(vcpu, REQ_TRIPLE_FAULT);
}

const segment = emptySegment();

function setHostSegment(vcpu: VcpuState, sreg: number, selector: number, base: number, v: Vmcs12): void {
  segment.selector = selector & 0xffff;
  segment.baseLo = base === 0 ? 0 : v.lo(base);
  segment.baseHi = base === 0 ? 0 : v.hi(base);
  vmxSetSegment(vcpu, sreg, segment);
}

/** @kvm nested.c load_vmcs12_host_state, segments */
function loadHostSegments(vcpu: VcpuState, v: Vmcs12): void {
  const long = v.hasExit(C.VM_EXIT_HOST_ADDR_SPACE_SIZE);
  Object.assign(segment, {
    limit: 0xffffffff,
    type: 11,
    s: 1,
    dpl: 0,
    p: 1,
    avl: 0,
    l: long ? 1 : 0,
    db: long ? 0 : 1,
    g: 1,
  });
  setHostSegment(vcpu, CS, v.lo(F.VMCS_HOST_CS_SELECTOR), 0, v);
  Object.assign(segment, { type: 3, l: 0, db: 1 });
  setHostSegment(vcpu, DS, v.lo(F.VMCS_HOST_DS_SELECTOR), 0, v);
  setHostSegment(vcpu, ES, v.lo(F.VMCS_HOST_ES_SELECTOR), 0, v);
  setHostSegment(vcpu, SS, v.lo(F.VMCS_HOST_SS_SELECTOR), 0, v);
  setHostSegment(vcpu, FS, v.lo(F.VMCS_HOST_FS_SELECTOR), F.VMCS_HOST_FS_BASE, v);
  setHostSegment(vcpu, GS, v.lo(F.VMCS_HOST_GS_SELECTOR), F.VMCS_HOST_GS_BASE, v);
  Object.assign(segment, { limit: 0x67, type: 11, s: 0, db: 0, g: 0 });
  setHostSegment(vcpu, TR, v.lo(F.VMCS_HOST_TR_SELECTOR), F.VMCS_HOST_TR_BASE, v);
  Object.assign(segment, { limit: 0, type: 0, p: 0 });
  setHostSegment(vcpu, LDTR, 0, 0, v);
}

/** L1's VMCS is loaded. @kvm nested.c load_vmcs12_host_state */
export function loadVmcs12HostState(vcpu: VcpuState): void {
  const { vmx, regs } = vcpu;
  const v = vmx.nested.vmcs12;
  const mode = EFER_LMA | EFER_LME;
  if (v.hasExit(C.VM_EXIT_LOAD_IA32_EFER)) vmxSetEfer(vcpu, v.lo(F.VMCS_HOST_IA32_EFER));
  else vmxSetEfer(vcpu, v.hasExit(C.VM_EXIT_HOST_ADDR_SPACE_SIZE) ? vcpu.efer | mode : vcpu.efer & ~mode);
  regs[2 * RSP] = v.lo(F.VMCS_HOST_RSP);
  regs[2 * RSP + 1] = v.hi(F.VMCS_HOST_RSP);
  regs[2 * RIP] = v.lo(F.VMCS_HOST_RIP);
  regs[2 * RIP + 1] = v.hi(F.VMCS_HOST_RIP);
  vmxSetRflags(vcpu, RFLAGS_FIXED);
  vmxSetInterruptShadow(vcpu, 0);
  setGuestOwnedBits(vcpu);
  const { efer } = vcpu;
  vmxSetCr0(vcpu, v.lo(F.VMCS_HOST_CR0));
  vmxSetEfer(vcpu, efer);
  vmxSetCr4(vcpu, v.lo(F.VMCS_HOST_CR4));
  nestedEptUninitMmuContext(vcpu);
  if (nestedLoadCr3(vcpu, v.lo(F.VMCS_HOST_CR3), v.hi(F.VMCS_HOST_CR3), false, true) !== 0) nestedVmxAbort(vcpu);
  transitionTlbFlush(vcpu, false);
  vmcsWrite(vmx, F.VMCS_GUEST_SYSENTER_CS, v.lo(F.VMCS_HOST_IA32_SYSENTER_CS));
  const wide = (to: number, from: number): void => vmcsWrite64(vmx, to, v.lo(from), v.hi(from));
  wide(F.VMCS_GUEST_SYSENTER_ESP, F.VMCS_HOST_IA32_SYSENTER_ESP);
  wide(F.VMCS_GUEST_SYSENTER_EIP, F.VMCS_HOST_IA32_SYSENTER_EIP);
  wide(F.VMCS_GUEST_IDTR_BASE, F.VMCS_HOST_IDTR_BASE);
  wide(F.VMCS_GUEST_GDTR_BASE, F.VMCS_HOST_GDTR_BASE);
  vmcsWrite(vmx, F.VMCS_GUEST_IDTR_LIMIT, 0xffff);
  vmcsWrite(vmx, F.VMCS_GUEST_GDTR_LIMIT, 0xffff);
  if (v.hasExit(C.VM_EXIT_LOAD_IA32_PAT)) {
    wide(F.VMCS_GUEST_IA32_PAT, F.VMCS_HOST_IA32_PAT);
    vcpu.x86.patLo = v.lo(F.VMCS_HOST_IA32_PAT);
    vcpu.x86.patHi = v.hi(F.VMCS_HOST_IA32_PAT);
  }
  loadHostSegments(vcpu, v);
  setDr(vcpu, 7, DR7_FIXED, 0);
  vmcsWrite64(vmx, F.VMCS_GUEST_IA32_DEBUGCTL, 0, 0);
  if (loadMsrs(vcpu, F.VMCS_VM_EXIT_MSR_LOAD_ADDR, F.VMCS_VM_EXIT_MSR_LOAD_COUNT) !== 0) nestedVmxAbort(vcpu);
}

/** The processor found fault with the controls: L1 goes on behind its VMLAUNCH as it was. @kvm nested.c nested_vmx_restore_host_state */
export function restoreHostState(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  const v = vmx.nested.vmcs12;
  vcpu.x86.patLo = vmcsRead(vmx, F.VMCS_GUEST_IA32_PAT);
  vcpu.x86.patHi = vmcsReadHi(vmx, F.VMCS_GUEST_IA32_PAT);
  if (v.hasEntry(C.VM_ENTRY_LOAD_DEBUG_CONTROLS)) {
    const own = (vcpu.x86.guestDebug & KVM_GUESTDBG_USE_HW_BP) === 0;
    setDr(vcpu, 7, own ? vmcsRead(vmx, F.VMCS_GUEST_DR7) : DR7_FIXED, 0);
  }
  const efer = vmcsRead(vmx, F.VMCS_GUEST_IA32_EFER);
  vmxSetEfer(vcpu, efer);
  setGuestOwnedBits(vcpu);
  vmxSetCr0(vcpu, vmcsRead(vmx, F.VMCS_CR0_READ_SHADOW));
  vmxSetEfer(vcpu, efer);
  vmxSetCr4(vcpu, vmcsRead(vmx, F.VMCS_CR4_READ_SHADOW));
  nestedEptUninitMmuContext(vcpu);
  vcpu.cr3Lo = vmcsRead(vmx, F.VMCS_GUEST_CR3);
  vcpu.cr3Hi = vmcsReadHi(vmx, F.VMCS_GUEST_CR3);
  if (vcpu.vm.vendor.tdpEnabled && isPaePaging(vcpu)) savePdptrs(vcpu);
  mmuResetContext(vcpu);
  if (!restoreLoadedMsrs(vcpu)) nestedVmxAbort(vcpu);
}
