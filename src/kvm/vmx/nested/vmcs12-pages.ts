/**
 * Pages of L1's memory that the processor uses while L2 runs: the VMCS of L2 has their host addresses (@kvm nested.c
 * nested_get_vmcs12_pages, nested_vmx_prepare_msr_bitmap).
 */
import { numberOf } from '../../../arch/halves.ts';
import {
  MSR_FS_BASE,
  MSR_GS_BASE,
  MSR_IA32_FLUSH_CMD,
  MSR_IA32_PRED_CMD,
  MSR_IA32_SPEC_CTRL,
  MSR_KERNEL_GS_BASE,
} from '../../../arch/msr.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { markPageDirty } from '../../dirty/mark-dirty.ts';
import { readGuest } from '../../guest-memory.ts';
import { gfnToPfnMemslot, PFN_MODE_NORMAL, PfnLookup } from '../../hva-to-pfn.ts';
import { vcpuGfnToMemslot } from '../../memslots/memslots.ts';
import { gpaToGfn } from '../../mmu/gpa.ts';
import { loadPdptrs } from '../../mmu/pdptrs.ts';
import { isErrorNoslotPfn } from '../../mmu/pfn.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { isPaePaging } from '../../x86/registers.ts';
import { changeExecControls, vmcsClearBits, vmcsWrite64 } from '../vmcs-access.ts';
import type { Vmcs12 } from './vmcs12.ts';

const WRITES = 0x800;
const HIGH = 0x400;
const X2APIC_FIRST = 0x800;
const X2APIC_LAST = 0x8ff;
const X2APIC_TPR = 0x808;
const X2APIC_EOI = 0x80b;
const X2APIC_SELF_IPI = 0x83f;

const lookup = new PfnLookup();
const l1Bitmap = new Uint8Array(4096);

/** Host frame behind a page of L1's, -1 when memory has none. @kvm kvm_main.c kvm_vcpu_map */
function mapPage(vcpu: VcpuState, gpa: number): number {
  const gfn = gpaToGfn(gpa);
  const slot = vcpuGfnToMemslot(vcpu, gfn);
  if (slot === null) return -1;
  const pfn = gfnToPfnMemslot(vcpu.vm, slot, gfn, true, PFN_MODE_NORMAL, lookup);
  return isErrorNoslotPfn(pfn) ? -1 : pfn;
}

function writeAddress(vcpu: VcpuState, field: number, hpa: number): void {
  vmcsWrite64(vcpu.vmx, field, hpa | 0, Math.floor(hpa / 0x1_0000_0000));
}

function test(bitmap: Uint8Array, at: number, msr: number): boolean {
  const offset = at + (msr >= 0xc0000000 ? HIGH : 0) + ((msr & 0x1fff) >>> 3);
  return (bitmap[offset]! & (1 << (msr & 7))) !== 0;
}

function assign(bitmap: Uint8Array, at: number, msr: number, exits: boolean): void {
  const offset = at + (msr >= 0xc0000000 ? HIGH : 0) + ((msr & 0x1fff) >>> 3);
  const bit = 1 << (msr & 7);
  bitmap[offset] = exits ? bitmap[offset]! | bit : bitmap[offset]! & ~bit;
}

/** x2APIC registers that virtualization of the APIC serves. */
function mergeX2apic(l1: Uint8Array, l0: Uint8Array, at: number, v: Vmcs12): void {
  for (let msr = X2APIC_FIRST; msr <= X2APIC_LAST; msr += 8) {
    l0[at + (msr >>> 3)] = 0xff;
    l0[at + WRITES + (msr >>> 3)] = 0xff;
  }
  if (!v.has2(C.SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE)) return;
  if (v.has2(C.SECONDARY_EXEC_APIC_REGISTER_VIRT)) {
    for (let msr = X2APIC_FIRST; msr <= X2APIC_LAST; msr += 8) l0[at + (msr >>> 3)] = l1[msr >>> 3]!;
  }
  const open = (part: number, msr: number): void => {
    if (!test(l1, part, msr)) assign(l0, at + part, msr, false);
  };
  open(0, X2APIC_TPR);
  open(WRITES, X2APIC_TPR);
  if (!v.vid) return;
  open(WRITES, X2APIC_EOI);
  open(WRITES, X2APIC_SELF_IPI);
}

const SHARED: readonly (readonly [number, boolean])[] = [
  [MSR_FS_BASE, true],
  [MSR_GS_BASE, true],
  [MSR_KERNEL_GS_BASE, true],
  [MSR_IA32_SPEC_CTRL, true],
  [MSR_IA32_PRED_CMD, false],
  [MSR_IA32_FLUSH_CMD, false],
];

