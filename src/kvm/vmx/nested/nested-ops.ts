/** Nested VMX as the rest of KVM sees it (@kvm nested.c vmx_nested_ops). */
import type { NestedOps } from '../../x86/nested-ops.ts';
import { checkNestedEventsVmx, hasNestedEvents, isExceptionVmexit, nestedTripleFault } from './nested-events.ts';
import { vmxGetNestedState, vmxLeaveNested, vmxSetNestedState } from './nested-state.ts';
import { getVmcs12Pages } from './vmcs12-pages.ts';

export const vmxNestedOps: NestedOps = {
  leaveNested: vmxLeaveNested,
  isExceptionVmexit,
  checkEvents: checkNestedEventsVmx,
  hasEvents: hasNestedEvents,
  tripleFault: nestedTripleFault,
  getState: vmxGetNestedState,
  setState: vmxSetNestedState,
  getNestedStatePages: (vcpu) => !vcpu.guestMode || getVmcs12Pages(vcpu),
};
