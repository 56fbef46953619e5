/** VMs and vCPUs come up and go down; RESET and INIT (@kvm x86.c kvm_arch_vcpu_create, kvm_vcpu_reset). */
import { DR6_ACTIVE_LOW, DR7_FIXED_1 } from '../../arch/debug-registers.ts';
import { CR0_CD, CR0_ET, CR0_NW, CR0_PG, RDX, RFLAGS_FIXED } from '../../arch/registers.ts';
import { EmulateCtxt } from '../emulate/ctxt.ts';
import { mmuCreate, mmuDestroy, initVm as mmuInitVm } from '../mmu/create.ts';
import { initMmu, mmuResetContext } from '../mmu/roles.ts';
import {
  MP_STATE_RUNNABLE,
  MP_STATE_UNINITIALIZED,
  makeRequest,
  REQ_EVENT,
  REQ_TLB_FLUSH_GUEST,
  type VcpuState,
} from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { clearAsyncPf } from './async-pf.ts';
import { refreshCpuidState } from './cpuid.ts';
import { updateDr7, updateDr0123 } from './debug-registers.ts';
import { emulatorOps } from './emulator-ops.ts';
import { clearExceptionQueue, clearInterruptQueue } from './exceptions.ts';
import { dropGuestContext, resetFpu } from './guest-context.ts';
import { Lapic, lapicReset } from './lapic.ts';
import { apicTimerFn } from './lapic-timer.ts';
import { leaveNested } from './nested-ops.ts';
import { ripWrite, setRflags } from './registers.ts';

/** 0 or a negative errno. @kvm x86.c kvm_arch_init_vm */
export function initVm(vm: VmState): number {
  mmuInitVm(vm);
  return vm.vendor.confidential?.vmInit(vm) ?? 0;
}

/** The vCPU with this id starts at once; the others wait for INIT and SIPI when the APICs are KVM's. @kvm x86.c kvm_vcpu_is_bsp */
function isBsp(vcpu: VcpuState): boolean {
  return vcpu.id === 0;
}

/** 0 or -ENOMEM. @kvm x86.c kvm_arch_vcpu_create */
export function vcpuCreate(vcpu: VcpuState): number {
  const x86 = vcpu.x86;
  const irqchip = vcpu.vm.x86.irqchipKernel || vcpu.vm.x86.irqchipSplit;
  vcpu.mpState = !irqchip || isBsp(vcpu) ? MP_STATE_RUNNABLE : MP_STATE_UNINITIALIZED;
  const created = mmuCreate(vcpu);
  if (created !== 0) return created;
  if (irqchip) x86.lapic = new Lapic(vcpu, apicTimerFn);
  x86.emulateCtxt = new EmulateCtxt(emulatorOps, vcpu);
  resetFpu(x86.fpu);
  refreshCpuidState(vcpu);
  const r = vcpu.vm.vendor.vcpuCreate(vcpu);
  if (r !== 0) return r;
  vcpu.vm.vendor.vcpuLoad(vcpu);
  vcpuReset(vcpu, false);
  initMmu(vcpu);
  return 0;
}

/** @kvm x86.c kvm_arch_vcpu_destroy */
export function vcpuDestroy(vcpu: VcpuState): void {
  mmuDestroy(vcpu);
  clearAsyncPf(vcpu);
  dropGuestContext(vcpu);
  vcpu.vm.vendor.vcpuFree(vcpu);
}

/** RESET (`initEvent` false) or INIT of the vCPU. @kvm x86.c kvm_vcpu_reset */
export function vcpuReset(vcpu: VcpuState, initEvent: boolean): void {
  const x86 = vcpu.x86;
  const vendor = vcpu.vm.vendor;
  const oldCr0 = vcpu.cr0;
  // INIT can come while L2 runs; EFER.SVME and VMX operation end with it.
  if (vcpu.guestMode) leaveNested(vcpu);
  lapicReset(vcpu, initEvent);
  x86.smiPending = false;
  x86.nmiQueued = 0;
  x86.nmiPending = 0;
  x86.nmiInjected = false;
  clearInterruptQueue(vcpu);
  clearExceptionQueue(vcpu);
  x86.db.fill(0);
  updateDr0123(vcpu);
  x86.dr6 = DR6_ACTIVE_LOW;
  x86.dr7 = DR7_FIXED_1;
  updateDr7(vcpu);
  vcpu.cr2Lo = 0;
  vcpu.cr2Hi = 0;
  makeRequest(vcpu, REQ_EVENT);
  x86.apfEnLo = 0;
  x86.apfEnHi = 0;
  x86.apfIntLo = 0;
  clearAsyncPf(vcpu);
  x86.apfHalted = false;
  x86.systemTimeLo = 0;
  x86.systemTimeHi = 0;
  if (!initEvent) {
    x86.smbase = 0x30000;
    x86.patLo = 0x00070406;
    x86.patHi = 0x00070406;
    x86.msrStore.clear();
    vcpu.xcr0 = 1;
    x86.xcr0Dirty = true;
  }
  vcpu.regs.fill(0);
  const signature = x86.cpuid.find((e) => e.leaf === 1);
  vcpu.regs[2 * RDX] = signature === undefined ? 0x600 : signature.eax;
  vendor.vcpuReset(vcpu, initEvent);
  setRflags(vcpu, RFLAGS_FIXED);
  ripWrite(vcpu, 0xfff0, 0);
  vcpu.cr3Lo = 0;
  vcpu.cr3Hi = 0;
  vendor.setCr0(vcpu, CR0_ET | (initEvent ? oldCr0 & (CR0_NW | CR0_CD) : CR0_NW | CR0_CD));
  vendor.setCr4(vcpu, 0);
  vendor.setEfer(vcpu, 0);
  vendor.updateExceptionBitmap(vcpu);
  if ((oldCr0 & CR0_PG) !== 0) {
    makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
    mmuResetContext(vcpu);
  }
  if (initEvent) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
}
