/** SEAMCALLs as the kernel wraps them: a status each, with what the leaf returns in `args` (@kvm virt/vmx/tdx/tdx.c tdh_mng_create and on). */
import * as T from '../../../arch/tdx.ts';
import type { VmState } from '../../vm-state.ts';
import type { VmTdx } from './vm-tdx.ts';

function seamcall(vm: VmState, tdx: VmTdx, leaf: number, rcx: number, rdx = 0, r8 = 0, r9 = 0): number {
  const { args } = tdx;
  args.rcx = rcx;
  args.rdx = rdx;
  args.r8 = r8;
  args.r9 = r9;
  return vm.processor.tdx.seamcall(leaf, args);
}

/** The TDR's physical address. */
function tdr(tdx: VmTdx): number {
  return tdx.tdr * 4096;
}

export const tdhMngCreate = (vm: VmState, tdx: VmTdx): number =>
  seamcall(vm, tdx, T.TDH_MNG_CREATE, tdr(tdx), tdx.hkid);
export const tdhMngKeyConfig = (vm: VmState, tdx: VmTdx): number => seamcall(vm, tdx, T.TDH_MNG_KEY_CONFIG, tdr(tdx));
export const tdhMngAddcx = (vm: VmState, tdx: VmTdx, pfn: number): number =>
  seamcall(vm, tdx, T.TDH_MNG_ADDCX, pfn * 4096, tdr(tdx));
export const tdhMngInit = (vm: VmState, tdx: VmTdx, params: number): number =>
  seamcall(vm, tdx, T.TDH_MNG_INIT, tdr(tdx), params);
/** The field's id in halves; its value comes back in `args.rdx` and `args.r8`. */
export const tdhMngRd = (vm: VmState, tdx: VmTdx, lo: number, hi: number): number =>
  seamcall(vm, tdx, T.TDH_MNG_RD, tdr(tdx), lo, hi);
export const tdhMngVpflushdone = (vm: VmState, tdx: VmTdx): number =>
  seamcall(vm, tdx, T.TDH_MNG_VPFLUSHDONE, tdr(tdx));
export const tdhMngKeyFreeid = (vm: VmState, tdx: VmTdx): number => seamcall(vm, tdx, T.TDH_MNG_KEY_FREEID, tdr(tdx));
export const tdhPhymemCacheWb = (vm: VmState, tdx: VmTdx): number => seamcall(vm, tdx, T.TDH_PHYMEM_CACHE_WB, 0);
export const tdhPhymemPageWbinvd = (vm: VmState, tdx: VmTdx, pfn: number): number =>
  seamcall(vm, tdx, T.TDH_PHYMEM_PAGE_WBINVD, pfn * 4096);
export const tdhPhymemPageReclaim = (vm: VmState, tdx: VmTdx, pfn: number): number =>
  seamcall(vm, tdx, T.TDH_PHYMEM_PAGE_RECLAIM, pfn * 4096);
export const tdhVpCreate = (vm: VmState, tdx: VmTdx, tdvpr: number): number =>
  seamcall(vm, tdx, T.TDH_VP_CREATE, tdvpr * 4096, tdr(tdx));
export const tdhVpAddcx = (vm: VmState, tdx: VmTdx, tdvpr: number, pfn: number): number =>
  seamcall(vm, tdx, T.TDH_VP_ADDCX, pfn * 4096, tdvpr * 4096);
export const tdhVpInit = (vm: VmState, tdx: VmTdx, tdvpr: number, rcx: number, apicId: number): number =>
  seamcall(vm, tdx, T.TDH_VP_INIT, tdvpr * 4096, rcx, apicId);
export const tdhVpFlush = (vm: VmState, tdx: VmTdx, tdvpr: number): number =>
  seamcall(vm, tdx, T.TDH_VP_FLUSH, tdvpr * 4096);
export const tdhVpWrSharedEptp = (vm: VmState, tdx: VmTdx, tdvpr: number, root: number): number =>
  seamcall(vm, tdx, T.TDH_VP_WR, tdvpr * 4096, T.VP_FIELD_SHARED_EPTP, root * 4096);
/** `level` is KVM's: 1 for 4 KiB. The module's are one less. */
export const tdhMemSeptAdd = (vm: VmState, tdx: VmTdx, gfn: number, level: number, pfn: number): number =>
  seamcall(vm, tdx, T.TDH_MEM_SEPT_ADD, gfn * 4096 + level - 1, tdr(tdx), pfn * 4096);
export const tdhMemPageAdd = (vm: VmState, tdx: VmTdx, gfn: number, pfn: number, source: number): number =>
  seamcall(vm, tdx, T.TDH_MEM_PAGE_ADD, gfn * 4096, tdr(tdx), pfn * 4096, source * 4096);
export const tdhMemPageAug = (vm: VmState, tdx: VmTdx, gfn: number, pfn: number): number =>
  seamcall(vm, tdx, T.TDH_MEM_PAGE_AUG, gfn * 4096, tdr(tdx), pfn * 4096);
export const tdhMemRangeBlock = (vm: VmState, tdx: VmTdx, gfn: number): number =>
  seamcall(vm, tdx, T.TDH_MEM_RANGE_BLOCK, gfn * 4096, tdr(tdx));
export const tdhMemTrack = (vm: VmState, tdx: VmTdx): number => seamcall(vm, tdx, T.TDH_MEM_TRACK, tdr(tdx));
export const tdhMemPageRemove = (vm: VmState, tdx: VmTdx, gfn: number): number =>
  seamcall(vm, tdx, T.TDH_MEM_PAGE_REMOVE, gfn * 4096, tdr(tdx));
export const tdhMrExtend = (vm: VmState, tdx: VmTdx, gpa: number): number =>
  seamcall(vm, tdx, T.TDH_MR_EXTEND, gpa, tdr(tdx));
export const tdhMrFinalize = (vm: VmState, tdx: VmTdx): number => seamcall(vm, tdx, T.TDH_MR_FINALIZE, tdr(tdx));

/** KVM_BUG_ON a status that should have been success, with the kernel's message. True when it was not. @kvm tdx.c pr_tdx_error */
export function tdxBugOn(vm: VmState, status: number, leaf: string): boolean {
  if (status === 0) return false;
  vm.log.prWarnRatelimited('tdx', `SEAMCALL ${leaf} failed: ${T.tdxStatusText(status)}`);
  return vm.log.kvmBugOn(true, leaf, 'the TDX module refused');
}

export function tdxOperandBusy(status: number): boolean {
  return T.tdxCode(status) === T.TDX_OPERAND_BUSY;
}
