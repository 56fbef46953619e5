/** Follows every fault of a VM through the fault path: what it was, what was there, what each stage said, what came of it. */

import { PFERR_PRIVATE_ACCESS_HI } from '../../arch/error-code.ts';
import { hex, join64 } from '../../arch/halves.ts';
import { errnoName } from '../../host/errno.ts';
import { getMemoryAttributes, KVM_MEMORY_ATTRIBUTE_PRIVATE } from '../../kvm/attributes.ts';
import type { KernelLogEntry } from '../../kvm/kernel-log.ts';
import { KVM_MEMSLOT_INVALID } from '../../kvm/memslots/memslot.ts';
import {
  gfnToMemslot,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
} from '../../kvm/memslots/memslots.ts';
import type { PageFault } from '../../kvm/mmu/fault.ts';
import type { FaultRecorder } from '../../kvm/mmu/recorder.ts';
import { RET_PF_CONTINUE, retPfName } from '../../kvm/mmu/ret-pf.ts';
import { ROLE_DIRECT } from '../../kvm/mmu/role.ts';
import type { TraceEvent } from '../../kvm/trace/events.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { KVM_X86_SW_PROTECTED_VM } from '../../kvm/vm-type.ts';
import { changesSince, countersOf } from './moved-counters.ts';
import { type SpteView, spteOf } from './spte-words.ts';

export interface StageRecord {
  readonly name: string;
  readonly kvmFunction: string;
  /** `RET_PF_CONTINUE` and so on, or the name of an errno. */
  readonly verdict: string;
  readonly reason: string;
}

export interface SlotView {
  readonly id: number;
  readonly gpa: string;
  readonly bytes: number;
  readonly readonly: boolean;
  readonly dirtyLogging: boolean;
  readonly guestMemfd: boolean;
  /** It is being deleted or moved. */
  readonly beingChanged: boolean;
}

export interface MmioCacheView {
  readonly gfn: string;
  readonly generation: number;
}

export interface FaultRecord {
  readonly vcpu: number;
  /** The address: see `addressKind`. */
  readonly gpa: string;
  /** A gpa; where KVM shadows tables, a linear address of the guest, or a gpa of the guest's guest. */
  readonly addressKind: 'gpa' | 'linear' | 'nested-gpa';
  /** Null until the guest's tables have been walked, and where they do not map the address. */
  gfn: string | null;
  /** As it was reported: an exit qualification where the processor is Intel's. */
  readonly errorCode: string;
  /** As the stages saw it, with what KVM added and without what it dropped; null when the fault never became an object. */
  pathCode: string | null;
  /** Name of the revision. */
  readonly revision: string;
  /** Who translates: nested paging, EPT, or page tables that KVM makes from the guest's. */
  readonly translation: 'npt' | 'ept' | 'shadow';
  /** The fault path takes the access as private: by the code, or because KVM added PRIVATE_ACCESS to it on entry. */
  privateAccess: boolean;
  /** KVM made the fault itself, ahead of an access. */
  readonly prefetch: boolean;
  slot: SlotView | null;
  attribute: 'private' | 'shared';
  readonly spteBefore: SpteView | null;
  readonly invalidateSeq: number;
  readonly memslotGeneration: number;
  readonly mmioCacheBefore: MmioCacheView | null;
  readonly stages: StageRecord[];
  /** Stages of the revision that were not asked, in order. */
  notReached: readonly string[];
  /** What the list of stages ended with; null when the fault never entered it. */
  verdict: string | null;
  spteAfter: SpteView | null;
  invalidateSeqAfter: number;
  /** The vCPU's one-entry MMIO cache after the fault. */
  mmioCache: MmioCacheView | null;
  /** Statistics that moved, by how much. */
  stats: { readonly [name: string]: number };
  /** What the kernel logged meanwhile. */
  log: readonly KernelLogEntry[];
  /** Trace events from this fault to the next exit of the guest. */
  readonly events: TraceEvent[];
  /** The guest ran on after the fault and exited again. */
  resumed: boolean;
}

