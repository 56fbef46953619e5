/**
 * The ring of coalesced writes (@kvm uapi/linux/kvm.h struct kvm_coalesced_mmio_ring): one page, shared by all vCPUs of a VM and its
 * userspace.
 */
import { hiOf, loOf, numberOf } from '../../arch/halves.ts';

const HEADER = 8;
const ENTRY = 24;
/** Entries of the page; one stays empty so that full differs from empty. @kvm kvm.h KVM_COALESCED_MMIO_MAX */
export const KVM_COALESCED_MMIO_MAX = Math.floor((4096 - HEADER) / ENTRY);

export interface CoalescedEntry {
  /** gpa, or port. */
  readonly physAddr: number;
  readonly len: number;
  readonly pio: boolean;
  /** Eight bytes, of which `len` count. */
  readonly data: Uint8Array;
}

export class CoalescedRing {
  /** The page as userspace maps it. */
  readonly bytes = new Uint8Array(4096);
  private readonly view = new DataView(this.bytes.buffer);

  /** Where userspace reads next. */
  get first(): number {
    return this.view.getUint32(0, true);
  }
  set first(index: number) {
    this.view.setUint32(0, index, true);
  }
  /** Where KVM writes next. */
  get last(): number {
    return this.view.getUint32(4, true);
  }
  set last(index: number) {
    this.view.setUint32(4, index, true);
  }

  /** Appends a write; false when the ring is full or userspace broke `last`. @kvm coalesced_mmio.c coalesced_mmio_write */
  push(addr: number, len: number, buf: Uint8Array, off: number, pio: boolean): boolean {
    const insert = this.last;
    if (insert >= KVM_COALESCED_MMIO_MAX || (insert + 1) % KVM_COALESCED_MMIO_MAX === this.first) return false;
    const at = HEADER + insert * ENTRY;
    this.view.setInt32(at, loOf(addr), true);
    this.view.setInt32(at + 4, hiOf(addr), true);
    this.view.setUint32(at + 8, len, true);
    this.view.setUint32(at + 12, pio ? 1 : 0, true);
    for (let i = 0; i < len; i++) this.bytes[at + 16 + i] = buf[off + i]!;
    this.last = (insert + 1) % KVM_COALESCED_MMIO_MAX;
    return true;
  }

  entry(index: number): CoalescedEntry {
    const at = HEADER + index * ENTRY;
    return {
      physAddr: numberOf(this.view.getInt32(at, true), this.view.getInt32(at + 4, true)),
      len: this.view.getUint32(at + 8, true),
      pio: this.view.getUint32(at + 12, true) !== 0,
      data: this.bytes.slice(at + 16, at + 24),
    };
  }

  /** Takes out what is in the ring, as userspace does. */
  drain(): CoalescedEntry[] {
    const out: CoalescedEntry[] = [];
    let i = this.first;
    for (; i !== this.last; i = (i + 1) % KVM_COALESCED_MMIO_MAX) out.push(this.entry(i));
    this.first = i;
    return out;
  }
}
