/** The system: one machine with KVM loaded, one VMM process on it, and the ioctls of /dev/kvm. */
import { Processor } from '../../cpu/processor.ts';
import type { HardwareProfile } from '../../cpu/profile.ts';
import { hardwareProfile } from '../../cpu/profiles/index.ts';
import type { AddressSpace } from '../../host/address-space.ts';
import { EINVAL } from '../../host/errno.ts';
import { HostMachine } from '../../host/machine.ts';
import { checkExtension, supportedVmTypes } from '../capabilities.ts';
import { revisionByName } from '../mmu/revisions/index.ts';
import type { Revision } from '../mmu/revisions/revision.ts';
import { defaultParams, type KvmParams } from '../params.ts';
import { createSvm } from '../svm/svm.ts';
import type { VendorOps } from '../vendor-ops.ts';
import { startVm } from '../vm-lifecycle.ts';
import { VmState } from '../vm-state.ts';
import { createVmx } from '../vmx/vmx.ts';
import { supportedCpuid } from '../x86/supported-cpuid.ts';
import { type CpuidEntry2, toCpuidEntry2 } from './cpuid-entry.ts';
import { EventFd } from './event-fd.ts';
import { check, KvmError } from './kvm-error.ts';
import { Vm } from './vm.ts';

/** What the machine and its kernel are; every field has a default. */
export interface KvmOptions {
  /** Name of a hardware profile, or one of your own; `qemu-tcg-epyc` if absent. */
  readonly hardware?: string | HardwareProfile;
  /** Module parameters that differ from their defaults. */
  readonly params?: Partial<KvmParams>;
  /** Physical memory in bytes; 512 MiB if absent. */
  readonly hostMemory?: number;
  /** Revision of the fault path, by name or one of your own; `linux-6.12` if absent. */
  readonly revision?: string | Revision;
}

/** /dev/kvm on a machine of its own, open in one VMM process. */
export class Kvm {
  readonly profile: HardwareProfile;
  readonly params: KvmParams;
  readonly machine: HostMachine;
  /** The VMM's process. */
  readonly mm: AddressSpace;
  readonly processor: Processor;
  readonly vendor: VendorOps;
  private readonly revision: Revision;

  /** @throws Error when the hardware or the revision is unknown, or a module parameter is not supported yet */
  constructor(options: KvmOptions = {}) {
    const { hardware = 'qemu-tcg-epyc' } = options;
    this.profile = typeof hardware === 'string' ? hardwareProfile(hardware) : hardware;
    this.params = { ...defaultParams, ...options.params };
    const { revision = 'linux-6.12' } = options;
    this.revision = typeof revision === 'string' ? revisionByName(revision) : revision;
    refuseUnsupported(this.params);
    this.machine = new HostMachine(options.hostMemory === undefined ? {} : { memoryBytes: options.hostMemory });
    this.mm = this.machine.createProcess();
    this.processor = new Processor(this.machine.memory, this.profile);
    this.vendor = (this.profile.vendor === 'amd' ? createSvm : createVmx)(this.profile, this.params);
  }

  /** KVM_CHECK_EXTENSION: the value, 0 for what there is not. @kvm kvm_main.c kvm_vm_ioctl_check_extension_generic */
  checkExtension(cap: number): number {
    return checkExtension(this, null, cap);
  }

  /**
   * KVM_CREATE_VM.
   * @param type KVM_X86_DEFAULT_VM 0, KVM_X86_SW_PROTECTED_VM 1, and what the hardware has of KVM_X86_SNP_VM 4 and KVM_X86_TDX_VM 5
   * @throws KvmError EINVAL: a type that is not supported
   * @kvm x86.c kvm_arch_init_vm
   */
  createVm(type = 0): Vm {
    if (type < 0 || type > 31 || (supportedVmTypes(this) & (1 << type)) === 0) {
      throw new KvmError(EINVAL, 'KVM_CREATE_VM', `type ${type}`);
    }
    const state = new VmState({
      host: this.machine,
      mm: this.mm,
      processor: this.processor,
      profile: this.profile,
      params: this.params,
      revision: this.revision,
      vendor: this.vendor.confidential?.opsFor?.(type) ?? this.vendor,
      type,
    });
    check(startVm(state), 'KVM_CREATE_VM', `type ${type}`);
    return new Vm(state);
  }

  /** KVM_GET_SUPPORTED_CPUID. @kvm cpuid.c kvm_dev_ioctl_get_cpuid */
  getSupportedCpuid(): CpuidEntry2[] {
    return supportedCpuid(this.profile, this.params).map(toCpuidEntry2);
  }

  /** An eventfd for `Vm.ioeventfd`. */
  createEventFd(): EventFd {
    return new EventFd();
  }
}

/** What is modelled as a parameter and not as behaviour yet says so before anything is built. */
function refuseUnsupported(params: KvmParams): void {
  const refused: readonly [boolean, string][] = [[params.enableVmwareBackdoor, 'kvm.enable_vmware_backdoor=1']];
  for (const [unsupported, name] of refused) if (unsupported) throw new Error(`${name} is not supported yet`);
}
