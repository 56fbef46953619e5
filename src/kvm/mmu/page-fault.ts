/** Where nested and intercepted page faults enter the MMU (@kvm mmu.c kvm_mmu_page_fault). */
import { PFERR_PRIVATE_ACCESS_HI, PFERR_RSVD } from '../../arch/error-code.ts';
import { EFAULT, EIO } from '../../host/errno.ts';
import { memIsPrivate } from '../attributes.ts';
import type { VcpuStats } from '../stats.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_X86_SW_PROTECTED_VM } from '../vm-type.ts';
import { EMULTYPE_PF, EMULTYPE_WRITE_PF_TO_SP } from '../x86/emul-type.ts';
import { emulateInstruction } from '../x86/emulate-instruction.ts';
import { mmuDoPageFault } from './do-page-fault.ts';
import { gpaHalvesToGfn } from './gpa.ts';
import { handleMmioPageFault } from './mmio-page-fault.ts';
import { INVALID_ROOT } from './mmu-context.ts';
import type { FaultRecorder } from './recorder.ts';
import {
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_INVALID,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
  RET_PF_WRITE_PROTECTED,
} from './ret-pf.ts';
import { ROLE_DIRECT } from './role.ts';
import { dropSyntheticBits } from './synthetic-bits.ts';
import { RETRY_NATIVELY, writeProtectFault } from './write-protect-fault.ts';

export { mmuDoPageFault } from './do-page-fault.ts';

/** Access bits of the error code as the MMU takes them: a software-protected VM's attribute says what is private. HOT */
export function withPrivateAccess(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
): number {
  const vm = vcpu.vm;
  if (vm.type !== KVM_X86_SW_PROTECTED_VM || (errorLo & PFERR_RSVD) !== 0 || !vm.revision.rules.privateInErrorCode) {
    return errorHi;
  }
  return memIsPrivate(vm, gpaHalvesToGfn(addrLo, addrHi)) ? errorHi | PFERR_PRIVATE_ACCESS_HI : errorHi;
}

/** A reserved-bit fault, up to the question whether the ordinary path is needed. RET_PF_INVALID: it is. */
export function reservedBitFault(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
  direct: boolean,
): number {
  const vm = vcpu.vm;
  const rule = vm.revision.rules.privateRsvd;
  let ret: number;
  if ((errorHi & PFERR_PRIVATE_ACCESS_HI) !== 0 && rule !== 'mmio') {
    vm.log.warnOnOnce(true, 'kvm_mmu_page_fault', 'reserved-bit fault on a private access');
    ret = rule === 'fail' ? -EFAULT : RET_PF_INVALID;
  } else {
    ret = handleMmioPageFault(vcpu, addrLo, addrHi, direct);
  }
  if (vm.mmu.recorder !== null) recordReservedBits(vcpu, vm.mmu.recorder, addrLo, addrHi, errorLo, errorHi, ret);
  return ret;
}

/** Tells the recorder; a fault that goes on is left open for its stages. */
function recordReservedBits(
  vcpu: VcpuState,
  recorder: FaultRecorder,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
  ret: number,
): void {
  const { mmu } = vcpu;
  const { rules } = vcpu.vm.revision;
  mmu.fault.reset(addrLo, addrHi, errorLo, errorHi, false, rules.faultStartsWithErrors);
  recorder.begin(mmu.fault);
  recorder.stage('reserved-bits', ret, reservedBitReason(ret, mmu.fault.isPrivate && rules.privateRsvd === 'skip'));
  mmu.faultBegun = ret === RET_PF_INVALID;
  if (!mmu.faultBegun) recorder.end(mmu.fault, ret);
}

function reservedBitReason(ret: number, skipped: boolean): string {
  if (ret === RET_PF_EMULATE) return 'an MMIO entry, or the MMIO cache, has the address: emulate';
  if (skipped) return 'a private access never is MMIO: an ordinary fault';
  if (ret === RET_PF_INVALID) return 'the MMIO entry is older than the slots';
  if (ret < 0) return 'a private access never is MMIO';
  return 'the entry is not an MMIO entry any more';
}

/** How the fault ended, in the statistics. HOT */
function countVerdict(stats: VcpuStats, ret: number): void {
  if (ret === RET_PF_FIXED) stats.pf_fixed++;
  else if (ret === RET_PF_EMULATE) stats.pf_emulate++;
  else if (ret === RET_PF_SPURIOUS) stats.pf_spurious++;
}

/**
 * Handles a page fault of the guest at (addrLo, addrHi): a gpa in a direct MMU.
 * @returns 1 to resume the guest, 0 to go to userspace, or a negative errno
 * HOT
 * @kvm mmu.c kvm_mmu_page_fault
 */
export function mmuPageFault(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
): number {
  const vm = vcpu.vm;
  const mmu = vcpu.mmu.mmu;
  const stats = vcpu.stats;
  let emulType = EMULTYPE_PF;
  const hardwareHi = vm.revision.rules.npfDropsSynthetic
    ? errorHi
    : dropSyntheticBits(vcpu, errorHi, 'kvm_mmu_page_fault');
  if (mmu.root.pfn === INVALID_ROOT) {
    vm.log.warnOnOnce(true, 'kvm_mmu_page_fault', 'no root');
    return RET_PF_RETRY;
  }
  const codeHi = withPrivateAccess(vcpu, addrLo, addrHi, errorLo, hardwareHi);
  let ret = RET_PF_INVALID;
  if ((errorLo & PFERR_RSVD) !== 0) {
    ret = reservedBitFault(vcpu, addrLo, addrHi, errorLo, codeHi, (mmu.rootRole & ROLE_DIRECT) !== 0);
    if (ret === RET_PF_EMULATE) return emulateInstruction(vcpu, addrLo, addrHi, emulType);
  }
  if (ret === RET_PF_INVALID) {
    stats.pf_taken++;
    ret = mmuDoPageFault(vcpu, addrLo, addrHi, errorLo, codeHi, false);
    if (ret === RET_PF_INVALID) {
      vm.log.kvmBugOn(true, 'kvm_mmu_page_fault', 'a fault was left undecided');
      return -EIO;
    }
  }
  if (ret < 0) return ret;
  const { writeProtectedVerdict } = vm.revision.rules;
  if (!writeProtectedVerdict) countVerdict(stats, ret);
  if (ret === (writeProtectedVerdict ? RET_PF_WRITE_PROTECTED : RET_PF_EMULATE)) {
    const type = writeProtectFault(vcpu, addrLo, addrHi, errorLo, codeHi);
    ret = type === RETRY_NATIVELY ? RET_PF_RETRY : RET_PF_EMULATE;
    emulType |= type;
  }
  if (writeProtectedVerdict) countVerdict(stats, ret);
  if (ret !== RET_PF_EMULATE) return 1;
  if (vcpu.mmu.fault.writeFaultToShadowPgtable) emulType |= EMULTYPE_WRITE_PF_TO_SP;
  return emulateInstruction(vcpu, addrLo, addrHi, emulType);
}
