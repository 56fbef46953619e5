/** KVM emulates an instruction of L2 that L1 may want (@kvm vmx.c vmx_check_intercept): what KVM does not decide here it does not emulate. */
import { UD_VECTOR } from '../../../arch/exceptions.ts';
import * as C from '../../../arch/vmx-controls.ts';
import type { EmulateCtxt } from '../../emulate/ctxt.ts';
import * as I from '../../emulate/intercepts.ts';
import { X86EMUL_CONTINUE, X86EMUL_PROPAGATE_FAULT, X86EMUL_UNHANDLEABLE } from '../../emulate/ops.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { l1WantsIo } from './reflect.ts';

const DESCRIPTOR_TABLES: ReadonlySet<number> = new Set([
  ...[I.X86_INTERCEPT_LGDT, I.X86_INTERCEPT_LIDT, I.X86_INTERCEPT_LLDT, I.X86_INTERCEPT_LTR],
  ...[I.X86_INTERCEPT_SGDT, I.X86_INTERCEPT_SIDT, I.X86_INTERCEPT_SLDT, I.X86_INTERCEPT_STR],
]);
const IO: ReadonlySet<number> = new Set([
  ...[I.X86_INTERCEPT_IN, I.X86_INTERCEPT_INS, I.X86_INTERCEPT_OUT, I.X86_INTERCEPT_OUTS],
]);

/** X86EMUL_*. @kvm vmx.c vmx_check_intercept */
export function vmxCheckIntercept(vcpu: VcpuState, ctxt: EmulateCtxt, intercept: number): number {
  const v = vcpu.vmx.nested.vmcs12;
  if (IO.has(intercept)) {
    // IN has the port as its source, OUT as its destination; the other operand is the data.
    const input = intercept === I.X86_INTERCEPT_IN || intercept === I.X86_INTERCEPT_INS;
    const port = (input ? ctxt.src : ctxt.dst).i32[0]! & 0xffff;
    const size = (input ? ctxt.dst : ctxt.src).bytes;
    return l1WantsIo(vcpu, v, port, size) ? X86EMUL_UNHANDLEABLE : X86EMUL_CONTINUE;
  }
  if (DESCRIPTOR_TABLES.has(intercept)) {
    return v.has2(C.SECONDARY_EXEC_DESC) ? X86EMUL_UNHANDLEABLE : X86EMUL_CONTINUE;
  }
  if (intercept === I.X86_INTERCEPT_RDPID && !v.has2(C.SECONDARY_EXEC_ENABLE_RDTSCP)) {
    ctxt.exception.vector = UD_VECTOR;
    ctxt.exception.errorCodeValid = false;
    return X86EMUL_PROPAGATE_FAULT;
  }
  if (intercept === I.X86_INTERCEPT_PAUSE && !v.has(C.CPU_BASED_PAUSE_EXITING)) return X86EMUL_CONTINUE;
  return X86EMUL_UNHANDLEABLE;
}
