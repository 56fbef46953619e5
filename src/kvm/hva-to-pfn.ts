/** From a guest frame through its slot to the frame that backs it in the host (@kvm kvm_main.c hva_to_pfn). */
import { hiOf, loOf } from '../arch/halves.ts';
import { EAGAIN, EHWPOISON } from '../host/errno.ts';
import {
  FOLL_INTERRUPTIBLE,
  FOLL_NOWAIT,
  FOLL_WRITE,
  type GupResult,
  getUserPageFastOnly,
  getUserPages,
} from '../host/gup.ts';
import { PROT_READ, PROT_WRITE } from '../host/vma.ts';
import { hvaError, KVM_HVA_ERR_RO_BAD, slotHva } from './memslots/hva.ts';
import { KVM_MEM_READONLY, type Memslot } from './memslots/memslot.ts';
import { gfnToMemslot } from './memslots/memslots.ts';
import {
  KVM_PFN_ERR_FAULT,
  KVM_PFN_ERR_HWPOISON,
  KVM_PFN_ERR_RO_FAULT,
  KVM_PFN_ERR_SIGPENDING,
  KVM_PFN_NOSLOT,
} from './mmu/pfn.ts';
import type { VmState } from './vm-state.ts';

/** How long a lookup may take: as long as it needs; not sleep (`async` says that it would have); until a signal. */
export const PFN_MODE_NORMAL = 0;
export const PFN_MODE_ASYNC = 1;
export const PFN_MODE_INTERRUPTIBLE = 2;

/** Where a lookup writes the rest of its answer; made once and used again. */
export class PfnLookup {
  /** Host virtual address, or KVM_HVA_ERR_*. */
  hva = -1;
  /** The guest may get a writable mapping: true on a read fault when a writable one could be had at no cost. */
  writable = false;
  /** The page is not there and the task would sleep for it. */
  async = false;
}

const found: GupResult = { pfn: -1, writable: false };

/**
 * The frame behind `gfn`, or a KVM_PFN_* value: NOSLOT (no slot or an INVALID one), RO_FAULT (write to a read-only slot), FAULT,
 * HWPOISON, SIGPENDING (it would sleep, and what ends the sleep here is a signal).
 * @kvm kvm_main.c __gfn_to_pfn_memslot. HOT
 */
export function gfnToPfnMemslot(
  vm: VmState,
  slot: Memslot | null,
  gfn: number,
  writeFault: boolean,
  mode: number,
  out: PfnLookup,
): number {
  out.async = false;
  out.writable = false;
  const error = hvaError(slot, writeFault);
  if (error !== 0) {
    out.hva = error;
    return error === KVM_HVA_ERR_RO_BAD ? KVM_PFN_ERR_RO_FAULT : KVM_PFN_NOSLOT;
  }
  const hva = slotHva(slot!, gfn);
  out.hva = hva;
  return hvaToPfn(vm, loOf(hva), hiOf(hva), writeFault, (slot!.flags & KVM_MEM_READONLY) === 0, mode, out);
}

/** @kvm kvm_main.c hva_to_pfn. HOT */
function hvaToPfn(
  vm: VmState,
  hvaLo: number,
  hvaHi: number,
  writeFault: boolean,
  mayMapWritable: boolean,
  mode: number,
  out: PfnLookup,
): number {
  const mm = vm.mm;
  if (writeFault || mayMapWritable) {
    const pfn = getUserPageFastOnly(mm, hvaLo, hvaHi, true);
    if (pfn >= 0) {
      out.writable = mayMapWritable;
      return pfn;
    }
  }
  const flags =
    (writeFault ? FOLL_WRITE : 0) |
    (mode === PFN_MODE_ASYNC ? FOLL_NOWAIT : mode === PFN_MODE_INTERRUPTIBLE ? FOLL_INTERRUPTIBLE : 0);
  const r = getUserPages(mm, hvaLo, hvaHi, flags, found);
  if (r === 0) {
    let pfn = found.pfn;
    out.writable = mayMapWritable && writeFault;
    if (mayMapWritable && !writeFault) {
      // A read of a page that is writable by now: map it so, and save the write fault.
      const writable = getUserPageFastOnly(mm, hvaLo, hvaHi, true);
      if (writable >= 0) {
        out.writable = true;
        pfn = writable;
      }
    }
    return pfn;
  }
  return failedPfn(vm, writeFault, mayMapWritable, mode, r, out);
}

/** Why there is no page at `out.hva`. */
function failedPfn(
  vm: VmState,
  writeFault: boolean,
  mayMapWritable: boolean,
  mode: number,
  r: number,
  out: PfnLookup,
): number {
  const mm = vm.mm;
  const hva = out.hva;
  out.writable = mayMapWritable && writeFault;
  if (r === -EAGAIN && mode !== PFN_MODE_ASYNC) {
    // The signal takes the sleeper away.
    mm.userfaults.cancel(hva - (hva % 4096), writeFault);
    return KVM_PFN_ERR_SIGPENDING;
  }
  if (r === -EHWPOISON) return KVM_PFN_ERR_HWPOISON;
  if (mode !== PFN_MODE_ASYNC && mm.getUserPages(hva, FOLL_WRITE, found) === -EHWPOISON) return KVM_PFN_ERR_HWPOISON;
  const vma = mm.vmaAt(hva);
  if (vma === null) return KVM_PFN_ERR_FAULT;
  if (vma.pfnmap) {
    if (mm.followPfnmap(hva, found) < 0) return KVM_PFN_ERR_FAULT;
    if (writeFault && !found.writable) return KVM_PFN_ERR_RO_FAULT;
    if (mayMapWritable) out.writable = found.writable;
    return found.pfn;
  }
  // Whatever the reason, a mapping that allows the access is worth waiting for.
  if (mode === PFN_MODE_ASYNC && (vma.prot & PROT_READ) !== 0 && (!writeFault || (vma.prot & PROT_WRITE) !== 0)) {
    out.async = true;
  }
  return KVM_PFN_ERR_FAULT;
}

const scratch = new PfnLookup();

/** The frame behind `gfn` for a write by KVM itself, or a KVM_PFN_* value. @kvm kvm_main.c gfn_to_pfn, gfn_to_pfn_memslot */
export function gfnToPfn(vm: VmState, gfn: number, asId = 0): number {
  return gfnToPfnMemslot(vm, gfnToMemslot(vm, gfn, asId), gfn, true, PFN_MODE_NORMAL, scratch);
}
