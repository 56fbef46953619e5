/** What the TDX module knows, and what its leaves share. */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import type { Core } from '../system/core.ts';
import type { Vmx } from '../vmx/vmx.ts';
import { Pamt, type PamtState, PT_TDR, PT_TDVPR } from './pamt.ts';
import type { Td, TdVcpu } from './td.ts';
import { cpuidConfigLeaves } from './td-cpuid.ts';

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

export class ModuleState {
  readonly memory: PhysicalMemory;
  readonly profile: HardwareProfile;
  readonly core: Core;
  readonly vmx: Vmx;
  initialized = false;
  readonly hkids = new Uint8Array(FIRST_PRIVATE_HKID + PRIVATE_HKIDS);
  /** By frame of the TDR, and of the TDVPR. */
  readonly tds = new Map<number, Td>();
  readonly vcpus = new Map<number, TdVcpu>();
  protected table: Pamt | null = null;

  constructor(core: Core, vmx: Vmx) {
    this.core = core;
    this.vmx = vmx;
    this.memory = core.memory;
    this.profile = core.profile;
  }

  /** Page metadata; made when the module is initialized, as it takes memory by the frame. */
  get pamt(): Pamt {
    this.table ??= new Pamt(this.memory.frames);
    return this.table;
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

  /** Private key ids that TDs can have: the first, and one past the last. @kvm virt/vmx/tdx/tdx.c tdx_guest_keyid_start */
  get guestKeyIds(): readonly [number, number] {
    return [FIRST_PRIVATE_HKID + 1, this.hkids.length];
  }

  /** Leaf and subleaf (-1: none) of the CPUID values that the host configures, in TD_PARAMS' order: global metadata. */
  get cpuidConfig(): readonly { readonly leaf: number; readonly subleaf: number }[] {
    return cpuidConfigLeaves(this.profile);
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
