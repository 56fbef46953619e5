/** Reading and changing a vCPU's registers inside KVM (@kvm kvm_cache_regs.h, regs.c). */
import { CR0_PE, CR0_PG, CR4_PAE, CS, EFER_LMA, RAX, RDX, RFLAGS_TF, RIP } from '../../arch/registers.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { KVM_GUESTDBG_SINGLESTEP } from './guest-debug-bits.ts';

/** @kvm x86.h is_protmode */
export function isProtmode(vcpu: VcpuState): boolean {
  return (vcpu.cr0 & CR0_PE) !== 0;
}

/** @kvm x86.h is_paging */
export function isPaging(vcpu: VcpuState): boolean {
  return (vcpu.cr0 & CR0_PG) !== 0;
}

/** @kvm x86.h is_long_mode */
export function isLongMode(vcpu: VcpuState): boolean {
  return (vcpu.efer & EFER_LMA) !== 0;
}

/** @kvm x86.h is_64_bit_mode. HOT */
export function is64BitMode(vcpu: VcpuState): boolean {
  return (vcpu.efer & EFER_LMA) !== 0 && vcpu.vm.vendor.csL(vcpu);
}

/** @kvm x86.h is_pae */
export function isPae(vcpu: VcpuState): boolean {
  return (vcpu.cr4 & CR4_PAE) !== 0;
}

/** @kvm x86.h is_pae_paging */
export function isPaePaging(vcpu: VcpuState): boolean {
  return !isLongMode(vcpu) && isPae(vcpu) && isPaging(vcpu);
}

/** @kvm kvm_cache_regs.h kvm_rip_write */
export function ripWrite(vcpu: VcpuState, lo: number, hi: number): void {
  vcpu.regs[2 * RIP] = lo;
  vcpu.regs[2 * RIP + 1] = hi;
}

/** Stores a general register. @kvm x86.h kvm_register_write */
export function registerWrite(vcpu: VcpuState, nr: number, lo: number, hi: number): void {
  vcpu.regs[2 * nr] = lo;
  vcpu.regs[2 * nr + 1] = hi;
}

/** EDX:EAX from halves, as RDMSR and CPUID leave them. */
export function writeEdxEax(vcpu: VcpuState, lo: number, hi: number): void {
  registerWrite(vcpu, RAX, lo, 0);
  registerWrite(vcpu, RDX, hi, 0);
}

const base = new Int32Array(2);
const linear = new Int32Array(2);

/** The linear address of the next instruction, halves in the array that comes back. @kvm regs.c kvm_get_linear_rip */
export function getLinearRip(vcpu: VcpuState): Int32Array {
  if (is64BitMode(vcpu)) {
    linear[0] = vcpu.regs[2 * RIP]!;
    linear[1] = vcpu.regs[2 * RIP + 1]!;
  } else {
    vcpu.vm.vendor.getSegmentBase(vcpu, CS, base);
    linear[0] = base[0]! + vcpu.regs[2 * RIP]!;
    linear[1] = 0;
  }
  return linear;
}

/** True when the next instruction is at (lo, hi) plus (addLo, addHi). @kvm regs.c kvm_is_linear_rip */
export function isLinearRip(vcpu: VcpuState, lo: number, hi: number, addLo: number, addHi: number): boolean {
  if ((addLo | addHi) === 0 && is64BitMode(vcpu)) {
    return vcpu.regs[2 * RIP] === lo && vcpu.regs[2 * RIP + 1] === hi;
  }
  const sumLo = (lo + addLo) | 0;
  const carry = sumLo >>> 0 < lo >>> 0 ? 1 : 0;
  const sumHi = (hi + addHi + carry) | 0;
  const at = getLinearRip(vcpu);
  return at[0] === sumLo && at[1] === sumHi;
}

/** RFLAGS as the guest knows them: without the trap flag of KVM_GUESTDBG_SINGLESTEP. @kvm regs.c kvm_get_rflags */
export function getRflags(vcpu: VcpuState): number {
  const rflags = vcpu.vm.vendor.getRflags(vcpu);
  return (vcpu.x86.guestDebug & KVM_GUESTDBG_SINGLESTEP) !== 0 ? rflags & ~RFLAGS_TF : rflags;
}

/** @kvm regs.c __kvm_set_rflags */
export function setRflagsNoEvent(vcpu: VcpuState, value: number): void {
  let rflags = value;
  if (
    (vcpu.x86.guestDebug & KVM_GUESTDBG_SINGLESTEP) !== 0 &&
    isLinearRip(vcpu, vcpu.x86.singlestepRipLo, vcpu.x86.singlestepRipHi, 0, 0)
  ) {
    rflags |= RFLAGS_TF;
  }
  vcpu.vm.vendor.setRflags(vcpu, rflags);
}

/** @kvm regs.c kvm_set_rflags */
export function setRflags(vcpu: VcpuState, value: number): void {
  setRflagsNoEvent(vcpu, value);
  makeRequest(vcpu, REQ_EVENT);
}
