/** Where nested and intercepted page faults enter the MMU (@kvm mmu.c kvm_mmu_page_fault). */
import {
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_RSVD,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { RIP } from '../../arch/registers.ts';
import { EFAULT, EIO } from '../../host/errno.ts';
import { memIsPrivate } from '../attributes.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_X86_SW_PROTECTED_VM } from '../vm-type.ts';
import { EMULTYPE_ALLOW_RETRY_PF, EMULTYPE_PF } from '../x86/emul-type.ts';
import { emulateInstruction } from '../x86/emulate-instruction.ts';
import { mmuDoPageFault } from './do-page-fault.ts';
import { gpaHalvesToGfn } from './gpa.ts';
import { handleMmioPageFault, mmioInfoInCache } from './mmio-page-fault.ts';
import { INVALID_ROOT } from './mmu-context.ts';
import { mmuUnprotectGfnAndRetry } from './page-track.ts';
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

export { mmuDoPageFault } from './do-page-fault.ts';

/** The processor wrote a page table of the guest while it walked (@kvm mmu.c is_write_to_guest_page_table). */
function isWriteToGuestPageTable(errorLo: number, errorHi: number): boolean {
  const mask = PFERR_WRITE | PFERR_PRESENT;
  return (errorLo & mask) === mask && (errorHi & PFERR_GUEST_PAGE_HI) !== 0;
}

/** What to do about a write to a write-protected page (@kvm mmu.c kvm_mmu_write_protect_fault): retry, or emulate with `emulType`. */
function writeProtectFault(vcpu: VcpuState, addrLo: number, addrHi: number, errorLo: number, errorHi: number): number {
  const x86 = vcpu.x86;
  const sameRip = x86.lastRetryEipLo === vcpu.regs[2 * RIP] && x86.lastRetryEipHi === vcpu.regs[2 * RIP + 1];
  if (sameRip && x86.lastRetryAddrLo === addrLo && x86.lastRetryAddrHi === addrHi) return RET_PF_EMULATE;
  x86.lastRetryEipLo = 0;
  x86.lastRetryEipHi = 0;
  x86.lastRetryAddrLo = 0;
  x86.lastRetryAddrHi = 0;
  const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
  const cached = mmioInfoInCache(vcpu, addrLo, addrHi, direct);
  if (vcpu.vm.log.warnOnOnce(cached, 'kvm_mmu_write_protect_fault', 'a write-protected page is in the MMIO cache')) {
    return RET_PF_EMULATE;
  }
  if (direct && isWriteToGuestPageTable(errorLo, errorHi) && mmuUnprotectGfnAndRetry(vcpu, addrLo, addrHi))
    return RET_PF_RETRY;
  return RET_PF_EMULATE;
}

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
  mmu.fault.reset(addrLo, addrHi, errorLo, errorHi, false, vcpu.vm.revision.rules.faultStartsWithErrors);
  recorder.begin(mmu.fault);
  recorder.stage('reserved-bits', ret, reservedBitReason(ret));
  mmu.faultBegun = ret === RET_PF_INVALID;
  if (!mmu.faultBegun) recorder.end(mmu.fault, ret);
}

function reservedBitReason(ret: number): string {
  if (ret === RET_PF_EMULATE) return 'an MMIO entry, or the MMIO cache, has the address: emulate';
  if (ret === RET_PF_INVALID) return 'the MMIO entry is older than the slots';
  if (ret < 0) return 'a private access never is MMIO';
  return 'the entry is not an MMIO entry any more';
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
  if (ret === RET_PF_WRITE_PROTECTED) {
    ret = writeProtectFault(vcpu, addrLo, addrHi, errorLo, codeHi);
    if (ret === RET_PF_EMULATE && !vcpu.guestMode) emulType |= EMULTYPE_ALLOW_RETRY_PF;
  }
  if (ret === RET_PF_FIXED) stats.pf_fixed++;
  else if (ret === RET_PF_EMULATE) stats.pf_emulate++;
  else if (ret === RET_PF_SPURIOUS) stats.pf_spurious++;
  if (ret !== RET_PF_EMULATE) return 1;
  return emulateInstruction(vcpu, addrLo, addrHi, emulType);
}
