/** A shared page comes from the VMM's address space; where it has to be read in first, the vCPU waits. */
import { gfnToPfnMemslot, PFN_MODE_ASYNC, PFN_MODE_INTERRUPTIBLE } from '../../hva-to-pfn.ts';
import { tryAsyncPf } from '../../x86/async-pf.ts';
import { isNoslotPfn } from '../pfn.ts';
import { RET_PF_CONTINUE, RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c __kvm_faultin_pfn */
export const faultInShared: FaultStage = {
  name: 'fault-in-shared',
  kvmFunction: '__kvm_faultin_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    const { slot } = fault;
    if (fault.isPrivate || isNoslotPfn(fault.pfn)) return RET_PF_CONTINUE;
    const vm = vcpu.vm;
    const out = vcpu.mmu.pfnLookup;
    let pfn = gfnToPfnMemslot(vm, slot, fault.gfn, fault.write, PFN_MODE_ASYNC, out);
    if (out.async && tryAsyncPf(vcpu, fault)) return RET_PF_RETRY;
    // Nothing else to do: wait, until the page or a signal comes.
    if (out.async) pfn = gfnToPfnMemslot(vm, slot, fault.gfn, fault.write, PFN_MODE_INTERRUPTIBLE, out);
    fault.pfn = pfn;
    fault.hva = out.hva;
    fault.mapWritable = out.writable;
    return RET_PF_CONTINUE;
  },
  explain(_vcpu, fault, verdict) {
    if (fault.isPrivate) return 'the access is private';
    if (fault.slot === null) return 'no slot, no page';
    if (verdict === RET_PF_RETRY) return 'the page has to be read in first: begun, and the vCPU does not wait here';
    if (isNoslotPfn(fault.pfn)) return 'the lookup of the page says that there is no slot';
    if (fault.hva < 0) return 'the slot has no host address for this access';
    if (fault.pfn < 0) return `the host has no page at 0x${fault.hva.toString(16)} for this access`;
    const access = fault.mapWritable ? 'writable' : 'read-only';
    return `hva 0x${fault.hva.toString(16)} is frame 0x${fault.pfn.toString(16)}, ${access}`;
  },
};
