/** KVM_GET_REGS and KVM_SET_REGS (@kvm regs.c __get_regs, __set_regs). */
import { hi64, join64, lo64 } from '../../arch/halves.ts';
import { RFLAGS_FIXED, RIP } from '../../arch/registers.ts';
import type { Regs } from '../api/registers.ts';
import { emulatorWritebackRegisterCache } from '../emulate/emulate.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { getRflags, setRflags } from './registers.ts';

/** In the order of their numbers. */
const names = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

function read(vcpu: VcpuState, nr: number): bigint {
  return join64(vcpu.regs[2 * nr]!, vcpu.regs[2 * nr + 1]!);
}

/** @kvm regs.c __get_regs */
export function getRegs(vcpu: VcpuState): Regs {
  const x86 = vcpu.x86;
  if (x86.emulateRegsNeedSyncToVcpu) {
    // An instruction is out in userspace: what it has changed so far shows.
    emulatorWritebackRegisterCache(x86.emulateCtxt!);
    x86.emulateRegsNeedSyncToVcpu = false;
  }
  const regs = { rip: read(vcpu, RIP), rflags: BigInt(getRflags(vcpu) >>> 0) } as Regs;
  for (const [nr, name] of names.entries()) regs[name] = read(vcpu, nr);
  return regs;
}

/** @kvm regs.c __set_regs */
export function setRegs(vcpu: VcpuState, regs: Regs): void {
  const x86 = vcpu.x86;
  x86.emulateRegsNeedSyncFromVcpu = true;
  x86.emulateRegsNeedSyncToVcpu = false;
  for (const [nr, name] of [...names, 'rip' as const].entries()) {
    vcpu.regs[2 * nr] = lo64(regs[name]);
    vcpu.regs[2 * nr + 1] = hi64(regs[name]);
  }
  setRflags(vcpu, lo64(regs.rflags) | RFLAGS_FIXED);
  x86.exception.pending = false;
  x86.exceptionVmexit.pending = false;
  makeRequest(vcpu, REQ_EVENT);
}
