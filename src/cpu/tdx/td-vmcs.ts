/**
 * The VMCS that a TD's vCPU runs with: controls that are the module's own choice, and the state at the reset vector (@tdx base spec,
 * "Initial State of TD VCPU"): protected mode, flat and without paging, with EFER.LME set already.
 */
import { MC_VECTOR } from '../../arch/exceptions.ts';
import { PAT_RESET_HI, PAT_RESET_LO } from '../../arch/msr.ts';
import { R8, RBX, RCX, RDX, RSI } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import type { ModuleState } from './module-state.ts';
import { resetContext } from './switch.ts';
import type { Td, TdVcpu } from './td.ts';

/** VPIDs of TDs: the upper half of the space, which the host's VMM does not come to. */
const FIRST_VPID = 0x8000;

/** CR0 bits that the TD cannot change: NE, NW and CD; and CR4's: MCE, VMXE and SMXE. */
const CR0_FIXED = 0x60000020;
const CR4_FIXED = 0x6040;
const CR0_RESET = 0x21;
const CR4_RESET = 0x2040;
const EFER_RESET = 0x901;
const RIP_RESET = 0xfffffff0 | 0;

/** MSRs that the TD reads and writes by itself. */
const DIRECT_MSRS = [
  0x174, 0x175, 0x176, 0x277, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101,
  0xc0000102, 0xc0000103,
];

/** Selector, base, limit and access rights of the flat segments. */
const SEGMENTS: readonly (readonly [number, number, number, number])[] = [
  [F.VMCS_GUEST_CS_SELECTOR, F.VMCS_GUEST_CS_BASE, F.VMCS_GUEST_CS_LIMIT, F.VMCS_GUEST_CS_AR_BYTES],
  [F.VMCS_GUEST_SS_SELECTOR, F.VMCS_GUEST_SS_BASE, F.VMCS_GUEST_SS_LIMIT, F.VMCS_GUEST_SS_AR_BYTES],
  [F.VMCS_GUEST_DS_SELECTOR, F.VMCS_GUEST_DS_BASE, F.VMCS_GUEST_DS_LIMIT, F.VMCS_GUEST_DS_AR_BYTES],
  [F.VMCS_GUEST_ES_SELECTOR, F.VMCS_GUEST_ES_BASE, F.VMCS_GUEST_ES_LIMIT, F.VMCS_GUEST_ES_AR_BYTES],
  [F.VMCS_GUEST_FS_SELECTOR, F.VMCS_GUEST_FS_BASE, F.VMCS_GUEST_FS_LIMIT, F.VMCS_GUEST_FS_AR_BYTES],
  [F.VMCS_GUEST_GS_SELECTOR, F.VMCS_GUEST_GS_BASE, F.VMCS_GUEST_GS_LIMIT, F.VMCS_GUEST_GS_AR_BYTES],
];
const CODE_RIGHTS = 0xc09b;
const DATA_RIGHTS = 0xc093;

/** Everything is intercepted but what the module lets through: reads in the first half of the page, writes in the second. */
function initMsrBitmap(u8: Uint8Array, pfn: number): void {
  const base = pfn * 4096;
  u8.fill(0xff, base, base + 4096);
  for (const msr of DIRECT_MSRS) {
    const at = base + (msr >= 0xc0000000 ? 0x400 : 0) + ((msr & 0x1fff) >>> 3);
    u8[at]! &= ~(1 << (msr & 7));
    // EFER is read and not written: its bits are fixed but for what paging does.
    if (msr !== 0xc0000080) u8[at + 0x800]! &= ~(1 << (msr & 7));
  }
}

