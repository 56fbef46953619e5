/** Operations on a vCPU's nested state: KVM_GET_NESTED_STATE, KVM_SET_NESTED_STATE. */
import { hex } from '../../arch/halves.ts';
import * as V from '../../arch/vmcb.ts';
import { KvmError, type Vcpu } from '../../kvm/api/index.ts';
import { fromErrno } from './host-objects.ts';
import { attempt, type ScenarioMachine } from './machine.ts';
import { int, type Op } from './scenario.ts';
import type { OpAnswer } from './vm-ops.ts';

const HEADER = 128;
const VMCB_BYTES = 4096;
const E2BIG = 7;

/** The header of the state, and of the VMCB in it what was recorded. */
function stateFields(state: Uint8Array): { [field: string]: unknown } {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  const out: { [field: string]: unknown } = {
    flags: hex(view.getUint16(0, true)),
    format: view.getUint16(2, true),
    size: hex(view.getUint32(4, true)),
    vmcb_pa: hex(view.getBigUint64(8, true)),
  };
  if (state.length < HEADER + VMCB_BYTES) return out;
  const word = (off: number): string => hex(view.getUint32(HEADER + off, true));
  const quad = (off: number): string => hex(view.getBigUint64(HEADER + off, true));
  return {
    ...out,
    asid: word(V.VMCB_ASID),
    tlb_ctl: hex(view.getUint8(HEADER + V.VMCB_TLB_CTL)),
    exit_code: word(V.VMCB_EXIT_CODE),
    np_enable: quad(V.VMCB_NESTED_CTL),
    ncr3: quad(V.VMCB_NESTED_CR3),
    event_inj: word(V.VMCB_EVENT_INJ),
    save_rip: quad(V.VMCB_RIP),
    save_cr3: quad(V.VMCB_CR3),
    save_efer: quad(V.VMCB_EFER),
    save_rax: quad(V.VMCB_RAX),
  };
}

/** KVM_GET_NESTED_STATE with a buffer of the given size. A buffer that is too small still gets the header. */
export function nstate(m: ScenarioMachine, op: Op): OpAnswer {
  const size = op['size'] === undefined ? HEADER + VMCB_BYTES : int(op['size']);
  const vcpu = m.vcpu(op);
  try {
    return { ret: 0, errno: null, out: stateFields(vcpu.getNestedState(size)) };
  } catch (error) {
    if (!(error instanceof KvmError)) throw error;
    if (error.code !== E2BIG) return fromErrno(-error.code);
    return { ...fromErrno(-E2BIG), out: stateFields(vcpu.getNestedState().subarray(0, HEADER)) };
  }
}

/** KVM_STATE_NESTED_FORMAT_SVM outside guest mode, with GIF set. */
function outside(): Uint8Array {
  const state = new Uint8Array(HEADER);
  const view = new DataView(state.buffer);
  view.setUint16(0, 0x100, true);
  view.setUint16(2, 1, true);
  view.setUint32(4, HEADER, true);
  return state;
}

export function leaveNested(m: ScenarioMachine, op: Op): OpAnswer {
  return attempt(() => m.vcpu(op).setNestedState(outside()));
}

/** State and registers out of the vCPU, guest mode left, and everything back in, as a migration does it. */
export function saveRestore(m: ScenarioMachine, op: Op): OpAnswer {
  const vcpu: Vcpu = m.vcpu(op);
  return attempt(() => {
    const state = vcpu.getNestedState().slice();
    const sregs = vcpu.getSregs();
    const regs = vcpu.getRegs();
    vcpu.setNestedState(outside());
    vcpu.setSregs(sregs);
    vcpu.setNestedState(state);
    vcpu.setRegs(regs);
  });
}
