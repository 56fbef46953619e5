/** The emulator's accesses that can meet devices (@kvm x86.c emulator_read_write, emulator_cmpxchg_emulated). */
import { PFERR_WRITE } from '../../arch/error-code.ts';
import { hex64 } from '../../arch/flags.ts';
import { loOf } from '../../arch/halves.ts';
import { markPageDirty } from '../dirty/mark-dirty.ts';
import { type EmulateCtxt, X86EMUL_MODE_PROT64 } from '../emulate/ctxt.ts';
import { emulatorCanUseGpa } from '../emulate/emulate.ts';
import {
  X86EMUL_CMPXCHG_FAILED,
  X86EMUL_CONTINUE,
  X86EMUL_IO_NEEDED,
  X86EMUL_PROPAGATE_FAULT,
  X86EMUL_UNHANDLEABLE,
  X86Exception,
} from '../emulate/ops.ts';
import { cmpxchgGuestUser, readGuest, writeGuest } from '../guest-memory.ts';
import { gfnToHvaMemslot } from '../memslots/hva.ts';
import { vcpuGfnToMemslot } from '../memslots/memslots.ts';
import { gpaToGfn } from '../mmu/gpa.ts';
import { gvaToGpa } from '../mmu/guest-walk.ts';
import { vcpuMatchMmioGpa, vcpuMatchMmioGva } from '../mmu/mmio-cache.ts';
import { permissionFault } from '../mmu/permission.ts';
import { mmuTrackWrite } from '../mmu/shadow/track-write.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { userAccess } from './guest-access.ts';
import { addMmioFragment, startMmioExit, traceMmio, vcpuMmioRead, vcpuMmioWrite } from './mmio.ts';
import { isPaging } from './registers.ts';

const APIC_DEFAULT_GFN = 0xfee00;

function traceMatch(vcpu: VcpuState, lo: number, hi: number, gpa: number, write: boolean, byGpa: boolean): void {
  const trace = vcpu.vm.trace;
  if (!trace.enabled) return;
  const op = `${write ? 'Write' : 'Read'} ${byGpa ? 'GPA' : 'GVA'}`;
  trace.emit('vcpu_match_mmio', { gva: hex64(lo, hi), gpa: `0x${gpa.toString(16)}`, op });
}

/** @kvm x86.c vcpu_is_mmio_gpa */
function isMmioGpa(vcpu: VcpuState, lo: number, hi: number, gpa: number, write: boolean): boolean {
  if (gpaToGfn(gpa) === APIC_DEFAULT_GFN) return true;
  if (!vcpuMatchMmioGpa(vcpu, gpa)) return false;
  traceMatch(vcpu, lo, hi, gpa, write, true);
  return true;
}

/** gpa of the access being made, and whether it is known to be MMIO. */
let accessGpa = 0;

/** 1 known MMIO, 0 not known to be, -1 a fault for the guest; `accessGpa` is set. @kvm x86.c vcpu_mmio_gva_to_gpa */
function mmioGvaToGpa(vcpu: VcpuState, lo: number, hi: number, fault: X86Exception, write: boolean): number {
  const access = userAccess(vcpu) | (write ? PFERR_WRITE : 0);
  const mmu = vcpu.mmu;
  if (
    vcpuMatchMmioGva(vcpu, lo, hi) &&
    (!isPaging(vcpu) || permissionFault(vcpu, mmu.walkMmu, mmu.mmioAccess, 0, access, 0) === 0)
  ) {
    accessGpa = mmu.mmioGfn * 4096 + (lo & 0xfff);
    traceMatch(vcpu, lo, hi, accessGpa, write, false);
    return 1;
  }
  const gpa = gvaToGpa(vcpu, lo, hi, access, 0, fault);
  if (gpa < 0) return -1;
  accessGpa = gpa;
  return isMmioGpa(vcpu, lo, hi, gpa, write) ? 1 : 0;
}

/** Plain memory: true when it worked. A write tells the MMU, which may shadow the page. @kvm x86.c emulator_write_phys */
function accessMemory(
  vcpu: VcpuState,
  gpa: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  write: boolean,
): boolean {
  if (!write) return readGuest(vcpu, gpa, buf, off, bytes) === 0;
  if (writeGuest(vcpu, gpa, buf, off, bytes) < 0) return false;
  mmuTrackWrite(vcpu, gpa, bytes);
  return true;
}

