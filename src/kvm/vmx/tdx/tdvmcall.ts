/**
 * TDG.VP.VMCALL: what a TD asks of its host, in registers R10 to R15, with the answer in R10 and R11 (@tdx GHCI; @kvm tdx.c
 * handle_tdvmcall, tdx_map_gpa, tdx_emulate_io, tdx_emulate_mmio).
 */
import { numberOf } from '../../../arch/halves.ts';
import { R8, R10, R11, R12, R13, R14, R15, RAX, RBX, RCX, RDX, RSI } from '../../../arch/registers.ts';
import * as T from '../../../arch/tdx.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import { ioBusRead, ioBusWrite, KVM_FAST_MMIO_BUS, KVM_MMIO_BUS } from '../../io-bus/io-bus.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../../kvm-para.ts';
import { KVM_EXIT_HYPERCALL, KVM_EXIT_MMIO, KVM_EXIT_SYSTEM_EVENT } from '../../kvm-run.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { kvmCpuid } from '../../x86/cpuid.ts';
import { emulateHypercall } from '../../x86/hypercall.ts';
import { vcpuHasEvents } from '../../x86/inject-events.ts';
import { traceMmio } from '../../x86/mmio.ts';
import { guestReadMsr, guestWriteMsr } from '../../x86/msr-instructions.ts';
import { emulatorPioInEmulated, emulatorPioOut } from '../../x86/pio.ts';

/** @kvm tdx.c TDX_MAP_GPA_MAX_LEN */
const MAP_GPA_MAX_LEN = 2 * 1024 * 1024;
/** @kvm uapi/linux/kvm_para.h KVM_MAP_GPA_RANGE_ENCRYPTED */
const MAP_GPA_ENCRYPTED = 1 << 4;
const KVM_EXIT_HYPERCALL_LONG_MODE = 1;
/** @kvm uapi/linux/kvm.h KVM_SYSTEM_EVENT_TDX_FATAL */
const KVM_SYSTEM_EVENT_TDX_FATAL = 7;

/** Port and MMIO data on the way, eight bytes. */
const data = new Uint8Array(8);
const dataWords = new Int32Array(data.buffer);
const cpuidRegs = new Uint32Array(4);

function lo(vcpu: VcpuState, n: number): number {
  return vcpu.tdx!.enterArgs[2 * n]!;
}

/** A register as an unsigned number; what is above 2^53 is no address. */
function value(vcpu: VcpuState, n: number): number {
  return numberOf(vcpu.tdx!.enterArgs[2 * n]!, vcpu.tdx!.enterArgs[2 * n + 1]!);
}

function set(vcpu: VcpuState, n: number, low: number, high = 0): void {
  vcpu.tdx!.enterArgs[2 * n] = low;
  vcpu.tdx!.enterArgs[2 * n + 1] = high;
}

/** @kvm tdx.c tdvmcall_set_return_code */
function returnError(vcpu: VcpuState, error: number): number {
  set(vcpu, R10, error, T.TDVMCALL_ERROR_HI);
  return 1;
}

function isPrivateGpa(vcpu: VcpuState, gpa: number): boolean {
  return gpa < vcpu.vm.mmu.gfnDirectBits * 4096;
}

/** The exit reason of VMX that the subfunction stands for. @kvm tdx.c tdcall_to_vmx_exit_reason */
export function tdcallToExitReason(vcpu: VcpuState): number {
  if (value(vcpu, R10) !== 0) return R.EXIT_REASON_VMCALL;
  const leaf = value(vcpu, R11);
  switch (leaf) {
    case R.EXIT_REASON_CPUID:
    case R.EXIT_REASON_HLT:
    case R.EXIT_REASON_IO_INSTRUCTION:
    case R.EXIT_REASON_MSR_READ:
    case R.EXIT_REASON_MSR_WRITE:
      return leaf;
    case R.EXIT_REASON_EPT_VIOLATION:
      return R.EXIT_REASON_EPT_MISCONFIG;
    default:
      return R.EXIT_REASON_TDCALL;
  }
}

