import { beforeEach, describe, expect, it } from 'vitest';
import { CR0_WP, RFLAGS_AC } from '../../arch/registers.ts';
import { X86Exception } from '../emulate/ops.ts';
import { KVM_MEM_READONLY } from '../memslots/memslots.ts';
import { gvaToGpa } from './guest-walk.ts';
import { TestMmu } from './mmu.testing.ts';
import { updatePermissions } from './permission.ts';
import { resetRsvdBits } from './reset-rsvd-bits.ts';
import { EXT_CR4_PSE, EXT_CR4_SMAP, ROLE_CR0_WP, ROLE_EFER_NX, ROLE_HAS_4_BYTE_GPTE } from './role.ts';

const MB = 1024 * 1024;
const W = 2;
const U = 4;
const F = 0x10;

describe('guest walk', () => {
  let t: TestMmu;
  let hva: number;
  let rflags: number;
  const fault = new X86Exception();

  /** Writes one entry of a guest table, 8 or 4 bytes. */
  function entry(gpa: number, value: bigint, bytes = 8): void {
    const buf = new Uint8Array(8);
    new DataView(buf.buffer).setBigUint64(0, value, true);
    t.vm.mm.write(hva + gpa, buf, 0, bytes);
  }

  function read(gpa: number): bigint {
    const buf = new Uint8Array(8);
    t.vm.mm.read(hva + gpa, buf);
    return new DataView(buf.buffer).getBigUint64(0, true);
  }

  function paging(role: number, ext: number): void {
    const mmu = t.vcpu.mmu.walkMmu;
    mmu.cpuRole = role;
    mmu.cpuRoleExt = ext;
    const level = role & 0xf;
    resetRsvdBits(mmu.guestRsvd, {
      level,
      paBitsHi: ~0xff,
      nx: (role & ROLE_EFER_NX) !== 0,
      gbPages: true,
      pse: (ext & EXT_CR4_PSE) !== 0,
      amd: true,
    });
    updatePermissions(mmu);
    t.vcpu.cr0 = (role & ROLE_CR0_WP) !== 0 ? CR0_WP : 0;
    t.vcpu.cr3Lo = 0x10000;
  }

  beforeEach(() => {
    t = new TestMmu();
    rflags = 2;
    Object.assign(t.vm.vendor, { getRflags: () => rflags });
    hva = t.slot(0, 0, 2 * MB);
    paging(4 | ROLE_EFER_NX | ROLE_CR0_WP, EXT_CR4_SMAP);
    entry(0x10000, 0x11007n);
    entry(0x11000, 0x12007n);
    entry(0x12000, 0x13007n);
    entry(0x13000 + 8 * 5, 0x45007n);
    t.traceOn();
  });

  it('answers the gpa, setting A on the way and D for a write', () => {
    expect(gvaToGpa(t.vcpu, 0x5123, 0, W | U, 0, fault)).toBe(0x45123);
    expect(read(0x13028)).toBe(0x45067n);
    expect(read(0x10000)).toBe(0x11027n);
    expect(t.takeTrace()).toEqual([
      'kvm_mmu_pagetable_walk addr 5123 pferr 6 W|U',
      'kvm_mmu_paging_element pte 11007 level 4',
      'kvm_mmu_paging_element pte 12007 level 3',
      'kvm_mmu_paging_element pte 13007 level 2',
      'kvm_mmu_paging_element pte 45007 level 1',
      'kvm_mmu_set_accessed_bit gpa 10000',
      'kvm_mmu_set_accessed_bit gpa 11000',
      'kvm_mmu_set_accessed_bit gpa 12000',
      'kvm_mmu_set_accessed_bit gpa 13028',
      'kvm_mmu_set_dirty_bit gpa 13028',
    ]);
    gvaToGpa(t.vcpu, 0x5123, 0, W | U, 0, fault);
    expect(t.takeTrace().length).toBe(5);
  });

  it('faults on what is missing, with the access in the code', () => {
    expect(gvaToGpa(t.vcpu, 0x6000, 0, F | U, 0, fault)).toBe(-1);
    expect([fault.vector, fault.errorCode, fault.addressLo]).toEqual([14, F | U, 0x6000]);
    expect(t.takeTrace().at(-1)).toBe('kvm_mmu_walker_error pferr 14 U|F');
  });

  it('faults on reserved bits, beyond the address width and above a large frame', () => {
    entry(0x13028, 0x45007n | (1n << 45n));
    expect(gvaToGpa(t.vcpu, 0x5000, 0, 0, 0, fault)).toBe(-1);
    expect(fault.errorCode).toBe(9);
    entry(0x12008, 0x200087n | (1n << 13n));
    expect(gvaToGpa(t.vcpu, 0x200000, 0, W, 0, fault)).toBe(-1);
    expect(fault.errorCode).toBe(0xb);
  });

  it('refuses supervisor access to user pages under SMAP, unless AC allows it', () => {
    expect(gvaToGpa(t.vcpu, 0x5000, 0, 0, 0, fault)).toBe(-1);
    expect(fault.errorCode).toBe(1);
    rflags |= RFLAGS_AC;
    expect(gvaToGpa(t.vcpu, 0x5000, 0, 0, 0, fault)).toBe(0x45000);
    expect(gvaToGpa(t.vcpu, 0x5000, 0, 0, 1 << 16, fault)).toBe(-1);
  });

  it('takes large pages, and honours NX of every level', () => {
    entry(0x11008, 0x4000_0083n | (1n << 63n));
    expect(gvaToGpa(t.vcpu, 0x4123_4567, 0, 0, 0, fault)).toBe(0x4123_4567);
    expect(gvaToGpa(t.vcpu, 0x4123_4567, 0, F, 0, fault)).toBe(-1);
    expect(fault.errorCode).toBe(0x11);
  });

  it('reads no table outside of visible slots or without host memory', () => {
    entry(0x12010, 0xd000_0007n);
    expect(gvaToGpa(t.vcpu, 0x400000, 0, 0, 0, fault)).toBe(-1);
    t.vm.mm.munmap(hva + 0x13000, 0x1000);
    expect(gvaToGpa(t.vcpu, 0x5000, 0, U, 0, fault)).toBe(-1);
    expect(fault.errorCode).toBe(U);
  });

  it('leaves A and D alone in read-only slots', () => {
    const ro = t.slot(1, 4 * MB, 2 * MB, { flags: KVM_MEM_READONLY });
    const buf = new Uint8Array(8);
    new DataView(buf.buffer).setBigUint64(0, 0x46007n, true);
    t.vm.mm.write(ro, buf);
    entry(0x12000, 0x400007n);
    expect(gvaToGpa(t.vcpu, 0x0, 0, W | U, 0, fault)).toBe(0x46000);
    t.vm.mm.read(ro, buf);
    expect(buf[0]).toBe(7);
  });

  it('walks two levels of 4-byte entries, with 4 MiB pages beyond 4 GiB', () => {
    paging(2 | ROLE_HAS_4_BYTE_GPTE | ROLE_CR0_WP, EXT_CR4_PSE);
    entry(0x10004, 0x14007n, 4);
    entry(0x14000 + 4 * 3, 0x55067n, 4);
    expect(gvaToGpa(t.vcpu, 0x0040_3abc, 0, U, 0, fault)).toBe(0x55abc);
    entry(0x10008, 0x0080_20e7n, 4);
    expect(gvaToGpa(t.vcpu, 0x0080_1234, 0, U, 0, fault)).toBe(0x1_0080_1234);
    entry(0x1000c, 0x0082_00e7n, 4);
    expect(gvaToGpa(t.vcpu, 0x00c0_0000, 0, U, 0, fault)).toBe(-1);
    expect(fault.errorCode).toBe(0xd);
  });

  it('walks PAE from the four pointers in memory', () => {
    paging(3 | ROLE_EFER_NX | ROLE_CR0_WP, 0);
    t.vcpu.x86.reservedGpaBitsHi = ~0xff;
    entry(0x10000, 0n);
    entry(0x10018, 0x15001n);
    entry(0x15000, 0xc000_00e7n);
    expect(gvaToGpa(t.vcpu, 0xc000_0010 | 0, 0, U, 0, fault)).toBe(0xc000_0010);
    expect(gvaToGpa(t.vcpu, 0x8000_0000 | 0, 0, U, 0, fault)).toBe(-1);
    expect(t.takeTrace().filter((l) => l.includes('level 3'))).toEqual([
      'kvm_mmu_paging_element pte 15001 level 3',
      'kvm_mmu_paging_element pte 0 level 3',
    ]);
  });

  it('has the address itself without paging', () => {
    paging(0, 0);
    expect(gvaToGpa(t.vcpu, 0xfee0_0000 | 0, 0, W, 0, fault)).toBe(0xfee0_0000);
  });
});
