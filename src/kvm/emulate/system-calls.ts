/** SYSCALL, SYSENTER, SYSEXIT and RSM. */
import {
  MSR_CSTAR,
  MSR_IA32_SYSENTER_CS,
  MSR_IA32_SYSENTER_EIP,
  MSR_IA32_SYSENTER_ESP,
  MSR_LSTAR,
  MSR_STAR,
  MSR_SYSCALL_MASK,
} from '../../arch/msr.ts';
import {
  CS,
  EFER_LMA,
  EFER_SCE,
  R8,
  RCX,
  RDX,
  RFLAGS_FIXED,
  RFLAGS_IF,
  RFLAGS_TF,
  RFLAGS_VM,
  RSP,
  SS,
} from '../../arch/registers.ts';
import {
  type EmulateCtxt,
  emptySegment,
  X86EMUL_MODE_PROT32,
  X86EMUL_MODE_PROT64,
  X86EMUL_MODE_REAL,
  X86EMUL_MODE_VM86,
} from './ctxt.ts';
import { type SegmentDesc, X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateGp, emulateUd } from './raise.ts';
import { regHi, regLo, regWrite } from './registers.ts';
import { isCanonical, readEfer, recalcAndSetMode } from './segmentation.ts';

const R11 = R8 + 3;

const flatCs = emptySegment();
const flatSs = emptySegment();

/** A flat 4 GiB segment of ring 0. */
function flatten(seg: SegmentDesc, type: number): void {
  seg.baseLo = seg.baseHi = 0;
  seg.limit = 0xffff_ffff;
  seg.type = type;
  seg.dpl = seg.l = seg.avl = 0;
  seg.s = seg.p = seg.db = seg.g = 1;
}

/** @kvm emulate.c setup_syscalls_segments */
function setupSyscallsSegments(): void {
  flatten(flatCs, 0xb);
  flatten(flatSs, 0x3);
}

function makeCsLong(): void {
  flatCs.db = 0;
  flatCs.l = 1;
}

function installSegments(ctxt: EmulateCtxt, cs: number, ss: number): void {
  flatCs.selector = cs & 0xffff;
  flatSs.selector = ss & 0xffff;
  ctxt.ops.setSegment(ctxt, CS, flatCs);
  ctxt.ops.setSegment(ctxt, SS, flatSs);
}

function readMsr(ctxt: EmulateCtxt, msr: number): void {
  ctxt.io64.fill(0);
  ctxt.ops.getMsr(ctxt, msr);
}

/** @kvm emulate.c em_syscall */
export function emSyscall(ctxt: EmulateCtxt): number {
  const { ops, io64 } = ctxt;
  if (ctxt.mode === X86EMUL_MODE_REAL || ctxt.mode === X86EMUL_MODE_VM86) return emulateUd(ctxt);
  // Intel knows SYSCALL in 64-bit mode only.
  if (ctxt.mode !== X86EMUL_MODE_PROT64 && ops.guestCpuidIsIntelCompatible(ctxt)) return emulateUd(ctxt);
  const efer = readEfer(ctxt);
  const lma = (efer & EFER_LMA) !== 0;
  if ((efer & EFER_SCE) === 0) return emulateUd(ctxt);
  setupSyscallsSegments();
  if (lma) makeCsLong();
  readMsr(ctxt, MSR_STAR);
  const star = io64[1]!;
  installSegments(ctxt, star & 0xfffc, star + 8);

  regWrite(ctxt, RCX, ctxt.nextEipLo, ctxt.nextEipHi);
  if (lma) {
    regWrite(ctxt, R11, ctxt.eflags, 0);
    readMsr(ctxt, ctxt.mode === X86EMUL_MODE_PROT64 ? MSR_LSTAR : MSR_CSTAR);
    ctxt.nextEipLo = io64[0]!;
    ctxt.nextEipHi = io64[1]!;
    readMsr(ctxt, MSR_SYSCALL_MASK);
    ctxt.eflags = (ctxt.eflags & ~io64[0]!) | RFLAGS_FIXED;
  } else {
    readMsr(ctxt, MSR_STAR);
    ctxt.nextEipLo = io64[0]!;
    ctxt.nextEipHi = 0;
    ctxt.eflags &= ~(RFLAGS_VM | RFLAGS_IF);
  }
  ctxt.tf = (ctxt.eflags & RFLAGS_TF) !== 0;
  return X86EMUL_CONTINUE;
}

