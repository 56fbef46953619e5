/** SEAMCALL leaves that make a vCPU of a TD and take it off the processor (@tdx ABI: TDH.VP.*). */
import * as T from '../../arch/tdx.ts';
import { freeFrame, takePage } from './manage.ts';
import type { ModuleState } from './module-state.ts';
import { PT_TDCX, PT_TDVPR } from './pamt.ts';
import { CONTEXT_WORDS } from './switch.ts';
import { OP_UNINITIALIZED, TD_KEYS_CONFIGURED, type Td, TdVcpu, VCPU_READY, VCPU_UNINITIALIZED } from './td.ts';
import { initTdVmcs } from './td-vmcs.ts';

const { tdxStatus } = T;
const OK = tdxStatus(T.TDX_SUCCESS);

/** 0, or why the TD can have no (more) vCPUs. */
function tdForVcpus(td: Td): number {
  if (td.lifecycle !== TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_TD_KEYS_NOT_CONFIGURED, T.OPERAND_ID_RDX);
  if (td.opState === OP_UNINITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  return OK;
}

/** TDH.VP.CREATE: RCX TDVPR page, RDX TDR. */
export function vpCreate(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rdx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RDX);
  const state = tdForVcpus(td);
  if (state !== OK) return state;
  if (module.frameAt(args.rcx) < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  const pfn = freeFrame(module, args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  takePage(module, td, pfn, PT_TDVPR);
  module.vcpus.set(pfn, new TdVcpu(pfn, td.tdr, CONTEXT_WORDS));
  return OK;
}

/** TDH.VP.ADDCX: RCX page, RDX TDVPR. */
export function vpAddcx(module: ModuleState, args: T.SeamArgs): number {
  const vp = module.vcpuAt(args.rdx);
  if (vp === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RDX);
  if (vp.state !== VCPU_UNINITIALIZED) return tdxStatus(T.TDX_VCPU_STATE_INCORRECT, T.OPERAND_ID_RDX);
  if (module.frameAt(args.rcx) < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  const pfn = freeFrame(module, args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (vp.tdvpx.length >= T.TDVPX_PAGES) return tdxStatus(T.TDX_TDCX_NUM_INCORRECT, T.OPERAND_ID_TDVPR);
  takePage(module, module.tds.get(vp.tdr)!, pfn, PT_TDCX);
  vp.tdvpx.push(pfn);
  return OK;
}

/** TDH.VP.INIT: RCX TDVPR, RDX the value that RCX and R8 will have at the reset vector, R8 x2APIC id. */
export function vpInit(module: ModuleState, args: T.SeamArgs): number {
  const vp = module.vcpuAt(args.rcx);
  if (vp === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  const td = module.tds.get(vp.tdr)!;
  const state = tdForVcpus(td);
  if (state !== OK) return state;
  if (vp.state !== VCPU_UNINITIALIZED) return tdxStatus(T.TDX_VCPU_STATE_INCORRECT, T.OPERAND_ID_RCX);
  if (vp.tdvpx.length < T.TDVPX_PAGES) return tdxStatus(T.TDX_TDCX_NUM_INCORRECT, T.OPERAND_ID_TDVPR);
  if (td.vcpus.length >= td.maxVcpus) return tdxStatus(T.TDX_MAX_VCPUS_EXCEEDED, T.OPERAND_ID_TDR);
  if (td.vcpus.some((pfn) => module.vcpus.get(pfn)!.apicId === args.r8)) {
    return tdxStatus(T.TDX_X2APIC_ID_NOT_UNIQUE, T.OPERAND_ID_R8);
  }
  vp.index = td.vcpus.length;
  vp.apicId = args.r8;
  td.vcpus.push(vp.tdvpr);
  initTdVmcs(module, td, vp, args.rdx);
  vp.state = VCPU_READY;
  vp.associated = true;
  return OK;
}

/** TDH.VP.FLUSH: RCX TDVPR. The processor holds nothing of it any more. */
export function vpFlush(module: ModuleState, args: T.SeamArgs): number {
  const vp = module.vcpuAt(args.rcx);
  if (vp === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (!vp.associated) return tdxStatus(T.TDX_VCPU_NOT_ASSOCIATED, T.OPERAND_ID_RCX);
  vp.associated = false;
  module.core.tlb.flushAll();
  return OK;
}

/**
 * TDH.VP.WR: RCX TDVPR, RDX field, R8 value, R9 mask.
 * @partial the shared EPT's pointer alone
 */
export function vpWr(module: ModuleState, args: T.SeamArgs): number {
  const vp = module.vcpuAt(args.rcx);
  if (vp === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (args.rdx !== T.VP_FIELD_SHARED_EPTP) return tdxStatus(T.TDX_METADATA_FIELD_ID_INCORRECT, T.OPERAND_ID_RDX);
  const pfn = module.frameAt(args.r8);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_R8);
  if (vp.sharedRoot !== pfn) module.core.tlb.flushAll();
  vp.sharedRoot = pfn;
  return OK;
}
