/** kvmclock: the time a guest reads from memory that KVM keeps up to date (@kvm x86.c kvm_guest_time_update). One tick is 1 ns. */
import { numberOf } from '../../arch/halves.ts';
import { readGuest, writeGuest } from '../guest-memory.ts';
import { gfnToHva } from '../memslots/hva.ts';
import { vcpuGfnToMemslot } from '../memslots/memslots.ts';
import { gpaToGfn } from '../mmu/gpa.ts';
import { makeRequest, REQ_CLOCK_UPDATE, type VcpuState } from '../vcpu-state.ts';
import { virtualNow } from './virtual-time.ts';

/** struct pvclock_vcpu_time_info: version, pad, tsc_timestamp, system_time, mul, shift, flags. */
const SIZE = 32;
const image = new Uint8Array(SIZE);
const view = new DataView(image.buffer);
/** tsc << 1 times 2^-1 is the time: one tick of the TSC is one nanosecond. */
const MUL = 0x80000000;
const SHIFT = 1;
const PVCLOCK_TSC_STABLE_BIT = 1;
const PVCLOCK_GUEST_STOPPED = 2;

/** The guest gave the address of its clock, bit 0 switches it on. @kvm x86.c kvm_write_system_time */
export function writeSystemTime(vcpu: VcpuState, lo: number, hi: number): void {
  vcpu.x86.systemTimeLo = lo;
  vcpu.x86.systemTimeHi = hi;
  makeRequest(vcpu, REQ_CLOCK_UPDATE);
}

function setTime(offset: number, ticks: number): void {
  view.setUint32(offset, ticks >>> 0, true);
  view.setUint32(offset + 4, Math.floor(ticks / 0x1_0000_0000), true);
}

/** Writes the clock; an area that is not there or not writable is left alone. @kvm x86.c kvm_setup_guest_pvclock */
export function guestTimeUpdate(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  if ((x86.systemTimeLo & 1) === 0) return;
  const gpa = numberOf(x86.systemTimeLo & ~1, x86.systemTimeHi);
  const gfn = gpaToGfn(gpa);
  if (gfnToHva(vcpuGfnToMemslot(vcpu, gfn), gfn, true) < 0) return;
  if (readGuest(vcpu, gpa, image, 0, SIZE) < 0) return;
  const version = (((view.getUint32(0, true) + 1) | 1) + 1) >>> 0;
  const stopped = image[29]! & PVCLOCK_GUEST_STOPPED;
  const now = virtualNow(vcpu.vm);
  image.fill(0);
  view.setUint32(0, version, true);
  setTime(8, now + numberOf(x86.tscOffsetLo, x86.tscOffsetHi));
  setTime(16, now + vcpu.vm.x86.kvmclockOffset);
  view.setUint32(24, MUL, true);
  view.setInt8(28, SHIFT);
  image[29] = PVCLOCK_TSC_STABLE_BIT | stopped;
  writeGuest(vcpu, gpa, image, 0, SIZE);
}

/** The time of day when kvmclock was zero: version, seconds, nanoseconds. @kvm x86.c kvm_write_wall_clock */
export function writeWallClock(vcpu: VcpuState, lo: number, hi: number): void {
  vcpu.vm.x86.wallClockLo = lo;
  vcpu.vm.x86.wallClockHi = hi;
  if ((lo | hi) === 0) return;
  const gpa = numberOf(lo, hi);
  const clock = new Uint8Array(12);
  if (readGuest(vcpu, gpa, clock, 0, 4) < 0) return;
  const words = new DataView(clock.buffer);
  words.setUint32(0, (((words.getUint32(0, true) + 1) | 1) + 1) >>> 0, true);
  const nanoseconds = -vcpu.vm.x86.kvmclockOffset;
  const seconds = Math.floor(nanoseconds / 1e9);
  words.setUint32(4, vcpu.vm.x86.realTime + seconds, true);
  words.setUint32(8, nanoseconds - seconds * 1e9, true);
  writeGuest(vcpu, gpa, clock, 0, 12);
}
