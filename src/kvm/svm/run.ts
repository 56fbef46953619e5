/** One entry into the guest and what is taken from the exit (@kvm svm.c svm_vcpu_run). */
import { DR6_ACTIVE_LOW } from '../../arch/debug-registers.ts';
import { hex64 } from '../../arch/flags.ts';
import { RAX, RIP, RSP } from '../../arch/registers.ts';
import {
  INTERCEPT_CR8_WRITE,
  SVM_EXIT_ERR,
  V_TPR_MASK,
  VMCB_CR2,
  VMCB_DR6,
  VMCB_EVENT_INJ,
  VMCB_EXIT_CODE,
  VMCB_INT_CTL,
  VMCB_INTERCEPT_CR,
  VMCB_RAX,
  VMCB_RIP,
  VMCB_RSP,
} from '../../arch/vmcb.ts';
import { PKRU_AT } from '../../cpu/state.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { getCr8, setCr8 } from '../x86/control-registers.ts';
import { KVM_DEBUGREG_WONT_EXIT } from '../x86/debug-registers.ts';
import { traceKvmExit } from '../x86/trace-exit.ts';
import { disableNmiSinglestep, svmCompleteInterrupts } from './events.ts';
import { loadSaveArea } from './save-area.ts';
import { clearTlbControl, preSvmRun } from './tlb.ts';
import { isIntercept, vmcbMarkAllClean, vmcbRead, vmcbWrite, vmcbWrite64 } from './vmcb-access.ts';

/** @kvm svm.c svm_vcpu_run. HOT */
export function svmVcpuRun(vcpu: VcpuState, forceImmediateExit: boolean): void {
  const svm = vcpu.svm;
  const regs = vcpu.regs;
  const processor = vcpu.vm.processor;
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    trace.emit('kvm_entry', { vcpu: vcpu.id, rip: hex64(regs[2 * RIP]!, regs[2 * RIP + 1]!) });
  }
  vmcbWrite64(svm, VMCB_RAX, regs[2 * RAX]!, regs[2 * RAX + 1]!);
  vmcbWrite64(svm, VMCB_RSP, regs[2 * RSP]!, regs[2 * RSP + 1]!);
  vmcbWrite64(svm, VMCB_RIP, regs[2 * RIP]!, regs[2 * RIP + 1]!);
  let immediate = forceImmediateExit;
  if (svm.nmiSinglestep && vmcbRead(svm, VMCB_EVENT_INJ) !== 0) {
    // The stepping flags must not reach the guest's stack.
    disableNmiSinglestep(vcpu);
    immediate = true;
  }
  preSvmRun(vcpu);
  const intCtl = vmcbRead(svm, VMCB_INT_CTL);
  vmcbWrite(svm, VMCB_INT_CTL, (intCtl & ~V_TPR_MASK) | (getCr8(vcpu) & V_TPR_MASK));
  vmcbWrite64(svm, VMCB_CR2, vcpu.cr2Lo, vcpu.cr2Hi);
  // DR6 starts empty, so that it names the cause of a #DB, unless the guest reads it without exits.
  const wontExit = (vcpu.x86.switchDbRegs & KVM_DEBUGREG_WONT_EXIT) !== 0;
  vmcbWrite64(svm, VMCB_DR6, wontExit ? vcpu.x86.dr6 : DR6_ACTIVE_LOW, 0);
  loadSaveArea(vcpu);

  processor.setBudget(immediate ? 0 : vcpu.x86.quantum);
  processor.vmrun(svm.vmcbPa);
  // The guest writes it without an exit, and the walker asks for it.
  vcpu.pkru = vcpu.vm.memory.i32[PKRU_AT >> 2]!;

  vcpu.cr2Lo = vmcbRead(svm, VMCB_CR2);
  vcpu.cr2Hi = vmcbRead(svm, VMCB_CR2 + 4);
  regs[2 * RAX] = vmcbRead(svm, VMCB_RAX);
  regs[2 * RAX + 1] = vmcbRead(svm, VMCB_RAX + 4);
  regs[2 * RSP] = vmcbRead(svm, VMCB_RSP);
  regs[2 * RSP + 1] = vmcbRead(svm, VMCB_RSP + 4);
  regs[2 * RIP] = vmcbRead(svm, VMCB_RIP);
  regs[2 * RIP + 1] = vmcbRead(svm, VMCB_RIP + 4);
  if (!isIntercept(svm, VMCB_INTERCEPT_CR, INTERCEPT_CR8_WRITE)) {
    setCr8(vcpu, vmcbRead(svm, VMCB_INT_CTL) & V_TPR_MASK);
  }
  svm.nextRipLo = 0;
  svm.nextRipHi = 0;
  if (vmcbRead(svm, VMCB_EXIT_CODE) !== SVM_EXIT_ERR) {
    clearTlbControl(vcpu);
    vmcbMarkAllClean(svm);
  }
  if (trace.enabled) traceKvmExit(vcpu);
  svmCompleteInterrupts(vcpu);
}
