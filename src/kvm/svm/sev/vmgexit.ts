/** VMGEXIT: what an encrypted guest asks its hypervisor for, by the GHCB or by its MSR alone (@kvm sev.c sev_handle_vmgexit). */
import * as G from '../../../arch/ghcb.ts';
import { numberOf } from '../../../arch/halves.ts';
import { RAX, RBX, RCX, RDX } from '../../../arch/registers.ts';
import * as V from '../../../arch/vmcb.ts';
import { EINVAL } from '../../../host/errno.ts';
import { KVM_EXIT_SYSTEM_EVENT } from '../../kvm-run.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../../vcpu-state.ts';
import { emulateCpuid } from '../../x86/cpuid.ts';
import { clearExceptionQueue } from '../../x86/exceptions.ts';
import { addMmioFragment, nextMmioPiece, startMmioExit, vcpuMmioRead, vcpuMmioWrite } from '../../x86/mmio.ts';
import { emulateRdmsr, emulateWrmsr } from '../../x86/msr-instructions.ts';
import { vmcbRead, vmcbWrite64 } from '../vmcb-access.ts';
import { sevSnpApCreation } from './ap-creation.ts';
import { ghcbValid, mapGhcb, refuseEvent, setExitInfo1, setExitInfo2, setupScratch, syncFromGhcb } from './ghcb.ts';
import { beginPsc, beginPscMsr } from './page-state-change.ts';

const GHCB_VERSION_MIN = 1;
export const KVM_SYSTEM_EVENT_SEV_TERM = 6;

/** Handles an exit by its code: the vendor's other exits. */
export type ExitHandler = (vcpu: VcpuState, code: number) => number;

/** What the GHCB MSR says at RESET: protocol versions and the C-bit. @kvm sev.c sev_es_vcpu_reset */
export function setSevInfo(vcpu: VcpuState): void {
  const sev = vcpu.vm.sev!;
  const lo = (vcpu.vm.profile.snp!.cBit << 24) | G.GHCB_MSR_SEV_INFO_RESP;
  vmcbWrite64(vcpu.svm, V.VMCB_GHCB, lo, (sev.ghcbVersion << 16) | GHCB_VERSION_MIN);
}

function terminate(vcpu: VcpuState, lo: number, hi: number): number {
  const { run } = vcpu;
  run.exitReason = KVM_EXIT_SYSTEM_EVENT;
  run.systemEvent.suberror = KVM_SYSTEM_EVENT_SEV_TERM;
  run.systemEvent.ndata = 1;
  run.systemEvent.setData(0, lo, hi);
  return 0;
}

/** One leaf and one register of CPUID. */
function cpuidByMsr(vcpu: VcpuState, lo: number, hi: number): number {
  vcpu.regs[2 * RAX] = hi;
  vcpu.regs[2 * RCX] = 0;
  if (emulateCpuid(vcpu) === 0) return 0;
  const reg = [RAX, RBX, RCX, RDX][lo >>> 30]!;
  vmcbWrite64(vcpu.svm, V.VMCB_GHCB, (lo & ~0xfff) | G.GHCB_MSR_CPUID_RESP, vcpu.regs[2 * reg]!);
  return 1;
}

/** @kvm sev.c sev_handle_vmgexit_msr_protocol @partial AP reset hold is unknown */
function msrProtocol(vcpu: VcpuState, lo: number, hi: number): number {
  const { svm } = vcpu;
  switch (lo & 0xfff) {
    case G.GHCB_MSR_SEV_INFO_REQ:
      setSevInfo(vcpu);
      return 1;
    case G.GHCB_MSR_CPUID_REQ:
      return cpuidByMsr(vcpu, lo, hi);
    case G.GHCB_MSR_HV_FT_REQ: {
      const features = G.GHCB_HV_FT_SNP | G.GHCB_HV_FT_SNP_AP_CREATION;
      vmcbWrite64(svm, V.VMCB_GHCB, (features << 12) | G.GHCB_MSR_HV_FT_RESP, 0);
      return 1;
    }
    case G.GHCB_MSR_PREF_GPA_REQ:
      // None: all ones.
      vmcbWrite64(svm, V.VMCB_GHCB, ~0xfff | G.GHCB_MSR_PREF_GPA_RESP, -1);
      return 1;
    case G.GHCB_MSR_REG_GPA_REQ:
      svm.sev!.ghcbRegisteredGfn = (hi >>> 0) * 0x100000 + (lo >>> 12);
      vmcbWrite64(svm, V.VMCB_GHCB, (lo & ~0xfff) | G.GHCB_MSR_REG_GPA_RESP, hi);
      return 1;
    case G.GHCB_MSR_PSC_REQ:
      return beginPscMsr(vcpu, lo, hi);
    case G.GHCB_MSR_TERM_REQ:
      return terminate(vcpu, lo, hi);
    default:
      // The MSR stays as it is.
      return 1;
  }
}

