/** A VM whose MMU shadows a guest's tables, without a processor. The guest's tables are written by hand, in memory that starts at 0. */
import { CR0_PE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME, EFER_NX } from '../../../arch/registers.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { mmuDoPageFault } from '../do-page-fault.ts';
import { TestMmu } from '../mmu.testing.ts';
import { initMmu } from '../roles.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { type LastSpte, shadowWalkToLastSpte } from './last-spte.ts';

const MB = 1024 * 1024;
/** Present, writable, user, accessed, dirty. */
export const RWU = 0x67;

/** A guest in long mode, four levels. */
export const LONG_MODE = { cr0: CR0_PG | CR0_PE | CR0_WP, cr4: CR4_PAE, efer: EFER_LME | EFER_LMA | EFER_NX };

export class TestShadow {
  readonly t: TestMmu;
  readonly vm: VmState;
  readonly vcpu: VcpuState;
  /** Host address of gpa 0. */
  readonly hva: number;

  /** @param mib guest memory, one slot from gpa 0 */
  constructor(mode = LONG_MODE, mib = 8) {
    this.t = new TestMmu({ params: { npt: false } });
    this.vm = this.t.vm;
    this.vcpu = this.t.vcpu;
    this.hva = this.t.slot(0, 0, mib * MB);
    this.vcpu.x86.reservedGpaBitsHi = ~0xff;
    this.mode(mode);
  }

  mode(mode: { cr0: number; cr4: number; efer: number }): void {
    Object.assign(this.vcpu, mode);
    initMmu(this.vcpu);
  }

  cr3(gpa: number): void {
    this.vcpu.cr3Lo = gpa;
    this.vcpu.cr3Hi = 0;
  }

  /** Writes an entry of `bytes` bytes as the guest's processor would: KVM does not see it. */
  write(gpa: number, value: number, bytes = 8): void {
    const buffer = new Uint8Array(8);
    new DataView(buffer.buffer).setBigUint64(0, BigInt(value), true);
    this.vm.mm.write(this.hva + gpa, buffer, 0, bytes);
  }

  read(gpa: number): number {
    const buffer = new Uint8Array(8);
    this.vm.mm.read(this.hva + gpa, buffer);
    return Number(new DataView(buffer.buffer).getBigUint64(0, true));
  }

  /**
   * Four levels at 0x10000, 0x11000, 0x12000 and 0x13000: linear addresses 0 to 0x1fffff are mapped to themselves with `flags`,
   * 4 KiB each, and 0x200000 to 0x3fffff by one page of 2 MiB.
   */
  identity(flags = RWU): void {
    this.write(0x10000, 0x11000 | RWU);
    this.write(0x11000, 0x12000 | RWU);
    this.write(0x12000, 0x13000 | RWU);
    this.write(0x12008, 0x200000 | 0x80 | flags);
    for (let i = 0; i < 512; i++) this.write(0x13000 + 8 * i, (i * 0x1000) | flags);
    this.cr3(0x10000);
  }

  /** One #PF at a linear address. */
  fault(address: number, error: number): number {
    this.t.enter();
    return mmuDoPageFault(this.vcpu, address | 0, Math.floor(address / 0x1_0000_0000), error, 0, false);
  }

  /** The last shadow entry for the address. */
  spte(address: number): LastSpte {
    return { ...shadowWalkToLastSpte(this.vcpu, address | 0, Math.floor(address / 0x1_0000_0000)) };
  }

  /** The shadow pages of the table in `gfn` that are in use. */
  pagesOf(gfn: number): ShadowPage[] {
    const pages: ShadowPage[] = [];
    for (let sp = this.vm.mmu.activePages.newest; sp !== null; sp = sp.older) if (sp.gfn === gfn) pages.push(sp);
    return pages;
  }
}
