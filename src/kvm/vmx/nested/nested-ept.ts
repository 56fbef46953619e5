/** L1's EPT, which KVM's own shadows while L2 runs (@kvm nested.c nested_ept_init_mmu_context, nested_ept_inject_page_fault). */
import { EPT_VIOLATION_GVA_IS_VALID, EPT_VIOLATION_GVA_TRANSLATED } from '../../../arch/ept-qualification.ts';
import { PFERR_RSVD } from '../../../arch/error-code.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import type { X86Exception } from '../../emulate/ops.ts';
import { writeGuest } from '../../guest-memory.ts';
import { MMU_ROOT_CURRENT, mmuFreeRoots, mmuRootPrevious } from '../../mmu/free-roots.ts';
import { mmuInvalidateAddr } from '../../mmu/invlpg.ts';
import type { Mmu, NestedTables, RootInfo } from '../../mmu/mmu-context.ts';
import { initShadowEptMmu } from '../../mmu/roles.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { PML_ENTITY_NUM } from '../pml.ts';
import { vmcsRead } from '../vmcs-access.ts';
import { nestedVmxVmexit } from './vmexit.ts';

/** The root was built for these tables; the attributes of the pointer do not count. @kvm nested.c nested_ept_root_matches */
function rootMatches(root: RootInfo, lo: number, hi: number): boolean {
  if (root.pfn < 0) return false;
  return Math.floor(root.pgd / 4096) === (hi & 0xfffff) * 0x100000 + (lo >>> 12);
}

/** Roots for the tables at (lo, hi) as bits, the current one among them if asked for. */
function matchingRoots(mmu: Mmu, lo: number, hi: number, current: boolean): number {
  let roots = current && rootMatches(mmu.root, lo, hi) ? MMU_ROOT_CURRENT : 0;
  mmu.prevRoots.forEach((root, i) => {
    if (rootMatches(root, lo, hi)) roots |= mmuRootPrevious(i);
  });
  return roots;
}

/** INVEPT of one context. @kvm nested.c handle_invept */
export function freeEptRoots(vcpu: VcpuState, lo: number, hi: number): void {
  const mmu = vcpu.mmu.guestMmu;
  const roots = matchingRoots(mmu, lo, hi, true);
  if (roots !== 0) mmuFreeRoots(vcpu.vm, mmu, roots);
}

/** An EPT violation ends what the processor may have cached for the address. @kvm nested.c nested_ept_invalidate_addr */
function invalidateAddr(vcpu: VcpuState, fault: X86Exception): void {
  const { vmcs12 } = vcpu.vmx.nested;
  const mmu = vcpu.mmu.mmu;
  const roots = matchingRoots(mmu, vmcs12.lo(F.VMCS_EPT_POINTER), vmcs12.hi(F.VMCS_EPT_POINTER), false);
  if (roots !== 0) mmuInvalidateAddr(vcpu, mmu, fault.addressLo, fault.addressHi, roots);
}

/** L1's tables refuse L2's access: L1 gets the exit that a processor would make. @kvm nested.c nested_ept_inject_page_fault */
function injectPageFault(vcpu: VcpuState, fault: X86Exception): void {
  const { vmx } = vcpu;
  const { nested } = vmx;
  const violation = vmx.exitReason === R.EXIT_REASON_EPT_VIOLATION;
  const hardware = vmcsRead(vmx, F.VMCS_EXIT_QUALIFICATION);
  let reason = R.EXIT_REASON_EPT_VIOLATION;
  let qualification = 0;
  if (nested.pmlFull) {
    reason = R.EXIT_REASON_PML_FULL;
    nested.pmlFull = false;
    qualification = hardware & C.INTR_INFO_UNBLOCK_NMI;
  } else {
    if ((fault.errorCode & PFERR_RSVD) !== 0) reason = R.EXIT_REASON_EPT_MISCONFIG;
    else {
      const mask = EPT_VIOLATION_GVA_IS_VALID | EPT_VIOLATION_GVA_TRANSLATED;
      // Whether L2's address had been translated is the processor's to know, if it was the processor that walked.
      const from = violation && fault.fromHardware ? hardware : fault.exitQualification;
      qualification = (fault.exitQualification & ~mask) | (from & mask);
    }
    invalidateAddr(vcpu, fault);
  }
  nestedVmxVmexit(vcpu, reason, 0, qualification, 0);
  nested.vmcs12.set64(F.VMCS_GUEST_PHYSICAL_ADDRESS, fault.addressLo, fault.addressHi);
}

const entry = new Uint8Array(8);
const entryView = new DataView(entry.buffer);

/** A page becomes dirty for L1: into its log, if it keeps one. False when that is full. @kvm nested.c nested_vmx_write_pml_buffer */
function writePmlBuffer(vcpu: VcpuState, gpaLo: number, gpaHi: number): boolean {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  if (!v.has2(C.SECONDARY_EXEC_ENABLE_PML)) return true;
  const index = v.lo(F.VMCS_GUEST_PML_INDEX);
  if (index >= PML_ENTITY_NUM) {
    nested.pmlFull = true;
    return false;
  }
  entryView.setInt32(0, gpaLo & ~0xfff, true);
  entryView.setInt32(4, gpaHi, true);
  if (writeGuest(vcpu, v.address(F.VMCS_PML_ADDRESS) + 8 * index, entry, 0, 8) < 0) return true;
  v.set(F.VMCS_GUEST_PML_INDEX, (index - 1) & 0xffff);
  return true;
}

/** EPT12 as the MMU asks for it. */
const ept12: NestedTables = {
  guestPgd(vcpu, out) {
    const { vmcs12 } = vcpu.vmx.nested;
    out[0] = vmcs12.lo(F.VMCS_EPT_POINTER);
    out[1] = vmcs12.hi(F.VMCS_EPT_POINTER);
  },
  pdptr(vcpu, index, out) {
    out[0] = vcpu.mmu.walkMmu.pdptrs[2 * index]!;
    out[1] = vcpu.mmu.walkMmu.pdptrs[2 * index + 1]!;
  },
  writeLogDirty: writePmlBuffer,
  injectPageFault,
};

/** L1's pointer changed, or L2 is entered. @kvm nested.c nested_ept_new_eptp */
export function nestedEptNewEptp(vcpu: VcpuState): void {
  const { vmcs12, msrs } = vcpu.vmx.nested;
  const lo = vmcs12.lo(F.VMCS_EPT_POINTER);
  const caps = msrs.eptCaps;
  initShadowEptMmu(vcpu, {
    executeOnly: (caps & C.VMX_EPT_EXECUTE_ONLY_BIT) !== 0,
    hugePageLevel: (caps & C.VMX_EPT_1GB_PAGE_BIT) !== 0 ? 3 : (caps & C.VMX_EPT_2MB_PAGE_BIT) !== 0 ? 2 : 1,
    accessedDirty: (lo & C.VMX_EPTP_AD_ENABLE_BIT) !== 0,
    eptpLo: lo,
    eptpHi: vmcs12.hi(F.VMCS_EPT_POINTER),
  });
}

/** @kvm nested.c nested_ept_init_mmu_context */
export function nestedEptInitMmuContext(vcpu: VcpuState): void {
  vcpu.mmu.mmu = vcpu.mmu.guestMmu;
  vcpu.mmu.guestMmu.nestedTables = ept12;
  nestedEptNewEptp(vcpu);
  vcpu.mmu.walkMmu = vcpu.mmu.nestedMmu;
}
