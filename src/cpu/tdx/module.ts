/**
 * The TDX module: what software in SEAM does for the host's SEAMCALLs (@tdx ABI, "Host-Side (SEAMCALL) Interface Functions"). Operands are
 * in registers by name; statuses are those of src/arch/tdx.ts. It keeps the host from doing to a TD's memory what it must not, and runs
 * the TD with the processor's own VMX.
 * @partial no migration, service TDs, TD partitioning or debugging; no large pages, so no promotion or demotion; metadata cannot be
 * read but for CPUID, or written but for the shared EPT's pointer; no locks, as nothing runs at the same time
 */
import * as T from '../../arch/tdx.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import type { Core } from '../system/core.ts';
import type { Vmx } from '../vmx/vmx.ts';
import { TdEntry } from './enter.ts';
import * as manage from './manage.ts';
import * as memory from './memory.ts';
import { Pamt, type PamtState, PT_TDR, PT_TDVPR } from './pamt.ts';
import type { Td, TdVcpu } from './td.ts';
import * as vcpu from './vcpu.ts';

/** Registers of a SEAMCALL that are operands and results: numbers below 2^53, except where a leaf says otherwise. */
export class SeamArgs {
  rcx = 0;
  rdx = 0;
  r8 = 0;
  r9 = 0;
}

/** Key ids: below are the host's own; the first is the module's, for its global data. */
export const FIRST_PRIVATE_HKID = 32;
export const PRIVATE_HKIDS = 32;

export const HKID_FREE = 0;
export const HKID_ASSIGNED = 1;
export const HKID_CONFIGURED = 2;
/** No vCPU runs with it any more; caches may still hold lines of it. */
export const HKID_BLOCKED = 3;
export const HKID_FLUSHED = 4;

/** Everything that TDH leaves change. */
export interface TdxState {
  readonly initialized: boolean;
  readonly hkids: Uint8Array;
  readonly pamt: PamtState | null;
  readonly tds: readonly Td[];
  readonly vcpus: readonly TdVcpu[];
}

type Leaf = (module: TdxModule, args: SeamArgs) => number;

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

export class TdxModule {
  readonly memory: PhysicalMemory;
  readonly profile: HardwareProfile;
  readonly core: Core;
  readonly vmx: Vmx;
  initialized = false;
  readonly hkids = new Uint8Array(FIRST_PRIVATE_HKID + PRIVATE_HKIDS);
  /** By frame of the TDR, and of the TDVPR. */
  readonly tds = new Map<number, Td>();
  readonly vcpus = new Map<number, TdVcpu>();
  private table: Pamt | null = null;
  private readonly entry: TdEntry;

  constructor(core: Core, vmx: Vmx) {
    this.core = core;
    this.vmx = vmx;
    this.memory = core.memory;
    this.profile = core.profile;
    this.entry = new TdEntry(this);
  }

  /** Page metadata; made when the module is initialized, as it takes memory by the frame. */
  get pamt(): Pamt {
    this.table ??= new Pamt(this.memory.frames);
    return this.table;
  }

  /** SEAMCALL, but for TDH.VP.ENTER: a status, with the results in `args`. */
  seamcall(leaf: number, args: SeamArgs): number {
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

  /**
   * What a read by the host of `size` bytes at physical address `pa` gives: zeros where the memory is a TD's or the module's, as
   * processors answer reads of it under any key but its own (@tdx base spec, "Memory Integrity": the TD owner bit).
   */
  readAsHost(pa: number, size: number): Uint8Array {
    const out = new Uint8Array(size);
    for (let i = 0; i < size; i++) {
      const hidden = this.table?.isPrivate(Math.floor((pa + i) / 4096)) ?? false;
      if (!hidden) out[i] = this.memory.u8[pa + i]!;
    }
    return out;
  }

  // What the leaves share.

  /** A page of memory whose physical address is an operand: its frame, or -1. */
  frameAt(pa: number): number {
    const pfn = pa / 4096;
    return Number.isInteger(pfn) && pfn >= 0 && pfn < this.memory.frames ? pfn : -1;
  }

  /** The TD whose TDR is at `pa`, or null. */
  tdAt(pa: number): Td | null {
    const pfn = this.frameAt(pa);
    return pfn >= 0 && this.pamt.type[pfn] === PT_TDR ? this.tds.get(pfn)! : null;
  }

  vcpuAt(pa: number): TdVcpu | null {
    const pfn = this.frameAt(pa);
    return pfn >= 0 && this.table !== null && this.pamt.type[pfn] === PT_TDVPR ? this.vcpus.get(pfn)! : null;
  }

  capture(): TdxState {
    return {
      initialized: this.initialized,
      hkids: this.hkids.slice(),
      pamt: this.table?.capture() ?? null,
      tds: [...this.tds.values()].map((td) => td.clone()),
      vcpus: [...this.vcpus.values()].map((vp) => vp.clone()),
    };
  }

  restore(state: TdxState): void {
    this.initialized = state.initialized;
    this.hkids.set(state.hkids);
    this.tds.clear();
    this.vcpus.clear();
    if (state.pamt === null) this.table = null;
    else this.pamt.restore(state.pamt);
    for (const td of state.tds) this.tds.set(td.tdr, td.clone());
    for (const vp of state.vcpus) this.vcpus.set(vp.tdvpr, vp.clone());
  }
}
