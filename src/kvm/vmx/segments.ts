/** Segment and descriptor-table registers in the VMCS (@kvm vmx.c vmx_get_segment, vmx_set_segment); the guest is unrestricted. */
import { CS, DS, ES, FS, GS, LDTR, SS, TR } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import { VMX_AR_UNUSABLE } from '../../arch/vmx-controls.ts';
import type { DescriptorTable, SegmentDesc } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VcpuVmx } from './vcpu-vmx.ts';
import { vmcsRead, vmcsReadHi, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

/** By segment number: ES CS SS DS FS GS TR LDTR. */
const selectors = [
  F.VMCS_GUEST_ES_SELECTOR,
  F.VMCS_GUEST_CS_SELECTOR,
  F.VMCS_GUEST_SS_SELECTOR,
  F.VMCS_GUEST_DS_SELECTOR,
  F.VMCS_GUEST_FS_SELECTOR,
  F.VMCS_GUEST_GS_SELECTOR,
  F.VMCS_GUEST_TR_SELECTOR,
  F.VMCS_GUEST_LDTR_SELECTOR,
];
const limits = [
  F.VMCS_GUEST_ES_LIMIT,
  F.VMCS_GUEST_CS_LIMIT,
  F.VMCS_GUEST_SS_LIMIT,
  F.VMCS_GUEST_DS_LIMIT,
  F.VMCS_GUEST_FS_LIMIT,
  F.VMCS_GUEST_GS_LIMIT,
  F.VMCS_GUEST_TR_LIMIT,
  F.VMCS_GUEST_LDTR_LIMIT,
];
const rights = [
  F.VMCS_GUEST_ES_AR_BYTES,
  F.VMCS_GUEST_CS_AR_BYTES,
  F.VMCS_GUEST_SS_AR_BYTES,
  F.VMCS_GUEST_DS_AR_BYTES,
  F.VMCS_GUEST_FS_AR_BYTES,
  F.VMCS_GUEST_GS_AR_BYTES,
  F.VMCS_GUEST_TR_AR_BYTES,
  F.VMCS_GUEST_LDTR_AR_BYTES,
];
const bases = [
  F.VMCS_GUEST_ES_BASE,
  F.VMCS_GUEST_CS_BASE,
  F.VMCS_GUEST_SS_BASE,
  F.VMCS_GUEST_DS_BASE,
  F.VMCS_GUEST_FS_BASE,
  F.VMCS_GUEST_GS_BASE,
  F.VMCS_GUEST_TR_BASE,
  F.VMCS_GUEST_LDTR_BASE,
];

/** @kvm vmx.c vmx_get_segment */
export function vmxGetSegment(vcpu: VcpuState, sreg: number, seg: SegmentDesc): void {
  const vmx = vcpu.vmx;
  const ar = vmcsRead(vmx, rights[sreg]!);
  seg.selector = vmcsRead(vmx, selectors[sreg]!) & 0xffff;
  seg.limit = vmcsRead(vmx, limits[sreg]!) >>> 0;
  seg.baseLo = vmcsRead(vmx, bases[sreg]!);
  seg.baseHi = vmcsReadHi(vmx, bases[sreg]!);
  seg.type = ar & 15;
  seg.s = (ar >> 4) & 1;
  seg.dpl = (ar >> 5) & 3;
  // A segment that can be used is present, and no other.
  seg.p = (ar & VMX_AR_UNUSABLE) !== 0 ? 0 : 1;
  seg.avl = (ar >> 12) & 1;
  seg.l = (ar >> 13) & 1;
  seg.db = (ar >> 14) & 1;
  seg.g = (ar >> 15) & 1;
}

/** @kvm vmx.c __vmx_set_segment, vmx_segment_access_rights */
export function vmxSetSegment(vcpu: VcpuState, sreg: number, seg: SegmentDesc): void {
  const vmx = vcpu.vmx;
  vmcsWrite64(vmx, bases[sreg]!, seg.baseLo, seg.baseHi);
  vmcsWrite(vmx, limits[sreg]!, seg.limit);
  vmcsWrite(vmx, selectors[sreg]!, seg.selector & 0xffff);
  // Some userspaces forget the accessed bit, which entries insist on.
  const type = sreg === LDTR ? seg.type & 15 : (seg.type & 15) | 1;
  const ar =
    type |
    (seg.s << 4) |
    ((seg.dpl & 3) << 5) |
    (seg.p << 7) |
    (seg.avl << 12) |
    (seg.l << 13) |
    (seg.db << 14) |
    (seg.g << 15) |
    (seg.p === 0 ? VMX_AR_UNUSABLE : 0);
  vmcsWrite(vmx, rights[sreg]!, ar);
}

/** @kvm vmx.c vmx_get_segment_base */
export function vmxGetSegmentBase(vcpu: VcpuState, sreg: number, out: Int32Array): void {
  out[0] = vmcsRead(vcpu.vmx, bases[sreg]!);
  out[1] = vmcsReadHi(vcpu.vmx, bases[sreg]!);
}

/** @kvm vmx.c vmx_get_cpl. HOT */
export function vmxGetCpl(vcpu: VcpuState): number {
  return (vmcsRead(vcpu.vmx, F.VMCS_GUEST_SS_AR_BYTES) >> 5) & 3;
}

/** @kvm vmx.c vmx_get_cs_db_l_bits */
export function vmxCsL(vcpu: VcpuState): boolean {
  return (vmcsRead(vcpu.vmx, F.VMCS_GUEST_CS_AR_BYTES) & (1 << 13)) !== 0;
}

export function vmxCsDb(vcpu: VcpuState): boolean {
  return (vmcsRead(vcpu.vmx, F.VMCS_GUEST_CS_AR_BYTES) & (1 << 14)) !== 0;
}

function getTable(vmx: VcpuVmx, limit: number, base: number, dt: DescriptorTable): void {
  dt.limit = vmcsRead(vmx, limit) & 0xffff;
  dt.baseLo = vmcsRead(vmx, base);
  dt.baseHi = vmcsReadHi(vmx, base);
}

/** @kvm vmx.c vmx_get_idt */
export function vmxGetIdt(vcpu: VcpuState, dt: DescriptorTable): void {
  getTable(vcpu.vmx, F.VMCS_GUEST_IDTR_LIMIT, F.VMCS_GUEST_IDTR_BASE, dt);
}

/** @kvm vmx.c vmx_set_idt */
export function vmxSetIdt(vcpu: VcpuState, dt: DescriptorTable): void {
  vmcsWrite(vcpu.vmx, F.VMCS_GUEST_IDTR_LIMIT, dt.limit & 0xffff);
  vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_IDTR_BASE, dt.baseLo, dt.baseHi);
}