export class FaultLog implements FaultRecorder {
  faults: FaultRecord[] = [];
  private current: FaultRecord | null = null;
  private inStages = false;
  /** What happens now still belongs to the current fault. */
  private following = false;
  private readonly vm: VmState;
  private countersBefore: ReadonlyMap<string, number> = new Map();
  private logBefore = 0;

  constructor(vm: VmState) {
    this.vm = vm;
    vm.mmu.recorder = this;
  }

  /** Hears of a trace event; a `kvm_page_fault` opens a record. */
  event(event: TraceEvent): void {
    if (event.event === 'kvm_page_fault') {
      const vcpu = this.vcpuById(event.fields.vcpu);
      if (vcpu !== null) this.open(vcpu, BigInt(event.fields.address), BigInt(event.fields.error_code), false);
      return;
    }
    const fault = this.current;
    if (fault === null || !this.following) return;
    fault.resumed = event.event === 'kvm_exit';
    if (!fault.resumed) fault.events.push(event);
    if (fault.resumed || event.event === 'kvm_userspace_exit') this.settle();
  }

  begin(fault: PageFault): void {
    const address = join64(fault.addrLo, fault.addrHi);
    const known = this.current;
    if (known === null || this.inStages || known.stages.length > 0 || BigInt(known.gpa) !== address) {
      const vcpu = this.vm.vcpus.find((v) => v?.mmu.fault === fault) ?? this.vm.vcpus[0];
      if (vcpu !== undefined) this.open(vcpu, address, this.codeBeforeEntry(fault), fault.prefetch);
    }
    this.inStages = true;
    if (this.current === null) return;
    this.current.privateAccess = fault.isPrivate;
    this.current.pathCode = hex(join64(fault.errorLo, fault.errorHi));
  }

  stage(name: string, verdict: number, reason: string): void {
    const stage = this.vm.revision.stages.find((s) => s.name === name);
    // A reserved-bit fault is answered before the list.
    const kvmFunction = stage?.kvmFunction ?? (name === 'reserved-bits' ? 'handle_mmio_page_fault' : '');
    if (this.current !== null && name === 'guest-walk' && verdict === RET_PF_CONTINUE) this.translated(this.current);
    this.current?.stages.push({ name, kvmFunction, verdict: verdictName(verdict), reason });
  }

  end(_fault: PageFault, result: number): void {
    this.inStages = false;
    if (this.current !== null) {
      this.capture();
      this.current.verdict = verdictName(result);
      const asked = this.current.stages;
      this.current.notReached = this.vm.revision.stages
        .map((stage) => stage.name)
        .filter((name) => !asked.some((stage) => stage.name === name));
    }
  }

  /** Completes the last record; call when the step or run is over. */
  finish(): void {
    this.close();
  }

  /** The record of a fault that did not reach the path: nothing happened. */
  unseen(vcpu: VcpuState, gpa: bigint, errorCode: bigint): FaultRecord {
    this.open(vcpu, gpa, errorCode, true);
    this.finish();
    return this.faults.at(-1)!;
  }

  /** The faults so far, which this call takes out of the log. */
  take(): FaultRecord[] {
    this.finish();
    const taken = this.faults;
    this.faults = [];
    this.current = null;
    return taken;
  }

  /** The code as it was reported: a software-protected VM's faults get PRIVATE_ACCESS from KVM, never from hardware. */
  private codeBeforeEntry(fault: PageFault): bigint {
    const added = this.vm.type === KVM_X86_SW_PROTECTED_VM ? PFERR_PRIVATE_ACCESS_HI : 0;
    return join64(fault.errorLo, fault.errorHi & ~added);
  }

  /** The guest's tables say which page it is. */
  private translated(record: FaultRecord): void {
    const vcpu = record.addressKind === 'gpa' ? null : this.vcpuById(record.vcpu);
    if (vcpu !== null) Object.assign(record, placeOf(this.vm, vcpu.mmu.fault.gfn));
  }

