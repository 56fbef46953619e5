/** Nested SVM as the rest of KVM sees it (@kvm nested.c svm_nested_ops). */
import type { NestedOps } from '../x86/nested-ops.ts';
import { checkEvents, isExceptionVmexit, nestedTripleFault } from './nested-events.ts';
import { svmLeaveNested } from './nested-memory.ts';
import { svmGetNestedState, svmGetNestedStatePages, svmSetNestedState } from './nested-state.ts';

export const svmNestedOps: NestedOps = {
  leaveNested: svmLeaveNested,
  isExceptionVmexit,
  checkEvents,
  // All events of L2's are vCPU events.
  hasEvents: () => false,
  tripleFault: nestedTripleFault,
  getState: svmGetNestedState,
  setState: svmSetNestedState,
  getNestedStatePages: svmGetNestedStatePages,
};
