/** One entry into a guest with encrypted state: its registers are the VMSA's business (@kvm svm.c svm_vcpu_run, sev.c pre_sev_run). */
import { hex64 } from '../../../arch/flags.ts';
import {
  SVM_EXIT_ERR,
  TLB_CONTROL_FLUSH_ASID,
  V_TPR_MASK,
  VMCB_ASID,
  VMCB_EXIT_CODE,
  VMCB_INT_CTL,
  VMCB_TLB_CTL,
} from '../../../arch/vmcb.ts';
import type { Processor } from '../../../cpu/processor.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { getCr8, setCr8 } from '../../x86/control-registers.ts';
import { traceKvmExit } from '../../x86/trace-exit.ts';
import { svmCompleteInterrupts } from '../events.ts';
import { clearTlbControl } from '../tlb.ts';
import { vmcbRead, vmcbWrite } from '../vmcb-access.ts';
import { unmapGhcb } from './ghcb.ts';

/** Which VMCB each ASID of an encrypted guest was run with last (@kvm svm.h struct svm_cpu_data sev_vmcbs). */
const lastVmcb = new WeakMap<Processor, Map<number, number>>();

/** @kvm sev.c pre_sev_run */
function preSevRun(vcpu: VcpuState): void {
  const { svm, vm } = vcpu;
  const { asid } = vm.sev!;
  svm.asid = asid;
  vmcbWrite(svm, VMCB_ASID, asid);
  let last = lastVmcb.get(vm.processor);
  if (last === undefined) {
    last = new Map();
    lastVmcb.set(vm.processor, last);
  }
  if (last.get(asid) === svm.currentVmcb.pa) return;
  last.set(asid, svm.currentVmcb.pa);
  vmcbWrite(svm, VMCB_TLB_CTL, (vmcbRead(svm, VMCB_TLB_CTL) & ~0xff) | TLB_CONTROL_FLUSH_ASID);
}

/** The ASID is somebody else's from now on. */
export function forgetSevAsid(processor: Processor, asid: number): void {
  lastVmcb.get(processor)?.delete(asid);
}

/** HOT */
export function sevVcpuRun(vcpu: VcpuState, forceImmediateExit: boolean): void {
  const { svm, vm } = vcpu;
  const { processor, trace } = vm;
  // The guest's RIP is its secret.
  if (trace.enabled) trace.emit('kvm_entry', { vcpu: vcpu.id, rip: hex64(0, 0) });
  unmapGhcb(vcpu);
  preSevRun(vcpu);
  const intCtl = vmcbRead(svm, VMCB_INT_CTL);
  vmcbWrite(svm, VMCB_INT_CTL, (intCtl & ~V_TPR_MASK) | (getCr8(vcpu) & V_TPR_MASK));
  processor.setBudget(forceImmediateExit ? 0 : vcpu.x86.quantum);
  processor.vmrun(svm.currentVmcb.pa);
  setCr8(vcpu, vmcbRead(svm, VMCB_INT_CTL) & V_TPR_MASK);
  svm.nextRipLo = 0;
  svm.nextRipHi = 0;
  if (vmcbRead(svm, VMCB_EXIT_CODE) !== SVM_EXIT_ERR) clearTlbControl(vcpu);
  if (trace.enabled) traceKvmExit(vcpu);
  svmCompleteInterrupts(vcpu);
}