/** Fields that an event must bring along; null when it is none that KVM knows. */
function required(vcpu: VcpuState, code: number): readonly number[] | null {
  const info1 = vmcbRead(vcpu.svm, V.VMCB_EXIT_INFO_1);
  switch (code) {
    case V.SVM_EXIT_RDTSC:
    case V.SVM_EXIT_INVD:
    case V.SVM_EXIT_RDTSCP:
    case V.SVM_EXIT_WBINVD:
    case V.SVM_EXIT_READ_DR0 + 7:
      return [];
    case V.SVM_EXIT_WRITE_DR0 + 7:
      return [G.GHCB_RAX];
    case V.SVM_EXIT_RDPMC:
      return [G.GHCB_RCX];
    case V.SVM_EXIT_CPUID:
      return vcpu.regs[2 * RAX] === 0xd ? [G.GHCB_RAX, G.GHCB_RCX, G.GHCB_XCR0] : [G.GHCB_RAX, G.GHCB_RCX];
    case V.SVM_EXIT_IOIO:
      if ((info1 & V.SVM_IOIO_STR) !== 0) return [G.GHCB_SW_SCRATCH];
      return (info1 & V.SVM_IOIO_IN) === 0 ? [G.GHCB_RAX] : [];
    case V.SVM_EXIT_MSR:
      return info1 !== 0 ? [G.GHCB_RCX, G.GHCB_RAX, G.GHCB_RDX] : [G.GHCB_RCX];
    case V.SVM_EXIT_VMMCALL:
      return [G.GHCB_RAX, G.GHCB_CPL];
    case V.SVM_EXIT_MONITOR:
      return [G.GHCB_RAX, G.GHCB_RCX, G.GHCB_RDX];
    case V.SVM_EXIT_MWAIT:
      return [G.GHCB_RAX, G.GHCB_RCX];
    case G.SVM_VMGEXIT_MMIO_READ:
    case G.SVM_VMGEXIT_MMIO_WRITE:
    case G.SVM_VMGEXIT_PSC:
      return [G.GHCB_SW_SCRATCH];
    case G.SVM_VMGEXIT_AP_CREATION:
      return info1 !== G.SVM_VMGEXIT_AP_DESTROY ? [G.GHCB_RAX] : [];
    case G.SVM_VMGEXIT_NMI_COMPLETE:
    case G.SVM_VMGEXIT_AP_JUMP_TABLE:
    case G.SVM_VMGEXIT_UNSUPPORTED_EVENT:
    case G.SVM_VMGEXIT_HV_FEATURES:
    case G.SVM_VMGEXIT_TERM_REQUEST:
      return [];
    default:
      return null;
  }
}

/** 0 when the event is well formed, else GHCB_ERR_*. @kvm sev.c sev_es_validate_vmgexit */
function validate(vcpu: VcpuState, code: number): number {
  const es = vcpu.svm.sev!;
  if (vcpu.vm.memory.i32[(es.ghcb + G.GHCB_USAGE) >>> 2] !== 0) return G.GHCB_ERR_INVALID_USAGE;
  const always = [G.GHCB_SW_EXIT_CODE, G.GHCB_SW_EXIT_INFO_1, G.GHCB_SW_EXIT_INFO_2];
  if (always.some((field) => !ghcbValid(vcpu, field))) return G.GHCB_ERR_MISSING_INPUT;
  const fields = vmcbRead(vcpu.svm, V.VMCB_EXIT_CODE + 4) === 0 ? required(vcpu, code) : null;
  if (fields === null) return G.GHCB_ERR_INVALID_EVENT;
  return fields.some((field) => !ghcbValid(vcpu, field)) ? G.GHCB_ERR_MISSING_INPUT : 0;
}

