/** Reserved bits of page table entries by level, with and without PS (@kvm kvm_host.h struct rsvd_bits_validate). */

export class RsvdBits {
  /** Index `2 * (5 * ps + level - 1)`: low half, then high half. */
  readonly mask = new Int32Array(20);
  /** EPT: memory type and RWX combinations (entry bits 5:0) that are misconfigurations, as a 64-bit set in halves. */
  badMtXwrLo = 0;
  badMtXwrHi = 0;

  set(ps: 0 | 1, level: number, lo: number, hi: number): void {
    const i = 2 * (5 * ps + level - 1);
    this.mask[i] = lo;
    this.mask[i + 1] = hi;
  }

  /** Copies `from`'s mask of (fromPs, fromLevel). */
  copy(ps: 0 | 1, level: number, fromPs: 0 | 1, fromLevel: number): void {
    const i = 2 * (5 * fromPs + fromLevel - 1);
    this.set(ps, level, this.mask[i]!, this.mask[i + 1]!);
  }

  clear(): void {
    this.mask.fill(0);
    this.badMtXwrLo = 0;
    this.badMtXwrHi = 0;
  }

  /** @kvm spte.h is_rsvd_spte, paging_tmpl.h is_rsvd_bits_set. HOT */
  isSet(lo: number, hi: number, level: number): boolean {
    const i = 2 * (5 * ((lo >> 7) & 1) + level - 1);
    if (((lo & this.mask[i]!) | (hi & this.mask[i + 1]!)) !== 0) return true;
    const bit = lo & 0x3f;
    return (((bit < 32 ? this.badMtXwrLo : this.badMtXwrHi) >>> (bit & 31)) & 1) !== 0;
  }
}
