/**
 * The TDX module: what software in SEAM does for the host's SEAMCALLs (@tdx ABI, "Host-Side (SEAMCALL) Interface Functions"). Operands are
 * in registers by name; statuses are those of src/arch/tdx.ts. It keeps the host from doing to a TD's memory what it must not, and runs
 * the TD with the processor's own VMX.
 * @partial no migration, service TDs, TD partitioning or debugging; no large pages, so no promotion or demotion; metadata cannot be
 * read but for CPUID, or written but for the shared EPT's pointer; no locks, as nothing runs at the same time
 */
import * as T from '../../arch/tdx.ts';
import type { Core } from '../system/core.ts';
import type { Vmx } from '../vmx/vmx.ts';
import { TdEntry } from './enter.ts';
import * as manage from './manage.ts';
import * as memory from './memory.ts';
import { ModuleState } from './module-state.ts';
import * as vcpu from './vcpu.ts';

type Leaf = (module: ModuleState, args: T.SeamArgs) => number;

const LEAVES: ReadonlyMap<number, Leaf> = new Map([
  [T.TDH_SYS_INIT, manage.sysInit],
  [T.TDH_MNG_CREATE, manage.mngCreate],
  [T.TDH_MNG_KEY_CONFIG, manage.mngKeyConfig],
  [T.TDH_MNG_ADDCX, manage.mngAddcx],
  [T.TDH_MNG_INIT, manage.mngInit],
  [T.TDH_MNG_RD, manage.mngRd],
  [T.TDH_MNG_VPFLUSHDONE, manage.mngVpFlushDone],
  [T.TDH_MNG_KEY_FREEID, manage.mngKeyFreeid],
  [T.TDH_PHYMEM_CACHE_WB, manage.phymemCacheWb],
  [T.TDH_PHYMEM_PAGE_WBINVD, manage.phymemPageWbinvd],
  [T.TDH_PHYMEM_PAGE_RECLAIM, manage.phymemPageReclaim],
  [T.TDH_PHYMEM_PAGE_RDMD, manage.phymemPageRdmd],
  [T.TDH_VP_CREATE, vcpu.vpCreate],
  [T.TDH_VP_ADDCX, vcpu.vpAddcx],
  [T.TDH_VP_INIT, vcpu.vpInit],
  [T.TDH_VP_FLUSH, vcpu.vpFlush],
  [T.TDH_VP_WR, vcpu.vpWr],
  [T.TDH_MEM_SEPT_ADD, memory.memSeptAdd],
  [T.TDH_MEM_SEPT_REMOVE, memory.memSeptRemove],
  [T.TDH_MEM_SEPT_RD, memory.memSeptRd],
  [T.TDH_MEM_PAGE_ADD, memory.memPageAdd],
  [T.TDH_MEM_PAGE_AUG, memory.memPageAug],
  [T.TDH_MEM_PAGE_REMOVE, memory.memPageRemove],
  [T.TDH_MEM_RANGE_BLOCK, memory.memRangeBlock],
  [T.TDH_MEM_RANGE_UNBLOCK, memory.memRangeUnblock],
  [T.TDH_MEM_TRACK, memory.memTrack],
  [T.TDH_MR_EXTEND, memory.mrExtend],
  [T.TDH_MR_FINALIZE, memory.mrFinalize],
]);

export class TdxModule extends ModuleState {
  private readonly entry: TdEntry;

  constructor(core: Core, vmx: Vmx) {
    super(core, vmx);
    this.entry = new TdEntry(this);
  }

  /** SEAMCALL, but for TDH.VP.ENTER: a status, with the results in `args`. */
  seamcall(leaf: number, args: T.SeamArgs): number {
    if (!this.profile.vmx.tdx || !this.vmx.isOn) return T.tdxStatus(T.TDX_SEAMCALL_VMFAILINVALID);
    const run = LEAVES.get(leaf);
    if (run === undefined) return T.tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RAX);
    if (!this.initialized && leaf !== T.TDH_SYS_INIT) return T.tdxStatus(T.TDX_SYS_NOT_READY);
    return run(this, args);
  }

  /**
   * TDH.VP.ENTER with the TDVPR at physical address `tdvpr`, until the TD exits. `gprs` are the sixteen general registers, halves: what
   * the host answers a TDG.VP.VMCALL with, and after the exit what it may see.
   */
  vpEnter(tdvpr: number, gprs: Int32Array): number {
    if (!this.profile.vmx.tdx || !this.vmx.isOn) return T.tdxStatus(T.TDX_SEAMCALL_VMFAILINVALID);
    const vp = this.vcpuAt(tdvpr);
    if (vp === null) return T.tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
    return this.entry.run(vp, gprs);
  }
}
