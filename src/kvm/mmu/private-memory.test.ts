import { describe, expect, it } from 'vitest';
import { type GuestMemfdFile, gmemCreate } from '../guest-memfd/guest-memfd.ts';
import { KVM_EXIT_MEMORY_FAULT } from '../kvm-run.ts';
import { KVM_MEM_GUEST_MEMFD } from '../memslots/memslots.ts';
import { setUserMemoryRegion } from '../memslots/set-memory-region.ts';
import { setMemoryAttributes } from '../set-memory-attributes.ts';
import { KVM_X86_SW_PROTECTED_VM } from '../vm-type.ts';
import { mmuDoPageFault } from './do-page-fault.ts';
import { READ, TestMmu, WRITE } from './mmu.testing.ts';
import { RET_PF_EMULATE, RET_PF_FIXED } from './ret-pf.ts';

const MB = 1024 * 1024;
const EFAULT = 14;
/** PFERR_PRIVATE_ACCESS and PFERR_GUEST_FINAL. */
const PRIVATE_HI = (1 << 17) | 1;

class PrivateVm extends TestMmu {
  constructor() {
    super({ type: KVM_X86_SW_PROTECTED_VM });
    const size = 4 * MB;
    const hva = this.vm.mm.mmap({ size, kind: 'thp' });
    const gmem = gmemCreate(this.vm, BigInt(size), 0n) as GuestMemfdFile;
    setUserMemoryRegion(
      this.vm,
      {
        slot: 1,
        flags: KVM_MEM_GUEST_MEMFD,
        guestPhysAddr: BigInt(8 * MB),
        memorySize: BigInt(size),
        userspaceAddr: BigInt(hva),
        guestMemfd: gmem,
        guestMemfdOffset: 0n,
      },
      2,
    );
  }

  convert(gpa: number, size: number, isPrivate: boolean): void {
    expect(setMemoryAttributes(this.vm, BigInt(gpa), BigInt(size), isPrivate ? 8n : 0n, 0n)).toBe(0);
  }

  privateFault(gpa: number, error: number): number {
    this.enter();
    return mmuDoPageFault(this.vcpu, gpa, 0, error, PRIVATE_HI, false);
  }
}

describe('private memory', () => {
  it('maps private pages from guest_memfd, in 4 KiB', () => {
    const t = new PrivateVm();
    t.convert(8 * MB, 2 * MB, true);
    expect(t.privateFault(8 * MB, WRITE)).toBe(RET_PF_FIXED);
    expect(t.vm.stats.pages_4k).toBe(1);
  });

  it('leaves with a memory fault where access and attribute disagree, in both directions', () => {
    const t = new PrivateVm();
    t.convert(8 * MB, 2 * MB, true);
    expect(t.fault(8 * MB + 0x123, READ)).toBe(-EFAULT);
    expect([t.vcpu.run.exitReason, t.vcpu.run.memoryFault.gpa, t.vcpu.run.memoryFault.flags]).toEqual([
      KVM_EXIT_MEMORY_FAULT,
      8 * MB,
      0,
    ]);
    expect(t.privateFault(10 * MB, READ)).toBe(-EFAULT);
    expect([t.vcpu.run.memoryFault.gpa, t.vcpu.run.memoryFault.flags]).toEqual([10 * MB, 8]);
  });

  it('has a private access to nothing as a memory fault, a shared one as MMIO', () => {
    const t = new PrivateVm();
    t.convert(64 * MB, 0x1000, true);
    expect(t.privateFault(64 * MB, READ)).toBe(-EFAULT);
    expect(t.fault(65 * MB, READ)).toBe(RET_PF_EMULATE);
  });

  it('never maps a huge page over mixed attributes, and again when they agree', () => {
    const t = new PrivateVm();
    t.fault(8 * MB, WRITE);
    expect([t.vm.stats.pages_2m, t.vm.stats.pages_4k]).toEqual([1, 0]);
    t.convert(8 * MB + 0x5000, 0x1000, true);
    expect([t.vm.stats.pages_2m, t.vm.stats.pages_4k]).toEqual([0, 0]);
    t.fault(8 * MB, WRITE);
    expect([t.vm.stats.pages_2m, t.vm.stats.pages_4k]).toEqual([0, 1]);
    t.convert(8 * MB + 0x5000, 0x1000, false);
    // The table of small pages gives way to the huge page.
    t.fault(8 * MB, WRITE);
    expect([t.vm.stats.pages_2m, t.vm.stats.pages_4k]).toEqual([1, 0]);
  });

  it('notes attributes that are mixed before the slot comes', () => {
    const t = new PrivateVm();
    t.convert(20 * MB, 0x1000, true);
    t.slot(2, 20 * MB, 2 * MB, { kind: 'thp' });
    expect(t.fault(20 * MB + 0x2000, WRITE)).toBe(RET_PF_FIXED);
    expect([t.vm.stats.pages_2m, t.vm.stats.pages_4k]).toEqual([0, 1]);
  });
});
