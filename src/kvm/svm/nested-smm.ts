/** SMM while L2 runs: SMRAM remembers the guest mode, the host save area L1's state (@kvm svm.c svm_enter_smm, svm_leave_smm). */
import { hiOf, loOf, numberOf } from '../../arch/halves.ts';
import { EFER_SVME, RAX, RIP, RSP } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_LM, X86_FEATURE_SVM } from '../x86/cpuid-features.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { SMRAM64 } from '../x86/smram.ts';
import { checkControls, checkSave } from './nested-checks.ts';
import { svmAllocateNested } from './nested-memory.ts';
import { copyVmrunState } from './nested-state.ts';
import { nestedSimpleVmexit } from './nested-vmexit.ts';
import { copyControlToCache, copySaveToCache, enterSvmGuestMode } from './nested-vmrun.ts';
import { vmcbWrite64 } from './vmcb-access.ts';
import { mapPage, unmapDirty } from './vmcb12-page.ts';

/** @kvm svm.c svm_enter_smm */
export function svmEnterSmm(vcpu: VcpuState, smram: DataView): number {
  const { svm, regs } = vcpu;
  if (!vcpu.guestMode) return 0;
  // The 32-bit layout has no place for it.
  if (!guestCpuidHas(vcpu, X86_FEATURE_LM)) return 1;
  smram.setUint32(SMRAM64.svmGuestFlag, 1, true);
  smram.setInt32(SMRAM64.svmGuestVmcbGpa, loOf(svm.nested.vmcb12Gpa), true);
  smram.setInt32(SMRAM64.svmGuestVmcbGpa + 4, hiOf(svm.nested.vmcb12Gpa), true);
  vmcbWrite64(svm, V.VMCB_RAX, regs[2 * RAX]!, regs[2 * RAX + 1]!);
  vmcbWrite64(svm, V.VMCB_RSP, regs[2 * RSP]!, regs[2 * RSP + 1]!);
  vmcbWrite64(svm, V.VMCB_RIP, regs[2 * RIP]!, regs[2 * RIP + 1]!);
  const r = nestedSimpleVmexit(vcpu, V.SVM_EXIT_SW);
  if (r !== 0) return r;
  const hsave = numberOf(svm.hsaveLo, svm.hsaveHi);
  const pfn = mapPage(vcpu, hsave);
  if (pfn < 0) return 1;
  copyVmrunState(svm.words, pfn * 1024, svm.words, svm.vmcb01.word);
  unmapDirty(vcpu, hsave, pfn);
  return 0;
}

/** @kvm svm.c svm_leave_smm */
export function svmLeaveSmm(vcpu: VcpuState, smram: DataView): number {
  const { svm } = vcpu;
  const { nested, words } = svm;
  if (!guestCpuidHas(vcpu, X86_FEATURE_LM)) return 0;
  if ((smram.getInt32(SMRAM64.svmGuestFlag, true) | smram.getInt32(SMRAM64.svmGuestFlag + 4, true)) === 0) return 0;
  if (!guestCpuidHas(vcpu, X86_FEATURE_SVM)) return 1;
  if ((smram.getInt32(SMRAM64.efer, true) & EFER_SVME) === 0) return 1;
  const at = SMRAM64.svmGuestVmcbGpa;
  const gpa = numberOf(smram.getInt32(at, true), smram.getInt32(at + 4, true));
  const pfn = mapPage(vcpu, gpa);
  if (pfn < 0) return 1;
  const hsave = numberOf(svm.hsaveLo, svm.hsaveHi);
  const savePfn = mapPage(vcpu, hsave);
  let r = 1;
  if (savePfn >= 0) {
    r = svmAllocateNested(vcpu) ? resume(vcpu, gpa, pfn * 1024, savePfn * 1024) : 1;
    unmapDirty(vcpu, hsave, savePfn);
  }
  unmapDirty(vcpu, gpa, pfn);
  return r;

  function resume(state: VcpuState, vmcb12Gpa: number, vmcb12: number, saved: number): number {
    copyVmrunState(words, svm.vmcb01.word, words, saved);
    copyControlToCache(nested.cached, words, vmcb12);
    copySaveToCache(nested.cached, words, vmcb12);
    if (!checkSave(state, nested.cached) || !checkControls(state, nested.cached)) return 1;
    const entered = enterSvmGuestMode(state, vmcb12Gpa, vmcb12, false);
    if (entered === 0) nested.runPending = true;
    return entered;
  }
}
