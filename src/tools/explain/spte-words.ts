/** An SPTE in words, and the entry that stands for a gfn now. */
import { hi64, join64, lo64 } from '../../arch/halves.ts';
import { PT_ACCESSED_MASK, PT_DIRTY_MASK, PT_PAGE_SIZE_MASK, PT_WRITABLE_MASK } from '../../arch/paging.ts';
import { ROLE_DIRECT } from '../../kvm/mmu/role.ts';
import { ShadowWalk } from '../../kvm/mmu/shadow/walk.ts';
import {
  isExecutable,
  isFrozenSpte,
  isMmioSpte,
  isMmuWritable,
  isShadowPresent,
  mmioSpteAccess,
  mmioSpteGeneration,
  mmioSpteGfn,
  sptePfn,
} from '../../kvm/mmu/spte.ts';
import { TdpIter } from '../../kvm/mmu/tdp-iter.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';

/** The last entry of a walk. */
export interface SpteView {
  /** Whole entry, hex. */
  readonly spte: string;
  /** 1 to 5. */
  readonly level: number;
  readonly words: string;
}

/** The entry that translates `address` in the vCPU's page tables, or null when there is no table. Reads only. */
export function spteOf(vcpu: VcpuState, address: bigint): SpteView | null {
  const { mmu } = vcpu.mmu;
  if (mmu.root.pfn < 0) return null;
  const direct = (mmu.rootRole & ROLE_DIRECT) !== 0;
  if (!vcpu.vm.mmu.tdpMmuEnabled || !direct) return shadowSpteOf(vcpu, address);
  // An iterator of its own: the fault path may be using the shared ones.
  const iter = new TdpIter(vcpu.vm.memory);
  iter.start(vcpu.vm.mmu.shadowPage(mmu.root.pfn), 1, Number(address / 4096n));
  while (iter.stepDown());
  return viewOf(vcpu, iter.oldLo, iter.oldHi, iter.level);
}

function shadowSpteOf(vcpu: VcpuState, address: bigint): SpteView | null {
  const walk = new ShadowWalk(vcpu.vm);
  if (!walk.start(vcpu.mmu.mmu, lo64(address), hi64(address))) return null;
  let level: number;
  do {
    level = walk.level;
  } while (walk.next());
  return viewOf(vcpu, walk.oldLo, walk.oldHi, level);
}

function viewOf(vcpu: VcpuState, lo: number, hi: number, level: number): SpteView {
  return { spte: `0x${join64(lo, hi).toString(16)}`, level, words: spteWords(vcpu, lo, hi, level) };
}

const sizes = ['', '4K', '2M', '1G', '512G', '256T'];

function spteWords(vcpu: VcpuState, lo: number, hi: number, level: number): string {
  const masks = vcpu.vm.mmu.masks;
  if (isFrozenSpte(lo, hi)) return 'frozen: another thread is changing it';
  if (isMmioSpte(masks, lo, hi)) {
    const access = mmioSpteAccess(masks, lo);
    const rights = access === 0 ? 'no rights kept' : `${access & 2 ? 'W' : ''}${access & 4 ? 'U' : ''} kept`;
    return `MMIO: gfn 0x${mmioSpteGfn(masks, lo, hi).toString(16)}, generation ${mmioSpteGeneration(lo, hi)}, ${rights}; reserved bits make every access fault`;
  }
  if (!isShadowPresent(lo)) return 'nothing is mapped';
  if (level > 1 && (lo & PT_PAGE_SIZE_MASK) === 0) return `a table below, at level ${level}`;
  const rights = `R${lo & PT_WRITABLE_MASK ? 'W' : '-'}${isExecutable(masks, lo, hi) ? 'X' : '-'}`;
  const notes = [
    (lo & PT_WRITABLE_MASK) === 0 && isMmuWritable(masks, lo, hi)
      ? 'write-protected by KVM, fixable without mmu_lock'
      : '',
    (lo & PT_WRITABLE_MASK) === 0 && (lo & masks.hostWritableLo) === 0 ? 'slot or host mapping is read-only' : '',
    lo & PT_ACCESSED_MASK ? 'accessed' : 'not accessed',
    lo & PT_DIRTY_MASK ? 'dirty' : '',
  ].filter((note) => note !== '');
  return `${sizes[level]} page ${rights}, host frame 0x${sptePfn(lo, hi).toString(16)} (${notes.join(', ')})`;
}
