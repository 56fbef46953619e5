/** System instructions: control, debug and model-specific registers, descriptor-table registers, CPUID, HLT. */
import { MSR_IA32_TSC, MSR_MISC_FEATURES_ENABLES, MSR_TSC_AUX } from '../../arch/msr.ts';
import { CR0_TS, CR4_OSXSAVE, CR4_UMIP, CS, GS, LDTR, RAX, RBX, RCX, RDX, SS, TR } from '../../arch/registers.ts';
import { type EmulateCtxt, SHADOW_INT_MOV_SS, X86EMUL_MODE_PROT64 } from './ctxt.ts';
import { loadSegmentDescriptor } from './descriptors.ts';
import { segmentedReadStd, segmentedWriteStd } from './memory.ts';
import { OP_MEM, OP_NONE } from './operand.ts';
import { type DescriptorTable, X86EMUL_CONTINUE, X86EMUL_PROPAGATE_FAULT } from './ops.ts';
import { emulateGp, emulateUd } from './raise.ts';
import { addHi, regLo, regWrite } from './registers.ts';
import {
  isCanonical,
  linearize,
  readCr,
  recalcAndSetMode,
  segmentSelector,
  X86EMUL_F_DT_LOAD,
} from './segmentation.ts';

const MISC_FEATURES_CPUID_FAULT = 1;

/** UMIP: SGDT, SIDT, SLDT, STR and SMSW are privileged. */
function umipDenies(ctxt: EmulateCtxt): boolean {
  return (readCr(ctxt, 4) & CR4_UMIP) !== 0 && ctxt.ops.cpl(ctxt) > 0;
}

/** The 64-bit result in `ctxt.io64` to EDX:EAX. */
function toEdxEax(ctxt: EmulateCtxt): number {
  regWrite(ctxt, RAX, ctxt.io64[0]!, 0);
  regWrite(ctxt, RDX, ctxt.io64[1]!, 0);
  return X86EMUL_CONTINUE;
}

