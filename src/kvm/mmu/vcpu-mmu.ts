/** The MMU's part of a vCPU (@kvm kvm_host.h struct kvm_vcpu_arch: mmu, walk_mmu, mmio_*). */
import { GmemPfn } from '../guest-memfd/gmem-pfn.ts';
import { PfnLookup } from '../hva-to-pfn.ts';
import { PageFault } from './fault.ts';
import { GuestWalker } from './guest-walker.ts';
import { Mmu } from './mmu-context.ts';
import type { TranslateNestedGpa } from './translate-gpa.ts';

export class VcpuMmu {
  readonly rootMmu = new Mmu('root');
  /** Shadows L1's nested page tables. */
  readonly guestMmu = new Mmu('guest');
  /** Walks L2's own page tables. */
  readonly nestedMmu = new Mmu('nested');
  /** The MMU that translates for the processor now. */
  mmu: Mmu = this.rootMmu;
  /** The MMU that KVM walks for a gva. */
  walkMmu: Mmu = this.rootMmu;

  /** The one-entry MMIO cache: page of the gva in halves (both 0 for none), gfn, rights, memslot generation. */
  mmioGvaLo = 0;
  mmioGvaHi = 0;
  mmioGfn = 0;
  mmioAccess = 0;
  mmioGen = -1;

  readonly fault = new PageFault();
  /** The recorder was told of the fault already: a reserved-bit fault that goes on. */
  faultBegun = false;
  readonly walker = new GuestWalker();
  /** Walks L1's nested tables in the middle of another walk. */
  readonly nestedWalker = new GuestWalker();
  /** How they are walked; mmuCreate fills it in. */
  translateNestedGpa: TranslateNestedGpa = () => -1;
  /** The walk that a fault of a shadowed MMU made, kept until the fault is decided. */
  readonly faultWalker = new GuestWalker();
  readonly pfnLookup = new PfnLookup();
  readonly gmemPfn = new GmemPfn();
}
