/**
 * The page tables of a guest whose tables KVM shadows: four levels in a slot of their own, that map a linear address for each gfn that is
 * asked for, with all rights. Only one entry in eight is used: KVM looks at a leaf's neighbours, and they are to stay out of it.
 */
import { CR0_PE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME, EFER_NX } from '../../arch/registers.ts';
import { setUserMemoryRegion } from '../../kvm/memslots/set-memory-region.ts';
import { ACC_ALL } from '../../kvm/mmu/role.ts';
import { getChildSp } from '../../kvm/mmu/shadow/get-page.ts';
import { linkShadowPage } from '../../kvm/mmu/shadow/link.ts';
import { ShadowWalk } from '../../kvm/mmu/shadow/walk.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import type { VmState } from '../../kvm/vm-state.ts';

/** Just below the end of a 36-bit guest's memory. */
const TABLES_GFN = 0xff_0000;
const TABLES_SLOT = 99;
/** PML4, PDPT, page directory, and page tables for 64 gfns each. */
const PAGE_TABLES = 8;
const PAGES = 3 + PAGE_TABLES;
const STRIDE = 8;
/** Linear address of the first mapping: entry 1 of the PDPT. */
const FIRST_GVA = 0x4000_0000;
/** Present, writable, user, accessed, dirty. */
const ALL_RIGHTS = 0x67;

export class GuestTables {
  private readonly vm: VmState;
  private readonly hva: number;
  private readonly gvaOfGfn = new Map<number, number>();

  constructor(vm: VmState) {
    this.vm = vm;
    this.hva = vm.mm.mmap({ size: PAGES * 4096, kind: 'anon' });
    const r = setUserMemoryRegion(
      vm,
      {
        slot: TABLES_SLOT,
        flags: 0,
        guestPhysAddr: BigInt(TABLES_GFN * 4096),
        memorySize: BigInt(PAGES * 4096),
        userspaceAddr: BigInt(this.hva),
        guestMemfdOffset: 0n,
        guestMemfd: 'other-file',
      },
      2,
    );
    if (r !== 0) throw new Error(`slot for page tables: ${r}`);
    this.put(0, 0, TABLES_GFN + 1);
    this.put(1, 1, TABLES_GFN + 2);
    for (let i = 0; i < PAGE_TABLES; i++) this.put(2, i, TABLES_GFN + 3 + i);
  }

  /** The vCPU runs in 64-bit mode on these tables; its MMU is to be set up afterwards. */
  enter(vcpu: VcpuState): void {
    vcpu.cr0 = CR0_PE | CR0_PG | CR0_WP;
    vcpu.cr4 = CR4_PAE;
    vcpu.efer = EFER_LME | EFER_LMA | EFER_NX;
    vcpu.cr3Lo = TABLES_GFN << 12;
    vcpu.cr3Hi = Math.floor(TABLES_GFN / 0x10_0000);
  }

  /** The linear address that maps the gfn. */
  gva(gfn: number): number {
    let gva = this.gvaOfGfn.get(gfn);
    if (gva === undefined) {
      const entry = this.gvaOfGfn.size * STRIDE;
      if (entry >= PAGE_TABLES * 512) throw new Error('the page tables are full');
      gva = FIRST_GVA + entry * 4096;
      this.gvaOfGfn.set(gfn, gva);
      this.put(3 + Math.floor(entry / 512), entry % 512, gfn);
    }
    return gva;
  }

  /** Makes the shadow tables on the way to the address. mmu_lock is held for write. */
  shadow(vcpu: VcpuState, addrLo: number, addrHi: number): void {
    const { vm } = this;
    const walk = new ShadowWalk(vm);
    if (!walk.start(vcpu.mmu.mmu, addrLo, addrHi)) throw new Error('no root to shadow from');
    const tables = [TABLES_GFN + 1, TABLES_GFN + 2, TABLES_GFN + 3 + ((addrLo >>> 21) & 511)];
    for (const gfn of tables) {
      const sp = getChildSp(vcpu, walk.sptep, gfn, false, ACC_ALL);
      if (sp !== null) linkShadowPage(vm, walk.sptep, sp);
      walk.next();
    }
  }

  private put(page: number, index: number, gfn: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, (BigInt(gfn) << 12n) | BigInt(ALL_RIGHTS), true);
    const r = this.vm.mm.write(this.hva + page * 4096 + index * 8, bytes);
    if (r !== 0) throw new Error(`writing a page table: ${r}`);
  }
}
