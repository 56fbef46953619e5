/** The VM of a scene: the real KVM on a small machine, with a page allocator whose whole state is a few words. */
import type { Processor } from '../../../cpu/processor.ts';
import { siliconEpyc } from '../../../cpu/profiles/silicon-epyc.ts';
import { HostMachine } from '../../../host/machine.ts';
import { FRAME_TOUCHED } from '../../../host/page-allocator.ts';
import { PTE_FRAME_MASK, PTE_SWAP, PTE_WRITE } from '../../../host/page-table.ts';
import { GuestMemfdFile } from '../../../kvm/guest-memfd/guest-memfd.ts';
import { LOCK_MMU } from '../../../kvm/locks.ts';
import { KVM_MEM_GUEST_MEMFD } from '../../../kvm/memslots/memslot.ts';
import { setUserMemoryRegion } from '../../../kvm/memslots/set-memory-region.ts';
import { initVm, mmuCreate } from '../../../kvm/mmu/create.ts';
import { revisionByName } from '../../../kvm/mmu/revisions/index.ts';
import type { Revision } from '../../../kvm/mmu/revisions/revision.ts';
import { ACC_ALL, ROLE_ACCESS_SHIFT, ROLE_CR0_WP, ROLE_DIRECT, ROLE_EFER_NX, ROLE_SMM } from '../../../kvm/mmu/role.ts';
import { ShadowPage } from '../../../kvm/mmu/shadow-page.ts';
import { defaultParams, type KvmParams } from '../../../kvm/params.ts';
import { VcpuState } from '../../../kvm/vcpu-state.ts';
import type { VendorOps } from '../../../kvm/vendor-ops.ts';
import { VmState } from '../../../kvm/vm-state.ts';
import { KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM } from '../../../kvm/vm-type.ts';
import type { Scene, SlotSpec } from '../scene.ts';
import { holdWorkers } from './vcpu-async.ts';

/** Frames for guest memory of 4 KiB pages: as many as fit one word of reference counts. */
export const DATA_FRAMES = 16;
/** Frames for page tables made between two restores. */
const SCRATCH_TABLES = 96;
/** Of a dirty ring: entries, and those kept free unless the scene says otherwise. */
export const DIRTY_RING_ENTRIES = 8;
export const DIRTY_RING_RESERVED = 4;

/** What a model may be asked to change about its scene. */
export interface SceneOverrides {
  readonly revision?: string | undefined;
  readonly params?: Partial<KvmParams> | undefined;
}

/** Frames for page tables and guest memory; which are free is all there is to it. */
export class ScenePages {
  readonly data: number[] = [];
  /** Frames that hold something else than non-present entries. */
  readonly dirty: Uint8Array;
  private readonly scratch: number[] = [];
  private nextScratch = 0;
  private readonly vm: VmState;
  /** The machine's own allocator. */
  private readonly takeFrame: () => number;

  constructor(vm: VmState) {
    this.vm = vm;
    this.dirty = new Uint8Array(vm.memory.frames);
    const { pages } = vm.host;
    this.takeFrame = pages.allocPage.bind(pages);
    for (let i = 0; i < DATA_FRAMES; i++) this.data.push(pages.allocPage());
    this.data.sort((a, b) => a - b);
    for (const pfn of this.data) pages.refs[pfn] = 0;
    for (let i = 0; i < SCRATCH_TABLES; i++) this.scratch.push(this.tableFrame());
    pages.allocPage = () => this.allocData();
    // Without mmu_lock it is not for a page table: the host reads a page from swap.
    pages.allocPageForCopy = () => ((vm.locks.held & LOCK_MMU) !== 0 ? this.allocTable() : this.allocData());
    pages.freePage = (pfn) => this.free(pfn);
    const { mmu } = vm;
    mmu.takePage = (pfn) => {
      const sp = mmu.shadowPage(pfn);
      sp.pfn = pfn;
      return sp;
    };
    // Walks that are under way may still look at it: RCU keeps it until they are done.
    mmu.dropPage = () => {};
  }

