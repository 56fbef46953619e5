import { LoadedVmcs } from './loaded-vmcs.ts';
import { NestedVmx } from './nested/nested-vmx.ts';

/** A vCPU's state that belongs to VMX (@kvm vmx.h struct vcpu_vmx). */
export class VcpuVmx {
  /** The 32-bit words of physical memory, and where in them the loaded VMCS starts. */
  words: Int32Array = new Int32Array(0);
  vmcs = 0;
  /** The VMCS that runs the guest itself, and the one the vCPU works with: while L2 runs that is another. */
  readonly vmcs01 = new LoadedVmcs();
  loaded: LoadedVmcs = this.vmcs01;
  /** The vCPU's preemption timer for L2 has run out; set at creation. */
  preemptionTimerExpired: () => void = () => {};
  readonly nested = new NestedVmx(() => this.preemptionTimerExpired());
  /** Frames of the log of modified pages and the virtual APIC's registers; -1 before creation or for none. */
  pmlPfn = -1;
  virtualApicPfn = -1;
  vpid = 0;
  /** Task priority when KVM last looked: with a TPR shadow the guest changes it without exits. */
  lastTpr = 0;
  /** What VMLAUNCH or VMRESUME failed with, VM_SUCCEED when it did not. */
  fail = 0;
  exitReason = 0;
  idtVectoringInfo = 0;
  /** VM entry would refuse the guest's state (invalid-guest-state.ts). */
  emulationRequired = false;
  /** Bytes of the instruction whose software interrupt or exception is injected again. @kvm kvm_host.h event_exit_inst_len */
  eventExitInstLen = 0;
  /** Bits of CR0 and CR4 that the guest changes without exits. */
  cr0GuestOwnedBits = 0;
  cr4GuestOwnedBits = 0;
  /** MSRs that the guest would reach without exits if no filter kept it from them. */
  readonly directMsrs = new Map<number, { readonly read: boolean; readonly write: boolean }>();
  /** STAR, LSTAR, CSTAR, SFMASK and KERNEL_GS_BASE, halves, while another vCPU has the processor. */
  readonly syscallMsrs = new Int32Array(10);
  featureControlLo = 0;
  spec = 0;
}
