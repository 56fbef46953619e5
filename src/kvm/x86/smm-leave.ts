/** RSM: leaving system management mode (@kvm smm.c emulator_leave_smm). */
import { CR0_PE, CR0_PG, CR4_PAE, CR4_PCIDE, CS, EFER_LMA, RFLAGS_FIXED } from '../../arch/registers.ts';
import { type EmulateCtxt, emptySegment } from '../emulate/ctxt.ts';
import { regWrite } from '../emulate/emulate.ts';
import { type DescriptorTable, X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from '../emulate/ops.ts';
import { readGuest } from '../guest-memory.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { setCr0, setCr3, setCr4 } from './control-registers.ts';
import { X86_FEATURE_LM } from './cpuid-features.ts';
import { setDr } from './debug-registers.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { MSR_EFER } from './msr-index.ts';
import { setMsr } from './msr-instructions.ts';
import { leaveNested } from './nested-ops.ts';
import { smmChanged, smmSegments } from './smm.ts';
import { SMRAM_BYTES, SMRAM_OFFSET, SMRAM32, SMRAM64 } from './smram.ts';

const seg = emptySegment();
const table: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };

/** @kvm smm.c rsm_set_desc_flags */
function setDescriptorFlags(flags: number): void {
  seg.g = (flags >> 23) & 1;
  seg.db = (flags >> 22) & 1;
  seg.l = (flags >> 21) & 1;
  seg.avl = (flags >> 20) & 1;
  seg.p = (flags >> 15) & 1;
  seg.dpl = (flags >> 13) & 3;
  seg.s = (flags >> 12) & 1;
  seg.type = (flags >> 8) & 15;
}

/** CR3, CR4 and CR0 in an order the checks allow; false when one of them is refused. @kvm smm.c rsm_enter_protected_mode */
function enterProtectedMode(vcpu: VcpuState, cr0: number, cr3Lo: number, cr3Hi: number, cr4: number): boolean {
  const pcid = (cr4 & CR4_PCIDE) !== 0 ? cr3Lo & 0xfff : 0;
  const lo = (cr4 & CR4_PCIDE) !== 0 ? cr3Lo & ~0xfff : cr3Lo;
  if (setCr3(vcpu, lo, cr3Hi) !== 0) return false;
  if (setCr4(vcpu, cr4 & ~CR4_PCIDE, 0) !== 0) return false;
  if (setCr0(vcpu, cr0, 0) !== 0) return false;
  if ((cr4 & CR4_PCIDE) === 0) return true;
  if (setCr4(vcpu, cr4, 0) !== 0) return false;
  return pcid === 0 || setCr3(vcpu, lo | pcid, cr3Hi) === 0;
}

function loadSegment64(vcpu: VcpuState, view: DataView, name: keyof typeof SMRAM64.segments, sreg: number): void {
  const at = SMRAM64.segments[name];
  seg.selector = view.getUint16(at, true);
  setDescriptorFlags(view.getUint16(at + 2, true) << 8);
  seg.limit = view.getUint32(at + 4, true);
  seg.baseLo = view.getInt32(at + 8, true);
  seg.baseHi = view.getInt32(at + 12, true);
  vcpu.vm.vendor.setSegment(vcpu, sreg, seg);
}

function loadTable64(view: DataView, at: number): DescriptorTable {
  table.limit = view.getUint32(at + 4, true);
  table.baseLo = view.getInt32(at + 8, true);
  table.baseHi = view.getInt32(at + 12, true);
  return table;
}

/** @kvm smm.c rsm_load_state_64 */
function loadState64(ctxt: EmulateCtxt, vcpu: VcpuState, view: DataView): number {
  const vendor = vcpu.vm.vendor;
  const lo = (off: number): number => view.getInt32(off, true);
  for (let nr = 0; nr < 16; nr++) {
    const at = SMRAM64.gprs + 8 * (15 - nr);
    regWrite(ctxt, nr, lo(at), lo(at + 4));
  }
  ctxt.nextEipLo = lo(SMRAM64.rip);
  ctxt.nextEipHi = lo(SMRAM64.rip + 4);
  ctxt.eflags = lo(SMRAM64.rflags) | RFLAGS_FIXED;
  if (setDr(vcpu, 6, lo(SMRAM64.dr6), lo(SMRAM64.dr6 + 4)) !== 0) return X86EMUL_UNHANDLEABLE;
  if (setDr(vcpu, 7, lo(SMRAM64.dr7), lo(SMRAM64.dr7 + 4)) !== 0) return X86EMUL_UNHANDLEABLE;
  vcpu.x86.smbase = view.getUint32(SMRAM64.smbase, true);
  const efer = lo(SMRAM64.efer) & ~EFER_LMA;
  if (setMsr(vcpu, MSR_EFER, efer, lo(SMRAM64.efer + 4), false) !== 0) return X86EMUL_UNHANDLEABLE;
  for (const [name, sreg] of smmSegments) if (name === 'tr' || name === 'ldtr') loadSegment64(vcpu, view, name, sreg);
  vendor.setIdt(vcpu, loadTable64(view, SMRAM64.idtr));
  vendor.setGdt(vcpu, loadTable64(view, SMRAM64.gdtr));
  const { cr0, cr3, cr4 } = SMRAM64;
  if (!enterProtectedMode(vcpu, lo(cr0), lo(cr3), lo(cr3 + 4), lo(cr4))) return X86EMUL_UNHANDLEABLE;
  for (const [name, sreg] of smmSegments) if (name !== 'tr' && name !== 'ldtr') loadSegment64(vcpu, view, name, sreg);
  vendor.setInterruptShadow(vcpu, 0);
  ctxt.interruptibility = view.getUint8(SMRAM64.intShadow);
  return X86EMUL_CONTINUE;
}

