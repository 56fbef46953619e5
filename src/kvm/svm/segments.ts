/** Segment registers in the VMCB's save area (@kvm svm.c svm_get_segment, svm_set_segment). */
import { CS, DS, ES, FS, GS, LDTR, SS, TR } from '../../arch/registers.ts';
import {
  VMCB_ATTR_AVL,
  VMCB_ATTR_DB,
  VMCB_ATTR_DPL_SHIFT,
  VMCB_ATTR_G,
  VMCB_ATTR_L,
  VMCB_ATTR_P,
  VMCB_ATTR_S,
  VMCB_ATTR_TYPE,
  VMCB_CPL,
  VMCB_CS,
  VMCB_DS,
  VMCB_ES,
  VMCB_FS,
  VMCB_GDTR,
  VMCB_GS,
  VMCB_IDTR,
  VMCB_LDTR,
  VMCB_SS,
  VMCB_TR,
} from '../../arch/vmcb.ts';
import type { DescriptorTable, SegmentDesc } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { syncSaveArea, touchSaveArea } from './save-area.ts';
import type { VcpuSvm } from './vcpu-svm.ts';
import { vmcbRead, vmcbWrite, vmcbWrite64 } from './vmcb-access.ts';

const offsets = [VMCB_ES, VMCB_CS, VMCB_SS, VMCB_DS, VMCB_FS, VMCB_GS, VMCB_TR, VMCB_LDTR];

/** FS, GS, TR and LDTR are the processor's until VMSAVE (@apm 15.5.2). */
function inSaveArea(sreg: number): boolean {
  return sreg === FS || sreg === GS || sreg === TR || sreg === LDTR;
}

/** Word of the segment: what VMLOAD and VMSAVE move is VMCB01's, for L2 as well. @kvm svm.c svm_seg */
function segmentAt(svm: VcpuSvm, sreg: number): number {
  return (inSaveArea(sreg) ? svm.vmcb01.word : svm.vmcb) + (offsets[sreg]! >> 2);
}

/** @kvm svm.c svm_get_segment */
export function svmGetSegment(vcpu: VcpuState, sreg: number, seg: SegmentDesc): void {
  const svm = vcpu.svm;
  if (inSaveArea(sreg)) syncSaveArea(vcpu);
  const at = segmentAt(svm, sreg);
  const word = svm.words[at]!;
  const attr = word >>> 16;
  seg.selector = word & 0xffff;
  seg.limit = svm.words[at + 1]! >>> 0;
  seg.baseLo = svm.words[at + 2]!;
  seg.baseHi = svm.words[at + 3]!;
  seg.type = attr & VMCB_ATTR_TYPE;
  seg.s = (attr & VMCB_ATTR_S) !== 0 ? 1 : 0;
  seg.dpl = (attr >> VMCB_ATTR_DPL_SHIFT) & 3;
  seg.p = (attr & VMCB_ATTR_P) !== 0 ? 1 : 0;
  seg.avl = (attr & VMCB_ATTR_AVL) !== 0 ? 1 : 0;
  seg.l = (attr & VMCB_ATTR_L) !== 0 ? 1 : 0;
  seg.db = (attr & VMCB_ATTR_DB) !== 0 ? 1 : 0;
  // Processors may drop G; a legal one follows from the limit.
  seg.g = seg.limit > 0xfffff ? 1 : 0;
  if (sreg === TR) {
    seg.type |= 2; // the busy bit is not always exposed
  } else if (sreg === SS) {
    if (seg.p === 0) seg.db = 0;
    seg.dpl = svmGetCpl(vcpu);
  } else if (sreg !== CS && sreg !== LDTR && seg.p !== 0) {
    seg.type |= 1; // the cached descriptor of a data segment is always accessed
  }
}

/** @kvm svm.c svm_set_segment: a segment that is not present is an unusable one. */
export function svmSetSegment(vcpu: VcpuState, sreg: number, seg: SegmentDesc): void {
  const svm = vcpu.svm;
  if (inSaveArea(sreg)) {
    syncSaveArea(vcpu);
    touchSaveArea(vcpu);
  }
  const at = segmentAt(svm, sreg);
  const attr =
    (seg.type & VMCB_ATTR_TYPE) |
    (seg.s !== 0 ? VMCB_ATTR_S : 0) |
    ((seg.dpl & 3) << VMCB_ATTR_DPL_SHIFT) |
    (seg.p !== 0 ? VMCB_ATTR_P : 0) |
    (seg.avl !== 0 ? VMCB_ATTR_AVL : 0) |
    (seg.l !== 0 ? VMCB_ATTR_L : 0) |
    (seg.db !== 0 ? VMCB_ATTR_DB : 0) |
    (seg.g !== 0 ? VMCB_ATTR_G : 0);
  svm.words[at] = (seg.selector & 0xffff) | (attr << 16);
  svm.words[at + 1] = seg.limit;
  svm.words[at + 2] = seg.baseLo;
  svm.words[at + 3] = seg.baseHi;
  if (sreg === SS) setCpl(vcpu, seg.dpl & 3);
}

