import { describe, expect, it } from 'vitest';
import { getDirtyLog } from '../dirty/dirty-bitmap.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../memslots/memslots.ts';
import { FETCH, READ, TestMmu, WRITE } from './mmu.testing.ts';
import { RET_PF_EMULATE, RET_PF_FIXED, RET_PF_SPURIOUS } from './ret-pf.ts';

const P = 1;
const MB = 1024 * 1024;

describe('mapping', () => {
  it('makes the tables and the leaf that a write to new memory needs', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.traceOn();
    expect(t.fault(0x10000, WRITE)).toBe(RET_PF_FIXED);
    expect(t.takeTrace()).toEqual([
      'kvm_mmu_get_page sp gen 0 gfn 0 l4 8-byte q0 direct wux nxe ad root 0 sync new',
      'kvm_mmu_spte_requested 0x10 1',
      'kvm_mmu_get_page sp gen 0 gfn 0 l3 8-byte q0 direct wux nxe ad root 0 sync new',
      'kvm_tdp_mmu_spte_changed 0 0x0 4 0x8000000000000000 0x827+pfn',
      'kvm_mmu_get_page sp gen 0 gfn 0 l2 8-byte q0 direct wux nxe ad root 0 sync new',
      'kvm_tdp_mmu_spte_changed 0 0x0 3 0x8000000000000000 0x827+pfn',
      'kvm_mmu_get_page sp gen 0 gfn 0 l1 8-byte q0 direct wux nxe ad root 0 sync new',
      'kvm_tdp_mmu_spte_changed 0 0x0 2 0x8000000000000000 0x827+pfn',
      'kvm_tdp_mmu_spte_changed 0 0x10 1 0x8000000000000000 0xe67+pfn',
      'kvm_mmu_set_spte 0x10 0xe67+pfn rwxu 1',
    ]);
    expect(t.vm.stats.pages_4k).toBe(1);
  });

  it('maps the zero page read-only, and what is prefetched without A', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.fault(0, WRITE);
    t.traceOn();
    t.fault(0x1000, READ);
    t.fault(0x2000, READ, true);
    expect(t.takeTrace().filter((l) => l.startsWith('kvm_mmu_set'))).toEqual([
      'kvm_mmu_set_spte 0x1 0x825+pfn r-xu 1',
      'kvm_mmu_set_spte 0x2 0x805+pfn r-xu 1',
    ]);
  });

  it('finds an entry that is there already spurious', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    expect(t.fault(0x5000, FETCH)).toBe(RET_PF_FIXED);
    expect(t.fault(0x5000, FETCH)).toBe(RET_PF_SPURIOUS);
  });

  it('maps transparent huge pages whole', () => {
    const t = new TestMmu();
    t.slot(0, 4 * MB, 4 * MB, { kind: 'thp' });
    t.traceOn();
    t.fault(4 * MB + 0x3000, WRITE);
    expect(t.takeTrace().slice(-2)).toEqual([
      'kvm_tdp_mmu_spte_changed 0 0x400 2 0x8000000000000000 0xee7+pfn',
      'kvm_mmu_set_spte 0x400 0xee7+pfn rwxu 2',
    ]);
    expect(t.vm.stats.pages_2m).toBe(1);
  });

  it('keeps executable huge pages small under the NX workaround', () => {
    const t = new TestMmu({ params: { nxHugePages: true } });
    t.slot(0, 4 * MB, 4 * MB, { kind: 'thp' });
    t.fault(4 * MB, WRITE);
    expect(t.vm.stats.pages_2m).toBe(1);
    t.fault(4 * MB, FETCH | P);
    expect([t.vm.stats.pages_2m, t.vm.stats.pages_4k, t.vm.stats.nx_lpage_splits]).toEqual([0, 512, 1]);
  });

  it('makes an MMIO entry with the generation where there is no slot', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.traceOn();
    expect(t.fault(0xd0000000, WRITE)).toBe(RET_PF_EMULATE);
    const generation = t.vm.slots.generation(0);
    const spte = (0x8_0000_d000_0007n | (BigInt(generation) << 3n)).toString(16);
    expect(t.takeTrace().slice(-2)).toEqual([
      `kvm_tdp_mmu_spte_changed 0 0xd0000 1 0x8000000000000000 0x${spte}`,
      `mark_mmio_spte 0xd0000 0x7 0x${generation.toString(16)}`,
    ]);
    expect(t.vcpu.stats.pf_mmio_spte_created).toBe(1);
  });

  it('makes no MMIO entry where no bit is reserved', () => {
    const t = new TestMmu({ maxPhyAddr: 52 });
    expect(t.fault(0xd0000000, WRITE)).toBe(RET_PF_EMULATE);
    expect(t.vcpu.stats.pf_mmio_spte_created).toBe(0);
  });
});

