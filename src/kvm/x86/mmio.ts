/** MMIO: in-kernel devices first, then userspace, at most eight bytes at a time (@kvm x86.c vcpu_mmio_read, complete_emulated_mmio). */
import { hex64 } from '../../arch/flags.ts';
import { ioBusRead, ioBusWrite, KVM_MMIO_BUS } from '../io-bus/io-bus.ts';
import { KVM_EXIT_MMIO } from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { lapicMmioRead, lapicMmioWrite } from './lapic-mmio.ts';
import { KVM_MAX_MMIO_FRAGMENTS } from './vcpu-x86.ts';

/** The value of up to eight bytes, as the `kvm_mmio` event prints it. */
function valueText(buf: Uint8Array, off: number, len: number): string {
  let lo = 0;
  let hi = 0;
  for (let i = 0; i < Math.min(len, 4); i++) lo |= buf[off + i]! << (8 * i);
  for (let i = 4; i < Math.min(len, 8); i++) hi |= buf[off + i]! << (8 * (i - 4));
  return hex64(lo, hi);
}

/** @kvm trace/events/kvm.h kvm_mmio; `buf` null when there is no value yet. */
export function traceMmio(
  vcpu: VcpuState,
  type: 'unsatisfied-read' | 'read' | 'write',
  len: number,
  gpa: number,
  buf: Uint8Array | null,
  off: number,
): void {
  const trace = vcpu.vm.trace;
  if (!trace.enabled) return;
  const val = buf === null ? '0x0' : valueText(buf, off, len);
  trace.emit('kvm_mmio', { type, len, gpa: `0x${gpa.toString(16)}`, val });
}

/** Offers a write to the APIC and the bus; answers how many bytes they took. @kvm x86.c vcpu_mmio_write */
export function vcpuMmioWrite(vcpu: VcpuState, gpa: number, len: number, buf: Uint8Array, off: number): number {
  let handled = 0;
  while (handled < len) {
    const n = Math.min(len - handled, 8);
    const at = gpa + handled;
    const taken =
      (vcpu.x86.lapic !== null && lapicMmioWrite(vcpu, at, n, buf, off + handled) === 0) ||
      ioBusWrite(vcpu, KVM_MMIO_BUS, at, n, buf, off + handled) === 0;
    if (!taken) break;
    handled += n;
  }
  return handled;
}

/** @kvm x86.c vcpu_mmio_read */
export function vcpuMmioRead(vcpu: VcpuState, gpa: number, len: number, buf: Uint8Array, off: number): number {
  let handled = 0;
  while (handled < len) {
    const n = Math.min(len - handled, 8);
    const at = gpa + handled;
    const answered =
      (vcpu.x86.lapic !== null && lapicMmioRead(vcpu, at, n, buf, off + handled) === 0) ||
      ioBusRead(vcpu, KVM_MMIO_BUS, at, n, buf, off + handled) === 0;
    if (!answered) break;
    traceMmio(vcpu, 'read', n, at, buf, off + handled);
    handled += n;
  }
  return handled;
}

/** What devices left over becomes a fragment for userspace. A write's bytes are copied unless there are more than eight. */
export function addMmioFragment(
  vcpu: VcpuState,
  gpa: number,
  len: number,
  write: boolean,
  buf: Uint8Array,
  off: number,
): void {
  const x86 = vcpu.x86;
  vcpu.vm.log.warnOnOnce(x86.mmioNrFragments >= KVM_MAX_MMIO_FRAGMENTS, 'emulator_read_write', 'too many fragments');
  const frag = x86.mmioFragments[x86.mmioNrFragments++]!;
  frag.gpa = gpa;
  frag.len = len;
  if (write && len <= 8) {
    frag.val.fill(0);
    for (let i = 0; i < len; i++) frag.val[i] = buf[off + i]!;
    frag.data = frag.val;
    frag.off = 0;
  } else {
    frag.data = buf;
    frag.off = off;
  }
}

/** Describes the current fragment in kvm_run. */
function exitForFragment(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  const run = vcpu.run;
  const frag = x86.mmioFragments[x86.mmioCurFragment]!;
  const len = Math.min(8, frag.len);
  run.exitReason = KVM_EXIT_MMIO;
  run.mmio.physAddr = frag.gpa;
  run.mmio.len = len;
  run.mmio.isWrite = x86.mmioIsWrite;
  if (x86.mmioIsWrite) {
    const data = run.mmio.data;
    for (let i = 0; i < len; i++) data[i] = frag.data[frag.off + i]!;
  }
}

/** The first fragment goes to userspace. */
export function startMmioExit(vcpu: VcpuState, write: boolean): void {
  const x86 = vcpu.x86;
  x86.mmioNeeded = true;
  x86.mmioCurFragment = 0;
  x86.mmioIsWrite = write;
  exitForFragment(vcpu);
}

/** Userspace has handled a piece: describes the next one in kvm_run, or answers that there is none. */
export function nextMmioPiece(vcpu: VcpuState): boolean {
  const x86 = vcpu.x86;
  const frag = x86.mmioFragments[x86.mmioCurFragment]!;
  const len = Math.min(8, frag.len);
  if (!x86.mmioIsWrite) {
    const data = vcpu.run.mmio.data;
    for (let i = 0; i < len; i++) frag.data[frag.off + i] = data[i]!;
  }
  if (frag.len <= 8) {
    x86.mmioCurFragment++;
  } else {
    frag.off += len;
    frag.gpa += len;
    frag.len -= len;
  }
  if (x86.mmioCurFragment >= x86.mmioNrFragments) {
    x86.mmioNeeded = false;
    return false;
  }
  exitForFragment(vcpu);
  return true;
}
