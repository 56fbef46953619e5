/**
 * The registers that VMRUN leaves alone: FS, GS, TR, LDTR, KERNEL_GS_BASE and the SYSCALL and SYSENTER MSRs (@apm 15.5.2). KVM moves
 * them with VMLOAD and VMSAVE around every VMRUN; here that happens only when somebody looks at them or another vCPU runs, since
 * nobody else on this machine uses them. L1 and L2 share them: they are always VMCB01's.
 */
import type { VcpuState } from '../vcpu-state.ts';

/** Brings the VMCB's save area up to date before it is read. */
export function syncSaveArea(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  if (!svm.saveAreaStale) return;
  vcpu.vm.processor.vmsave(svm.vmcb01.pa);
  svm.saveAreaStale = false;
}

/** The save area was written (after syncSaveArea): the next entry loads it. */
export function touchSaveArea(vcpu: VcpuState): void {
  vcpu.svm.saveAreaStale = false;
  vcpu.svm.saveAreaDirty = true;
}

/** Before VMRUN. HOT */
export function loadSaveArea(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  if (svm.saveAreaDirty) {
    vcpu.vm.processor.vmload(svm.vmcb01.pa);
    svm.saveAreaDirty = false;
  }
  svm.saveAreaStale = true;
}

/** Another vCPU gets the processor: what is in it is saved, and must be loaded again. */
export function putSaveArea(vcpu: VcpuState): void {
  syncSaveArea(vcpu);
  vcpu.svm.saveAreaDirty = true;
}