/** @kvm smm.c rsm_load_state_32 */
function loadState32(ctxt: EmulateCtxt, vcpu: VcpuState, view: DataView): number {
  const vendor = vcpu.vm.vendor;
  const word = (off: number): number => view.getInt32(off, true);
  ctxt.eflags = word(SMRAM32.eflags) | RFLAGS_FIXED;
  ctxt.nextEipLo = word(SMRAM32.eip);
  ctxt.nextEipHi = 0;
  for (let nr = 0; nr < 8; nr++) regWrite(ctxt, nr, word(SMRAM32.gprs + 4 * nr), 0);
  if (setDr(vcpu, 6, word(SMRAM32.dr6), 0) !== 0) return X86EMUL_UNHANDLEABLE;
  if (setDr(vcpu, 7, word(SMRAM32.dr7), 0) !== 0) return X86EMUL_UNHANDLEABLE;
  for (const [name, sreg] of smmSegments) {
    const at = SMRAM32.segments[name];
    seg.selector = word(SMRAM32.selectors[name]) & 0xffff;
    setDescriptorFlags(word(at));
    seg.limit = word(at + 4) >>> 0;
    seg.baseLo = word(at + 8);
    seg.baseHi = 0;
    vendor.setSegment(vcpu, sreg, seg);
  }
  for (const at of [SMRAM32.gdtr, SMRAM32.idtr]) {
    table.limit = word(at + 4);
    table.baseLo = word(at + 8);
    table.baseHi = 0;
    if (at === SMRAM32.gdtr) vendor.setGdt(vcpu, table);
    else vendor.setIdt(vcpu, table);
  }
  vcpu.x86.smbase = view.getUint32(SMRAM32.smbase, true);
  if (!enterProtectedMode(vcpu, word(SMRAM32.cr0), word(SMRAM32.cr3), 0, word(SMRAM32.cr4))) {
    return X86EMUL_UNHANDLEABLE;
  }
  vendor.setInterruptShadow(vcpu, 0);
  ctxt.interruptibility = view.getUint8(SMRAM32.intShadow);
  return X86EMUL_CONTINUE;
}

/** Back to plain real mode, from which any saved state can be loaded. */
function returnToRealMode(vcpu: VcpuState, longMode: boolean): void {
  if (longMode) {
    if ((vcpu.cr4 & CR4_PCIDE) !== 0) setCr4(vcpu, vcpu.cr4 & ~CR4_PCIDE, 0);
    // Long mode is left from a 32-bit code segment only.
    Object.assign(seg, emptySegment(), { type: 0xb, s: 1, g: 1, p: 1 });
    vcpu.vm.vendor.setSegment(vcpu, CS, seg);
  }
  if ((vcpu.cr0 & CR0_PE) !== 0) setCr0(vcpu, vcpu.cr0 & ~(CR0_PG | CR0_PE), 0);
  if (longMode) {
    if ((vcpu.cr4 & CR4_PAE) !== 0) setCr4(vcpu, vcpu.cr4 & ~CR4_PAE, 0);
    setMsr(vcpu, MSR_EFER, 0, 0, false);
  }
}

/**
 * X86EMUL_CONTINUE, or X86EMUL_UNHANDLEABLE for a save area that is not there or holds what no vCPU can be: a triple fault.
 * @kvm smm.c emulator_leave_smm
 */
export function leaveSmm(ctxt: EmulateCtxt): number {
  const vcpu = ctxt.vcpu as VcpuState;
  const bytes = new Uint8Array(SMRAM_BYTES);
  if (readGuest(vcpu, vcpu.x86.smbase + SMRAM_OFFSET, bytes, 0, SMRAM_BYTES) < 0) return X86EMUL_UNHANDLEABLE;
  if (!vcpu.x86.smmInsideNmi) vcpu.vm.vendor.setNmiMask(vcpu, false);
  smmChanged(vcpu, false);
  const longMode = guestCpuidHas(vcpu, X86_FEATURE_LM);
  returnToRealMode(vcpu, longMode);
  const view = new DataView(bytes.buffer);
  if (vcpu.vm.vendor.leaveSmm(vcpu, view) !== 0) return X86EMUL_UNHANDLEABLE;
  const ret = longMode ? loadState64(ctxt, vcpu, view) : loadState32(ctxt, vcpu, view);
  // The shutdown is L1's: L1 must not see it as an exit of an L2 that had not been resumed.
  if (ret !== X86EMUL_CONTINUE && vcpu.guestMode) leaveNested(vcpu);
  return ret;
}
