/**
 * TDX among the vendor operations: VMX's for a TD, whose registers KVM does not see, and those of encrypted guests (@kvm main.c vt_x86_ops,
 * tdx.c tdx_vm_init).
 * @partial interrupts and NMIs are not delivered to a TD (that takes posted interrupts): they wake it from HLT and no more; one key id a
 * TD, no large private pages, no quotes
 */
import { EFER_LMA, EFER_LME, EFER_NX } from '../../../arch/registers.ts';
import { EINVAL, EIO, ENOTTY } from '../../../host/errno.ts';
import type { ConfidentialOps, MemoryEncryptCommand } from '../../confidential.ts';
import { X86EMUL_RETRY_INSTR } from '../../emulate/ops.ts';
import { LOCK_MMU_WRITE, LOCK_VM } from '../../locks.ts';
import { unmapGfnRange } from '../../mmu/notifier-handlers.ts';
import { KVM_FILTER_PRIVATE } from '../../notifier-filter.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VendorOps } from '../../vendor-ops.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_X86_TDX_VM } from '../../vm-type.ts';
import { loadGuestContext } from '../../x86/guest-context.ts';
import { lapicSetBase } from '../../x86/lapic.ts';
import * as K from './commands.ts';
import { tdxFinalizeVm, tdxGetCpuid, tdxInitMemRegion, tdxVcpuFree, tdxVcpuInit } from './init-vcpu.ts';
import { reclaimTdControlPages, releaseHkid, tdxGetCapabilities, tdxInitVm } from './init-vm.ts';
import { tdxGetMsr, tdxSetMsr } from './msr.ts';
import { tdxGetExitInfo, tdxHandleExit, tdxVcpuPreRun, tdxVcpuRun } from './run.ts';
import { tdhVpWrSharedEptp, tdxBugOn } from './seamcalls.ts';
import { TD_STATE_INITIALIZED, TD_STATE_RUNNABLE, VcpuTdx, VmTdx } from './vm-tdx.ts';

const APIC_BASE_X2APIC = 0xfee00c00 | 0;
const APIC_BASE_BSP = 0x100;
const EFER_SCE = 1;
/** KVM_MEMORY_ENCRYPT_OP on a VM of another kind. @kvm x86.c kvm_arch_vm_ioctl */
const NOT_A_TD = -ENOTTY;

/** 0, or -EINVAL: the revision of the fault path does not know private accesses. @kvm tdx.c tdx_vm_init */
function tdxVmInit(vm: VmState, enableVirtualization: (vm: VmState) => boolean): number {
  if (vm.type !== KVM_X86_TDX_VM) return 0;
  const { rules } = vm.revision;
  if (!rules.privateInErrorCode || !rules.npfDropsSynthetic || !enableVirtualization(vm)) return -EINVAL;
  vm.tdx = new VmTdx();
  // An access to MMIO has to end in #VE: an entry that is not present and does not suppress it. @kvm mmu.h kvm_mmu_set_mmio_spte_value
  vm.mmu.masks = { ...vm.mmu.masks, mmioValueLo: 0, mmioValueHi: 0 };
  return 0;
}

/** Private memory goes back while the TD still has its key. @kvm guest_memfd.c kvm_gmem_release */
function zapPrivate(vm: VmState): void {
  vm.locks.acquire(LOCK_MMU_WRITE);
  for (const slot of vm.slots.sets[0]!.slots) {
    unmapGfnRange(vm, {
      slot,
      start: slot.baseGfn,
      end: slot.baseGfn + slot.npages,
      attributes: 0,
      attrFilter: KVM_FILTER_PRIVATE,
      mayBlock: true,
    });
  }
  vm.locks.release(LOCK_MMU_WRITE);
}

function vmCommand(vm: VmState, tdx: VmTdx, command: MemoryEncryptCommand): number {
  switch (command.id) {
    case K.KVM_TDX_CAPABILITIES:
      return tdxGetCapabilities(vm, command);
    case K.KVM_TDX_INIT_VM:
      return tdxInitVm(vm, tdx, command);
    case K.KVM_TDX_FINALIZE_VM:
      return tdxFinalizeVm(vm, tdx);
    default:
      return -EINVAL;
  }
}

/** @kvm tdx.c tdx_vm_ioctl */
function memoryEncryptOp(vm: VmState, command: MemoryEncryptCommand): number {
  if (((command.error ?? 0) | (command.errorHi ?? 0)) !== 0) return -EINVAL;
  vm.locks.acquire(LOCK_VM);
  const r = vmCommand(vm, vm.tdx!, command);
  vm.locks.release(LOCK_VM);
  return r;
}

/** x2APIC is the only APIC that a TD has; userspace's CPUID must offer it. */
function initVcpu(vcpu: VcpuState, vp: VcpuTdx, command: MemoryEncryptCommand): number {
  const base = APIC_BASE_X2APIC | (vcpu.id === 0 ? APIC_BASE_BSP : 0);
  return lapicSetBase(vcpu, base, 0, true) !== 0 ? -EINVAL : tdxVcpuInit(vcpu, vp, command);
}

/** @kvm tdx.c tdx_vcpu_ioctl */
function vcpuMemoryEncryptOp(vcpu: VcpuState, command: MemoryEncryptCommand): number {
  const tdx = vcpu.vm.tdx!;
  const vp = vcpu.tdx!;
  if (tdx.hkid < 0 || tdx.state === TD_STATE_RUNNABLE) return -EINVAL;
  if (((command.error ?? 0) | (command.errorHi ?? 0)) !== 0) return -EINVAL;
  switch (command.id) {
    case K.KVM_TDX_INIT_VCPU:
      return initVcpu(vcpu, vp, command);
    case K.KVM_TDX_INIT_MEM_REGION:
      return tdxInitMemRegion(vcpu, vp, command);
    case K.KVM_TDX_GET_CPUID:
      return tdxGetCpuid(vcpu, command);
    default:
      return -EINVAL;
  }
}

