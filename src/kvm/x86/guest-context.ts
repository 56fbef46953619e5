/**
 * What a vCPU has in the processor besides what the control block moves: general, FPU and vector registers, XCR0, PKRU, and the registers
 * of VMLOAD. It stays there until another vCPU comes (@kvm x86.c kvm_load_guest_fpu, kvm_load_guest_xsave_state).
 */
import type { Processor } from '../../cpu/processor.ts';
import { FPU_CW_AT, PKRU_AT, STATE_END, TSC_AUX_AT, XCR0_AT } from '../../cpu/state.ts';
import type { VcpuState } from '../vcpu-state.ts';

const owners = new WeakMap<Processor, VcpuState>();

function save(vcpu: VcpuState): void {
  const { u8, i32 } = vcpu.vm.memory;
  saveRegs(vcpu);
  vcpu.x86.fpu.set(u8.subarray(FPU_CW_AT, STATE_END));
  vcpu.pkru = i32[PKRU_AT >> 2]!;
  vcpu.x86.tscAuxLo = i32[TSC_AUX_AT >> 2]!;
  vcpu.x86.tscAuxHi = i32[(TSC_AUX_AT >> 2) + 1]!;
  vcpu.vm.vendor.putContext(vcpu);
}

function saveRegs(vcpu: VcpuState): void {
  vcpu.ownRegs.set(vcpu.regs);
  vcpu.regs = vcpu.ownRegs;
}

/** @kvm kvm_main.c vcpu_load. HOT while the processor holds the vCPU's registers */
export function loadGuestContext(vcpu: VcpuState): void {
  if (vcpu.regs !== vcpu.vm.processor.regs) {
    const owner = owners.get(vcpu.vm.processor);
    const { u8, i32 } = vcpu.vm.memory;
    if (owner !== undefined) save(owner);
    owners.set(vcpu.vm.processor, vcpu);
    vcpu.vm.processor.regs.set(vcpu.regs);
    vcpu.regs = vcpu.vm.processor.regs;
    u8.set(vcpu.x86.fpu, FPU_CW_AT);
    i32[PKRU_AT >> 2] = vcpu.pkru;
    i32[TSC_AUX_AT >> 2] = vcpu.x86.tscAuxLo;
    i32[(TSC_AUX_AT >> 2) + 1] = vcpu.x86.tscAuxHi;
    vcpu.x86.xcr0Dirty = true;
    vcpu.vm.vendor.takeContext(vcpu);
  }
  if (vcpu.x86.xcr0Dirty) loadXcr0(vcpu);
}

/** XCR0 has a new value: the processor gets it now if it holds this vCPU's registers, else with them. */
export function loadXcr0(vcpu: VcpuState): void {
  if (owners.get(vcpu.vm.processor) !== vcpu) return;
  const { i32 } = vcpu.vm.memory;
  i32[XCR0_AT >> 2] = vcpu.xcr0;
  i32[(XCR0_AT >> 2) + 1] = 0;
  vcpu.x86.xcr0Dirty = false;
}

/** FPU and vector registers wherever they are now, laid out as state.ts has them from FPU_CW_AT on. */
export function guestFpu(vcpu: VcpuState): Uint8Array {
  if (owners.get(vcpu.vm.processor) !== vcpu) return vcpu.x86.fpu;
  return vcpu.vm.memory.u8.subarray(FPU_CW_AT, STATE_END);
}
export function guestPkru(vcpu: VcpuState): number {
  return owners.get(vcpu.vm.processor) === vcpu ? vcpu.vm.memory.i32[PKRU_AT >> 2]! : vcpu.pkru;
}
export function setGuestPkru(vcpu: VcpuState, value: number): void {
  vcpu.pkru = value;
  if (owners.get(vcpu.vm.processor) === vcpu) vcpu.vm.memory.i32[PKRU_AT >> 2] = value;
}

/** TSC_AUX has a new value: the processor gets it now if it holds this vCPU's registers, else with them. */
export function loadTscAux(vcpu: VcpuState): void {
  if (owners.get(vcpu.vm.processor) !== vcpu) return;
  const { i32 } = vcpu.vm.memory;
  i32[TSC_AUX_AT >> 2] = vcpu.x86.tscAuxLo;
  i32[(TSC_AUX_AT >> 2) + 1] = vcpu.x86.tscAuxHi;
}

/** The vCPU is going away: it no longer owns the processor. */
export function dropGuestContext(vcpu: VcpuState): void {
  if (owners.get(vcpu.vm.processor) !== vcpu) return;
  saveRegs(vcpu);
  owners.delete(vcpu.vm.processor);
}

/** Makes a freed or fresh FPU image the one after RESET: FCW 0x37f, all tags empty, MXCSR 0x1f80. */
export function resetFpu(fpu: Uint8Array): void {
  fpu.fill(0);
  const view = new DataView(fpu.buffer, fpu.byteOffset, fpu.byteLength);
  view.setUint32(0, 0x37f, true);
  view.setUint32(12, 0x1f80, true);
}
