/** Port I/O: in-kernel devices first, then userspace (@kvm x86.c emulator_pio_in_out, kvm_fast_pio). */
import { RAX } from '../../arch/registers.ts';
import { ioBusRead, ioBusWrite, KVM_PIO_BUS } from '../io-bus/io-bus.ts';
import { KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT } from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { getLinearRip, isLinearRip, registerWrite } from './registers.ts';
import { skipEmulatedInstruction } from './skip.ts';
import { hasQuirk, KVM_X86_QUIRK_OUT_7E_INC_RIP } from './vm-x86.ts';

function tracePio(
  vcpu: VcpuState,
  write: boolean,
  port: number,
  size: number,
  count: number,
  buf: Uint8Array,
  off: number,
): void {
  const trace = vcpu.vm.trace;
  if (!trace.enabled) return;
  let val = 0;
  for (let i = 0; i < size; i++) val |= buf[off + i]! << (8 * i);
  const text =
    `pio_${write ? 'write' : 'read'} at 0x${port.toString(16)} size ${size} count ${count} ` +
    `val 0x${(val >>> 0).toString(16)} ${count > 1 ? '(...)' : ''}`;
  trace.emit('kvm_pio', { text });
}

/** 1 when devices did it, 0 when userspace must. @kvm x86.c emulator_pio_in_out */
function pioInOut(
  vcpu: VcpuState,
  size: number,
  port: number,
  buf: Uint8Array,
  off: number,
  count: number,
  input: boolean,
): number {
  for (let i = 0; i < count; i++) {
    const at = off + i * size;
    const r = input
      ? ioBusRead(vcpu, KVM_PIO_BUS, port, size, buf, at)
      : ioBusWrite(vcpu, KVM_PIO_BUS, port, size, buf, at);
    if (r === 0) continue;
    if (i > 0) {
      // The device went away in the middle: writes are dropped, reads give 0.
      if (input) buf.fill(0, at, off + count * size);
      break;
    }
    const x86 = vcpu.x86;
    const run = vcpu.run;
    x86.pioPort = port;
    x86.pioIn = input;
    x86.pioCount = count;
    x86.pioSize = size;
    if (input) for (let n = 0; n < size * count; n++) run.pioData[n] = 0;
    else for (let n = 0; n < size * count; n++) run.pioData[n] = buf[off + n]!;
    run.exitReason = KVM_EXIT_IO;
    run.io.describe(input ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT, size, port, count, run.pioOffset);
    return 0;
  }
  return 1;
}

/** @kvm x86.c emulator_pio_out */
export function emulatorPioOut(
  vcpu: VcpuState,
  size: number,
  port: number,
  buf: Uint8Array,
  off: number,
  count: number,
): number {
  tracePio(vcpu, true, port, size, count, buf, off);
  return pioInOut(vcpu, size, port, buf, off, count, false);
}

/** @kvm x86.c emulator_pio_in */
function emulatorPioIn(
  vcpu: VcpuState,
  size: number,
  port: number,
  buf: Uint8Array,
  off: number,
  count: number,
): number {
  const r = pioInOut(vcpu, size, port, buf, off, count, true);
  if (r !== 0) tracePio(vcpu, false, port, size, count, buf, off);
  return r;
}

/** What userspace put into the data page is the answer. @kvm x86.c complete_emulator_pio_in */
function completeEmulatorPioIn(vcpu: VcpuState, buf: Uint8Array, off: number): void {
  const { pioSize: size, pioCount: count, pioPort: port } = vcpu.x86;
  const data = vcpu.run.pioData;
  for (let i = 0; i < size * count; i++) buf[off + i] = data[i]!;
  tracePio(vcpu, false, port, size, count, data, 0);
  vcpu.x86.pioCount = 0;
}

