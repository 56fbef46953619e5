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
  VMCB_NEXT_RIP,
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
import { syncControlFromVmcb02 } from './nested-vmexit.ts';
import { loadSaveArea } from './save-area.ts';
import { clearTlbControl, preSvmRun } from './tlb.ts';
import { nestedVirtualizeTpr } from './virtual-tpr.ts';
import { vmcbMarkAllClean, vmcbRead } from './vmcb-access.ts';

/** @kvm svm.c svm_vcpu_run. HOT */
export function svmVcpuRun(vcpu: VcpuState, forceImmediateExit: boolean): void {
  const svm = vcpu.svm;
  const regs = vcpu.regs;
  const words = svm.words;
  const vmcb = svm.vmcb;
  const { processor, trace } = vcpu.vm;
  if (trace.enabled) {
    trace.emit('kvm_entry', { vcpu: vcpu.id, rip: hex64(regs[2 * RIP]!, regs[2 * RIP + 1]!) });
  }
  words[vmcb + (VMCB_RAX >> 2)] = regs[2 * RAX]!;
  words[vmcb + (VMCB_RAX >> 2) + 1] = regs[2 * RAX + 1]!;
  words[vmcb + (VMCB_RSP >> 2)] = regs[2 * RSP]!;
  words[vmcb + (VMCB_RSP >> 2) + 1] = regs[2 * RSP + 1]!;
  words[vmcb + (VMCB_RIP >> 2)] = regs[2 * RIP]!;
  words[vmcb + (VMCB_RIP >> 2) + 1] = regs[2 * RIP + 1]!;
  let immediate = forceImmediateExit;
  if (svm.nmiSinglestep && vmcbRead(svm, VMCB_EVENT_INJ) !== 0) {
    // The stepping flags must not reach the guest's stack.
    disableNmiSinglestep(vcpu);
    immediate = true;
  }
  preSvmRun(vcpu);
  const ownTpr = vcpu.guestMode && nestedVirtualizeTpr(vcpu);
  if (!ownTpr) {
    const control = words[vmcb + (VMCB_INT_CTL >> 2)]!;
    words[vmcb + (VMCB_INT_CTL >> 2)] = (control & ~V_TPR_MASK) | (getCr8(vcpu) & V_TPR_MASK);
  }
  words[vmcb + (VMCB_CR2 >> 2)] = vcpu.cr2Lo;
  words[vmcb + (VMCB_CR2 >> 2) + 1] = vcpu.cr2Hi;
  // DR6 starts empty, so that it names the cause of a #DB, unless the guest reads it without exits.
  const wontExit = (vcpu.x86.switchDbRegs & KVM_DEBUGREG_WONT_EXIT) !== 0;
  words[vmcb + (VMCB_DR6 >> 2)] = wontExit ? vcpu.x86.dr6 : DR6_ACTIVE_LOW;
  words[vmcb + (VMCB_DR6 >> 2) + 1] = 0;
  loadSaveArea(vcpu);

  processor.setBudget(immediate ? 0 : vcpu.x86.quantum);
  processor.vmrun(svm.currentVmcb.pa);
  // The guest writes it without an exit, and the walker asks for it.
  vcpu.pkru = words[PKRU_AT >> 2]!;

  // RAX, RSP and RIP need no copy out of the block: `regs` are the processor's, and hold what it has stored there.
  vcpu.cr2Lo = words[vmcb + (VMCB_CR2 >> 2)]!;
  vcpu.cr2Hi = words[vmcb + (VMCB_CR2 >> 2) + 1]!;
  if (!ownTpr && (words[vmcb + (VMCB_INTERCEPT_CR >> 2)]! & INTERCEPT_CR8_WRITE) === 0) {
    setCr8(vcpu, words[vmcb + (VMCB_INT_CTL >> 2)]! & V_TPR_MASK);
  }
  svm.nextRipLo = 0;
  svm.nextRipHi = 0;
  if (vcpu.guestMode) afterNestedRun(vcpu);
  if (words[vmcb + (VMCB_EXIT_CODE >> 2)] !== SVM_EXIT_ERR) {
    clearTlbControl(vcpu);
    vmcbMarkAllClean(svm);
  }
  if (trace.enabled) traceKvmExit(vcpu);
  svmCompleteInterrupts(vcpu);
  if (vcpu.guestMode) {
    svm.nested.cached[VMCB_NEXT_RIP >> 2] = vmcbRead(svm, VMCB_NEXT_RIP);
    svm.nested.cached[(VMCB_NEXT_RIP >> 2) + 1] = vmcbRead(svm, VMCB_NEXT_RIP + 4);
  }
}

/** A VMRUN of L1's has been done, if hardware did not refuse it. */
function afterNestedRun(vcpu: VcpuState): void {
  const { nested } = vcpu.svm;
  syncControlFromVmcb02(vcpu);
  if (nested.runPending && vmcbRead(vcpu.svm, VMCB_EXIT_CODE) !== SVM_EXIT_ERR) vcpu.stats.nested_run++;
  nested.runPending = false;
}
