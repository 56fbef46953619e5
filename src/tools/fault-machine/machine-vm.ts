/**
 * A VM at MMU level for one context: real slots, attributes, host mappings and page tables, and a vCPU that is never entered. There is
 * no VMX and no SNP hardware here and none is needed: what reaches the MMU is a code and an address.
 */
import { hardwareProfile } from '../../cpu/profiles/index.ts';
import { Kvm } from '../../kvm/api/index.ts';
import { LOCK_MMU_WRITE } from '../../kvm/locks.ts';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { mmuResetContext } from '../../kvm/mmu/roles.ts';
import { mmuReload } from '../../kvm/mmu/roots.ts';
import { defaultSpteMasks, eptSpteMasks, isShadowPresent } from '../../kvm/mmu/spte.ts';
import { linkSp } from '../../kvm/mmu/tdp-mmu/link.ts';
import { allocSp, initChildSp } from '../../kvm/mmu/tdp-mmu/pages.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import type { VendorOps } from '../../kvm/vendor-ops.ts';
import { createVcpu, startVm } from '../../kvm/vm-lifecycle.ts';
import { VmState } from '../../kvm/vm-state.ts';
import { KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM } from '../../kvm/vm-type.ts';
import { createIrqchip } from '../../kvm/x86/irqchip.ts';
import type { FaultInput } from './fault-input.ts';
import { GuestTables } from './guest-tables.ts';
import type { PlaceSource } from './places.ts';

export type FaultContext = Pick<FaultInput, 'hardware' | 'vmType' | 'paging' | 'nested' | 'mmioCaching'>;

const MEMORY_BYTES = 64 * 1024 * 1024;

const VM_TYPE = {
  default: KVM_X86_DEFAULT_VM,
  sev: KVM_X86_DEFAULT_VM,
  'sw-protected': KVM_X86_SW_PROTECTED_VM,
  snp: KVM_X86_SNP_VM,
} as const;

export interface MachineVm {
  readonly vm: VmState;
  readonly vcpu: VcpuState;
  readonly places: PlaceSource;
  /** Null where nothing of the guest is shadowed. */
  readonly guestTables: GuestTables | null;
}

/**
 * @param emulate stands in for the emulator: gets the emulation type, and answers X86EMUL_*
 * @param makePlaces makes the slots in the VM
 */
export function makeMachineVm(
  context: FaultContext,
  emulate: (emulType: number) => number,
  makePlaces: (vm: VmState) => PlaceSource,
): MachineVm {
  const isShadow = context.paging === 'shadow';
  const isIntel = context.hardware !== 'npt';
  const kvm = new Kvm({
    hostMemory: MEMORY_BYTES,
    params: { mmioCaching: context.mmioCaching, npt: isIntel || !isShadow },
  });
  const vendor: VendorOps = {
    ...kvm.vendor,
    name: isIntel ? 'vmx' : 'svm',
    tdpEnabled: !isShadow,
    maxTdpLevel: 4,
    checkEmulateInstruction: (_vcpu, emulType) => emulate(emulType),
    // The guest takes interrupts: it can be left waiting for a page.
    interruptAllowed: () => 1,
  };
  const vm = new VmState({
    host: kvm.machine,
    mm: kvm.mm,
    processor: kvm.processor,
    profile: hardwareProfile('qemu-tcg-epyc'),
    params: kvm.params,
    revision: revisionByName('linux-6.12'),
    vendor,
    type: VM_TYPE[context.vmType],
  });
  startVm(vm);
  if (isIntel) {
    vm.mmu.masks = isShadow
      ? defaultSpteMasks(vm.profile.maxPhyAddr)
      : eptSpteMasks({ hasAdBits: context.hardware === 'ept', hasExecOnly: true, l1tfHi: 0 });
    vm.mmu.enableMmioCaching = context.mmioCaching;
  }
  createIrqchip(vm);
  const vcpu = createVcpu(vm, 0);
  if (typeof vcpu === 'number') throw new Error(`vCPU: ${vcpu}`);
  const places = makePlaces(vm);
  const guestTables = isShadow ? new GuestTables(vm) : null;
  guestTables?.enter(vcpu);
  vcpu.guestMode = context.nested;
  mmuResetContext(vcpu);
  if (mmuReload(vcpu) !== 0) throw new Error('no root');
  vm.locks.acquire(LOCK_MMU_WRITE);
  if (guestTables === null) for (const gfn of places.areas()) makeTables(vm, vcpu, gfn);
  vm.locks.release(LOCK_MMU_WRITE);
  return { vm, vcpu, places, guestTables };
}

/** Page tables down to the last level for the 2 MiB around `gfn`. */
function makeTables(vm: VmState, vcpu: VcpuState, gfn: number): void {
  const iter = vm.mmu.faultIter;
  iter.start(vm.mmu.shadowPage(vcpu.mmu.mmu.root.pfn), 1, gfn);
  while (iter.level > 1) {
    if (!isShadowPresent(iter.oldLo)) {
      const sp = allocSp(vm);
      if (sp === null) throw new Error('no memory for page tables');
      initChildSp(vm, sp, iter);
      linkSp(vm, iter, sp, false);
    }
    iter.stepDown();
  }
}
