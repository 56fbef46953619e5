/** An SPTE in words, and the entry that stands for a gfn now. */
import { join64 } from '../../arch/halves.ts';
import { PT_ACCESSED_MASK, PT_DIRTY_MASK, PT_PAGE_SIZE_MASK, PT_WRITABLE_MASK } from '../../arch/paging.ts';
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

/** The entry that translates `gfn` in the vCPU's page tables, or null when it has no root. Reads only. */
export function spteOf(vcpu: VcpuState, gfn: number): SpteView | null {
  const root = vcpu.mmu.mmu.root.pfn;
  if (root < 0) return null;
  // An iterator of its own: the fault path may be using the shared ones.
  const iter = new TdpIter(vcpu.vm.memory);
  iter.start(vcpu.vm.mmu.shadowPage(root), 1, gfn);
  while (iter.stepDown());
  return {
    spte: `0x${join64(iter.oldLo, iter.oldHi).toString(16)}`,
    level: iter.level,
    words: spteWords(vcpu, iter.oldLo, iter.oldHi, iter.level),
  };
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