/** -EIO before KVM_TDX_INIT_VM, -EINVAL without an APIC in the kernel. @kvm tdx.c tdx_vcpu_create */
function tdxVcpuCreate(vcpu: VcpuState): number {
  if (vcpu.vm.tdx!.state !== TD_STATE_INITIALIZED) return -EIO;
  if (vcpu.x86.lapic === null) return -EINVAL;
  vcpu.tdx = new VcpuTdx();
  vcpu.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
  return 0;
}

/** @kvm tdx.c tdx_load_mmu_pgd */
function tdxLoadMmuPgd(vcpu: VcpuState, rootPfn: number): void {
  const { vm } = vcpu;
  const tdvpr = vcpu.tdx!.tdvpr;
  if (tdvpr < 0) return;
  tdxBugOn(vm, tdhVpWrSharedEptp(vm, vm.tdx!, tdvpr, rootPfn), 'TDH_VP_WR');
}

const nothing = (): void => {};

/** What KVM does for a TD: its registers are out of reach, so most of it is nothing. @kvm main.c vt_x86_ops */
export function tdVendorOps(vmx: VendorOps): VendorOps {
  return {
    ...vmx,
    cpuDirtyLogSize: 0,
    updateCpuDirtyLogging: nothing,
    apicv: false,
    setVirtualApicMode: nothing,
    setApicAccessPageAddr: nothing,
    vcpuCreate: tdxVcpuCreate,
    vcpuFree: tdxVcpuFree,
    vcpuReset: nothing,
    vcpuLoad: loadGuestContext,
    putContext: nothing,
    takeContext: nothing,
    afterSetCpuid: nothing,
    loadMmuPgd: tdxLoadMmuPgd,
    flushTlbAll: (vcpu) => vcpu.vm.processor.vmx.invept(),
    flushTlbCurrent: (vcpu) => vcpu.vm.processor.vmx.invept(),
    flushTlbGva: nothing,
    flushTlbGuest: nothing,
    getCpl: () => 0,
    getSegment: (_vcpu, _sreg, seg) => {
      Object.assign(seg, {
        selector: 0,
        baseLo: 0,
        baseHi: 0,
        limit: 0,
        type: 0,
        s: 0,
        dpl: 0,
        p: 0,
        avl: 0,
        l: 0,
        db: 0,
        g: 0,
      });
    },
    setSegment: nothing,
    getSegmentBase: (_vcpu, _sreg, out) => {
      out.fill(0);
    },
    csL: () => true,
    csDb: () => false,
    getIdt: nothing,
    setIdt: nothing,
    getGdt: nothing,
    setGdt: nothing,
    getRflags: () => 0,
    setRflags: nothing,
    setCr0: nothing,
    setCr4: nothing,
    setEfer: nothing,
    setDr7: nothing,
    setTscOffset: (vcpu) => {
      vcpu.x86.tscIdleTime = vcpu.vm.x86.idleTime;
    },
    syncDirtyDebugRegs: nothing,
    updateExceptionBitmap: nothing,
    getMsr: tdxGetMsr,
    setMsr: tdxSetMsr,
    msrFilterChanged: nothing,
    vcpuPreRun: tdxVcpuPreRun,
    vcpuRun: tdxVcpuRun,
    handleExit: tdxHandleExit,
    getExitInfo: tdxGetExitInfo,
    injectException: nothing,
    injectIrq: nothing,
    injectNmi: nothing,
    cancelInjection: nothing,
    smiAllowed: () => 0,
    nmiAllowed: () => 0,
    interruptAllowed: () => 0,
    enableIrqWindow: nothing,
    enableNmiWindow: nothing,
    getNmiMask: () => false,
    setNmiMask: nothing,
    getIfFlag: () => false,
    updateCr8Intercept: nothing,
    checkEmulateInstruction: () => X86EMUL_RETRY_INSTR,
    skipEmulatedInstruction: () => 1,
    getInterruptShadow: () => 0,
    setInterruptShadow: nothing,
  };
}

/** TDX's part of VMX's operations. */
export function tdxConfidentialOps(
  td: () => VendorOps,
  enableVirtualization: (vm: VmState) => boolean,
): ConfidentialOps {
  return {
    vmTypes: 1 << KVM_X86_TDX_VM,
    opsFor: (type) => (type === KVM_X86_TDX_VM ? td() : null),
    vmInit: (vm) => tdxVmInit(vm, enableVirtualization),
    vmPreDestroy(vm) {
      if (vm.tdx === null || vm.tdx.hkid < 0) return;
      zapPrivate(vm);
      releaseHkid(vm, vm.tdx);
    },
    vmDestroy: nothing,
    vmFree(vm) {
      if (vm.tdx !== null) reclaimTdControlPages(vm, vm.tdx);
    },
    memoryEncryptOp: (vm, command) => (vm.tdx === null ? NOT_A_TD : memoryEncryptOp(vm, command)),
    vcpuMemoryEncryptOp: (vcpu, command) => (vcpu.tdx === null ? NOT_A_TD : vcpuMemoryEncryptOp(vcpu, command)),
    gmemPrepare: () => 0,
    gmemInvalidate: nothing,
    privateMaxMappingLevel: (vm) => (vm.tdx === null ? 0 : 1),
  };
}
