/** SVM's instructions, executed by L1 (@kvm svm.c vmrun_interception, vmload_vmsave_interception, stgi_interception). */
import { GP_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { numberOf } from '../../arch/halves.ts';
import { EFER_SVME, RAX } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import { mmuInvlpg } from '../mmu/invlpg.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { decodeEmulatedInstruction } from '../x86/decode-instruction.ts';
import { EMULTYPE_NO_DECODE, EMULTYPE_VMWARE_GP } from '../x86/emul-type.ts';
import { emulateInstruction } from '../x86/emulate-instruction.ts';
import { injectGp, queueException, queueExceptionE } from '../x86/exceptions.ts';
import { isPaging } from '../x86/registers.ts';
import { skipEmulatedInstruction } from '../x86/skip.ts';
import { svmSetGif } from './gif.ts';
import { nestedSimpleVmexit } from './nested-vmexit.ts';
import { nestedSvmVmrun } from './nested-vmrun.ts';
import { syncSaveArea, touchSaveArea } from './save-area.ts';
import { svmGetCpl } from './segments.ts';
import { vmcbRead } from './vmcb-access.ts';
import { copyField, mapPage, unmapDirty } from './vmcb12-page.ts';

/** False, with the exception queued, where the instruction is not there or not allowed. @kvm nested.c nested_svm_check_permissions */
function permitted(vcpu: VcpuState): boolean {
  if ((vcpu.efer & EFER_SVME) === 0 || !isPaging(vcpu)) {
    queueException(vcpu, UD_VECTOR);
    return false;
  }
  if (svmGetCpl(vcpu) !== 0) {
    injectGp(vcpu, 0);
    return false;
  }
  return true;
}

/** @kvm svm.c vmrun_interception */
function vmrun(vcpu: VcpuState): number {
  return permitted(vcpu) ? nestedSvmVmrun(vcpu) : 1;
}

/** Byte offset and words of what VMLOAD and VMSAVE move. @kvm nested.c svm_copy_vmloadsave_state */
const VMLOAD_STATE: readonly (readonly [number, number])[] = [
  [V.VMCB_FS, 4],
  [V.VMCB_GS, 4],
  [V.VMCB_TR, 4],
  [V.VMCB_LDTR, 4],
  [V.VMCB_KERNEL_GS_BASE, 2],
  [V.VMCB_STAR, 2],
  [V.VMCB_LSTAR, 2],
  [V.VMCB_CSTAR, 2],
  [V.VMCB_SFMASK, 2],
  [V.VMCB_SYSENTER_CS, 2],
  [V.VMCB_SYSENTER_ESP, 2],
  [V.VMCB_SYSENTER_EIP, 2],
];

/** @kvm svm.c vmload_vmsave_interception */
function vmloadVmsave(vcpu: VcpuState, load: boolean): number {
  const { svm } = vcpu;
  if (!permitted(vcpu)) return 1;
  const gpa = numberOf(vmcbRead(svm, V.VMCB_RAX), vmcbRead(svm, V.VMCB_RAX + 4));
  const pfn = mapPage(vcpu, gpa);
  if (pfn < 0) {
    injectGp(vcpu, 0);
    return 1;
  }
  const r = skipEmulatedInstruction(vcpu);
  syncSaveArea(vcpu);
  const vmcb12 = pfn * 1024;
  const vmcb01 = svm.vmcb01.word;
  for (const [off, words] of VMLOAD_STATE) {
    copyField(svm.words, load ? vmcb01 : vmcb12, load ? vmcb12 : vmcb01, off, words);
  }
  if (load) {
    touchSaveArea(vcpu);
    svm.sysenterEipHi = 0;
    svm.sysenterEspHi = 0;
  }
  unmapDirty(vcpu, gpa, pfn);
  return r;
}

/** @kvm svm.c stgi_interception, clgi_interception */
function setGif(vcpu: VcpuState, value: boolean): number {
  if (!permitted(vcpu)) return 1;
  const r = skipEmulatedInstruction(vcpu);
  svmSetGif(vcpu, value);
  return r;
}

/** Treated as INVLPG: L2's translations go anyway at every VMRUN. @kvm svm.c invlpga_interception */
function invlpga(vcpu: VcpuState): number {
  mmuInvlpg(vcpu, vcpu.regs[2 * RAX]!, vcpu.regs[2 * RAX + 1]!);
  return skipEmulatedInstruction(vcpu);
}

/** SVM's instruction of this exit code: 1 to go on, 0 to userspace, negative -errno. @kvm svm.c svm_exit_handlers */
export function svmInstruction(vcpu: VcpuState, code: number): number {
  switch (code) {
    case V.SVM_EXIT_VMRUN:
      return vmrun(vcpu);
    case V.SVM_EXIT_VMLOAD:
      return vmloadVmsave(vcpu, true);
    case V.SVM_EXIT_VMSAVE:
      return vmloadVmsave(vcpu, false);
    case V.SVM_EXIT_STGI:
      return setGif(vcpu, true);
    case V.SVM_EXIT_CLGI:
      return setGif(vcpu, false);
    case V.SVM_EXIT_INVLPGA:
      return invlpga(vcpu);
    default: // SKINIT
      queueException(vcpu, UD_VECTOR);
      return 1;
  }
}

/** Exit code of the VMRUN, VMLOAD or VMSAVE that was decoded, or 0. @kvm svm.c svm_instr_opcode */
function decodedSvmInstruction(vcpu: VcpuState): number {
  const ctxt = vcpu.x86.emulateCtxt!;
  if (ctxt.b !== 1 || ctxt.opcodeLen !== 2) return 0;
  switch (ctxt.modrm) {
    case 0xd8:
      return V.SVM_EXIT_VMRUN;
    case 0xda:
      return V.SVM_EXIT_VMLOAD;
    case 0xdb:
      return V.SVM_EXIT_VMSAVE;
    default:
      return 0;
  }
}

/**
 * #GP is intercepted where a processor raises it too eagerly for VMRUN, VMLOAD and VMSAVE, and for the VMware backdoor.
 * @kvm svm.c gp_interception, emulate_svm_instr
 */
export function gpInterception(vcpu: VcpuState): number {
  const { svm } = vcpu;
  const error = vmcbRead(svm, V.VMCB_EXIT_INFO_1);
  if (error === 0 && decodeEmulatedInstruction(vcpu, 0, null) === 0) {
    const code = decodedSvmInstruction(vcpu);
    if (code === 0) {
      if (vcpu.vm.params.enableVmwareBackdoor && !vcpu.guestMode) {
        return emulateInstruction(vcpu, 0, 0, EMULTYPE_VMWARE_GP | EMULTYPE_NO_DECODE);
      }
    } else if ((vmcbRead(svm, V.VMCB_RAX) & 0xfff) === 0) {
      if (!vcpu.guestMode) return svmInstruction(vcpu, code);
      nestedSimpleVmexit(vcpu, code);
      return 1;
    }
  }
  queueExceptionE(vcpu, GP_VECTOR, error);
  return 1;
}