/** @kvm x86.c emulator_read_write_onepage */
function readWriteOnePage(
  ctxt: EmulateCtxt,
  vcpu: VcpuState,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
  write: boolean,
): number {
  let mmio: boolean;
  if (ctxt.gpaAvailable && emulatorCanUseGpa(ctxt) && (lo & 0xfff) === (loOf(ctxt.gpaVal) & 0xfff)) {
    accessGpa = ctxt.gpaVal;
    mmio = isMmioGpa(vcpu, lo, hi, accessGpa, write);
  } else {
    const ret = mmioGvaToGpa(vcpu, lo, hi, fault, write);
    if (ret < 0) return X86EMUL_PROPAGATE_FAULT;
    mmio = ret > 0;
  }
  const gpa = accessGpa;
  if (!mmio && accessMemory(vcpu, gpa, buf, off, bytes, write)) return X86EMUL_CONTINUE;
  if (write) traceMmio(vcpu, 'write', bytes, gpa, buf, off);
  const handled = write ? vcpuMmioWrite(vcpu, gpa, bytes, buf, off) : vcpuMmioRead(vcpu, gpa, bytes, buf, off);
  if (handled < bytes) addMmioFragment(vcpu, gpa + handled, bytes - handled, write, buf, off + handled);
  return X86EMUL_CONTINUE;
}

/** @kvm x86.c emulator_read_write */
function readWrite(
  ctxt: EmulateCtxt,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
  write: boolean,
): number {
  const vcpu = ctxt.vcpu as VcpuState;
  const x86 = vcpu.x86;
  if (!write && x86.mmioReadCompleted) {
    // The bytes userspace gave are in the read cache, where the emulator put the fragments.
    traceMmio(vcpu, 'read', bytes, x86.mmioFragments[0]!.gpa, buf, off);
    x86.mmioReadCompleted = false;
    return X86EMUL_CONTINUE;
  }
  x86.mmioNrFragments = 0;
  let addrLo = lo;
  let addrHi = hi;
  let at = off;
  let left = bytes;
  const inFirst = 4096 - (lo & 0xfff);
  if (bytes > inFirst) {
    const rc = readWriteOnePage(ctxt, vcpu, lo, hi, buf, off, inFirst, fault, write);
    if (rc !== X86EMUL_CONTINUE) return rc;
    addrLo = (lo + inFirst) | 0;
    if (addrLo === 0) addrHi = (hi + 1) | 0;
    if (ctxt.mode !== X86EMUL_MODE_PROT64) addrHi = 0;
    at += inFirst;
    left -= inFirst;
  }
  const rc = readWriteOnePage(ctxt, vcpu, addrLo, addrHi, buf, at, left, fault, write);
  if (rc !== X86EMUL_CONTINUE || x86.mmioNrFragments === 0) return rc;
  startMmioExit(vcpu, write);
  if (write) return X86EMUL_CONTINUE;
  traceMmio(vcpu, 'unsatisfied-read', left, x86.mmioFragments[0]!.gpa, null, 0);
  return X86EMUL_IO_NEEDED;
}

/** @kvm x86.c emulator_read_emulated */
export function readEmulated(
  ctxt: EmulateCtxt,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
): number {
  return readWrite(ctxt, lo, hi, buf, off, bytes, fault, false);
}

/** @kvm x86.c emulator_write_emulated */
export function writeEmulated(
  ctxt: EmulateCtxt,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  bytes: number,
  fault: X86Exception,
): number {
  return readWrite(ctxt, lo, hi, buf, off, bytes, fault, true);
}

const ignoredFault = new X86Exception();

/**
 * A locked operation: atomic on plain memory, and a plain write where there is no memory behind the address, where it crosses a page,
 * or is not 1, 2, 4 or 8 bytes.
 * @kvm x86.c emulator_cmpxchg_emulated
 */
export function cmpxchgEmulated(
  ctxt: EmulateCtxt,
  lo: number,
  hi: number,
  oldBuf: Uint8Array,
  newBuf: Uint8Array,
  bytes: number,
  fault: X86Exception,
): number {
  const vcpu = ctxt.vcpu as VcpuState;
  if (bytes <= 8 && (bytes & (bytes - 1)) === 0) {
    const access = PFERR_WRITE | userAccess(vcpu);
    const gpa = gvaToGpa(vcpu, lo, hi, access, 0, ignoredFault);
    const gfn = gpa < 0 ? -1 : gpaToGfn(gpa);
    if (gpa >= 0 && gfn !== APIC_DEFAULT_GFN && (gpa % 4096) + bytes <= 4096) {
      const hva = gfnToHvaMemslot(vcpuGfnToMemslot(vcpu, gfn), gfn);
      if (hva >= 0) {
        const r = cmpxchgGuestUser(vcpu.vm, hva + (gpa % 4096), bytes, oldBuf, 0, newBuf, 0);
        if (r < 0) return X86EMUL_UNHANDLEABLE;
        // Dirty even when the compare fails: the old value is then written back.
        markPageDirty(vcpu, gfn);
        if (r > 0) return X86EMUL_CMPXCHG_FAILED;
        mmuTrackWrite(vcpu, gpa, bytes);
        return X86EMUL_CONTINUE;
      }
    }
  }
  return writeEmulated(ctxt, lo, hi, newBuf, 0, bytes, fault);
}
