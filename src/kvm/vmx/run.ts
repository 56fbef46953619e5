/** One entry into the guest and what is taken from the exit (@kvm vmx.c vmx_vcpu_run). */
import { hex64 } from '../../arch/flags.ts';
import { RIP, RSP } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import { VM_SUCCEED } from '../../arch/vmx-controls.ts';
import { CR2_AT, DR_AT, PKRU_AT } from '../../cpu/state.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_DEBUGREG_WONT_EXIT } from '../x86/debug-registers.ts';
import { KVM_GUESTDBG_SINGLESTEP } from '../x86/guest-debug-bits.ts';
import { APIC_TASKPRI, lapicReg, lapicUpdatePpr } from '../x86/lapic.ts';
import { isPaePaging } from '../x86/registers.ts';
import { traceKvmExit } from '../x86/trace-exit.ts';
import { virtualNow } from '../x86/virtual-time.ts';
import { cacheControlRegisters } from './control-registers.ts';
import { recoverNmiBlocking, vmxCompleteInterrupts, vmxSetInterruptShadow } from './events.ts';
import { refuseEntry } from './invalid-guest-state.ts';
import type { VcpuVmx } from './vcpu-vmx.ts';
import { vmcsRead, vmcsReadHi, vmcsWrite64 } from './vmcs-access.ts';

/** Stands for the reason of an exit that there was not, as no entry was. @kvm asm/vmx.h EXIT_REASON_UNDEFINED */
const EXIT_REASON_UNDEFINED = 0xdead;

/** PAE's directory pointers, which the guest may have loaded, into KVM's copy. @kvm vmx.c ept_save_pdptrs */
export function savePdptrs(vcpu: VcpuState): void {
  const { pdptrs } = vcpu.mmu.walkMmu;
  for (let i = 0; i < 4; i++) {
    pdptrs[2 * i] = vmcsRead(vcpu.vmx, F.VMCS_GUEST_PDPTR0 + 8 * i);
    pdptrs[2 * i + 1] = vmcsReadHi(vcpu.vmx, F.VMCS_GUEST_PDPTR0 + 8 * i);
  }
}

/** The processor priority follows a task priority that the guest changed without an exit. */
function noticeTpr(vcpu: VcpuState): void {
  const apic = vcpu.x86.lapic!;
  const tpr = lapicReg(apic, APIC_TASKPRI);
  if (tpr === vcpu.vmx.lastTpr) return;
  vcpu.vmx.lastTpr = tpr;
  lapicUpdatePpr(apic);
}

/** VMLAUNCH the first time, VMRESUME from then on. @kvm vmx.c vmx_vcpu_enter_exit. HOT */
function enterExit(vcpu: VcpuState, vmx: VcpuVmx): void {
  vmx.fail = vcpu.vm.processor.vmx.enter(!vmx.loaded.launched);
  if (vmx.fail !== VM_SUCCEED) {
    vmx.exitReason = EXIT_REASON_UNDEFINED;
    vmx.idtVectoringInfo = 0;
    return;
  }
  vmx.exitReason = vmcsRead(vmx, F.VMCS_VM_EXIT_REASON);
  vmx.idtVectoringInfo = vmx.exitReason < 0 ? 0 : vmcsRead(vmx, F.VMCS_IDT_VECTORING_INFO_FIELD);
}

/** @kvm vmx.c vmx_vcpu_run. HOT */
export function vmxVcpuRun(vcpu: VcpuState, forceImmediateExit: boolean): void {
  const vmx = vcpu.vmx;
  const regs = vcpu.regs;
  const { processor, trace } = vcpu.vm;
  const { i32 } = vcpu.vm.memory;
  if (trace.enabled) {
    trace.emit('kvm_entry', { vcpu: vcpu.id, rip: hex64(regs[2 * RIP]!, regs[2 * RIP + 1]!) });
  }
  if (vmx.emulationRequired) {
    refuseEntry(vcpu);
    if (trace.enabled) traceKvmExit(vcpu);
    return;
  }
  vmcsWrite64(vmx, F.VMCS_GUEST_RSP, regs[2 * RSP]!, regs[2 * RSP + 1]!);
  vmcsWrite64(vmx, F.VMCS_GUEST_RIP, regs[2 * RIP]!, regs[2 * RIP + 1]!);
  i32[CR2_AT >> 2] = vcpu.cr2Lo;
  i32[(CR2_AT >> 2) + 1] = vcpu.cr2Hi;
  if ((vcpu.x86.switchDbRegs & KVM_DEBUGREG_WONT_EXIT) !== 0) i32[(DR_AT >> 2) + 12] = vcpu.x86.dr6;
  // Single steps over STI and MOV SS must not find their shadow.
  if ((vcpu.x86.guestDebug & KVM_GUESTDBG_SINGLESTEP) !== 0) vmxSetInterruptShadow(vcpu, 0);

  processor.setBudget(forceImmediateExit ? 0 : vcpu.x86.quantum);
  enterExit(vcpu, vmx);
  vcpu.pkru = i32[PKRU_AT >> 2]!;

  vcpu.cr2Lo = i32[CR2_AT >> 2]!;
  vcpu.cr2Hi = i32[(CR2_AT >> 2) + 1]!;
  regs[2 * RSP] = vmcsRead(vmx, F.VMCS_GUEST_RSP);
  regs[2 * RSP + 1] = vmcsReadHi(vmx, F.VMCS_GUEST_RSP);
  regs[2 * RIP] = vmcsRead(vmx, F.VMCS_GUEST_RIP);
  regs[2 * RIP + 1] = vmcsReadHi(vmx, F.VMCS_GUEST_RIP);
  cacheControlRegisters(vcpu);
  if (vcpu.vm.vendor.tdpEnabled) {
    vcpu.cr3Lo = vmcsRead(vmx, F.VMCS_GUEST_CR3);
    vcpu.cr3Hi = vmcsReadHi(vmx, F.VMCS_GUEST_CR3);
    if (isPaePaging(vcpu)) savePdptrs(vcpu);
  }
  if (vmx.virtualApicPfn >= 0) noticeTpr(vcpu);
  if (vcpu.guestMode) {
    vmx.nested.runPending = false;
    vmx.nested.exitedAt = virtualNow(vcpu.vm);
  }
  if (vmx.fail !== VM_SUCCEED) return;
  if (trace.enabled) traceKvmExit(vcpu);
  if (vmx.exitReason < 0) return;
  vmx.loaded.launched = true;
  recoverNmiBlocking(vcpu);
  vmxCompleteInterrupts(vcpu);
}