/** @kvm svm.c svm_get_segment_base */
export function svmGetSegmentBase(vcpu: VcpuState, sreg: number, out: Int32Array): void {
  if (inSaveArea(sreg)) syncSaveArea(vcpu);
  const at = segmentAt(vcpu.svm, sreg);
  out[0] = vcpu.svm.words[at + 2]!;
  out[1] = vcpu.svm.words[at + 3]!;
}

/** @kvm svm.c svm_get_cpl. HOT */
export function svmGetCpl(vcpu: VcpuState): number {
  return vmcbRead(vcpu.svm, VMCB_CPL & ~3) >>> ((VMCB_CPL & 3) * 8);
}

function setCpl(vcpu: VcpuState, cpl: number): void {
  const at = VMCB_CPL & ~3;
  const shift = (VMCB_CPL & 3) * 8;
  vmcbWrite(vcpu.svm, at, (vmcbRead(vcpu.svm, at) & ~(0xff << shift)) | (cpl << shift));
}

export function svmCsL(vcpu: VcpuState): boolean {
  return ((vmcbRead(vcpu.svm, VMCB_CS) >>> 16) & VMCB_ATTR_L) !== 0;
}

export function svmCsDb(vcpu: VcpuState): boolean {
  return ((vmcbRead(vcpu.svm, VMCB_CS) >>> 16) & VMCB_ATTR_DB) !== 0;
}

function getTable(vcpu: VcpuState, at: number, dt: DescriptorTable): void {
  dt.limit = vmcbRead(vcpu.svm, at + 4) & 0xffff;
  dt.baseLo = vmcbRead(vcpu.svm, at + 8);
  dt.baseHi = vmcbRead(vcpu.svm, at + 12);
}

function setTable(vcpu: VcpuState, at: number, dt: DescriptorTable): void {
  vmcbWrite(vcpu.svm, at + 4, dt.limit & 0xffff);
  vmcbWrite64(vcpu.svm, at + 8, dt.baseLo, dt.baseHi);
}

/** @kvm svm.c svm_get_idt */
export function svmGetIdt(vcpu: VcpuState, dt: DescriptorTable): void {
  getTable(vcpu, VMCB_IDTR, dt);
}
/** @kvm svm.c svm_set_idt */
export function svmSetIdt(vcpu: VcpuState, dt: DescriptorTable): void {
  setTable(vcpu, VMCB_IDTR, dt);
}
/** @kvm svm.c svm_get_gdt */
export function svmGetGdt(vcpu: VcpuState, dt: DescriptorTable): void {
  getTable(vcpu, VMCB_GDTR, dt);
}
/** @kvm svm.c svm_set_gdt */
export function svmSetGdt(vcpu: VcpuState, dt: DescriptorTable): void {
  setTable(vcpu, VMCB_GDTR, dt);
}

const READ_WRITE_DATA = (VMCB_ATTR_P | VMCB_ATTR_S | 2) << 16;
const CODE_READ = (VMCB_ATTR_P | VMCB_ATTR_S | 8 | 2) << 16;
const LDT = (VMCB_ATTR_P | 2) << 16;
const BUSY_TSS16 = (VMCB_ATTR_P | 3) << 16;

function initSegment(vcpu: VcpuState, at: number, word: number, baseLo: number): void {
  vmcbWrite(vcpu.svm, at, word);
  vmcbWrite(vcpu.svm, at + 4, 0xffff);
  vmcbWrite64(vcpu.svm, at + 8, baseLo, 0);
}

/** Segments after RESET and INIT (@kvm svm.c init_vmcb, init_seg, init_sys_seg). */
export function initSegments(vcpu: VcpuState): void {
  touchSaveArea(vcpu);
  for (const sreg of [ES, SS, DS, FS, GS]) initSegment(vcpu, offsets[sreg]!, READ_WRITE_DATA, 0);
  initSegment(vcpu, VMCB_CS, 0xf000 | CODE_READ, 0xffff0000 | 0);
  initSegment(vcpu, VMCB_GDTR, 0, 0);
  initSegment(vcpu, VMCB_IDTR, 0, 0);
  initSegment(vcpu, VMCB_LDTR, LDT, 0);
  initSegment(vcpu, VMCB_TR, BUSY_TSS16, 0);
  setCpl(vcpu, 0);
}
