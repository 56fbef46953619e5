/** What KVM tells the host's memory management about pages it mapped (@kvm kvm_main.c kvm_set_pfn_dirty, kvm_set_pfn_accessed). */
import { FRAME_IDLE } from '../../host/page-allocator.ts';
import type { VmState } from '../vm-state.ts';

/** The guest wrote the page. @kvm kvm_main.c kvm_set_pfn_dirty. HOT */
export function setPfnDirty(vm: VmState, pfn: number): void {
  vm.host.pages.setDirty(pfn);
}

/** The guest used the page: it is not idle any more. @kvm kvm_main.c kvm_set_pfn_accessed */
export function setPfnAccessed(vm: VmState, pfn: number): void {
  vm.host.pages.flags[pfn]! &= ~FRAME_IDLE;
}