/** A subfunction that is not an instruction. @kvm tdx.c handle_tdvmcall @partial no quotes, no event notification */
export function handleTdvmcall(vcpu: VcpuState): number {
  switch (value(vcpu, R11)) {
    case T.TDVMCALL_MAP_GPA:
      return mapGpa(vcpu);
    case T.TDVMCALL_REPORT_FATAL_ERROR:
      return reportFatalError(vcpu);
    case T.TDVMCALL_GET_TD_VM_CALL_INFO:
      if (value(vcpu, R12) !== 0) return returnError(vcpu, T.TDVMCALL_INVALID_OPERAND);
      for (const n of [R10, R11, R12, R13, R14]) set(vcpu, n, 0);
      return 1;
    default:
      return returnError(vcpu, T.TDVMCALL_SUBFUNC_UNSUPPORTED);
  }
}

/** MapGPA: R12 address, R13 size. Userspace converts, at most 2 MiB at a time. @kvm tdx.c tdx_map_gpa */
function mapGpa(vcpu: VcpuState): number {
  const vp = vcpu.tdx!;
  const gpa = value(vcpu, R12);
  const size = value(vcpu, R13);
  const refuse = (error: number): number => {
    set(vcpu, R11, lo(vcpu, R12), vp.enterArgs[2 * R12 + 1]);
    return returnError(vcpu, error);
  };
  if ((vcpu.vm.x86.hypercallExitEnabled & (1 << KVM_HC_MAP_GPA_RANGE)) === 0) {
    return refuse(T.TDVMCALL_SUBFUNC_UNSUPPORTED);
  }
  const limit = 2 * vcpu.vm.mmu.gfnDirectBits * 4096;
  const legal = size > 0 && gpa + size <= limit;
  if (!legal || isPrivateGpa(vcpu, gpa) !== isPrivateGpa(vcpu, gpa + size - 1)) {
    return refuse(T.TDVMCALL_INVALID_OPERAND);
  }
  if (gpa % 4096 !== 0 || size % 4096 !== 0) return refuse(T.TDVMCALL_ALIGN_ERROR);
  vp.mapGpaNext = gpa;
  vp.mapGpaEnd = gpa + size;
  return mapGpaPiece(vcpu);
}

/** @kvm tdx.c __tdx_map_gpa */
function mapGpaPiece(vcpu: VcpuState): number {
  const vp = vcpu.tdx!;
  const { run } = vcpu;
  const isPrivate = isPrivateGpa(vcpu, vp.mapGpaNext);
  const gpa = isPrivate ? vp.mapGpaNext : vp.mapGpaNext - vcpu.vm.mmu.gfnDirectBits * 4096;
  const size = Math.min(vp.mapGpaEnd - vp.mapGpaNext, MAP_GPA_MAX_LEN);
  run.exitReason = KVM_EXIT_HYPERCALL;
  run.hypercall.nr = KVM_HC_MAP_GPA_RANGE;
  run.hypercall.setRet(0, 0);
  run.hypercall.setArg(0, gpa | 0, Math.floor(gpa / 0x1_0000_0000));
  run.hypercall.setArg(1, size / 4096, 0);
  run.hypercall.setArg(2, isPrivate ? MAP_GPA_ENCRYPTED : 0, 0);
  run.hypercall.flags = KVM_EXIT_HYPERCALL_LONG_MODE;
  vcpu.x86.completeUserspaceIo = completeMapGpa;
  return 0;
}

/** @kvm tdx.c tdx_complete_vmcall_map_gpa */
function completeMapGpa(vcpu: VcpuState): number {
  const vp = vcpu.tdx!;
  const { retLo, retHi } = vcpu.run.hypercall;
  const tell = (): void => set(vcpu, R11, vp.mapGpaNext | 0, Math.floor(vp.mapGpaNext / 0x1_0000_0000));
  if ((retLo | retHi) !== 0) {
    tell();
    return returnError(vcpu, T.TDVMCALL_INVALID_OPERAND);
  }
  vp.mapGpaNext += MAP_GPA_MAX_LEN;
  if (vp.mapGpaNext >= vp.mapGpaEnd) return 1;
  if (vcpuHasEvents(vcpu)) {
    tell();
    set(vcpu, R10, T.TDVMCALL_STATUS_RETRY);
    return 1;
  }
  return mapGpaPiece(vcpu);
}

