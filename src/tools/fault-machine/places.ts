/**
 * Where in the machine's guest memory each combination of slot, attribute and backing page is: one gfn each, in real slots over real
 * host mappings in the state that the backing names.
 */
import type { AddressSpace } from '../../host/address-space.ts';
import { GuestMemfdFile, gmemCreate } from '../../kvm/guest-memfd/guest-memfd.ts';
import { LOCK_SLOTS } from '../../kvm/locks.ts';
import {
  APIC_ACCESS_PAGE_PRIVATE_MEMSLOT,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEM_READONLY,
  KVM_MEMSLOT_INVALID,
  type Memslot,
  TSS_PRIVATE_MEMSLOT,
} from '../../kvm/memslots/memslot.ts';
import { gfnToMemslot } from '../../kvm/memslots/memslots.ts';
import { setUserMemoryRegion, x86SetMemoryRegion } from '../../kvm/memslots/set-memory-region.ts';
import { maxGfn } from '../../kvm/mmu/max-gfn.ts';
import { setMemoryAttributes } from '../../kvm/set-memory-attributes.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { type AttributeName, BACKINGS, type BackingName, type SlotName } from './fault-input.ts';

/** One gfn and what is behind it. */
export interface Place {
  readonly gfn: number;
  readonly slot: Memslot | null;
  /** Host address, -1 without slot. */
  readonly hva: number;
  /** Frame that the process maps there, -1 for none. */
  readonly hostPfn: number;
  /** The process may write its page. */
  readonly hostWritable: boolean;
  /** Frame in guest_memfd, -1 for none. */
  readonly gmemPfn: number;
}

/** Where a machine's gfns are. */
export interface PlaceSource {
  /** A gfn in each 2 MiB that needs page tables. */
  areas(): number[];
  place(slot: SlotName, attribute: AttributeName, backing: BackingName): Place;
}

/** Gfns of one kind of slot: shared ones first. A kind has a 2 MiB area of its own. */
const PAGES = 16;
const ATTRIBUTE_STRIDE = 8;
const FIRST_GFN = 0x10000;
const AREA = 512;
/** Areas, in order; the last is the slot whose guest_memfd is gone. */
const AREAS = ['none', 'rw', 'ro', 'invalid', 'apic', 'internal', 'gmem', 'gmem-gone'] as const;
type Area = (typeof AREAS)[number];

const PROT_READ = 1;

/** What is at the gfn. */
export function placeAt(vm: VmState, gfn: number): Place {
  const slot = gfnToMemslot(vm, gfn);
  if (slot === null) return { gfn, slot, hva: -1, hostPfn: -1, hostWritable: false, gmemPfn: -1 };
  const page = gfn - slot.baseGfn;
  const hva = slot.userspaceAddr + page * 4096;
  return {
    gfn,
    slot,
    hva,
    hostPfn: vm.mm.getUserPageFastOnly(hva, false),
    hostWritable: vm.mm.getUserPageFastOnly(hva, true) >= 0,
    gmemPfn: slot.gmem?.file?.peekPage(page) ?? -1,
  };
}

/** Puts the process's page at this address into the state that the backing names. */
export function backHostPage(mm: AddressSpace, at: number, backing: BackingName): void {
  if (backing === 'absent') mm.munmap(at, 4096);
  else if (backing === 'would-block') mm.userfaultRegister(at, 4096, 'block');
  else {
    if (mm.write(at, new Uint8Array([1])) !== 0) throw new Error(`no page at 0x${at.toString(16)}`);
    if (backing === 'poisoned') mm.madvise(at, 4096, 'hwpoison');
    if (backing === 'read-only') mm.mprotect(at, 4096, PROT_READ);
  }
  mm.takeSignals();
}

function areaGfn(area: Area): number {
  return FIRST_GFN + AREAS.indexOf(area) * AREA;
}

function areaOf(slot: SlotName, backing: BackingName): Area {
  if (slot === 'none-beyond') return 'none';
  if (slot === 'apic-inhibited') return 'apic';
  return slot === 'gmem' && backing === 'absent' ? 'gmem-gone' : slot;
}

