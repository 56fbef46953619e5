/** A VM's state inside KVM (@kvm kvm_host.h struct kvm): what the kernel keeps per VM, each part in the class of its own concept. */
import type { Processor } from '../cpu/processor.ts';
import type { HardwareProfile } from '../cpu/profile.ts';
import type { AddressSpace } from '../host/address-space.ts';
import type { HostMachine } from '../host/machine.ts';
import type { PhysicalMemory } from '../host/physical-memory.ts';
import { MemoryAttributes } from './attributes.ts';
import { IoBuses } from './io-bus/io-bus.ts';
import { KernelLog } from './kernel-log.ts';
import { Locks } from './locks.ts';
import { MemslotSets } from './memslots/memslots.ts';
import type { Revision } from './mmu/revisions/revision.ts';
import { VmMmu } from './mmu/vm-mmu.ts';
import { KvmMmuNotifier } from './mmu-notifier.ts';
import type { KvmParams } from './params.ts';
import { VmStats } from './stats.ts';
import type { VmSev } from './svm/sev/vm-sev.ts';
import { Trace } from './trace/events.ts';
import type { VcpuState } from './vcpu-state.ts';
import type { VendorOps } from './vendor-ops.ts';
import { KVM_X86_DEFAULT_VM } from './vm-type.ts';
import type { VmTdx } from './vmx/tdx/vm-tdx.ts';
import { VmX86 } from './x86/vm-x86.ts';

export class VmState {
  readonly trace = new Trace();
  readonly log = new KernelLog();
  readonly stats = new VmStats();
  readonly locks = new Locks();
  readonly slots: MemslotSets;
  readonly attributes = new MemoryAttributes();
  readonly buses = new IoBuses();
  readonly mmu: VmMmu;
  readonly x86: VmX86;
  readonly vcpus: VcpuState[] = [];
  /** What the VM registers on its process's address space. */
  readonly notifier = new KvmMmuNotifier(this);

  /** The sequence and in-progress protocol of the MMU notifiers (@kvm kvm_host.h mmu_invalidate_retry_gfn). Ranges are gfns. */
  mmuInvalidateSeq = 0;
  mmuInvalidateInProgress = 0;
  mmuInvalidateRangeStart = -1;
  mmuInvalidateRangeEnd = -1;

  /** Entries of each vCPU's dirty ring, 0 when the ring is off. */
  dirtyRingSize = 0;
  dirtyRingWithBitmap = false;
  /** KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE (bit 0) and KVM_DIRTY_LOG_INITIALLY_SET (bit 1). */
  manualDirtyLogProtect = 0;
  /** Of an SNP guest. */
  sev: VmSev | null = null;
  /** Of a TD; null for all others. */
  tdx: VmTdx | null = null;
  readonly memory: PhysicalMemory;
  readonly host: HostMachine;
  readonly mm: AddressSpace;
  readonly processor: Processor;
  readonly profile: HardwareProfile;
  readonly params: KvmParams;
  readonly revision: Revision;
  readonly vendor: VendorOps;
  /** KVM_X86_DEFAULT_VM or KVM_X86_SW_PROTECTED_VM. */
  readonly type: number;

  constructor(options: {
    host: HostMachine;
    mm: AddressSpace;
    processor: Processor;
    profile: HardwareProfile;
    params: KvmParams;
    revision: Revision;
    vendor: VendorOps;
    type: number;
  }) {
    this.host = options.host;
    this.memory = options.host.memory;
    this.mm = options.mm;
    this.processor = options.processor;
    this.profile = options.profile;
    this.params = options.params;
    this.revision = options.revision;
    this.vendor = options.vendor;
    this.type = options.type;
    this.slots = new MemslotSets(this.hasPrivateMem ? 1 : 2);
    this.mmu = new VmMmu(options.params);
    this.x86 = new VmX86();
  }

  /** @kvm kvm_host.h kvm_arch_has_private_mem */
  get hasPrivateMem(): boolean {
    return this.type !== KVM_X86_DEFAULT_VM;
  }
}