/** The rest of an MMIO access that userspace had to do. @kvm x86.c complete_sev_es_emulated_mmio */
function completeMmio(vcpu: VcpuState): number {
  if (!nextMmioPiece(vcpu)) {
    vcpu.x86.mmioNrFragments = 0;
    return 1;
  }
  vcpu.x86.completeUserspaceIo = completeMmio;
  return 0;
}

/** MMIO of up to eight bytes through the scratch area. @kvm x86.c kvm_sev_es_mmio_read, kvm_sev_es_mmio_write */
function mmio(vcpu: VcpuState, write: boolean): number {
  const { svm } = vcpu;
  const gpa = numberOf(vmcbRead(svm, V.VMCB_EXIT_INFO_1), vmcbRead(svm, V.VMCB_EXIT_INFO_1 + 4));
  const bytes = vmcbRead(svm, V.VMCB_EXIT_INFO_2);
  if ((bytes | vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4)) === 0) return 1;
  if (bytes >>> 0 > 8 || vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4) !== 0) {
    refuseEvent(vcpu, G.GHCB_ERR_INVALID_INPUT);
    return 1;
  }
  if (!setupScratch(vcpu, bytes)) return 1;
  const { u8 } = vcpu.vm.memory;
  const at = svm.sev!.scratchAt;
  const handled = write ? vcpuMmioWrite(vcpu, gpa, bytes, u8, at) : vcpuMmioRead(vcpu, gpa, bytes, u8, at);
  if (handled === bytes) return 1;
  vcpu.x86.mmioNrFragments = 0;
  addMmioFragment(vcpu, gpa + handled, bytes - handled, write, u8, at + handled);
  startMmioExit(vcpu, write);
  vcpu.x86.completeUserspaceIo = completeMmio;
  return 0;
}

/** RDMSR or WRMSR: #GP, when there is one, goes into the GHCB for the guest to raise. @kvm svm.c svm_complete_emulated_msr */
function msr(vcpu: VcpuState): number {
  const r = vmcbRead(vcpu.svm, V.VMCB_EXIT_INFO_1) !== 0 ? emulateWrmsr(vcpu) : emulateRdmsr(vcpu);
  if (!vcpu.x86.exception.pending) return r;
  clearExceptionQueue(vcpu);
  setExitInfo1(vcpu, 1, 0);
  setExitInfo2(vcpu, 13 | V.SVM_EVTINJ_TYPE_EXEPT | V.SVM_EVTINJ_VALID, 0);
  return r;
}

