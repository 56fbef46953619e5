/** L1's intercepts of an instruction that KVM emulates for L2 (@kvm svm.c svm_check_intercept). */
import { CR0_MP, CR0_TS } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import type { EmulateCtxt } from '../emulate/ctxt.ts';
import * as I from '../emulate/intercepts.ts';
import { X86EMUL_CONTINUE, X86EMUL_INTERCEPTED } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { NESTED_EXIT_DONE, nestedExitHandled } from './nested-exits.ts';
import { vmcb12IsIntercept, vmcbWrite64 } from './vmcb-access.ts';

const PRE = I.X86_ICPT_PRE_EXCEPT;
const POST = I.X86_ICPT_POST_EXCEPT;
const MEM = I.X86_ICPT_POST_MEMACCESS;

/** Exit code and stage of each. @kvm svm.c x86_intercept_map */
const map = new Map<number, readonly [number, number]>([
  [I.X86_INTERCEPT_CR_READ, [V.SVM_EXIT_READ_CR0, POST]],
  [I.X86_INTERCEPT_CR_WRITE, [V.SVM_EXIT_WRITE_CR0, POST]],
  [I.X86_INTERCEPT_CLTS, [V.SVM_EXIT_WRITE_CR0, POST]],
  [I.X86_INTERCEPT_LMSW, [V.SVM_EXIT_WRITE_CR0, POST]],
  [I.X86_INTERCEPT_SMSW, [V.SVM_EXIT_READ_CR0, POST]],
  [I.X86_INTERCEPT_DR_READ, [V.SVM_EXIT_READ_DR0, POST]],
  [I.X86_INTERCEPT_DR_WRITE, [V.SVM_EXIT_WRITE_DR0, POST]],
  [I.X86_INTERCEPT_SLDT, [V.SVM_EXIT_LDTR_READ, POST]],
  [I.X86_INTERCEPT_STR, [V.SVM_EXIT_TR_READ, POST]],
  [I.X86_INTERCEPT_LLDT, [V.SVM_EXIT_LDTR_WRITE, POST]],
  [I.X86_INTERCEPT_LTR, [V.SVM_EXIT_TR_WRITE, POST]],
  [I.X86_INTERCEPT_SGDT, [V.SVM_EXIT_GDTR_READ, POST]],
  [I.X86_INTERCEPT_SIDT, [V.SVM_EXIT_IDTR_READ, POST]],
  [I.X86_INTERCEPT_LGDT, [V.SVM_EXIT_GDTR_WRITE, POST]],
  [I.X86_INTERCEPT_LIDT, [V.SVM_EXIT_IDTR_WRITE, POST]],
  [I.X86_INTERCEPT_VMRUN, [V.SVM_EXIT_VMRUN, POST]],
  [I.X86_INTERCEPT_VMMCALL, [V.SVM_EXIT_VMMCALL, POST]],
  [I.X86_INTERCEPT_VMLOAD, [V.SVM_EXIT_VMLOAD, POST]],
  [I.X86_INTERCEPT_VMSAVE, [V.SVM_EXIT_VMSAVE, POST]],
  [I.X86_INTERCEPT_STGI, [V.SVM_EXIT_STGI, POST]],
  [I.X86_INTERCEPT_CLGI, [V.SVM_EXIT_CLGI, POST]],
  [I.X86_INTERCEPT_SKINIT, [V.SVM_EXIT_SKINIT, POST]],
  [I.X86_INTERCEPT_INVLPGA, [V.SVM_EXIT_INVLPGA, POST]],
  [I.X86_INTERCEPT_RDTSCP, [V.SVM_EXIT_RDTSCP, POST]],
  [I.X86_INTERCEPT_MONITOR, [V.SVM_EXIT_MONITOR, MEM]],
  [I.X86_INTERCEPT_MWAIT, [V.SVM_EXIT_MWAIT, POST]],
  [I.X86_INTERCEPT_INVLPG, [V.SVM_EXIT_INVLPG, POST]],
  [I.X86_INTERCEPT_INVD, [V.SVM_EXIT_INVD, POST]],
  [I.X86_INTERCEPT_WBINVD, [V.SVM_EXIT_WBINVD, POST]],
  [I.X86_INTERCEPT_WRMSR, [V.SVM_EXIT_MSR, POST]],
  [I.X86_INTERCEPT_RDTSC, [V.SVM_EXIT_RDTSC, POST]],
  [I.X86_INTERCEPT_RDMSR, [V.SVM_EXIT_MSR, POST]],
  [I.X86_INTERCEPT_RDPMC, [V.SVM_EXIT_RDPMC, POST]],
  [I.X86_INTERCEPT_CPUID, [V.SVM_EXIT_CPUID, PRE]],
  [I.X86_INTERCEPT_RSM, [V.SVM_EXIT_RSM, PRE]],
  [I.X86_INTERCEPT_PAUSE, [V.SVM_EXIT_PAUSE, PRE]],
  [I.X86_INTERCEPT_PUSHF, [V.SVM_EXIT_PUSHF, PRE]],
  [I.X86_INTERCEPT_POPF, [V.SVM_EXIT_POPF, PRE]],
  [I.X86_INTERCEPT_INTN, [V.SVM_EXIT_SWINT, PRE]],
  [I.X86_INTERCEPT_IRET, [V.SVM_EXIT_IRET, PRE]],
  [I.X86_INTERCEPT_ICEBP, [V.SVM_EXIT_ICEBP, PRE]],
  [I.X86_INTERCEPT_HLT, [V.SVM_EXIT_HLT, POST]],
  [I.X86_INTERCEPT_IN, [V.SVM_EXIT_IOIO, POST]],
  [I.X86_INTERCEPT_INS, [V.SVM_EXIT_IOIO, POST]],
  [I.X86_INTERCEPT_OUT, [V.SVM_EXIT_IOIO, POST]],
  [I.X86_INTERCEPT_OUTS, [V.SVM_EXIT_IOIO, POST]],
  [I.X86_INTERCEPT_XSETBV, [V.SVM_EXIT_XSETBV, PRE]],
]);