export function emCrRead(ctxt: EmulateCtxt): number {
  ctxt.ops.getCr(ctxt, ctxt.modrmReg);
  ctxt.dst.set(ctxt.io64[0]!, ctxt.io64[1]!);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_cr_write */
export function emCrWrite(ctxt: EmulateCtxt): number {
  const cr = ctxt.modrmReg;
  if (ctxt.ops.setCr(ctxt, cr, ctxt.src.i32[0]!, ctxt.src.i32[1]!) !== 0) return emulateGp(ctxt, 0);
  ctxt.dst.type = OP_NONE;
  return cr === 0 ? recalcAndSetMode(ctxt) : X86EMUL_CONTINUE;
}

export function emDrRead(ctxt: EmulateCtxt): number {
  ctxt.ops.getDr(ctxt, ctxt.modrmReg);
  ctxt.dst.set(ctxt.io64[0]!, ctxt.io64[1]!);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_dr_write */
export function emDrWrite(ctxt: EmulateCtxt): number {
  const hi = ctxt.mode === X86EMUL_MODE_PROT64 ? ctxt.src.i32[1]! : 0;
  if (ctxt.ops.setDr(ctxt, ctxt.modrmReg, ctxt.src.i32[0]!, hi) !== 0) return emulateGp(ctxt, 0);
  ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_clts */
export function emClts(ctxt: EmulateCtxt): number {
  const cr0 = readCr(ctxt, 0);
  ctxt.ops.setCr(ctxt, 0, cr0 & ~CR0_TS, ctxt.io64[1]!);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_smsw */
export function emSmsw(ctxt: EmulateCtxt): number {
  if (umipDenies(ctxt)) return emulateGp(ctxt, 0);
  if (ctxt.dst.type === OP_MEM) ctxt.dst.bytes = 2;
  ctxt.ops.getCr(ctxt, 0);
  ctxt.dst.set(ctxt.io64[0]!, ctxt.io64[1]!);
  return X86EMUL_CONTINUE;
}

/** Sets PE, never clears it. @kvm emulate.c em_lmsw */
export function emLmsw(ctxt: EmulateCtxt): number {
  const cr0 = readCr(ctxt, 0);
  ctxt.ops.setCr(ctxt, 0, (cr0 & ~0xe) | (ctxt.src.i32[0]! & 0xf), ctxt.io64[1]!);
  ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_wrmsr */
export function emWrmsr(ctxt: EmulateCtxt): number {
  const { ops } = ctxt;
  const msr = regLo(ctxt, RCX) >>> 0;
  const lo = regLo(ctxt, RAX);
  const hi = regLo(ctxt, RDX);
  const rc = ops.setMsrWithFilter ? ops.setMsrWithFilter(ctxt, msr, lo, hi) : ops.setMsr(ctxt, msr, lo, hi);
  return rc === X86EMUL_PROPAGATE_FAULT ? emulateGp(ctxt, 0) : rc;
}

/** @kvm emulate.c em_rdmsr */
export function emRdmsr(ctxt: EmulateCtxt): number {
  const { ops } = ctxt;
  const msr = regLo(ctxt, RCX) >>> 0;
  const rc = ops.getMsrWithFilter ? ops.getMsrWithFilter(ctxt, msr) : ops.getMsr(ctxt, msr);
  if (rc === X86EMUL_PROPAGATE_FAULT) return emulateGp(ctxt, 0);
  return rc === X86EMUL_CONTINUE ? toEdxEax(ctxt) : rc;
}

/** @kvm emulate.c em_rdtsc */
export function emRdtsc(ctxt: EmulateCtxt): number {
  ctxt.io64.fill(0);
  ctxt.ops.getMsr(ctxt, MSR_IA32_TSC);
  return toEdxEax(ctxt);
}

/** @kvm emulate.c em_rdpmc */
export function emRdpmc(ctxt: EmulateCtxt): number {
  return ctxt.ops.readPmc(ctxt, regLo(ctxt, RCX)) !== 0 ? emulateGp(ctxt, 0) : toEdxEax(ctxt);
}

/** @kvm emulate.c em_rdpid */
export function emRdpid(ctxt: EmulateCtxt): number {
  if (!ctxt.ops.guestHasRdpid(ctxt)) return emulateUd(ctxt);
  ctxt.io64.fill(0);
  ctxt.ops.getMsr(ctxt, MSR_TSC_AUX);
  ctxt.dst.set(ctxt.io64[0]!, ctxt.io64[1]!);
  return X86EMUL_CONTINUE;
}

const leaf = new Uint32Array(4);

/** @kvm emulate.c em_cpuid */
export function emCpuid(ctxt: EmulateCtxt): number {
  ctxt.io64.fill(0);
  ctxt.ops.getMsr(ctxt, MSR_MISC_FEATURES_ENABLES);
  if ((ctxt.io64[0]! & MISC_FEATURES_CPUID_FAULT) !== 0 && ctxt.ops.cpl(ctxt) !== 0) return emulateGp(ctxt, 0);
  leaf[0] = regLo(ctxt, RAX);
  leaf[1] = 0;
  leaf[2] = regLo(ctxt, RCX);
  leaf[3] = 0;
  ctxt.ops.getCpuid(ctxt, leaf, false);
  regWrite(ctxt, RAX, leaf[0]! | 0, 0);
  regWrite(ctxt, RBX, leaf[1]! | 0, 0);
  regWrite(ctxt, RCX, leaf[2]! | 0, 0);
  regWrite(ctxt, RDX, leaf[3]! | 0, 0);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_xsetbv */
export function emXsetbv(ctxt: EmulateCtxt): number {
  if ((readCr(ctxt, 4) & CR4_OSXSAVE) === 0) return emulateUd(ctxt);
  const lo = regLo(ctxt, RAX);
  const hi = regLo(ctxt, RDX);
  return ctxt.ops.setXcr(ctxt, regLo(ctxt, RCX), lo, hi) !== 0 ? emulateGp(ctxt, 0) : X86EMUL_CONTINUE;
}

/** A selector to a register or to two bytes of memory. @kvm emulate.c em_store_sreg */
function storeSreg(ctxt: EmulateCtxt, sreg: number): number {
  if (sreg > GS && umipDenies(ctxt)) return emulateGp(ctxt, 0);
  ctxt.dst.set(segmentSelector(ctxt, sreg), 0);
  if (ctxt.dst.bytes === 4 && ctxt.dst.type === OP_MEM) ctxt.dst.bytes = 2;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_mov_rm_sreg */
export function emMovRmSreg(ctxt: EmulateCtxt): number {
  return ctxt.modrmReg > GS ? emulateUd(ctxt) : storeSreg(ctxt, ctxt.modrmReg);
}

/** @kvm emulate.c em_sldt */
export function emSldt(ctxt: EmulateCtxt): number {
  return storeSreg(ctxt, LDTR);
}

/** @kvm emulate.c em_str */
export function emStr(ctxt: EmulateCtxt): number {
  return storeSreg(ctxt, TR);
}

function loadSreg(ctxt: EmulateCtxt, sreg: number): number {
  ctxt.dst.type = OP_NONE;
  return loadSegmentDescriptor(ctxt, ctxt.src.i32[0]! & 0xffff, sreg);
}

/** @kvm emulate.c em_mov_sreg_rm */
export function emMovSregRm(ctxt: EmulateCtxt): number {
  const sreg = ctxt.modrmReg;
  if (sreg === CS || sreg > GS) return emulateUd(ctxt);
  if (sreg === SS) ctxt.interruptibility = SHADOW_INT_MOV_SS;
  return loadSreg(ctxt, sreg);
}

/** @kvm emulate.c em_lldt */
export function emLldt(ctxt: EmulateCtxt): number {
  return loadSreg(ctxt, LDTR);
}

/** @kvm emulate.c em_ltr */
export function emLtr(ctxt: EmulateCtxt): number {
  return loadSreg(ctxt, TR);
}

/** An address that cannot be linear is ignored. @kvm emulate.c em_invlpg */
export function emInvlpg(ctxt: EmulateCtxt): number {
  const { seg, eaLo, eaHi } = ctxt.src;
  const rc = linearize(ctxt, seg, eaLo, eaHi, 1, 0);
  if (rc === X86EMUL_CONTINUE) ctxt.ops.invlpg(ctxt, ctxt.linearLo, ctxt.linearHi);
  ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

/** Stores limit and base, as many bytes as the mode has. @kvm emulate.c emulate_store_desc_ptr */
function storeDescriptorTable(ctxt: EmulateCtxt, idt: boolean): number {
  if (umipDenies(ctxt)) return emulateGp(ctxt, 0);
  if (ctxt.mode === X86EMUL_MODE_PROT64) ctxt.opBytes = 8;
  const table = idt ? ctxt.ops.getIdt(ctxt) : ctxt.ops.getGdt(ctxt);
  let baseLo = table.baseLo;
  if (ctxt.opBytes === 2) {
    ctxt.opBytes = 4;
    baseLo &= 0xff_ffff;
  }
  const { bytes } = ctxt;
  bytes[0] = table.limit;
  bytes[1] = table.limit >> 8;
  for (let i = 0; i < 4; i++) {
    bytes[2 + i] = baseLo >> (8 * i);
    bytes[6 + i] = table.baseHi >> (8 * i);
  }
  const { seg, eaLo, eaHi } = ctxt.dst;
  ctxt.dst.type = OP_NONE;
  return segmentedWriteStd(ctxt, seg, eaLo, eaHi, bytes, 2 + ctxt.opBytes);
}

/** @kvm emulate.c em_sgdt */
export function emSgdt(ctxt: EmulateCtxt): number {
  return storeDescriptorTable(ctxt, false);
}

/** @kvm emulate.c em_sidt */
export function emSidt(ctxt: EmulateCtxt): number {
  return storeDescriptorTable(ctxt, true);
}

/** Reads limit, then base: 24 bits of it with 16-bit operands. @kvm emulate.c em_lgdt_lidt */
function loadDescriptorTable(ctxt: EmulateCtxt, idt: boolean): number {
  if (ctxt.mode === X86EMUL_MODE_PROT64) ctxt.opBytes = 8;
  const { seg, eaLo, eaHi } = ctxt.src;
  const { bytes } = ctxt;
  let rc = segmentedReadStd(ctxt, seg, eaLo, eaHi, bytes, 2);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const table: DescriptorTable = { limit: bytes[0]! | (bytes[1]! << 8), baseLo: 0, baseHi: 0 };
  bytes.fill(0);
  const size = ctxt.opBytes === 2 ? 3 : ctxt.opBytes;
  rc = segmentedReadStd(ctxt, seg, (eaLo + 2) | 0, addHi(eaLo, eaHi, 2, 0), bytes, size);
  if (rc !== X86EMUL_CONTINUE) return rc;
  table.baseLo = ctxt.bytes32[0]!;
  table.baseHi = ctxt.bytes32[1]!;
  if (ctxt.mode === X86EMUL_MODE_PROT64 && !isCanonical(ctxt, table.baseHi, X86EMUL_F_DT_LOAD))
    return emulateGp(ctxt, 0);
  if (idt) ctxt.ops.setIdt(ctxt, table);
  else ctxt.ops.setGdt(ctxt, table);
  ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_lgdt */
export function emLgdt(ctxt: EmulateCtxt): number {
  return loadDescriptorTable(ctxt, false);
}

/** @kvm emulate.c em_lidt */
export function emLidt(ctxt: EmulateCtxt): number {
  return loadDescriptorTable(ctxt, true);
}

export function emHlt(ctxt: EmulateCtxt): number {
  ctxt.ops.halt(ctxt);
  return X86EMUL_CONTINUE;
}

export function emWbinvd(ctxt: EmulateCtxt): number {
  ctxt.ops.wbinvd(ctxt);
  return X86EMUL_CONTINUE;
}

/** VMCALL or VMMCALL of the other vendor: patched in place, then executed again by the processor. @kvm emulate.c em_hypercall */
export function emHypercall(ctxt: EmulateCtxt): number {
  const rc = ctxt.ops.fixHypercall(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.nextEipLo = ctxt.eipLo;
  ctxt.nextEipHi = ctxt.eipHi;
  ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}