  /** One more frame for page tables, with its ShadowPage. Only before the first step. */
  tableFrame(): number {
    const { vm } = this;
    const pfn = this.takeFrame();
    const sp = new ShadowPage();
    sp.pfn = pfn;
    vm.mmu.pageOfPfn[pfn] = vm.mmu.pages.push(sp);
    return pfn;
  }

  /** The frame is one of those for 4 KiB pages of guest memory. */
  isData(pfn: number): boolean {
    return pfn >= this.data[0]! && pfn <= this.data[DATA_FRAMES - 1]!;
  }

  /** Page tables that can still be made before `recycle`. */
  get tablesLeft(): number {
    return this.scratch.length - this.nextScratch;
  }

  /** Nothing is in a scratch frame any more. */
  recycle(): void {
    this.nextScratch = 0;
  }

  private allocTable(): number {
    const pfn = this.scratch[this.nextScratch++];
    if (pfn === undefined) throw new Error('a scene ran out of frames for page tables');
    this.vm.host.pages.refs[pfn] = 1;
    return pfn;
  }

  private allocData(): number {
    const { refs, flags } = this.vm.host.pages;
    for (const pfn of this.data) {
      if (refs[pfn] !== 0) continue;
      refs[pfn] = 1;
      flags[pfn] = FRAME_TOUCHED;
      return pfn;
    }
    return -1;
  }

  private free(pfn: number): void {
    const { refs } = this.vm.host.pages;
    if (refs[pfn] === 0) throw new Error(`frame ${pfn.toString(16)} freed twice`);
    refs[pfn] = 0;
    this.dirty[pfn] = 1;
  }
}

export interface SceneVm {
  readonly vm: VmState;
  readonly pages: ScenePages;
  readonly gmem: GuestMemfdFile | null;
  /** Frames of 2 MiB folios. */
  readonly huge: readonly number[];
}

/** Hears of TLB flushes of a vCPU. */
export type FlushListener = (vcpu: number) => void;

function makeVendor(onFlush: FlushListener): VendorOps {
  const flush = (vcpu: VcpuState): void => onFlush(vcpu.id);
  return {
    name: 'svm',
    tdpEnabled: true,
    maxTdpLevel: 4,
    maxHugePageLevel: 3,
    loadMmuPgd() {},
    interruptAllowed: () => 1,
    getCpl: () => 3,
    flushTlbCurrent: flush,
    flushTlbAll: flush,
  } as unknown as VendorOps;
}

export function revisionOf(scene: Scene, asked: string | undefined): Revision {
  if (asked !== undefined) return revisionByName(asked);
  const { revision } = scene;
  return typeof revision === 'object' ? revision : revisionByName(revision ?? 'linux-6.12');
}

/** Makes the VM with its slots, host memory and attributes; nothing is mapped. `vendor` only where it is another than the usual one. */
export function makeSceneVm(
  scene: Scene,
  overrides: SceneOverrides,
  onFlush: FlushListener,
  vendor = makeVendor(onFlush),
): SceneVm {
  const huge = scene.slots.filter((s) => s.host === 'huge').length;
  const host = new HostMachine({ memoryBytes: (64 + 4 * huge) * 1024 * 1024 });
  const type = scene.vm?.type === 'sw-protected' ? KVM_X86_SW_PROTECTED_VM : KVM_X86_DEFAULT_VM;
  const vm = new VmState({
    host,
    mm: host.createProcess(),
    processor: { insns: 0 } as unknown as Processor,
    profile: siliconEpyc,
    params: { ...defaultParams, ...scene.vm?.params, ...overrides.params },
    revision: revisionOf(scene, overrides.revision),
    vendor,
    type,
  });
  initVm(vm);
  vm.x86.disabledQuirks = scene.vm?.quirks ?? 0;
  vm.mm.registerNotifier(vm.notifier);
  // Of what is in swap only the place counts.
  host.swap.load = () => {};
  host.swap.synchronous = !scene.actors.some((a) => a.kind === 'vcpu' && a.async === true);
  if (!host.swap.synchronous) holdWorkers(vm);
  if (scene.vm?.dirtyRing !== undefined) vm.dirtyRingSize = scene.vm.dirtyRing.entries ?? DIRTY_RING_ENTRIES;
  const pages = new ScenePages(vm);
  const gmemPages = scene.slots.reduce((n, s) => n + (s.gmem === true ? s.pages : 0), 0);
  const gmem = gmemPages > 0 ? new GuestMemfdFile(vm, gmemPages * 4096) : null;
  let offset = 0;
  const folios: number[] = [];
  for (const slot of scene.slots) {
    addSlot(vm, slot, gmem, offset, folios);
    if (slot.gmem === true) offset += slot.pages;
  }
  for (const [gfn, count] of scene.private ?? []) vm.attributes.private.set(gfn, gfn + count, true);
  if (scene.generation !== undefined) for (const set of vm.slots.sets) set.generation = scene.generation + set.asId;
  return { vm, pages, gmem, huge: folios };
}