/** The registers go to userspace as they are, by their numbers. @kvm tdx.c tdx_report_fatal_error */
function reportFatalError(vcpu: VcpuState): number {
  const { run } = vcpu;
  const { enterArgs, enterRet } = vcpu.tdx!;
  run.exitReason = KVM_EXIT_SYSTEM_EVENT;
  run.systemEvent.suberror = KVM_SYSTEM_EVENT_TDX_FATAL;
  run.systemEvent.ndata = 16;
  for (let n = RAX; n < 16; n++) run.systemEvent.setData(n, enterArgs[2 * n]!, enterArgs[2 * n + 1]!);
  run.systemEvent.setData(RAX, T.tdxDetail(enterRet), T.tdxCode(enterRet) | 0);
  return 0;
}

/** R12 leaf, R13 subleaf; the answers in R12 to R15. @kvm tdx.c tdx_emulate_cpuid */
export function tdxEmulateCpuid(vcpu: VcpuState): number {
  cpuidRegs[0] = lo(vcpu, R12);
  cpuidRegs[2] = lo(vcpu, R13);
  kvmCpuid(vcpu, cpuidRegs, false);
  [R12, R13, R14, R15].forEach((n, i) => {
    set(vcpu, n, cpuidRegs[i]! | 0);
  });
  set(vcpu, R10, 0);
  return 1;
}

/** Size in R12, direction in R13, port in R14, data in R15. @kvm tdx.c tdx_emulate_io */
export function tdxEmulateIo(vcpu: VcpuState): number {
  vcpu.stats.io_exits++;
  const size = value(vcpu, R12);
  const write = value(vcpu, R13);
  const port = lo(vcpu, R14) & 0xffff;
  if (write > 1 || (size !== 1 && size !== 2 && size !== 4)) return returnError(vcpu, T.TDVMCALL_INVALID_OPERAND);
  set(vcpu, R10, 0);
  dataWords[0] = write === 1 ? lo(vcpu, R15) : 0;
  const done =
    write === 1 ? emulatorPioOut(vcpu, size, port, data, 0, 1) : emulatorPioInEmulated(vcpu, size, port, data, 0, 1);
  if (done === 0) vcpu.x86.completeUserspaceIo = write === 1 ? completePioOut : completePioIn;
  else if (write === 0) set(vcpu, R11, dataWords[0]);
  return done;
}

/** @kvm tdx.c tdx_complete_pio_out */
function completePioOut(vcpu: VcpuState): number {
  vcpu.x86.pioCount = 0;
  return 1;
}

/** @kvm tdx.c tdx_complete_pio_in */
function completePioIn(vcpu: VcpuState): number {
  dataWords[0] = 0;
  emulatorPioInEmulated(vcpu, vcpu.x86.pioSize, vcpu.x86.pioPort, data, 0, 1);
  set(vcpu, R11, dataWords[0]);
  return 1;
}

/** Size in R12, direction in R13, shared address in R14, data in R15. @kvm tdx.c tdx_emulate_mmio */
export function tdxEmulateMmio(vcpu: VcpuState): number {
  const size = value(vcpu, R12);
  const write = value(vcpu, R13);
  const address = value(vcpu, R14);
  const sizes = size === 1 || size === 2 || size === 4 || size === 8;
  if (!sizes || write > 1 || isPrivateGpa(vcpu, address) || isPrivateGpa(vcpu, address + size - 1)) {
    return returnError(vcpu, T.TDVMCALL_INVALID_OPERAND);
  }
  const gpa = address - vcpu.vm.mmu.gfnDirectBits * 4096;
  set(vcpu, R10, 0);
  return write === 1 ? mmioWrite(vcpu, gpa, size) : mmioRead(vcpu, gpa, size);
}

/** @kvm tdx.c tdx_mmio_write */
function mmioWrite(vcpu: VcpuState, gpa: number, size: number): number {
  const { vm, run } = vcpu;
  if (ioBusWrite(vcpu, KVM_FAST_MMIO_BUS, gpa, 0, data, 0) === 0) {
    if (vm.trace.enabled) vm.trace.emit('kvm_fast_mmio', { gpa: `0x${gpa.toString(16)}` });
    return 1;
  }
  dataWords[0] = lo(vcpu, R15);
  dataWords[1] = vcpu.tdx!.enterArgs[2 * R15 + 1]!;
  traceMmio(vcpu, 'write', size, gpa, data, 0);
  if (ioBusWrite(vcpu, KVM_MMIO_BUS, gpa, size, data, 0) === 0) return 1;
  mmioExit(vcpu, gpa, size, true);
  for (let i = 0; i < size; i++) run.mmio.data[i] = data[i]!;
  return 0;
}

