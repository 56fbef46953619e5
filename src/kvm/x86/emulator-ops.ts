/** KVM's side of the instruction emulator (@kvm x86.c emulate_ops). */
import { UD_VECTOR } from '../../arch/exceptions.ts';
import { RIP } from '../../arch/registers.ts';
import { FPU_CW_AT, FPU_REGS, FPU_SW_AT, XMM, XMM_SIZE } from '../../cpu/state.ts';
import type { EmulateCtxt } from '../emulate/ctxt.ts';
import {
  type DescriptorTable,
  type SegmentDesc,
  X86EMUL_CONTINUE,
  X86EMUL_IO_NEEDED,
  X86EMUL_PROPAGATE_FAULT,
  X86EMUL_UNHANDLEABLE,
  type X86EmulateOps,
} from '../emulate/ops.ts';
import { X86EMUL_F_DT_LOAD } from '../emulate/segmentation.ts';
import { mmuInvlpg } from '../mmu/invlpg.ts';
import { makeRequest, REQ_TRIPLE_FAULT, type VcpuState } from '../vcpu-state.ts';
import { isNoncanonicalAddress, isNoncanonicalBase } from './canonical.ts';
import { getCr8, setCr0, setCr3, setCr4, setCr8, setXcr } from './control-registers.ts';
import { kvmCpuid } from './cpuid.ts';
import { X86_FEATURE_FXSR, X86_FEATURE_MOVBE, X86_FEATURE_RDPID } from './cpuid-features.ts';
import { getDrHi, getDrLo, setDr } from './debug-registers.ts';
import { cmpxchgEmulated, readEmulated, writeEmulated } from './emulator-memory.ts';
import { fxrstorImage, fxsaveImage } from './fxsave.ts';
import { fetchGuestVirt, readStd, writeStd } from './guest-access.ts';
import { guestCpuidHas, guestCpuidIsIntelCompatible } from './guest-cpuid.ts';
import { getMsr, guestReadMsr, guestWriteMsr, MSR_EXIT, setMsr } from './msr-instructions.ts';
import { emulatorPioInEmulated, emulatorPioOut } from './pio.ts';
import { leaveSmm } from './smm-leave.ts';
import { hasQuirk, KVM_X86_QUIRK_FIX_HYPERCALL_INSN } from './vm-x86.ts';

function vcpuOf(ctxt: EmulateCtxt): VcpuState {
  return ctxt.vcpu as VcpuState;
}

const gdt: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };
const idt: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };
const hypercall = new Uint8Array(3);

function clearSegment(seg: SegmentDesc): void {
  const { selector } = seg;
  seg.baseLo = seg.baseHi = seg.limit = seg.type = 0;
  seg.s = seg.dpl = seg.p = seg.avl = seg.l = seg.db = seg.g = 0;
  seg.selector = selector;
}

/** What an access to an MSR means to the emulator. */
function msrResult(r: number): number {
  if (r < 0) return X86EMUL_UNHANDLEABLE;
  if (r === MSR_EXIT) return X86EMUL_IO_NEEDED;
  return r === 0 ? X86EMUL_CONTINUE : X86EMUL_PROPAGATE_FAULT;
}

