/** The operands of VMX instructions and of INVPCID, from what the exit says of them (@kvm nested.c get_vmx_mem_address). */
import { GP_VECTOR, SS_VECTOR, UD_VECTOR } from '../../../arch/exceptions.ts';
import { FS, GS, SS } from '../../../arch/registers.ts';
import { VMCS_EXIT_QUALIFICATION, VMCS_VMX_INSTRUCTION_INFO } from '../../../arch/vmcs.ts';
import { emptySegment } from '../../emulate/ctxt.ts';
import { X86EMUL_CONTINUE, X86EMUL_PROPAGATE_FAULT, X86Exception } from '../../emulate/ops.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { handleEmulationFailure } from '../../x86/emulation-failure.ts';
import { injectEmulatedPageFault, queueException, queueExceptionE } from '../../x86/exceptions.ts';
import { readStd, writeStd } from '../../x86/guest-access.ts';
import { is64BitMode, isLongMode } from '../../x86/registers.ts';
import { vmxGetSegment } from '../segments.ts';
import { vmcsRead, vmcsReadHi } from '../vmcs-access.ts';
import { isNoncanonical } from './consistency-checks.ts';

const segment = emptySegment();
const fault = new X86Exception();
/** Where the last operand lies, halves. */
const address = new Int32Array(2);

/** Instruction information of the exit. */
export function instructionInfo(vcpu: VcpuState): number {
  return vmcsRead(vcpu.vmx, VMCS_VMX_INSTRUCTION_INFO);
}

/** Number of the second register operand. @kvm vmx.h vmx_get_instr_info_reg2 */
export function instructionReg2(info: number): number {
  return (info >>> 28) & 15;
}

/** The operand is a register, its number in `instructionReg1`. */
export function operandIsRegister(info: number): boolean {
  return (info & (1 << 10)) !== 0;
}

export function instructionReg1(info: number): number {
  return (info >>> 3) & 15;
}

/** Low half of a general register, as `registerHi` the high one, which only 64-bit code has. @kvm x86.h kvm_register_read */
export function registerLo(vcpu: VcpuState, nr: number): number {
  return vcpu.regs[2 * nr]!;
}

export function registerHi(vcpu: VcpuState, nr: number): number {
  return is64BitMode(vcpu) ? vcpu.regs[2 * nr + 1]! : 0;
}

/** Adds `value << shift` to the address. */
function add(lo: number, hi: number, shift: number): void {
  const addLo = lo << shift;
  const addHi = shift === 0 ? hi : (hi << shift) | (lo >>> (32 - shift));
  const low = (address[0]! >>> 0) + (addLo >>> 0);
  address[1] = address[1]! + addHi + (low > 0xffffffff ? 1 : 0);
  address[0] = low;
}

/** Outside long mode: type and limit of the segment. 0, or the vector of the fault. */
function checkProtected(offset: number, write: boolean, length: number, sreg: number): number {
  const code = (segment.type & 8) !== 0;
  const wrongType = write ? (segment.type & 0xa) === 0 || code : (segment.type & 0xa) === 8;
  if (wrongType) return GP_VECTOR;
  let bad = segment.p === 0;
  const flat = segment.baseLo === 0 && segment.limit === 0xffffffff && (code || (segment.type & 4) === 0);
  if (!flat) bad = bad || (offset >>> 0) + length - 1 > segment.limit;
  return bad ? (sreg === SS ? SS_VECTOR : GP_VECTOR) : 0;
}

/** Linear address of the memory operand of `length` bytes, halves until the next call; null when an exception was queued instead. */
export function operandAddress(vcpu: VcpuState, info: number, write: boolean, length: number): Int32Array | null {
  return memoryAddress(vcpu, info, write, length) ? address : null;
}

/** Fills `address`; false when an exception was queued instead. @kvm nested.c get_vmx_mem_address */
function memoryAddress(vcpu: VcpuState, info: number, write: boolean, length: number): boolean {
  if (operandIsRegister(info)) {
    queueException(vcpu, UD_VECTOR);
    return false;
  }
  const size = (info >>> 7) & 7;
  const sreg = (info >>> 15) & 7;
  address[0] = vmcsRead(vcpu.vmx, VMCS_EXIT_QUALIFICATION);
  address[1] = vmcsReadHi(vcpu.vmx, VMCS_EXIT_QUALIFICATION);
  if (size === 0) address[0] = (address[0]! << 16) >> 16;
  if (size !== 2) address[1] = address[0]! >> 31;
  const base = (info >>> 23) & 15;
  const index = (info >>> 18) & 15;
  if ((info & (1 << 27)) === 0) add(registerLo(vcpu, base), registerHi(vcpu, base), 0);
  if ((info & (1 << 22)) === 0) add(registerLo(vcpu, index), registerHi(vcpu, index), info & 3);
  if (size !== 2) address[1] = 0;
  if (size === 0) address[0] = address[0]! & 0xffff;
  vmxGetSegment(vcpu, sreg, segment);
  if (isLongMode(vcpu)) {
    if (sreg === FS || sreg === GS) add(segment.baseLo, segment.baseHi, 0);
    if (!isNoncanonical(vcpu, address[1]!)) return true;
    queueExceptionE(vcpu, sreg === SS ? SS_VECTOR : GP_VECTOR, 0);
    return false;
  }
  const offset = address[0]!;
  address[0] = segment.baseLo + offset;
  address[1] = 0;
  const vector = checkProtected(offset, write, length, sreg);
  if (vector !== 0) queueExceptionE(vcpu, vector, 0);
  return vector === 0;
}

/** 1 to go on, 0 to userspace. @kvm x86.c kvm_handle_memory_failure */
export function handleMemoryFailure(vcpu: VcpuState, r: number): number {
  if (r === X86EMUL_PROPAGATE_FAULT) {
    injectEmulatedPageFault(vcpu, fault);
    return 1;
  }
  return handleEmulationFailure(vcpu, 0);
}

/** Reads the memory operand: -1 when `bytes` has it, else what the exit handler answers. */
export function readOperand(vcpu: VcpuState, info: number, bytes: Uint8Array): number {
  if (!memoryAddress(vcpu, info, false, bytes.length)) return 1;
  const r = readStd(vcpu, address[0]!, address[1]!, bytes, 0, bytes.length, fault, false);
  return r === X86EMUL_CONTINUE ? -1 : handleMemoryFailure(vcpu, r);
}

/** Writes it, as the system would: the instruction was found to be CPL 0's. */
export function writeOperand(vcpu: VcpuState, info: number, bytes: Uint8Array): number {
  if (!memoryAddress(vcpu, info, true, bytes.length)) return 1;
  const r = writeStd(vcpu, address[0]!, address[1]!, bytes, 0, bytes.length, fault, true);
  return r === X86EMUL_CONTINUE ? -1 : handleMemoryFailure(vcpu, r);
}