describe('zapping', () => {
  it('drops everything when a slot goes, and gives the tables back', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB);
    t.slot(1, 8 * MB, 2 * MB);
    t.fault(0x1000, WRITE);
    t.fault(8 * MB, WRITE);
    const frames = t.vm.host.pages.freeFrames;
    t.traceOn();
    t.slot(1, 8 * MB, 0);
    expect(t.takeTrace()).toEqual([
      'kvm_mmu_zap_all_fast kvm-mmu-valid-gen 0 used_pages 0',
      'kvm_tdp_mmu_spte_changed 0 0x0 3 0x827+pfn 0x8000000000000000',
      'kvm_mmu_prepare_zap_page sp gen 0 gfn 0 l2 8-byte q0 direct wux nxe ad root 0 sync',
      'kvm_tdp_mmu_spte_changed 0 0x0 2 0x827+pfn 0x80000000000005a0',
      'kvm_mmu_prepare_zap_page sp gen 0 gfn 0 l1 8-byte q0 direct wux nxe ad root 0 sync',
      'kvm_tdp_mmu_spte_changed 0 0x1 1 0xe67+pfn 0x80000000000005a0',
      'kvm_tdp_mmu_spte_changed 0 0x800 2 0x827+pfn 0x80000000000005a0',
      'kvm_mmu_prepare_zap_page sp gen 0 gfn 800 l1 8-byte q0 direct wux nxe ad root 0 sync',
      'kvm_tdp_mmu_spte_changed 0 0x800 1 0xe67+pfn 0x80000000000005a0',
      'kvm_tdp_mmu_spte_changed 0 0x0 4 0x827+pfn 0x8000000000000000',
      'kvm_mmu_prepare_zap_page sp gen 0 gfn 0 l3 8-byte q0 direct wux nxe ad root 0 sync',
    ]);
    expect([t.vm.stats.pages_4k, t.vm.mmu.tdpMmuPages]).toEqual([0, 0]);
    t.enter();
    expect(t.vm.host.pages.freeFrames).toBe(frames + 4);
    expect(t.vm.mmu.tdpMmuRoots.length).toBe(1);
  });

  it('follows the process when it unmaps', () => {
    const t = new TestMmu();
    const hva = t.slot(0, 0, 2 * MB);
    t.fault(0x3000, WRITE);
    t.traceOn();
    t.vm.mm.munmap(hva + 0x3000, 0x1000);
    expect(t.takeTrace()).toContain('kvm_tdp_mmu_spte_changed 0 0x3 1 0xe67+pfn 0x8000000000000000');
    expect(t.fault(0x3000, WRITE)).toBe(-14);
  });

  it('emulates writes to read-only slots and leaves no MMIO entry', () => {
    const t = new TestMmu();
    t.slot(0, 0, 2 * MB, { flags: KVM_MEM_READONLY });
    t.fault(0x1000, READ);
    expect(t.fault(0x1000, WRITE | P)).toBe(RET_PF_EMULATE);
    expect(t.vcpu.stats.pf_mmio_spte_created).toBe(0);
  });
});

describe('dirty logging', () => {
  it('splits huge pages, protects, and fixes writes fast', () => {
    const t = new TestMmu();
    const hva = t.slot(1, 8 * MB, 2 * MB, { kind: 'thp' });
    t.fault(8 * MB, WRITE);
    t.traceOn();
    t.slot(1, 8 * MB, 2 * MB, { hva, flags: KVM_MEM_LOG_DIRTY_PAGES });
    const lines = t.takeTrace();
    expect(lines.slice(0, 4)).toEqual([
      'kvm_mmu_get_page sp gen 0 gfn 800 l1 8-byte q0 direct wux nxe ad root 0 sync new',
      'kvm_tdp_mmu_spte_changed 0 0x800 2 0xee7+pfn 0x827+pfn',
      'kvm_mmu_split_huge_page 0x800 0xee7+pfn 2 0',
      'kvm_tdp_mmu_spte_changed 0 0x800 1 0xe67+pfn 0xe65+pfn',
    ]);
    expect(lines.length).toBe(3 + 512);
    expect(t.fault(8 * MB + 0x1000, WRITE | P)).toBe(RET_PF_FIXED);
    expect(t.takeTrace()).toEqual(['fast_page_fault 0 0x801000 P|W|U|0x100000000 0xe65+pfn 0xe67+pfn 0 1']);
    const log = getDirtyLog(t.vm, 1);
    expect(log).toBeInstanceOf(Uint8Array);
    expect((log as Uint8Array)[0]).toBe(2);
    expect(t.takeTrace()).toEqual(['kvm_tdp_mmu_spte_changed 0 0x801 1 0xe67+pfn 0xe65+pfn']);
    t.slot(1, 8 * MB, 2 * MB, { hva });
    expect(t.takeTrace().slice(0, 2)).toEqual([
      'kvm_tdp_mmu_spte_changed 0 0x800 2 0x827+pfn 0x8000000000000000',
      'kvm_mmu_prepare_zap_page sp gen 0 gfn 800 l1 8-byte q0 direct wux nxe ad root 0 sync',
    ]);
    expect(t.vm.stats.pages_4k).toBe(0);
  });
});
