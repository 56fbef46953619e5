/** Entering system management mode (@kvm smm.c enter_smm). */
import { DR7_FIXED_1 } from '../../arch/debug-registers.ts';
import {
  CR0_EM,
  CR0_PE,
  CR0_PG,
  CR0_TS,
  CS,
  DS,
  ES,
  FS,
  GS,
  LDTR,
  RFLAGS_FIXED,
  RIP,
  SS,
  TR,
} from '../../arch/registers.ts';
import { emptySegment } from '../emulate/ctxt.ts';
import type { DescriptorTable, SegmentDesc } from '../emulate/ops.ts';
import { writeGuest } from '../guest-memory.ts';
import { mmuResetContext } from '../mmu/roles.ts';
import { checkRequest, makeRequest, REQ_EVENT, REQ_SMI, REQ_VM_DEAD, type VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_LM } from './cpuid-features.ts';
import { setDr } from './debug-registers.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { getRflags, ripWrite, setRflags } from './registers.ts';
import { SMM_ENTRY, SMM_REVISION_32, SMM_REVISION_64, SMRAM_BYTES, SMRAM_OFFSET, SMRAM32, SMRAM64 } from './smram.ts';

const seg = emptySegment();
const table: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };
/** Names in the save area, by segment number. */
export const smmSegments = [
  ['es', ES],
  ['cs', CS],
  ['ss', SS],
  ['ds', DS],
  ['fs', FS],
  ['gs', GS],
  ['ldtr', LDTR],
  ['tr', TR],
] as const;

/** The mode changes, and with it the guest's memory slots. @kvm smm.c kvm_smm_changed */
export function smmChanged(vcpu: VcpuState, entering: boolean): void {
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const text = `vcpu ${vcpu.id}: ${entering ? 'entering' : 'leaving'} SMM, smbase 0x${vcpu.x86.smbase.toString(16)}`;
    trace.emit('kvm_smm_transition', { text });
  }
  vcpu.smm = entering;
  if (!entering) {
    vcpu.x86.smmInsideNmi = false;
    makeRequest(vcpu, REQ_EVENT);
  }
  mmuResetContext(vcpu);
}

/** KVM_SMI. @kvm smm.h kvm_inject_smi */
export function injectSmi(vcpu: VcpuState): void {
  makeRequest(vcpu, REQ_SMI);
}

/** @kvm smm.c process_smi */
export function takeSmiRequest(vcpu: VcpuState): void {
  if (!checkRequest(vcpu, REQ_SMI)) return;
  vcpu.x86.smiPending = true;
  makeRequest(vcpu, REQ_EVENT);
}

function descriptorFlags(s: SegmentDesc): number {
  return (
    (s.g << 23) | (s.db << 22) | (s.l << 21) | (s.avl << 20) | (s.p << 15) | (s.dpl << 13) | (s.s << 12) | (s.type << 8)
  );
}

/** @kvm smm.c enter_smm_save_state_64 */
function saveState64(vcpu: VcpuState, view: DataView): void {
  const vendor = vcpu.vm.vendor;
  const put64 = (off: number, lo: number, hi: number): void => {
    view.setInt32(off, lo, true);
    view.setInt32(off + 4, hi, true);
  };
  for (let nr = 0; nr < 16; nr++) put64(SMRAM64.gprs + 8 * (15 - nr), vcpu.regs[2 * nr]!, vcpu.regs[2 * nr + 1]!);
  put64(SMRAM64.rip, vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!);
  put64(SMRAM64.rflags, getRflags(vcpu), 0);
  put64(SMRAM64.dr6, vcpu.x86.dr6, 0);
  put64(SMRAM64.dr7, vcpu.x86.dr7, 0);
  put64(SMRAM64.cr0, vcpu.cr0, 0);
  put64(SMRAM64.cr3, vcpu.cr3Lo, vcpu.cr3Hi);
  put64(SMRAM64.cr4, vcpu.cr4, 0);
  view.setUint32(SMRAM64.smbase, vcpu.x86.smbase, true);
  view.setUint32(SMRAM64.revision, SMM_REVISION_64, true);
  put64(SMRAM64.efer, vcpu.efer, 0);
  for (const [name, sreg] of smmSegments) {
    vendor.getSegment(vcpu, sreg, seg);
    const at = SMRAM64.segments[name];
    view.setUint16(at, seg.selector, true);
    view.setUint16(at + 2, descriptorFlags(seg) >> 8, true);
    view.setUint32(at + 4, seg.limit, true);
    put64(at + 8, seg.baseLo, seg.baseHi);
  }
  vendor.getIdt(vcpu, table);
  view.setUint32(SMRAM64.idtr + 4, table.limit, true);
  put64(SMRAM64.idtr + 8, table.baseLo, table.baseHi);
  vendor.getGdt(vcpu, table);
  view.setUint32(SMRAM64.gdtr + 4, table.limit, true);
  put64(SMRAM64.gdtr + 8, table.baseLo, table.baseHi);
  view.setUint8(SMRAM64.intShadow, vendor.getInterruptShadow(vcpu));
}