const REPE_PREFIX = 0xf3;
/** Bits of CR0 whose change is not selective. */
const NOT_SELECTIVE = CR0_TS | CR0_MP;

/** A write of CR0 may be a selective one. */
function cr0WriteCode(vcpu: VcpuState, ctxt: EmulateCtxt, intercept: number): number {
  const { svm } = vcpu;
  const all = vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_CR, V.INTERCEPT_CR0_WRITE);
  const selective = vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_SELECTIVE_CR0);
  if (all || !selective || intercept === I.X86_INTERCEPT_CLTS) return V.SVM_EXIT_WRITE_CR0;
  if (intercept === I.X86_INTERCEPT_LMSW) return V.SVM_EXIT_CR0_SEL_WRITE;
  const changed = ((vcpu.cr0 ^ ctxt.src.i32[0]!) & ~NOT_SELECTIVE) | ctxt.src.i32[1]!;
  return changed !== 0 ? V.SVM_EXIT_CR0_SEL_WRITE : V.SVM_EXIT_WRITE_CR0;
}

/** EXITINFO of an IOIO exit, as hardware would have made it. */
function putIoInfo(vcpu: VcpuState, ctxt: EmulateCtxt, intercept: number): void {
  const isIn = intercept === I.X86_INTERCEPT_IN || intercept === I.X86_INTERCEPT_INS;
  const isString = intercept === I.X86_INTERCEPT_OUTS || intercept === I.X86_INTERCEPT_INS;
  const port = (isIn ? ctxt.src : ctxt.dst).i32[0]! & 0xffff;
  const bytes = Math.min((isIn ? ctxt.dst : ctxt.src).bytes, 4);
  let info = (port << V.SVM_IOIO_PORT_SHIFT) | (isIn ? V.SVM_IOIO_IN : 0);
  if (isString) info |= V.SVM_IOIO_STR;
  if (ctxt.repPrefix !== 0) info |= V.SVM_IOIO_REP;
  info |= (bytes << V.SVM_IOIO_SIZE_SHIFT) | (ctxt.adBytes << (V.SVM_IOIO_ASIZE_SHIFT - 1));
  vmcbWrite64(vcpu.svm, V.VMCB_EXIT_INFO_1, info, 0);
  vmcbWrite64(vcpu.svm, V.VMCB_EXIT_INFO_2, ctxt.nextEipLo, ctxt.nextEipHi);
}

/** @kvm svm.c svm_check_intercept */
export function svmCheckIntercept(vcpu: VcpuState, ctxt: EmulateCtxt, intercept: number, stage: number): number {
  const known = map.get(intercept);
  if (known === undefined || known[1] !== stage) return X86EMUL_CONTINUE;
  const { svm } = vcpu;
  let code = known[0];
  switch (code) {
    case V.SVM_EXIT_READ_CR0:
      if (intercept === I.X86_INTERCEPT_CR_READ) code += ctxt.modrmReg;
      break;
    case V.SVM_EXIT_WRITE_CR0:
      if (intercept === I.X86_INTERCEPT_CR_WRITE && ctxt.modrmReg !== 0) code += ctxt.modrmReg;
      else code = cr0WriteCode(vcpu, ctxt, intercept);
      break;
    case V.SVM_EXIT_READ_DR0:
    case V.SVM_EXIT_WRITE_DR0:
      code += ctxt.modrmReg;
      break;
    case V.SVM_EXIT_MSR:
      vmcbWrite64(svm, V.VMCB_EXIT_INFO_1, intercept === I.X86_INTERCEPT_WRMSR ? 1 : 0, 0);
      break;
    case V.SVM_EXIT_PAUSE:
      // NOP without its prefix.
      if (ctxt.repPrefix !== REPE_PREFIX) return X86EMUL_CONTINUE;
      break;
    case V.SVM_EXIT_IOIO:
      putIoInfo(vcpu, ctxt, intercept);
      break;
    default:
      break;
  }
  if (vcpu.vm.profile.nrips) vmcbWrite64(svm, V.VMCB_NEXT_RIP, ctxt.nextEipLo, ctxt.nextEipHi);
  vmcbWrite64(svm, V.VMCB_EXIT_CODE, code, 0);
  return nestedExitHandled(vcpu) === NESTED_EXIT_DONE ? X86EMUL_INTERCEPTED : X86EMUL_CONTINUE;
}
