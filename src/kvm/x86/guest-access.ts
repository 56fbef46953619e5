/** Guest memory by linear address, as instructions see it but without devices (@kvm x86.c kvm_read_guest_virt_helper and its kin). */
import { PFERR_FETCH, PFERR_IMPLICIT_ACCESS_HI, PFERR_USER, PFERR_WRITE } from '../../arch/error-code.ts';
import { X86EMUL_CONTINUE, X86EMUL_IO_NEEDED, X86EMUL_PROPAGATE_FAULT, type X86Exception } from '../emulate/ops.ts';
import { readGuest, writeGuest } from '../guest-memory.ts';
import { gvaToGpa } from '../mmu/guest-walk.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** PFERR_USER for an access at CPL 3. */
export function userAccess(vcpu: VcpuState): number {
  return vcpu.vm.vendor.getCpl(vcpu) === 3 ? PFERR_USER : 0;
}

/** The gpa that a write to the linear address goes to, or INVALID_GPA. @kvm x86.c kvm_mmu_gva_to_gpa_write */
export function gvaToGpaWrite(vcpu: VcpuState, lo: number, hi: number): number {
  return gvaToGpa(vcpu, lo, hi, PFERR_WRITE | userAccess(vcpu), 0, null);
}

/** Moves bytes between guest memory at a gpa and a buffer. */
type Transfer = typeof readGuest;

/** Each page is translated when it is reached: X86EMUL_*. */
function accessGuestVirt(
  transfer: Transfer,
  vcpu: VcpuState,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  accessLo: number,
  accessHi: number,
  fault: X86Exception,
): number {
  let addrLo = lo;
  let addrHi = hi;
  for (let done = 0; done < bytes; ) {
    const gpa = gvaToGpa(vcpu, addrLo, addrHi, accessLo, accessHi, fault);
    if (gpa < 0) return X86EMUL_PROPAGATE_FAULT;
    const count = Math.min(bytes - done, 4096 - (addrLo & 0xfff));
    if (transfer(vcpu, gpa, buf, off + done, count) < 0) return X86EMUL_IO_NEEDED;
    done += count;
    const next = (addrLo + count) | 0;
    if (next >>> 0 < addrLo >>> 0) addrHi = (addrHi + 1) | 0;
    addrLo = next;
  }
  return X86EMUL_CONTINUE;
}

/** @kvm x86.c kvm_read_guest_virt_helper */
export function readGuestVirt(
  vcpu: VcpuState,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  accessLo: number,
  accessHi: number,
  fault: X86Exception,
): number {
  return accessGuestVirt(readGuest, vcpu, lo, hi, buf, off, bytes, accessLo, accessHi, fault);
}

/** Instruction bytes: at most to the end of the page. @kvm x86.c kvm_fetch_guest_virt */
export function fetchGuestVirt(
  vcpu: VcpuState,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
): number {
  const gpa = gvaToGpa(vcpu, lo, hi, userAccess(vcpu) | PFERR_FETCH, 0, fault);
  if (gpa < 0) return X86EMUL_PROPAGATE_FAULT;
  const count = Math.min(bytes, 4096 - (lo & 0xfff));
  return readGuest(vcpu, gpa, buf, off, count) < 0 ? X86EMUL_IO_NEEDED : X86EMUL_CONTINUE;
}

/** @kvm x86.c emulator_read_std: `system` for accesses the processor makes on its own. */
export function readStd(
  vcpu: VcpuState,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
  system: boolean,
): number {
  const accessLo = system ? 0 : userAccess(vcpu);
  return readGuestVirt(vcpu, lo, hi, buf, off, bytes, accessLo, system ? PFERR_IMPLICIT_ACCESS_HI : 0, fault);
}

/** @kvm x86.c emulator_write_std, kvm_write_guest_virt_helper */
export function writeStd(
  vcpu: VcpuState,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
  system: boolean,
): number {
  const accessLo = PFERR_WRITE | (system ? 0 : userAccess(vcpu));
  const accessHi = system ? PFERR_IMPLICIT_ACCESS_HI : 0;
  return accessGuestVirt(writeGuest, vcpu, lo, hi, buf, off, bytes, accessLo, accessHi, fault);
}