/** @kvm smm.c enter_smm_save_state_32 */
function saveState32(vcpu: VcpuState, view: DataView): void {
  const vendor = vcpu.vm.vendor;
  const put = (off: number, value: number): void => view.setInt32(off, value, true);
  put(SMRAM32.cr0, vcpu.cr0);
  put(SMRAM32.cr3, vcpu.cr3Lo);
  put(SMRAM32.eflags, getRflags(vcpu));
  put(SMRAM32.eip, vcpu.regs[2 * RIP]!);
  for (let nr = 0; nr < 8; nr++) put(SMRAM32.gprs + 4 * nr, vcpu.regs[2 * nr]!);
  put(SMRAM32.dr6, vcpu.x86.dr6);
  put(SMRAM32.dr7, vcpu.x86.dr7);
  for (const [name, sreg] of smmSegments) {
    vendor.getSegment(vcpu, sreg, seg);
    const at = SMRAM32.segments[name];
    put(SMRAM32.selectors[name], seg.selector);
    put(at, descriptorFlags(seg));
    put(at + 4, seg.limit);
    put(at + 8, seg.baseLo);
  }
  vendor.getGdt(vcpu, table);
  put(SMRAM32.gdtr + 4, table.limit);
  put(SMRAM32.gdtr + 8, table.baseLo);
  vendor.getIdt(vcpu, table);
  put(SMRAM32.idtr + 4, table.limit);
  put(SMRAM32.idtr + 8, table.baseLo);
  put(SMRAM32.cr4, vcpu.cr4);
  put(SMRAM32.revision, SMM_REVISION_32);
  put(SMRAM32.smbase, vcpu.x86.smbase);
  view.setUint8(SMRAM32.intShadow, vendor.getInterruptShadow(vcpu));
}

/** Flat 4 GiB segments: CS at SMBASE, the others at 0. */
function loadSmmSegments(vcpu: VcpuState): void {
  const { smbase } = vcpu.x86;
  const flat = { limit: 0xffffffff, type: 3, s: 1, dpl: 0, p: 1, avl: 0, l: 0, db: 0, g: 1 };
  const vendor = vcpu.vm.vendor;
  vendor.setSegment(vcpu, CS, { ...flat, selector: (smbase >> 4) & 0xffff, baseLo: smbase | 0, baseHi: 0 });
  for (const sreg of [DS, ES, FS, GS, SS]) {
    vendor.setSegment(vcpu, sreg, { ...flat, selector: 0, baseLo: 0, baseHi: 0 });
  }
}

/**
 * Takes the SMI: state goes to SMRAM, the vCPU starts at SMBASE + 0x8000 as in real mode. A VM whose SMRAM is not there dies.
 * @kvm smm.c enter_smm
 */
export function enterSmm(vcpu: VcpuState): void {
  const vendor = vcpu.vm.vendor;
  const bytes = new Uint8Array(SMRAM_BYTES);
  const view = new DataView(bytes.buffer);
  const longMode = guestCpuidHas(vcpu, X86_FEATURE_LM);
  if (longMode) saveState64(vcpu, view);
  else saveState32(vcpu, view);
  if (vendor.enterSmm(vcpu, view) !== 0) {
    vmDead(vcpu);
    return;
  }
  smmChanged(vcpu, true);
  if (writeGuest(vcpu, vcpu.x86.smbase + SMRAM_OFFSET, bytes, 0, SMRAM_BYTES) < 0) {
    vmDead(vcpu);
    return;
  }
  if (vendor.getNmiMask(vcpu)) vcpu.x86.smmInsideNmi = true;
  else vendor.setNmiMask(vcpu, true);
  setRflags(vcpu, RFLAGS_FIXED);
  ripWrite(vcpu, SMM_ENTRY, 0);
  vendor.setInterruptShadow(vcpu, 0);
  vendor.setCr0(vcpu, vcpu.cr0 & ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG));
  vendor.setCr4(vcpu, 0);
  table.limit = table.baseLo = table.baseHi = 0;
  vendor.setIdt(vcpu, table);
  setDr(vcpu, 7, DR7_FIXED_1, 0);
  loadSmmSegments(vcpu);
  if (longMode) vendor.setEfer(vcpu, 0);
  mmuResetContext(vcpu);
}

/** KVM_RUN of every vCPU fails with EIO from now on. @kvm kvm_host.h kvm_vm_dead */
function vmDead(vcpu: VcpuState): void {
  vcpu.vm.log.vmBugged = true;
  for (const other of vcpu.vm.vcpus) makeRequest(other, REQ_VM_DEAD);
}
