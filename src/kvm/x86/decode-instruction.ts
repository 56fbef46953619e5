/** The emulator's context, and the instruction in it decoded (@kvm x86.c x86_decode_emulated_instruction). */
import { RFLAGS_TF, RFLAGS_VM, RIP } from '../../arch/registers.ts';
import {
  MAX_INSN_BYTES,
  X86EMUL_MODE_PROT16,
  X86EMUL_MODE_PROT32,
  X86EMUL_MODE_PROT64,
  X86EMUL_MODE_REAL,
  X86EMUL_MODE_VM86,
} from '../emulate/ctxt.ts';
import { initDecodeCache, x86DecodeInsn } from '../emulate/emulate.ts';
import type { VcpuState } from '../vcpu-state.ts';
import * as T from './emul-type.ts';
import { getRflags, isLongMode, isProtmode } from './registers.ts';
import { traceEmulateInsn } from './trace-emulate.ts';

/** @kvm x86.c init_emulate_ctxt */
export function initEmulateCtxt(vcpu: VcpuState): void {
  const ctxt = vcpu.x86.emulateCtxt!;
  const vendor = vcpu.vm.vendor;
  ctxt.gpaAvailable = false;
  ctxt.eflags = getRflags(vcpu);
  ctxt.tf = (ctxt.eflags & RFLAGS_TF) !== 0;
  ctxt.eipLo = vcpu.regs[2 * RIP]!;
  ctxt.eipHi = vcpu.regs[2 * RIP + 1]!;
  if (!isProtmode(vcpu)) ctxt.mode = X86EMUL_MODE_REAL;
  else if ((ctxt.eflags & RFLAGS_VM) !== 0) ctxt.mode = X86EMUL_MODE_VM86;
  else if (vendor.csL(vcpu) && isLongMode(vcpu)) ctxt.mode = X86EMUL_MODE_PROT64;
  else ctxt.mode = vendor.csDb(vcpu) ? X86EMUL_MODE_PROT32 : X86EMUL_MODE_PROT16;
  ctxt.interruptibility = 0;
  ctxt.haveException = false;
  ctxt.exception.vector = -1;
  ctxt.permOk = false;
  initDecodeCache(ctxt);
  vcpu.x86.emulateRegsNeedSyncFromVcpu = false;
}

/**
 * EMULATION_OK or EMULATION_FAILED; `bytes` is the instruction when it is known without fetching it. @kvm x86.c
 * x86_decode_emulated_instruction
 */
export function decodeEmulatedInstruction(vcpu: VcpuState, emulType: number, bytes: Uint8Array | null): number {
  const ctxt = vcpu.x86.emulateCtxt!;
  initEmulateCtxt(vcpu);
  // The exit delivered the bytes only of the instruction that faulted.
  const length = (emulType & T.EMULTYPE_PF) !== 0 ? Math.min(vcpu.vm.vendor.exitInsnLength(vcpu), MAX_INSN_BYTES) : 0;
  let r: number;
  if (bytes !== null) {
    r = x86DecodeInsn(ctxt, bytes, bytes.length, emulType);
  } else if (length > 0) {
    const at = vcpu.vm.vendor.exitInsnAddress(vcpu);
    const u8 = vcpu.vm.memory.u8;
    const { data } = ctxt.fetch;
    for (let i = 0; i < length; i++) data[i] = u8[at + i]!;
    r = x86DecodeInsn(ctxt, data, length, emulType);
  } else {
    r = x86DecodeInsn(ctxt, null, 0, emulType);
  }
  traceEmulateInsn(vcpu, false);
  vcpu.stats.insn_emulation++;
  return r;
}
