/** Memory slots, attribute and host page of one described fault, at the address that the user gave. */
import { hex } from '../../arch/halves.ts';
import { errnoName } from '../../host/errno.ts';
import { type GuestMemfdFile, gmemCreate } from '../../kvm/guest-memfd/guest-memfd.ts';
import { LOCK_SLOTS } from '../../kvm/locks.ts';
import {
  APIC_ACCESS_PAGE_PRIVATE_MEMSLOT,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  KVM_MEMSLOT_INVALID,
  TSS_PRIVATE_MEMSLOT,
} from '../../kvm/memslots/memslot.ts';
import { gfnToMemslot } from '../../kvm/memslots/memslots.ts';
import { setUserMemoryRegion, x86SetMemoryRegion } from '../../kvm/memslots/set-memory-region.ts';
import { maxGfn } from '../../kvm/mmu/max-gfn.ts';
import { setMemoryAttributes } from '../../kvm/set-memory-attributes.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import { backHostPage, type Place, type PlaceSource, placeAt } from '../fault-machine/places.ts';
import { InputError } from '../input-error.ts';
import type { DescribedSlot, DescribedVm } from './vm-description.ts';

/** Where a fault is that no address was given for. */
export const DEFAULT_GPA = 0x800000;
const SLOT_BYTES = 0x200000;
const PAGE = 4096;
const PRIVATE = 8n;

export class DescribedPlace implements PlaceSource {
  private readonly vm: VmState;
  private readonly input: FaultInput;
  private readonly gfn: number;
  private readonly found: Place;

  /** @throws InputError for an address or a slot that the VM cannot have */
  constructor(vm: VmState, input: FaultInput, gpa: number, described: DescribedVm | null) {
    this.vm = vm;
    this.input = input;
    this.gfn = Math.floor(gpa / PAGE);
    const beyond = this.gfn > maxGfn(vm);
    if (beyond !== (input.slot === 'none-beyond'))
      throw new InputError(
        `--gpa ${hex(gpa)}: expected an address ${beyond ? 'below' : 'from'} ${hex((maxGfn(vm) + 1) * PAGE)} for --slot ${input.slot}`,
      );
    if (described === null) this.makeSlot();
    else this.makeDescribed(described);
    this.makePage();
    this.found = placeAt(vm, this.gfn);
  }

  areas(): number[] {
    return this.input.slot === 'none-beyond' ? [] : [this.gfn];
  }

  /** There is one, whatever is asked for. */
  place(): Place {
    return this.found;
  }

  private makeSlot(): void {
    const { slot, attribute, backing } = this.input;
    const base = Math.floor((this.gfn * PAGE) / SLOT_BYTES) * SLOT_BYTES;
    if (slot === 'apic' || slot === 'apic-inhibited' || slot === 'internal') this.makeInternal();
    else if (slot !== 'none' && slot !== 'none-beyond')
      this.makeUserSlot({
        id: 0,
        gpa: base,
        size: SLOT_BYTES,
        flags: slot === 'ro' ? ['readonly'] : slot === 'invalid' ? ['being-changed'] : [],
        guestMemfd: slot === 'gmem',
      });
    if (attribute === 'private') this.makePrivate(base, SLOT_BYTES);
    if (slot === 'gmem' && backing === 'absent') this.gmem()?.release();
  }

  private makeDescribed(described: DescribedVm): void {
    if (described.apicAccessPage !== 'none' && this.input.slot.startsWith('apic')) this.makeInternal();
    described.slots.forEach((slot) => {
      this.makeUserSlot(slot);
    });
    for (const range of described.privateRanges) this.makePrivate(range.gpa, range.size);
    if (this.input.slot === 'gmem' && this.input.backing === 'absent') this.gmem()?.release();
  }

  private makeInternal(): void {
    const { vm } = this;
    const id = this.input.slot === 'internal' ? TSS_PRIVATE_MEMSLOT : APIC_ACCESS_PAGE_PRIVATE_MEMSLOT;
    vm.locks.acquire(LOCK_SLOTS);
    x86SetMemoryRegion(vm, id, this.gfn * PAGE, PAGE);
    vm.locks.release(LOCK_SLOTS);
  }

  private makeUserSlot(slot: DescribedSlot): void {
    const { vm } = this;
    const hva = vm.mm.mmap({ size: slot.size, kind: 'anon' });
    const file = slot.guestMemfd ? gmemCreate(vm, BigInt(slot.size), 0n) : 'not-open';
    if (typeof file === 'number') throw new InputError(`slot ${slot.id}: guest_memfd: ${errnoName(-file)}`);
    const r = setUserMemoryRegion(
      vm,
      {
        slot: slot.id,
        flags:
          (slot.guestMemfd ? KVM_MEM_GUEST_MEMFD : 0) |
          (slot.flags.includes('readonly') ? KVM_MEM_READONLY : 0) |
          (slot.flags.includes('log-dirty-pages') ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        guestPhysAddr: BigInt(slot.gpa),
        memorySize: BigInt(slot.size),
        userspaceAddr: BigInt(hva),
        guestMemfdOffset: 0n,
        guestMemfd: file,
      },
      2,
    );
    if (r !== 0)
      throw new InputError(
        `slot ${slot.id} at ${hex(slot.gpa)}, ${hex(slot.size)} bytes: KVM_SET_USER_MEMORY_REGION2 gives ${errnoName(-r)}`,
      );
    const made = gfnToMemslot(vm, slot.gpa / PAGE)!;
    if (slot.flags.includes('being-changed')) made.flags |= KVM_MEMSLOT_INVALID;
  }

  private makePrivate(gpa: number, size: number): void {
    const r = setMemoryAttributes(this.vm, BigInt(gpa), BigInt(size), PRIVATE, 0n);
    if (r !== 0) throw new InputError(`--attribute private: KVM_SET_MEMORY_ATTRIBUTES gives ${errnoName(-r)}`);
  }

  /** Puts the page of the gfn, in the host and in guest_memfd, into the state of the backing. */
  private makePage(): void {
    const { vm, gfn } = this;
    const { backing } = this.input;
    const slot = gfnToMemslot(vm, gfn);
    if (slot === null) return;
    backHostPage(vm.mm, slot.userspaceAddr + (gfn - slot.baseGfn) * PAGE, backing);
    const file = this.gmem();
    if (file === null || backing === 'absent') return;
    const pfn = file.getPage(gfn - slot.baseGfn);
    if (backing === 'poisoned') vm.host.pages.poison(pfn);
  }

  private gmem(): GuestMemfdFile | null {
    return gfnToMemslot(this.vm, this.gfn)?.gmem?.file ?? null;
  }
}