/** Fills the vCPU's VMCS, MSR bitmap and registers; `rcx` is what the host tells the TD's firmware. */
export function initTdVmcs(module: ModuleState, td: Td, vp: TdVcpu, rcx: number): void {
  const { i32, u8 } = module.memory;
  const [vmcs, bitmap] = vp.tdvpx as [number, number];
  const write = (field: number, lo: number): void => {
    i32[(vmcs << 10) + (field >> 2)] = lo;
  };
  const write64 = (field: number, lo: number, hi: number): void => {
    write(field, lo);
    write(field + 4, hi);
  };
  i32[vmcs << 10] = F.VMCS_REVISION;
  const { capabilities } = module.vmx;
  write(
    F.VMCS_PIN_BASED_VM_EXEC_CONTROL,
    capabilities.pin.must | C.PIN_BASED_EXT_INTR_MASK | C.PIN_BASED_NMI_EXITING | C.PIN_BASED_VIRTUAL_NMIS,
  );
  write(
    F.VMCS_CPU_BASED_VM_EXEC_CONTROL,
    capabilities.primary.must |
      C.CPU_BASED_USE_TSC_OFFSETTING |
      C.CPU_BASED_HLT_EXITING |
      C.CPU_BASED_MWAIT_EXITING |
      C.CPU_BASED_MONITOR_EXITING |
      C.CPU_BASED_RDPMC_EXITING |
      C.CPU_BASED_UNCOND_IO_EXITING |
      C.CPU_BASED_USE_MSR_BITMAPS |
      C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS,
  );
  write(
    F.VMCS_SECONDARY_VM_EXEC_CONTROL,
    C.SECONDARY_EXEC_ENABLE_EPT |
      C.SECONDARY_EXEC_UNRESTRICTED_GUEST |
      C.SECONDARY_EXEC_ENABLE_VPID |
      C.SECONDARY_EXEC_WBINVD_EXITING |
      C.SECONDARY_EXEC_ENABLE_RDTSCP |
      (capabilities.secondary.may & C.SECONDARY_EXEC_ENABLE_INVPCID),
  );
  write(
    F.VMCS_VM_EXIT_CONTROLS,
    capabilities.exit.must |
      C.VM_EXIT_SAVE_DEBUG_CONTROLS |
      C.VM_EXIT_HOST_ADDR_SPACE_SIZE |
      C.VM_EXIT_ACK_INTR_ON_EXIT |
      C.VM_EXIT_SAVE_IA32_PAT |
      C.VM_EXIT_LOAD_IA32_PAT |
      C.VM_EXIT_SAVE_IA32_EFER |
      C.VM_EXIT_LOAD_IA32_EFER,
  );
  write(
    F.VMCS_VM_ENTRY_CONTROLS,
    capabilities.entry.must | C.VM_ENTRY_LOAD_DEBUG_CONTROLS | C.VM_ENTRY_LOAD_IA32_PAT | C.VM_ENTRY_LOAD_IA32_EFER,
  );
  write(F.VMCS_EXCEPTION_BITMAP, 1 << MC_VECTOR);
  write64(F.VMCS_VMCS_LINK_POINTER, -1, -1);
  write64(F.VMCS_MSR_BITMAP, (bitmap << 12) | 0, Math.floor(bitmap / 0x100000));
  write64(
    F.VMCS_EPT_POINTER,
    (td.septRoot << 12) | C.VMX_EPTP_MT_WB | C.VMX_EPTP_PWL_4,
    Math.floor(td.septRoot / 0x100000),
  );
  write(F.VMCS_VIRTUAL_PROCESSOR_ID, FIRST_VPID | ((td.hkid << 8) & 0x7f00) | (vp.index & 0xff));
  initMsrBitmap(u8, bitmap);

  write(F.VMCS_CR0_GUEST_HOST_MASK, CR0_FIXED);
  write(F.VMCS_CR0_READ_SHADOW, CR0_RESET & CR0_FIXED);
  write(F.VMCS_CR4_GUEST_HOST_MASK, CR4_FIXED);
  write(F.VMCS_CR4_READ_SHADOW, CR4_RESET & CR4_FIXED);
  write(F.VMCS_GUEST_CR0, CR0_RESET);
  write(F.VMCS_GUEST_CR4, CR4_RESET);
  write(F.VMCS_GUEST_IA32_EFER, EFER_RESET);
  write64(F.VMCS_GUEST_IA32_PAT, PAT_RESET_LO, PAT_RESET_HI);
  write(F.VMCS_GUEST_DR7, 0x400);
  write(F.VMCS_GUEST_RFLAGS, 2);
  write(F.VMCS_GUEST_RIP, RIP_RESET);
  for (const [selector, base, limit, rights] of SEGMENTS) {
    write(selector, 0);
    write(base, 0);
    write(limit, -1);
    write(rights, selector === F.VMCS_GUEST_CS_SELECTOR ? CODE_RIGHTS : DATA_RIGHTS);
  }
  write(F.VMCS_GUEST_LDTR_AR_BYTES, C.VMX_AR_UNUSABLE);
  write(F.VMCS_GUEST_TR_AR_BYTES, 0x8b);
  write(F.VMCS_GUEST_TR_LIMIT, 0xffff);

  vp.gpr.fill(0);
  resetContext(vp.context);
  vp.gpr[2 * RBX] = td.gpaw;
  for (const register of [RCX, R8]) {
    vp.gpr[2 * register] = rcx % 0x1_0000_0000;
    vp.gpr[2 * register + 1] = Math.floor(rcx / 0x1_0000_0000);
  }
  vp.gpr[2 * RDX] = td.cpuid.find((e) => e.leaf === 1)?.eax ?? 0;
  vp.gpr[2 * RSI] = vp.index;
}
