/** A vCPU's state as a VMX processor of its own (@kvm vmx.h struct nested_vmx). */
import { HrTimer } from '../../x86/virtual-time.ts';
import type { LoadedVmcs } from '../loaded-vmcs.ts';
import { NestedVmxMsrs } from './nested-msrs.ts';
import { Vmcs12 } from './vmcs12.ts';

/** No guest physical address. @kvm kvm_types.h INVALID_GPA */
export const INVALID_VMPTR = -1;

export class NestedVmx {
  /** Between VMXON and VMXOFF, with the region there. */
  vmxon = false;
  vmxonPtr = INVALID_VMPTR;
  /** Guest physical address of L1's current VMCS, -1 for none; KVM works on the copy of it. */
  currentVmptr = INVALID_VMPTR;
  readonly vmcs12 = new Vmcs12();
  /** Copy of the shadow VMCS that L2 accesses. */
  readonly shadowVmcs12 = new Vmcs12();
  /** L1 changed a field that only such an entry copies. */
  dirtyVmcs12 = false;
  /** Fields that seldom matter are still in the VMCS that ran L2. */
  needSyncVmcs02Rare = false;
  vmcs02Initialized = false;
  /** The VMCS that runs L2, null outside VMX operation. */
  vmcs02: LoadedVmcs | null = null;
  /** L1's VMCS is not loaded, and has to catch up. */
  changeVmcs01VirtualApicMode = false;
  reloadVmcs01ApicAccessPage = false;
  updateVmcs01CpuDirtyLogging = false;
  /** L2's first entry has to happen before anything else may. */
  runPending = false;
  mtfPending = false;
  pmlFull = false;
  /** Guest frames whose memory the processor uses for L2, -1 for none; the host frames behind them. */
  virtualApicPfn = -1;
  piDescHpa = -1;
  piPending = false;
  postedIntrNv = -1;
  readonly preemptionTimer: HrTimer;
  /** When it ends, in units of 32 ticks of L1's TSC. */
  preemptionTimerDeadline = 0;
  hasPreemptionTimerDeadline = false;
  preemptionTimerExpired = false;
  preVmenterDebugctl = 0;
  /** Virtual time when L2 was left: what an exit's list stores of the TSC. */
  exitedAt = 0;
  /** What L1's TPR threshold becomes once it runs, -1 for no change. */
  l1TprThreshold = -1;
  vpid02 = 0;
  lastVpid = 0;
  readonly msrs = new NestedVmxMsrs();
  readonly smm = { vmxon: false, guestMode: false };

  constructor(expired: () => void) {
    this.preemptionTimer = new HrTimer(expired);
  }
}
