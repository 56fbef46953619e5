/** INVEPT, INVVPID and VMFUNC (@kvm nested.c handle_invept, handle_invvpid, handle_vmfunc). */
import { UD_VECTOR } from '../../../arch/exceptions.ts';
import { RAX, RCX } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { readGuest } from '../../guest-memory.ts';
import { MMU_ROOTS_ALL, mmuFreeRoots } from '../../mmu/free-roots.ts';
import { makeRequest, REQ_TLB_FLUSH_GUEST, type VcpuState } from '../../vcpu-state.ts';
import { queueException } from '../../x86/exceptions.ts';
import { skipEmulatedInstruction } from '../../x86/skip.ts';
import { vmcsRead, vmcsReadHi } from '../vmcs-access.ts';
import { eptpValid, isNoncanonical } from './consistency-checks.ts';
import { nestedVmxCheckPermission } from './instructions.ts';
import { instructionInfo, instructionReg2, readOperand, registerHi, registerLo } from './memory-operand.ts';
import { freeEptRoots, nestedEptNewEptp } from './nested-ept.ts';
import { nestedVmxFail, nestedVmxSucceed } from './vm-result.ts';
import { nestedVmxVmexit } from './vmexit.ts';

const operand = new Uint8Array(16);
const view = new DataView(operand.buffer);

/** Type of the invalidation, or -1 for one that `types` has not got. */
function typeOf(vcpu: VcpuState, info: number, types: number): number {
  const reg = instructionReg2(info);
  const type = registerLo(vcpu, reg);
  if (registerHi(vcpu, reg) !== 0 || type >>> 0 >= 32) return -1;
  return (types & (1 << type)) === 0 ? -1 : type;
}

/** @kvm nested.c handle_invept */
export function handleInvept(vcpu: VcpuState): number {
  const { msrs } = vcpu.vmx.nested;
  if (!msrs.has2(C.SECONDARY_EXEC_ENABLE_EPT) || (msrs.eptCaps & C.VMX_EPT_INVEPT_BIT) === 0) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const info = instructionInfo(vcpu);
  const type = typeOf(vcpu, info, (msrs.eptCaps >> 24) & 6);
  if (type < 0) return nestedVmxFail(vcpu, C.VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID);
  const r = readOperand(vcpu, info, operand);
  if (r >= 0) return r;
  const lo = view.getInt32(0, true);
  const hi = view.getInt32(4, true);
  if (type === C.VMX_EPT_EXTENT_CONTEXT) {
    if (!eptpValid(vcpu, lo, hi)) return nestedVmxFail(vcpu, C.VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID);
    freeEptRoots(vcpu, lo, hi);
  } else mmuFreeRoots(vcpu.vm, vcpu.mmu.guestMmu, MMU_ROOTS_ALL);
  return nestedVmxSucceed(vcpu);
}

/** VPID that L2's translations are tagged with. @kvm nested.h nested_get_vpid02 */
export function nestedGetVpid02(vcpu: VcpuState): number {
  return vcpu.vmx.nested.vpid02 !== 0 ? vcpu.vmx.nested.vpid02 : vcpu.vmx.vpid;
}

/** @kvm nested.c handle_invvpid */
export function handleInvvpid(vcpu: VcpuState): number {
  const { msrs } = vcpu.vmx.nested;
  if (!msrs.has2(C.SECONDARY_EXEC_ENABLE_VPID) || (msrs.vpidCaps & C.VMX_VPID_INVVPID_BIT) === 0) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const info = instructionInfo(vcpu);
  const type = typeOf(vcpu, info, (msrs.vpidCaps & C.VMX_VPID_EXTENT_SUPPORTED_MASK) >> 8);
  if (type < 0) return nestedVmxFail(vcpu, C.VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID);
  const r = readOperand(vcpu, info, operand);
  if (r >= 0) return r;
  const vpid = view.getInt32(0, true);
  const lo = view.getInt32(8, true);
  const hi = view.getInt32(12, true);
  const individual = type === C.VMX_VPID_EXTENT_INDIVIDUAL_ADDR;
  if (
    vpid >>> 16 !== 0 ||
    view.getInt32(4, true) !== 0 ||
    (type !== C.VMX_VPID_EXTENT_ALL_CONTEXT && vpid === 0) ||
    (individual && isNoncanonical(vcpu, hi))
  ) {
    return nestedVmxFail(vcpu, C.VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID);
  }
  const { vmx } = vcpu.vm.processor;
  if (individual) vmx.invvpidAddress(nestedGetVpid02(vcpu), lo, hi);
  else vmx.invvpid(nestedGetVpid02(vcpu));
  // Without EPT L2's translations are in shadow tables, which KVM tells apart by the role.
  if (!vcpu.vm.vendor.tdpEnabled) mmuFreeRoots(vcpu.vm, vcpu.mmu.rootMmu, MMU_ROOTS_ALL);
  return nestedVmxSucceed(vcpu);
}

/** EPTP switching: false for an exit. @kvm nested.c nested_vmx_eptp_switching */
function eptpSwitching(vcpu: VcpuState): boolean {
  const v = vcpu.vmx.nested.vmcs12;
  const index = vcpu.regs[2 * RCX]! >>> 0;
  if (index >= C.VMFUNC_EPTP_ENTRIES) return false;
  if (readGuest(vcpu, v.address(F.VMCS_EPTP_LIST_ADDRESS) + index * 8, operand, 0, 8) < 0) return false;
  const lo = view.getInt32(0, true);
  const hi = view.getInt32(4, true);
  if (lo === v.lo(F.VMCS_EPT_POINTER) && hi === v.hi(F.VMCS_EPT_POINTER)) return true;
  if (!eptpValid(vcpu, lo, hi)) return false;
  v.set64(F.VMCS_EPT_POINTER, lo, hi);
  nestedEptNewEptp(vcpu);
  if (!v.vpid) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  return true;
}

/** @kvm nested.c handle_vmfunc */
export function handleVmfunc(vcpu: VcpuState): number {
  const { vmx } = vcpu;
  const v = vmx.nested.vmcs12;
  const number = vcpu.regs[2 * RAX]! >>> 0;
  if (!vcpu.guestMode || number > 63 || !v.has2(C.SECONDARY_EXEC_ENABLE_VMFUNC)) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  const enabled = number === 0 && (v.lo(F.VMCS_VM_FUNCTION_CONTROL) & C.VMX_VMFUNC_EPTP_SWITCHING) !== 0;
  if (enabled && eptpSwitching(vcpu)) return skipEmulatedInstruction(vcpu);
  const qualification = F.VMCS_EXIT_QUALIFICATION;
  const info = vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_INFO);
  nestedVmxVmexit(vcpu, vmx.exitReason, info, vmcsRead(vmx, qualification), vmcsReadHi(vmx, qualification));
  return 1;
}
