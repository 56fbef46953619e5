/** VMMCALL and VMCALL of a guest (@kvm x86.c kvm_emulate_hypercall). */
import { hex64 } from '../../arch/flags.ts';
import { RAX, RBX, RCX, RDX, RSI } from '../../arch/registers.ts';
import {
  KVM_EINVAL,
  KVM_ENOSYS,
  KVM_EPERM,
  KVM_HC_KICK_CPU,
  KVM_HC_MAP_GPA_RANGE,
  KVM_HC_SCHED_YIELD,
  KVM_HC_SEND_IPI,
  KVM_HC_VAPIC_POLL_IRQ,
} from '../kvm-para.ts';
import { KVM_EXIT_HYPERCALL } from '../kvm-run.ts';
import { gpaHalvesToGfn } from '../mmu/gpa.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { KVM_FEATURE_PV_SCHED_YIELD, KVM_FEATURE_PV_SEND_IPI, KVM_FEATURE_PV_UNHALT } from './cpuid-features.ts';
import { guestPvHas } from './guest-cpuid.ts';
import { pvSendIpi } from './lapic-delivery.ts';
import { is64BitMode, registerWrite } from './registers.ts';
import { skipEmulatedInstruction } from './skip.ts';

const KVM_EXIT_HYPERCALL_LONG_MODE = 1;

/** @kvm x86.h is_64_bit_hypercall */
function is64BitHypercall(vcpu: VcpuState): boolean {
  return is64BitMode(vcpu);
}

/** @kvm x86.c complete_hypercall_exit */
function completeHypercallExit(vcpu: VcpuState): number {
  const { retLo, retHi } = vcpu.run.hypercall;
  registerWrite(vcpu, RAX, retLo, is64BitHypercall(vcpu) ? retHi : 0);
  vcpu.stats.hypercalls++;
  return skipEmulatedInstruction(vcpu);
}

function arg(vcpu: VcpuState, reg: number, wide: boolean): { lo: number; hi: number } {
  return { lo: vcpu.regs[2 * reg]!, hi: wide ? vcpu.regs[2 * reg + 1]! : 0 };
}

/** Asks userspace to convert memory; a negative KVM errno, or 0 when the exit is prepared. */
function mapGpaRange(vcpu: VcpuState, wide: boolean): number {
  if ((vcpu.vm.x86.hypercallExitEnabled & (1 << KVM_HC_MAP_GPA_RANGE)) === 0) return -KVM_ENOSYS;
  const gpa = arg(vcpu, RBX, wide);
  const npages = arg(vcpu, RCX, wide);
  const attrs = arg(vcpu, RDX, wide);
  const gfn = gpaHalvesToGfn(gpa.lo, gpa.hi);
  const count = (npages.hi >>> 0) * 0x1_0000_0000 + (npages.lo >>> 0);
  if ((gpa.lo & 0xfff) !== 0 || count === 0 || gfn + count >= 0x1_0000_0000_0000_0000) return -KVM_EINVAL;
  const run = vcpu.run;
  run.exitReason = KVM_EXIT_HYPERCALL;
  run.hypercall.nr = KVM_HC_MAP_GPA_RANGE;
  run.hypercall.setArg(0, gpa.lo, gpa.hi);
  run.hypercall.setArg(1, npages.lo, npages.hi);
  run.hypercall.setArg(2, attrs.lo, attrs.hi);
  run.hypercall.flags = wide ? KVM_EXIT_HYPERCALL_LONG_MODE : 0;
  vcpu.x86.completeUserspaceIo = completeHypercallExit;
  return 0;
}

/** Bitmap in two registers, the APIC id of its first bit, and what would go into ICR. */
function sendIpi(vcpu: VcpuState, wide: boolean): number {
  const [low, high] = [arg(vcpu, RBX, wide), arg(vcpu, RCX, wide)];
  const bitmap = wide ? [low.lo, low.hi, high.lo, high.hi] : [low.lo, high.lo];
  return pvSendIpi(vcpu, bitmap, arg(vcpu, RDX, wide).lo >>> 0, arg(vcpu, RSI, wide).lo);
}

/** The vCPU with that APIC id is woken from its halt. @kvm x86.c kvm_pv_kick_cpu_op */
function kickCpu(vcpu: VcpuState, apicId: number): void {
  const target = vcpu.vm.vcpus.find((other) => other.id === apicId);
  if (target === undefined || target.x86.lapic === null) return;
  target.x86.pvUnhalted = true;
  makeRequest(target, REQ_EVENT);
  if (vcpu.handsOver) vcpu.signal = true;
}

/** 1 to go on, 0 when userspace has to answer. @kvm x86.c kvm_emulate_hypercall */
export function emulateHypercall(vcpu: VcpuState): number {
  const wide = is64BitHypercall(vcpu);
  const nr = arg(vcpu, RAX, wide);
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const text = ['nr', 'a0', 'a1', 'a2', 'a3']
      .map((name, i) => {
        const value = arg(vcpu, [RAX, RBX, RCX, RDX, RSI][i]!, true);
        return `${name} ${hex64(value.lo, value.hi)}`;
      })
      .join(' ');
    trace.emit('kvm_hypercall', { text });
  }
  let ret = -KVM_ENOSYS;
  const number = nr.hi === 0 ? nr.lo : -1;
  if (vcpu.vm.vendor.getCpl(vcpu) !== 0) {
    ret = -KVM_EPERM;
  } else if (number === KVM_HC_VAPIC_POLL_IRQ) {
    ret = 0;
  } else if (number === KVM_HC_KICK_CPU) {
    if (guestPvHas(vcpu, KVM_FEATURE_PV_UNHALT)) {
      kickCpu(vcpu, arg(vcpu, RCX, wide).lo >>> 0);
      ret = 0;
    }
  } else if (number === KVM_HC_SEND_IPI) {
    if (guestPvHas(vcpu, KVM_FEATURE_PV_SEND_IPI)) ret = sendIpi(vcpu, wide);
  } else if (number === KVM_HC_SCHED_YIELD) {
    if (guestPvHas(vcpu, KVM_FEATURE_PV_SCHED_YIELD)) {
      if (vcpu.handsOver) vcpu.signal = true;
      ret = 0;
    }
  } else if (number === KVM_HC_MAP_GPA_RANGE) {
    ret = mapGpaRange(vcpu, wide);
    if (ret === 0) return 0;
  }
  vcpu.stats.hypercalls++;
  registerWrite(vcpu, RAX, ret, wide ? ret >> 31 : 0);
  return skipEmulatedInstruction(vcpu);
}