/** @kvm vmx.c vmx_get_gdt */
export function vmxGetGdt(vcpu: VcpuState, dt: DescriptorTable): void {
  getTable(vcpu.vmx, F.VMCS_GUEST_GDTR_LIMIT, F.VMCS_GUEST_GDTR_BASE, dt);
}

/** @kvm vmx.c vmx_set_gdt */
export function vmxSetGdt(vcpu: VcpuState, dt: DescriptorTable): void {
  vmcsWrite(vcpu.vmx, F.VMCS_GUEST_GDTR_LIMIT, dt.limit & 0xffff);
  vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_GDTR_BASE, dt.baseLo, dt.baseHi);
}

const DATA = 0x93;
const CODE = 0x9b;
const BUSY_TSS32 = 0x8b;
const LDT = 0x82;

function setup(vmx: VcpuVmx, sreg: number, ar: number): void {
  vmcsWrite(vmx, selectors[sreg]!, 0);
  vmcsWrite64(vmx, bases[sreg]!, 0, 0);
  vmcsWrite(vmx, limits[sreg]!, 0xffff);
  vmcsWrite(vmx, rights[sreg]!, ar);
}

/** Segments after RESET and INIT (@kvm vmx.c vmx_vcpu_reset, seg_setup). */
export function initSegments(vmx: VcpuVmx): void {
  for (const sreg of [DS, ES, FS, GS, SS]) setup(vmx, sreg, DATA);
  setup(vmx, CS, CODE);
  vmcsWrite(vmx, F.VMCS_GUEST_CS_SELECTOR, 0xf000);
  vmcsWrite64(vmx, F.VMCS_GUEST_CS_BASE, 0xffff0000 | 0, 0);
  setup(vmx, TR, BUSY_TSS32);
  setup(vmx, LDTR, LDT);
  vmcsWrite64(vmx, F.VMCS_GUEST_GDTR_BASE, 0, 0);
  vmcsWrite(vmx, F.VMCS_GUEST_GDTR_LIMIT, 0xffff);
  vmcsWrite64(vmx, F.VMCS_GUEST_IDTR_BASE, 0, 0);
  vmcsWrite(vmx, F.VMCS_GUEST_IDTR_LIMIT, 0xffff);
}