/** The gfn at which the combination is. */
function gfnOf(vm: VmState, slot: SlotName, attribute: AttributeName, backing: BackingName): number {
  const base = slot === 'none-beyond' ? maxGfn(vm) + 1 : areaGfn(areaOf(slot, backing));
  return base + (attribute === 'private' ? ATTRIBUTE_STRIDE : 0) + BACKINGS.indexOf(backing);
}

export class Places implements PlaceSource {
  private readonly vm: VmState;
  private readonly known = new Map<number, Place>();

  /** Makes slots, attributes and mappings in a VM that has none yet. */
  constructor(vm: VmState) {
    this.vm = vm;
    for (const [id, area] of AREAS.entries()) this.makeSlot(area, id);
    if (vm.hasPrivateMem) {
      for (const area of AREAS) setPrivate(vm, areaGfn(area) + ATTRIBUTE_STRIDE);
      setPrivate(vm, maxGfn(vm) + 1 + ATTRIBUTE_STRIDE);
    }
    const invalid = gfnToMemslot(vm, areaGfn('invalid'))!;
    invalid.flags |= KVM_MEMSLOT_INVALID;
  }

  areas(): number[] {
    return AREAS.map(areaGfn);
  }

  place(slot: SlotName, attribute: AttributeName, backing: BackingName): Place {
    const gfn = gfnOf(this.vm, slot, attribute, backing);
    let place = this.known.get(gfn);
    if (place === undefined) {
      place = placeAt(this.vm, gfn);
      this.known.set(gfn, place);
    }
    return place;
  }

  private makeSlot(area: Area, id: number): void {
    const { vm } = this;
    if (area === 'none') return;
    const isGmem = area === 'gmem' || area === 'gmem-gone';
    if (isGmem && !vm.hasPrivateMem) return;
    const gpa = areaGfn(area) * 4096;
    const size = PAGES * 4096;
    if (area === 'apic' || area === 'internal') {
      vm.locks.acquire(LOCK_SLOTS);
      const slot = area === 'apic' ? APIC_ACCESS_PAGE_PRIVATE_MEMSLOT : TSS_PRIVATE_MEMSLOT;
      const hva = x86SetMemoryRegion(vm, slot, gpa, size);
      vm.locks.release(LOCK_SLOTS);
      this.makeBackings(hva);
      return;
    }
    const hva = vm.mm.mmap({ size, kind: 'anon' });
    const file = isGmem ? gmemCreate(vm, BigInt(size), 0n) : 'not-open';
    if (typeof file === 'number') throw new Error(`guest_memfd: ${file}`);
    const r = setUserMemoryRegion(
      vm,
      {
        slot: id,
        flags: (isGmem ? KVM_MEM_GUEST_MEMFD : 0) | (area === 'ro' ? KVM_MEM_READONLY : 0),
        guestPhysAddr: BigInt(gpa),
        memorySize: BigInt(size),
        userspaceAddr: BigInt(hva),
        guestMemfdOffset: 0n,
        guestMemfd: file,
      },
      2,
    );
    if (r !== 0) throw new Error(`slot for ${area}: ${r}`);
    this.makeBackings(hva);
    if (file instanceof GuestMemfdFile) makeGmemPages(vm, file, area);
  }

  /** Puts the page of each backing into its state, once for either attribute. */
  private makeBackings(hva: number): void {
    const { mm } = this.vm;
    for (let page = 0; page < PAGES; page++) {
      const backing = BACKINGS[page % ATTRIBUTE_STRIDE];
      if (backing !== undefined) backHostPage(mm, hva + page * 4096, backing);
    }
  }
}

function makeGmemPages(vm: VmState, file: GuestMemfdFile, area: Area): void {
  for (let page = 0; page < PAGES; page++) {
    const backing = BACKINGS[page % ATTRIBUTE_STRIDE];
    if (backing === undefined || backing === 'absent') continue;
    const pfn = file.getPage(page);
    if (backing === 'poisoned') vm.host.pages.poison(pfn);
  }
  if (area === 'gmem-gone') file.release();
}

function setPrivate(vm: VmState, gfn: number): void {
  const r = setMemoryAttributes(vm, BigInt(gfn) * 4096n, BigInt(ATTRIBUTE_STRIDE) * 4096n, 8n, 0n);
  if (r !== 0) throw new Error(`attribute at gfn 0x${gfn.toString(16)}: ${r}`);
}