/** L2 reaches without exits what both KVM and L1 let through. False when every access exits. @kvm nested.c nested_vmx_prepare_msr_bitmap */
function prepareMsrBitmap(vcpu: VcpuState, v: Vmcs12): boolean {
  if (!v.has(C.CPU_BASED_USE_MSR_BITMAPS)) return false;
  if (readGuest(vcpu, v.address(F.VMCS_MSR_BITMAP), l1Bitmap, 0, 4096) < 0) return false;
  const { u8 } = vcpu.vm.memory;
  const l0 = vcpu.vmx.nested.vmcs02!.msrBitmapPfn * 4096;
  const own = vcpu.vmx.vmcs01.msrBitmapPfn * 4096;
  mergeX2apic(l1Bitmap, u8, l0, v);
  for (const [msr, reads] of SHARED) {
    if (reads) assign(u8, l0, msr, test(u8, own, msr) || test(l1Bitmap, 0, msr));
    assign(u8, l0 + WRITES, msr, test(u8, own + WRITES, msr) || test(l1Bitmap, WRITES, msr));
  }
  return true;
}

/** Puts the addresses into the VMCS that runs L2; false when one that it needs is nowhere. @kvm nested.c nested_get_vmcs12_pages */
export function getVmcs12Pages(vcpu: VcpuState): boolean {
  const { vmx } = vcpu;
  const { nested } = vmx;
  const v = nested.vmcs12;
  if (vcpu.guestMode && !v.ept && isPaePaging(vcpu) && !loadPdptrs(vcpu, vcpu.cr3Lo, vcpu.cr3Hi)) return false;
  if (v.has2(C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES)) {
    const pfn = mapPage(vcpu, v.address(F.VMCS_APIC_ACCESS_ADDR));
    if (pfn < 0) return false;
    writeAddress(vcpu, F.VMCS_APIC_ACCESS_ADDR, pfn * 4096);
  }
  if (v.has(C.CPU_BASED_TPR_SHADOW)) {
    nested.virtualApicPfn = mapPage(vcpu, v.address(F.VMCS_VIRTUAL_APIC_PAGE_ADDR));
    const exits = v.has(C.CPU_BASED_CR8_LOAD_EXITING) && v.has(C.CPU_BASED_CR8_STORE_EXITING);
    if (nested.virtualApicPfn >= 0) writeAddress(vcpu, F.VMCS_VIRTUAL_APIC_PAGE_ADDR, nested.virtualApicPfn * 4096);
    else if (exits && !v.has2(C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES)) {
      changeExecControls(vmx, C.CPU_BASED_TPR_SHADOW, false);
    } else vmcsWrite64(vmx, F.VMCS_VIRTUAL_APIC_PAGE_ADDR, -1, -1);
  }
  if (v.postedIntr) {
    const address = v.address(F.VMCS_POSTED_INTR_DESC_ADDR);
    const pfn = mapPage(vcpu, address);
    nested.piDescHpa = pfn < 0 ? -1 : pfn * 4096 + (address % 4096);
    if (pfn >= 0) writeAddress(vcpu, F.VMCS_POSTED_INTR_DESC_ADDR, nested.piDescHpa);
    else vmcsClearBits(vmx, F.VMCS_PIN_BASED_VM_EXEC_CONTROL, C.PIN_BASED_POSTED_INTR);
  }
  changeExecControls(vmx, C.CPU_BASED_USE_MSR_BITMAPS, prepareMsrBitmap(vcpu, v));
  return true;
}

/** L2 does not run any more. */
export function unmapVmcs12Pages(vcpu: VcpuState): void {
  vcpu.vmx.nested.virtualApicPfn = -1;
  vcpu.vmx.nested.piDescHpa = -1;
}

/** The processor writes these without KVM seeing it. @kvm nested.c nested_mark_vmcs12_pages_dirty */
export function markVmcs12PagesDirty(vcpu: VcpuState): void {
  const v = vcpu.vmx.nested.vmcs12;
  if (v.has(C.CPU_BASED_TPR_SHADOW)) markPageDirty(vcpu, gpaToGfn(v.address(F.VMCS_VIRTUAL_APIC_PAGE_ADDR)));
  if (v.postedIntr) markPageDirty(vcpu, gpaToGfn(v.address(F.VMCS_POSTED_INTR_DESC_ADDR)));
}

const byte = new Uint8Array(1);

/** A bit of a bitmap in L1's memory; true where there is no memory. */
export function bitmapBit(vcpu: VcpuState, v: Vmcs12, field: number, bit: number): boolean {
  const gpa = numberOf(v.lo(field), v.hi(field)) + (bit >>> 3);
  if (readGuest(vcpu, gpa, byte, 0, 1) < 0) return true;
  return (byte[0]! & (1 << (bit & 7))) !== 0;
}