function addSlot(vm: VmState, spec: SlotSpec, gmem: GuestMemfdFile | null, offset: number, folios: number[]): void {
  const same = spec.sameMemoryAs === undefined ? null : vm.slots.sets[0]!.idToMemslot(spec.sameMemoryAs);
  const hva = same === null ? hostMemory(vm, spec, folios) : same.userspaceAddr;
  const r = setUserMemoryRegion(
    vm,
    {
      slot: spec.id | ((spec.asId ?? 0) << 16),
      flags: (spec.flags ?? 0) | (spec.gmem === true ? KVM_MEM_GUEST_MEMFD : 0),
      guestPhysAddr: BigInt(spec.gfn * 4096),
      memorySize: BigInt(spec.pages * 4096),
      userspaceAddr: BigInt(hva),
      guestMemfdOffset: BigInt(offset * 4096),
      guestMemfd: gmem ?? 'not-open',
    },
    2,
  );
  if (r !== 0) throw new Error(`slot ${spec.id} of a scene: errno ${-r}`);
}

/** Maps host memory in the state that the slot wants; its address. */
export function hostMemory(vm: VmState, spec: Pick<SlotSpec, 'pages' | 'host'>, folios: number[]): number {
  const kind = spec.host === 'huge' ? 'thp' : 'anon';
  const hva = vm.mm.mmap({ size: spec.pages * 4096, kind });
  if (hva < 0) throw new Error(`host memory of a scene: errno ${-hva}`);
  if (spec.host === 'absent') return hva;
  const step = kind === 'thp' ? 512 : 1;
  for (let page = 0; page < spec.pages; page += step) {
    const pfn = vm.mm.userPage(hva + page * 4096, true);
    if (pfn < 0) throw new Error(`a scene has too much host memory: ${DATA_FRAMES} pages are the most`);
    if (step === 512) folios.push(pfn);
  }
  if (spec.host === 'swapped') {
    for (let page = 0; page < spec.pages; page++) {
      const pfn = vm.mm.table.lookup(hva + page * 4096) & PTE_FRAME_MASK;
      vm.mm.table.setPte(hva + page * 4096, PTE_SWAP | page);
      vm.host.pages.put(pfn, 1);
    }
  }
  if (spec.host === 'read-only') {
    // As after a write to it was to be noticed: the next one makes it writable again, in place.
    for (let at = hva; at < hva + spec.pages * 4096; at += 4096)
      vm.mm.table.setPte(at, vm.mm.table.lookup(at) & ~PTE_WRITE);
  }
  return hva;
}

/** One more vCPU, with the role of a guest in long mode. */
export function addSceneVcpu(vm: VmState, smm: boolean): VcpuState {
  const vcpu = new VcpuState(vm, vm.vcpus.length);
  vm.vcpus.push(vcpu);
  mmuCreate(vcpu);
  const role = (ACC_ALL << ROLE_ACCESS_SHIFT) | ROLE_CR0_WP | ROLE_EFER_NX | ROLE_DIRECT | 4;
  vcpu.mmu.rootMmu.rootRole = smm ? role | ROLE_SMM : role;
  vcpu.smm = smm;
  return vcpu;
}