  private open(vcpu: VcpuState, gpa: bigint, errorCode: bigint, prefetch: boolean): void {
    this.close();
    const vm = this.vm;
    const addressKind = addressKindOf(vcpu);
    const place = addressKind === 'gpa' ? placeOf(vm, Number(gpa / 4096n)) : NOWHERE;
    this.current = {
      vcpu: vcpu.id,
      gpa: hex(gpa),
      addressKind,
      errorCode: hex(errorCode),
      pathCode: null,
      revision: vm.revision.name,
      ...place,
      translation: !vm.vendor.tdpEnabled ? 'shadow' : vm.vendor.name === 'vmx' ? 'ept' : 'npt',
      privateAccess: false,
      prefetch,
      spteBefore: spteOf(vcpu, gpa),
      invalidateSeq: vm.mmuInvalidateSeq,
      memslotGeneration: vm.slots.generation(0),
      mmioCacheBefore: mmioCacheOf(vcpu),
      stages: [],
      notReached: [],
      verdict: null,
      spteAfter: null,
      invalidateSeqAfter: vm.mmuInvalidateSeq,
      mmioCache: null,
      stats: {},
      log: [],
      events: [],
      resumed: false,
    };
    this.faults.push(this.current);
    this.following = true;
    this.countersBefore = countersOf(vm, vcpu);
    this.logBefore = vm.log.entries.length;
  }

  private close(): void {
    this.settle();
    this.capture();
  }

  /** What the fault left behind in the tables. */
  private capture(): void {
    const fault = this.current;
    const vcpu = fault === null ? null : this.vcpuById(fault.vcpu);
    if (fault === null || vcpu === null || fault.verdict !== null) return;
    fault.spteAfter = spteOf(vcpu, BigInt(fault.gpa));
    fault.invalidateSeqAfter = this.vm.mmuInvalidateSeq;
    fault.mmioCache = mmioCacheOf(vcpu);
  }

  /** What happens from now on is not of the current fault any more. */
  private settle(): void {
    const fault = this.current;
    const vcpu = fault === null || !this.following ? null : this.vcpuById(fault.vcpu);
    this.following = false;
    if (fault === null || vcpu === null) return;
    fault.stats = changesSince(this.countersBefore, countersOf(this.vm, vcpu));
    fault.log = this.vm.log.entries.slice(this.logBefore);
  }

  private vcpuById(id: number): VcpuState | null {
    return this.vm.vcpus.find((v) => v?.id === id) ?? null;
  }
}

/** What covers the gfn. */
function placeOf(vm: VmState, gfn: number): Pick<FaultRecord, 'gfn' | 'slot' | 'attribute'> {
  const slot = gfnToMemslot(vm, gfn);
  return {
    gfn: hex(gfn),
    slot:
      slot === null
        ? null
        : {
            id: slot.id,
            gpa: hex(slot.baseGfn * 4096),
            bytes: slot.npages * 4096,
            readonly: (slot.flags & KVM_MEM_READONLY) !== 0,
            dirtyLogging: (slot.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0,
            guestMemfd: (slot.flags & KVM_MEM_GUEST_MEMFD) !== 0,
            beingChanged: (slot.flags & KVM_MEMSLOT_INVALID) !== 0,
          },
    attribute: getMemoryAttributes(vm, gfn) & KVM_MEMORY_ATTRIBUTE_PRIVATE ? 'private' : 'shared',
  };
}

const NOWHERE = { gfn: null, slot: null, attribute: 'shared' } as const;

function addressKindOf(vcpu: VcpuState): FaultRecord['addressKind'] {
  const { mmu, guestMmu } = vcpu.mmu;
  if ((mmu.rootRole & ROLE_DIRECT) !== 0) return 'gpa';
  return mmu === guestMmu ? 'nested-gpa' : 'linear';
}

function mmioCacheOf(vcpu: VcpuState): MmioCacheView | null {
  const { mmioGfn, mmioGen } = vcpu.mmu;
  return mmioGfn === 0 ? null : { gfn: hex(mmioGfn), generation: mmioGen };
}

function verdictName(verdict: number): string {
  return verdict < 0 ? errnoName(-verdict) : retPfName(verdict);
}