/** @kvm tdx.c tdx_mmio_read */
function mmioRead(vcpu: VcpuState, gpa: number, size: number): number {
  dataWords.fill(0);
  if (ioBusRead(vcpu, KVM_MMIO_BUS, gpa, size, data, 0) === 0) {
    set(vcpu, R11, dataWords[0]!, dataWords[1]);
    traceMmio(vcpu, 'read', size, gpa, data, 0);
    return 1;
  }
  mmioExit(vcpu, gpa, size, false);
  vcpu.x86.completeUserspaceIo = completeMmioRead;
  traceMmio(vcpu, 'unsatisfied-read', size, gpa, null, 0);
  return 0;
}

function mmioExit(vcpu: VcpuState, gpa: number, size: number, write: boolean): void {
  const { run } = vcpu;
  vcpu.stats.mmio_exits++;
  run.exitReason = KVM_EXIT_MMIO;
  run.mmio.physAddr = gpa;
  run.mmio.len = size;
  run.mmio.isWrite = write;
}

/** @kvm tdx.c tdx_complete_mmio_read */
function completeMmioRead(vcpu: VcpuState): number {
  const { mmio } = vcpu.run;
  dataWords.fill(0);
  for (let i = 0; i < mmio.len; i++) data[i] = mmio.data[i]!;
  set(vcpu, R11, dataWords[0]!, dataWords[1]);
  traceMmio(vcpu, 'read', mmio.len, mmio.physAddr, data, 0);
  return 1;
}

/** R12 MSR; the value in R11. @kvm tdx.c tdx_complete_emulated_msr @partial exits to userspace are refused */
export function tdxEmulateRdmsr(vcpu: VcpuState): number {
  const r = guestReadMsr(vcpu, lo(vcpu, R12), true);
  if (r < 0) return r;
  if (r !== 0) return returnError(vcpu, T.TDVMCALL_INVALID_OPERAND);
  set(vcpu, R10, 0);
  set(vcpu, R11, vcpu.x86.msrValue[0]!, vcpu.x86.msrValue[1]);
  return 1;
}

/** R12 MSR, R13 value. @kvm tdx.c tdx_complete_emulated_msr @partial exits to userspace are refused */
export function tdxEmulateWrmsr(vcpu: VcpuState): number {
  const r = guestWriteMsr(vcpu, lo(vcpu, R12), lo(vcpu, R13), vcpu.tdx!.enterArgs[2 * R13 + 1]!, true);
  if (r < 0) return r;
  if (r !== 0) return returnError(vcpu, T.TDVMCALL_INVALID_OPERAND);
  set(vcpu, R10, 0);
  return 1;
}

/** KVM's own hypercalls: number in R10, arguments in R11 to R14. @kvm tdx.c tdx_emulate_vmcall */
export function tdxEmulateVmcall(vcpu: VcpuState): number {
  const from = [R10, R11, R12, R13, R14];
  [RAX, RBX, RCX, RDX, RSI].forEach((n, i) => {
    vcpu.regs[2 * n] = vcpu.tdx!.enterArgs[2 * from[i]!]!;
    vcpu.regs[2 * n + 1] = vcpu.tdx!.enterArgs[2 * from[i]! + 1]!;
  });
  const r = emulateHypercall(vcpu);
  const complete = vcpu.x86.completeUserspaceIo;
  if (r === 1) takeRax(vcpu);
  else if (r === 0 && complete !== null) {
    vcpu.x86.completeUserspaceIo = (v) => {
      const done = complete(v);
      takeRax(v);
      return done;
    };
  }
  return r;
}

function takeRax(vcpu: VcpuState): void {
  set(vcpu, R10, vcpu.regs[2 * RAX]!, vcpu.regs[2 * RAX + 1]);
}

/** Where an EPT violation was: R8, halves. */
export function exitGpa(vcpu: VcpuState): number {
  return value(vcpu, R8);
}