/** An event of the GHCB: 1 to go on, 0 to userspace, negative errno. */
function event(vcpu: VcpuState, code: number, other: ExitHandler): number {
  const { svm, vm } = vcpu;
  const info1 = vmcbRead(svm, V.VMCB_EXIT_INFO_1);
  switch (code) {
    case G.SVM_VMGEXIT_MMIO_READ:
      return mmio(vcpu, false);
    case G.SVM_VMGEXIT_MMIO_WRITE:
      return mmio(vcpu, true);
    case G.SVM_VMGEXIT_NMI_COMPLETE:
      vcpu.stats.nmi_window_exits++;
      svm.nmiMasked = false;
      makeRequest(vcpu, REQ_EVENT);
      return 1;
    case G.SVM_VMGEXIT_AP_JUMP_TABLE:
      if (info1 === 0) {
        vm.sev!.apJumpTableLo = vmcbRead(svm, V.VMCB_EXIT_INFO_2);
        vm.sev!.apJumpTableHi = vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4);
      } else if (info1 === 1) setExitInfo2(vcpu, vm.sev!.apJumpTableLo, vm.sev!.apJumpTableHi);
      else refuseEvent(vcpu, G.GHCB_ERR_INVALID_INPUT);
      return 1;
    case G.SVM_VMGEXIT_HV_FEATURES:
      setExitInfo2(vcpu, G.GHCB_HV_FT_SNP | G.GHCB_HV_FT_SNP_AP_CREATION, 0);
      return 1;
    case G.SVM_VMGEXIT_TERM_REQUEST:
      return terminate(vcpu, vmcbRead(svm, V.VMCB_GHCB), vmcbRead(svm, V.VMCB_GHCB + 4));
    case G.SVM_VMGEXIT_PSC:
      return setupScratch(vcpu, 8) ? beginPsc(vcpu) : 1;
    case G.SVM_VMGEXIT_AP_CREATION:
      if (sevSnpApCreation(vcpu) !== 0) refuseEvent(vcpu, G.GHCB_ERR_INVALID_INPUT);
      return 1;
    case G.SVM_VMGEXIT_UNSUPPORTED_EVENT:
      vm.log.prWarnRatelimited(
        'sev_handle_vmgexit',
        `vmgexit: unsupported event - exit_info_1=0x${info1.toString(16)}`,
      );
      return -EINVAL;
    case V.SVM_EXIT_MSR:
      return msr(vcpu);
    case V.SVM_EXIT_IOIO:
      if ((info1 & V.SVM_IOIO_STR) !== 0) {
        vm.log.prWarnRatelimited('sev_es_string_io', 'vmgexit: string I/O is not supported');
        return -EINVAL;
      }
      return ((info1 >> V.SVM_IOIO_SIZE_SHIFT) & 7) === 0 ? 1 : other(vcpu, code);
    default:
      return other(vcpu, code);
  }
}

/**
 * @returns 1 to go on, 0 to userspace, -EINVAL: the GHCB is not registered, or the event is one of those that end a guest
 * @kvm sev.c sev_handle_vmgexit
 * @partial string I/O, guest requests to the firmware and AP reset hold end in an error
 */
export function sevHandleVmgexit(vcpu: VcpuState, other: ExitHandler): number {
  const { svm, vm } = vcpu;
  const lo = vmcbRead(svm, V.VMCB_GHCB);
  const hi = vmcbRead(svm, V.VMCB_GHCB + 4);
  const word = (): string => `0x${numberOf(lo, hi).toString(16)}`;
  if ((lo & 0xfff) !== 0) {
    const { trace } = vm;
    if (trace.enabled) trace.emit('kvm_vmgexit_msr_protocol_enter', { text: `vcpu ${vcpu.id}, ghcb_gpa ${word()}` });
    const r = msrProtocol(vcpu, lo, hi);
    if (trace.enabled) trace.emit('kvm_vmgexit_msr_protocol_exit', { text: `vcpu ${vcpu.id}, result ${r}` });
    return r;
  }
  const gfn = (hi >>> 0) * 0x100000 + (lo >>> 12);
  if (gfn === 0 || !mapGhcb(vcpu, gfn)) {
    vm.log.prWarnRatelimited('sev_handle_vmgexit', `vmgexit: error mapping GHCB [${word()}] from guest`);
    return 1;
  }
  syncFromGhcb(vcpu);
  const code = vmcbRead(svm, V.VMCB_EXIT_CODE);
  if (vm.trace.enabled) {
    vm.trace.emit('kvm_vmgexit_enter', { text: `vcpu ${vcpu.id}, exit_reason 0x${(code >>> 0).toString(16)}` });
  }
  if (svm.sev!.ghcbRegisteredGfn !== gfn) {
    vm.log.prWarnRatelimited('sev_handle_vmgexit', `vmgexit: GHCB GPA [${word()}] is not registered.`);
    return -EINVAL;
  }
  const reason = validate(vcpu, code);
  if (reason !== 0) {
    const why = reason === G.GHCB_ERR_MISSING_INPUT ? 'input is not valid' : 'is not valid';
    vm.log.prWarnRatelimited('sev_es_validate_vmgexit', `vmgexit: exit code 0x${(code >>> 0).toString(16)} ${why}`);
    refuseEvent(vcpu, reason);
    return 1;
  }
  setExitInfo1(vcpu, 0, 0);
  setExitInfo2(vcpu, 0, 0);
  return event(vcpu, code, other);
}
