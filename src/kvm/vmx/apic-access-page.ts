/**
 * APIC virtualization: the page that KVM puts at the APIC's address, so that the processor sees accesses to it, and the page of registers
 * that they go to (@kvm lapic.c kvm_alloc_apic_access_page, vmx.c vmx_set_virtual_apic_mode, vmx_set_apic_access_page_addr).
 */
import * as F from '../../arch/vmcs.ts';
import { SECONDARY_EXEC_APIC_REGISTER_VIRT, SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES } from '../../arch/vmx-controls.ts';
import { gfnToPfnMemslot, PFN_MODE_NORMAL, PfnLookup } from '../hva-to-pfn.ts';
import { LOCK_SLOTS } from '../locks.ts';
import { APIC_ACCESS_PAGE_PRIVATE_MEMSLOT } from '../memslots/memslot.ts';
import { x86SetMemoryRegion } from '../memslots/set-memory-region.ts';
import { isErrorNoslotPfn } from '../mmu/pfn.ts';
import { makeRequest, REQ_APIC_PAGE_RELOAD, REQ_TLB_FLUSH_CURRENT, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { APIC_DEFAULT_PHYS_BASE, lapicHwEnabled, x2apicMode } from '../x86/lapic.ts';
import { changeSecondaryExecControls, vmcsRead, vmcsWrite64 } from './vmcs-access.ts';

/** 0, or -EEXIST when userspace has a slot there. */
export function allocApicAccessPage(vm: VmState): number {
  if (vm.slots.sets[0]!.idToMemslot(APIC_ACCESS_PAGE_PRIVATE_MEMSLOT) !== null) return 0;
  vm.locks.acquire(LOCK_SLOTS);
  const r = x86SetMemoryRegion(vm, APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, APIC_DEFAULT_PHYS_BASE, 4096);
  vm.locks.release(LOCK_SLOTS);
  return r < 0 ? r : 0;
}

/** The APIC's registers move into frame `pfn`, where the processor sees them. */
export function moveRegisters(vcpu: VcpuState, pfn: number): void {
  const apic = vcpu.x86.lapic!;
  const page = new Uint32Array(vcpu.vm.memory.memory.buffer, pfn * 4096, apic.regs.length);
  page.set(apic.regs);
  apic.regs = page;
}

/** Controls of APIC virtualization in the APIC's present mode. */
export function apicControls(vcpu: VcpuState): number {
  const apic = vcpu.x86.lapic;
  if (apic === null || vcpu.vmx.virtualApicPfn < 0 || !lapicHwEnabled(vcpu)) return 0;
  const registers = vcpu.vm.x86.apicvActivated ? SECONDARY_EXEC_APIC_REGISTER_VIRT : 0;
  return registers | (x2apicMode(apic) ? 0 : SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES);
}

/**
 * What the guest has in the TLB for the APIC's page may be of the time when it was not virtualized.
 * @kvm vmx.c vmx_set_virtual_apic_mode
 */
export function vmxSetVirtualApicMode(vcpu: VcpuState): void {
  if (vcpu.vmx.virtualApicPfn < 0) return;
  if (vcpu.guestMode) {
    vcpu.vmx.nested.changeVmcs01VirtualApicMode = true;
    return;
  }
  const mask = SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
  changeSecondaryExecControls(vcpu.vmx, mask, false);
  changeSecondaryExecControls(vcpu.vmx, apicControls(vcpu), true);
  makeRequest(vcpu, REQ_APIC_PAGE_RELOAD);
  makeRequest(vcpu, REQ_TLB_FLUSH_CURRENT);
}

const lookup = new PfnLookup();

/** @kvm vmx.c vmx_set_apic_access_page_addr */
export function vmxSetApicAccessPageAddr(vcpu: VcpuState): void {
  const { vm, vmx } = vcpu;
  if (vcpu.guestMode) {
    vmx.nested.reloadVmcs01ApicAccessPage = true;
    return;
  }
  const virtualized = SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
  if ((vmcsRead(vmx, F.VMCS_SECONDARY_VM_EXEC_CONTROL) & virtualized) === 0) return;
  const slot = vm.slots.sets[0]!.idToMemslot(APIC_ACCESS_PAGE_PRIVATE_MEMSLOT);
  if (slot === null) return;
  const pfn = gfnToPfnMemslot(vm, slot, APIC_DEFAULT_PHYS_BASE / 4096, true, PFN_MODE_NORMAL, lookup);
  if (isErrorNoslotPfn(pfn)) return;
  vmcsWrite64(vmx, F.VMCS_APIC_ACCESS_ADDR, (pfn << 12) | 0, Math.floor(pfn / 0x10_0000));
}
