/** KVM_PRE_FAULT_MEMORY, page by page (@kvm mmu.c kvm_arch_vcpu_pre_fault_memory, kvm_tdp_map_page). */
import { PFERR_GUEST_FINAL_HI, PFERR_PRIVATE_ACCESS_HI } from '../../arch/error-code.ts';
import { hiOf, loOf } from '../../arch/halves.ts';
import { EINTR, EINVAL, EIO, ENOENT, EOPNOTSUPP } from '../../host/errno.ts';
import { memIsPrivate } from '../attributes.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { mmuDoPageFault } from './do-page-fault.ts';
import { gpaToGfn } from './gpa.ts';
import { RET_PF_EMULATE, RET_PF_FIXED, RET_PF_RETRY, RET_PF_SPURIOUS, RET_PF_WRITE_PROTECTED } from './ret-pf.ts';
import { ROLE_DIRECT } from './role.ts';
import { mmuReload } from './roots.ts';
import { gfnRoundForLevel, pagesPerLevel } from './tdp-iter.ts';

/**
 * Nothing else runs while this loop does, so a retry that came back so often comes back for ever: a root that went stale before the call
 * is not replaced here, and only a signal ends the call.
 */
const RETRIES = 64;

/**
 * 0, or -EINTR, -ENOENT (MMIO), -EIO, or the fault's own errno. The fault object then has the level that was mapped.
 * @kvm mmu.c kvm_tdp_map_page
 */
export function tdpMapPage(vcpu: VcpuState, gpa: number, errorHi: number): number {
  if (!vcpu.vm.vendor.tdpEnabled || (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) === 0) return -EOPNOTSUPP;
  let r: number;
  let retries = 0;
  do {
    if (vcpu.signalPending || retries++ === RETRIES) return -EINTR;
    r = mmuDoPageFault(vcpu, loOf(gpa), hiOf(gpa), 0, errorHi, true);
  } while (r === RET_PF_RETRY);
  if (r < 0) return r;
  if (r === RET_PF_FIXED || r === RET_PF_SPURIOUS || r === RET_PF_WRITE_PROTECTED) return 0;
  if (r === RET_PF_EMULATE) return -ENOENT;
  vcpu.vm.log.warnOnOnce(true, 'kvm_tdp_map_page', 'could not fix page fault during prefault');
  return -EIO;
}

/**
 * Maps what is at `gpa` as a read would.
 * @param size bytes wanted
 * @returns bytes from gpa to the end of what was mapped, at most `size`; or a negative errno
 * @kvm mmu.c kvm_arch_vcpu_pre_fault_memory
 */
export function preFaultMemory(vcpu: VcpuState, gpa: number, size: number): number {
  // An ioctl that KVM does not know.
  if (!vcpu.vm.revision.rules.hasPreFault) return -EINVAL;
  const r = mmuReload(vcpu);
  if (r !== 0) return r;
  const vm = vcpu.vm;
  const isPrivate = memIsPrivate(vm, gpaToGfn(gpa));
  const ret = tdpMapPage(vcpu, gpa, PFERR_GUEST_FINAL_HI | (isPrivate ? PFERR_PRIVATE_ACCESS_HI : 0));
  if (ret < 0) return ret;
  const level = vcpu.mmu.fault.goalLevel;
  const end = (gfnRoundForLevel(gpaToGfn(gpa), level) + pagesPerLevel(level)) * 4096;
  return Math.min(size, end - gpa);
}