/** @kvm x86.c emulator_pio_in_emulated */
export function emulatorPioInEmulated(
  vcpu: VcpuState,
  size: number,
  port: number,
  buf: Uint8Array,
  off: number,
  count: number,
): number {
  if (vcpu.x86.pioCount !== 0) {
    completeEmulatorPioIn(vcpu, buf, off);
    return 1;
  }
  return emulatorPioIn(vcpu, size, port, buf, off, count);
}

const rax = new Uint8Array(8);
const rax32 = new Int32Array(rax.buffer);

function rememberRip(vcpu: VcpuState): void {
  const rip = getLinearRip(vcpu);
  vcpu.x86.pioLinearRipLo = rip[0]!;
  vcpu.x86.pioLinearRipHi = rip[1]!;
}

/** Userspace moved RIP meanwhile: the instruction is not there to be skipped any more. */
function ripMoved(vcpu: VcpuState): boolean {
  return !isLinearRip(vcpu, vcpu.x86.pioLinearRipLo, vcpu.x86.pioLinearRipHi, 0, 0);
}

/** @kvm x86.c complete_fast_pio_out */
function completeFastPioOut(vcpu: VcpuState): number {
  vcpu.x86.pioCount = 0;
  return ripMoved(vcpu) ? 1 : skipEmulatedInstruction(vcpu);
}

/** OUT 0x7e was skipped before the exit already. */
function completeFastPioOutPort7e(vcpu: VcpuState): number {
  vcpu.x86.pioCount = 0;
  return 1;
}

/** @kvm x86.c kvm_fast_pio_out */
function fastPioOut(vcpu: VcpuState, size: number, port: number): number {
  rax32[0] = vcpu.regs[2 * RAX]!;
  rax32[1] = vcpu.regs[2 * RAX + 1]!;
  const ret = emulatorPioOut(vcpu, size, port, rax, 0, 1);
  if (ret !== 0) return ret;
  if (port === 0x7e && hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_OUT_7E_INC_RIP)) {
    vcpu.x86.completeUserspaceIo = completeFastPioOutPort7e;
    skipEmulatedInstruction(vcpu);
  } else {
    rememberRip(vcpu);
    vcpu.x86.completeUserspaceIo = completeFastPioOut;
  }
  return 0;
}

/** RAX as IN finds it: 8- and 16-bit input leaves the rest alone, 32-bit input clears the upper half. */
function loadRaxForIn(vcpu: VcpuState, size: number): void {
  rax32[0] = size < 4 ? vcpu.regs[2 * RAX]! : 0;
  rax32[1] = size < 4 ? vcpu.regs[2 * RAX + 1]! : 0;
}

/** @kvm x86.c complete_fast_pio_in */
function completeFastPioIn(vcpu: VcpuState): number {
  if (ripMoved(vcpu)) {
    vcpu.x86.pioCount = 0;
    return 1;
  }
  loadRaxForIn(vcpu, vcpu.x86.pioSize);
  completeEmulatorPioIn(vcpu, rax, 0);
  registerWrite(vcpu, RAX, rax32[0]!, rax32[1]!);
  return skipEmulatedInstruction(vcpu);
}

/** @kvm x86.c kvm_fast_pio_in */
function fastPioIn(vcpu: VcpuState, size: number, port: number): number {
  loadRaxForIn(vcpu, size);
  const ret = emulatorPioIn(vcpu, size, port, rax, 0, 1);
  if (ret !== 0) {
    registerWrite(vcpu, RAX, rax32[0]!, rax32[1]!);
    return ret;
  }
  rememberRip(vcpu);
  vcpu.x86.completeUserspaceIo = completeFastPioIn;
  return 0;
}

/** IN or OUT of one datum between RAX and a port, without decoding. @kvm x86.c kvm_fast_pio */
export function fastPio(vcpu: VcpuState, size: number, port: number, input: boolean): number {
  const ret = input ? fastPioIn(vcpu, size, port) : fastPioOut(vcpu, size, port);
  return ret !== 0 ? skipEmulatedInstruction(vcpu) : 0;
}