/** SYSENTER from compatibility or legacy mode; 64-bit mode is not emulated. @kvm emulate.c em_sysenter */
export function emSysenter(ctxt: EmulateCtxt): number {
  const { ops, io64 } = ctxt;
  const lma = (readEfer(ctxt) & EFER_LMA) !== 0;
  if (ctxt.mode === X86EMUL_MODE_REAL) return emulateGp(ctxt, 0);
  // AMD knows SYSENTER in legacy mode only.
  if (ctxt.mode !== X86EMUL_MODE_PROT64 && lma && !ops.guestCpuidIsIntelCompatible(ctxt)) return emulateUd(ctxt);
  if (ctxt.mode === X86EMUL_MODE_PROT64) return X86EMUL_UNHANDLEABLE;
  readMsr(ctxt, MSR_IA32_SYSENTER_CS);
  const cs = io64[0]!;
  if ((cs & 0xfffc) === 0) return emulateGp(ctxt, 0);
  setupSyscallsSegments();
  ctxt.eflags &= ~(RFLAGS_VM | RFLAGS_IF);
  if (lma) makeCsLong();
  installSegments(ctxt, cs & 0xfffc, (cs & 0xfffc) + 8);
  readMsr(ctxt, MSR_IA32_SYSENTER_EIP);
  ctxt.nextEipLo = io64[0]!;
  ctxt.nextEipHi = lma ? io64[1]! : 0;
  readMsr(ctxt, MSR_IA32_SYSENTER_ESP);
  regWrite(ctxt, RSP, io64[0]!, lma ? io64[1]! : 0);
  if (lma) ctxt.mode = X86EMUL_MODE_PROT64;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_sysexit */
export function emSysexit(ctxt: EmulateCtxt): number {
  const { io64 } = ctxt;
  if (ctxt.mode === X86EMUL_MODE_REAL || ctxt.mode === X86EMUL_MODE_VM86) return emulateGp(ctxt, 0);
  setupSyscallsSegments();
  const long = (ctxt.rexPrefix & 8) !== 0;
  flatCs.dpl = 3;
  flatSs.dpl = 3;
  readMsr(ctxt, MSR_IA32_SYSENTER_CS);
  const msr = io64[0]!;
  const rcxHi = regHi(ctxt, RCX);
  const rdxHi = regHi(ctxt, RDX);
  if (long) {
    if ((msr | io64[1]!) === 0) return emulateGp(ctxt, 0);
    makeCsLong();
    if (!isCanonical(ctxt, rcxHi, 0) || !isCanonical(ctxt, rdxHi, 0)) return emulateGp(ctxt, 0);
  } else if ((msr & 0xfffc) === 0) {
    return emulateGp(ctxt, 0);
  }
  installSegments(ctxt, (msr + (long ? 32 : 16)) | 3, (msr + (long ? 40 : 24)) | 3);
  ctxt.nextEipLo = regLo(ctxt, RDX);
  ctxt.nextEipHi = long ? rdxHi : 0;
  ctxt.mode = long ? X86EMUL_MODE_PROT64 : X86EMUL_MODE_PROT32;
  regWrite(ctxt, RSP, regLo(ctxt, RCX), long ? rcxHi : 0);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_rsm */
export function emRsm(ctxt: EmulateCtxt): number {
  const { ops } = ctxt;
  if (!ops.isSmm(ctxt)) return emulateUd(ctxt);
  if (ops.leaveSmm(ctxt) !== X86EMUL_CONTINUE) ops.tripleFault(ctxt);
  return recalcAndSetMode(ctxt);
}