/** The one table of operations, shared by all vCPUs: each context names its vCPU. */
export const emulatorOps: X86EmulateOps = {
  readGpr(ctxt, nr) {
    const regs = vcpuOf(ctxt).regs;
    ctxt.regs[2 * nr] = regs[2 * nr]!;
    ctxt.regs[2 * nr + 1] = regs[2 * nr + 1]!;
  },
  writeGpr(ctxt, nr) {
    const regs = vcpuOf(ctxt).regs;
    regs[2 * nr] = ctxt.regs[2 * nr]!;
    regs[2 * nr + 1] = ctxt.regs[2 * nr + 1]!;
  },
  readStd: (ctxt, lo, hi, buf, off, bytes, fault, system) =>
    readStd(vcpuOf(ctxt), lo, hi, buf, off, bytes, fault, system),
  writeStd: (ctxt, lo, hi, buf, off, bytes, fault, system) =>
    writeStd(vcpuOf(ctxt), lo, hi, buf, off, bytes, fault, system),
  fetch: (ctxt, lo, hi, buf, off, bytes, fault) => fetchGuestVirt(vcpuOf(ctxt), lo, hi, buf, off, bytes, fault),
  readEmulated,
  writeEmulated,
  cmpxchgEmulated,
  invlpg: (ctxt, lo, hi) => mmuInvlpg(vcpuOf(ctxt), lo, hi),
  pioInEmulated: (ctxt, size, port, buf, off, count) =>
    emulatorPioInEmulated(vcpuOf(ctxt), size, port, buf, off, count),
  pioOutEmulated: (ctxt, size, port, buf, off, count) => emulatorPioOut(vcpuOf(ctxt), size, port, buf, off, count),
  getSegment(ctxt, sreg, seg) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.getSegment(vcpu, sreg, seg);
    if (seg.p !== 0) return true;
    clearSegment(seg);
    return false;
  },
  setSegment(ctxt, sreg, seg) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.setSegment(vcpu, sreg, seg);
  },
  getCachedSegmentBase(ctxt, sreg) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.getSegmentBase(vcpu, sreg, ctxt.segBase);
  },
  getGdt(ctxt) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.getGdt(vcpu, gdt);
    return gdt;
  },
  getIdt(ctxt) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.getIdt(vcpu, idt);
    return idt;
  },
  setGdt(ctxt, dt) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.setGdt(vcpu, dt);
  },
  setIdt(ctxt, dt) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.setIdt(vcpu, dt);
  },
  getCr(ctxt, cr) {
    const vcpu = vcpuOf(ctxt);
    const out = ctxt.io64;
    out[1] = 0;
    if (cr === 0) out[0] = vcpu.cr0;
    else if (cr === 4) out[0] = vcpu.cr4;
    else if (cr === 8) out[0] = getCr8(vcpu);
    else if (cr === 2) {
      out[0] = vcpu.cr2Lo;
      out[1] = vcpu.cr2Hi;
    } else {
      out[0] = vcpu.cr3Lo;
      out[1] = vcpu.cr3Hi;
    }
  },
  setCr(ctxt, cr, lo, hi) {
    const vcpu = vcpuOf(ctxt);
    switch (cr) {
      case 0:
        return setCr0(vcpu, lo, 0); // only the low half is written
      case 2:
        vcpu.cr2Lo = lo;
        vcpu.cr2Hi = hi;
        return 0;
      case 3:
        return setCr3(vcpu, lo, hi);
      case 4:
        return setCr4(vcpu, lo, 0);
      case 8:
        return hi !== 0 ? 1 : setCr8(vcpu, lo);
      default:
        return -1;
    }
  },
  cpl(ctxt) {
    const vcpu = vcpuOf(ctxt);
    return vcpu.vm.vendor.getCpl(vcpu);
  },
  getDr(ctxt, dr) {
    ctxt.io64[0] = getDrLo(vcpuOf(ctxt), dr);
    ctxt.io64[1] = getDrHi(vcpuOf(ctxt), dr);
  },
  setDr: (ctxt, dr, lo, hi) => setDr(vcpuOf(ctxt), dr, lo, hi),
  getMsr(ctxt, msr) {
    const vcpu = vcpuOf(ctxt);
    const r = getMsr(vcpu, msr, false);
    ctxt.io64.set(vcpu.x86.msrValue);
    return r === 0 ? X86EMUL_CONTINUE : X86EMUL_PROPAGATE_FAULT;
  },
  setMsr: (ctxt, msr, lo, hi) =>
    setMsr(vcpuOf(ctxt), msr, lo, hi, false) === 0 ? X86EMUL_CONTINUE : X86EMUL_PROPAGATE_FAULT,
  getMsrWithFilter(ctxt, msr) {
    const vcpu = vcpuOf(ctxt);
    const r = guestReadMsr(vcpu, msr, true);
    ctxt.io64.set(vcpu.x86.msrValue);
    return msrResult(r);
  },
  setMsrWithFilter(ctxt, msr, lo, hi) {
    return msrResult(guestWriteMsr(vcpuOf(ctxt), msr, lo, hi, true));
  },
  // No performance counters are virtualized: every index is out of range.
  checkRdpmcEarly: () => 1,
  readPmc: () => 1,
  halt(ctxt) {
    vcpuOf(ctxt).x86.haltRequest = true;
  },
  wbinvd() {
    // Memory is coherent and nothing is cached: there is nothing to write back.
  },
  fixHypercall(ctxt) {
    const vcpu = vcpuOf(ctxt);
    if (!hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_FIX_HYPERCALL_INSN)) {
      ctxt.exception.errorCodeValid = false;
      ctxt.exception.vector = UD_VECTOR;
      ctxt.haveException = true;
      return X86EMUL_PROPAGATE_FAULT;
    }
    vcpu.vm.vendor.patchHypercall(hypercall);
    return writeEmulated(ctxt, vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!, hypercall, 0, 3, ctxt.exception);
  },
  intercept(ctxt, intercept, stage) {
    const vcpu = vcpuOf(ctxt);
    return vcpu.vm.vendor.checkIntercept(vcpu, ctxt, intercept, stage);
  },
  getCpuid: (ctxt, regs, exactOnly) => kvmCpuid(vcpuOf(ctxt), regs, exactOnly),
  guestHasMovbe: (ctxt) => guestCpuidHas(vcpuOf(ctxt), X86_FEATURE_MOVBE),
  guestHasFxsr: (ctxt) => guestCpuidHas(vcpuOf(ctxt), X86_FEATURE_FXSR),
  isCanonicalAddr(ctxt, hi, flags) {
    const vcpu = vcpuOf(ctxt);
    return (flags & X86EMUL_F_DT_LOAD) !== 0 ? !isNoncanonicalBase(vcpu, hi) : !isNoncanonicalAddress(vcpu, hi);
  },
  guestHasRdpid: (ctxt) => guestCpuidHas(vcpuOf(ctxt), X86_FEATURE_RDPID),
  guestCpuidIsIntelCompatible: (ctxt) => guestCpuidIsIntelCompatible(vcpuOf(ctxt)),
  setNmiMask(ctxt, masked) {
    const vcpu = vcpuOf(ctxt);
    vcpu.vm.vendor.setNmiMask(vcpu, masked);
  },
  isSmm: (ctxt) => vcpuOf(ctxt).smm,
  isGuestMode: (ctxt) => vcpuOf(ctxt).guestMode,
  leaveSmm,
  tripleFault: (ctxt) => makeRequest(vcpuOf(ctxt), REQ_TRIPLE_FAULT),
  setXcr: (ctxt, index, lo, hi) => setXcr(vcpuOf(ctxt), index, lo, hi),
  readXmm(ctxt, reg, buf) {
    const at = XMM + reg * XMM_SIZE;
    buf.set(vcpuOf(ctxt).vm.memory.u8.subarray(at, at + 16));
  },
  writeXmm(ctxt, reg, buf) {
    vcpuOf(ctxt).vm.memory.u8.set(buf.subarray(0, 16), XMM + reg * XMM_SIZE);
  },
  readMmx(ctxt, reg, buf) {
    const at = FPU_REGS + reg * 16;
    buf.set(vcpuOf(ctxt).vm.memory.u8.subarray(at, at + 8));
  },
  writeMmx(ctxt, reg, buf) {
    vcpuOf(ctxt).vm.memory.u8.set(buf.subarray(0, 8), FPU_REGS + reg * 16);
  },
  fxsave(ctxt, buf, size) {
    fxsaveImage(vcpuOf(ctxt), buf, size);
    return X86EMUL_CONTINUE;
  },
  fxrstor(ctxt, buf) {
    fxrstorImage(vcpuOf(ctxt), buf);
    return X86EMUL_CONTINUE;
  },
  fpuControlWord: (ctxt) => vcpuOf(ctxt).vm.memory.i32[FPU_CW_AT >> 2]! & 0xffff,
  fpuStatusWord: (ctxt) => vcpuOf(ctxt).vm.memory.i32[FPU_SW_AT >> 2]! & 0xffff,
};
