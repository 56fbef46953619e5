/**
 * Sets of entries that point to the same thing: to a guest frame (rmap) or to a page table (parents). A set is named by its head: 0 for
 * none, the entry itself (its index in the int32 view of memory) for one, the complement of a list's number for more (@kvm mmu.c struct
 * pte_list_desc).
 */
export class PteLists {
  private readonly lists: number[][] = [];
  private readonly free: number[] = [];

  /** Number of entries. @kvm mmu.c pte_list_count */
  count(head: number): number {
    return head === 0 ? 0 : head > 0 ? 1 : this.lists[~head]!.length;
  }

  /** Adds an entry; answers the new head. @kvm mmu.c pte_list_add */
  add(head: number, sptep: number): number {
    if (head === 0) return sptep;
    if (head < 0) {
      this.lists[~head]!.push(sptep);
      return head;
    }
    const n = this.free.length > 0 ? this.free.pop()! : this.lists.push([]) - 1;
    this.lists[n]!.push(head, sptep);
    return ~n;
  }

  /** Removes an entry; answers the new head. @throws Error when it is not in the set. @kvm mmu.c pte_list_remove */
  remove(head: number, sptep: number): number {
    if (head > 0 && head === sptep) return 0;
    const list = head < 0 ? this.lists[~head]! : [];
    const i = list.indexOf(sptep);
    if (i < 0) throw new Error(`entry ${sptep} is not in its list`);
    const last = list.pop()!;
    if (i < list.length) list[i] = last;
    if (list.length > 1) return head;
    const only = list[0]!;
    this.drop(head);
    return only;
  }

  /** Some entry of the set, 0 for none. @kvm mmu.c rmap_get_first */
  first(head: number): number {
    return head >= 0 ? head : this.lists[~head]![0]!;
  }

  /** The entries as they are now. @kvm mmu.c for_each_rmap_spte */
  entries(head: number): readonly number[] {
    return head === 0 ? [] : head > 0 ? [head] : this.lists[~head]!.slice();
  }

  /** Forgets the set. */
  drop(head: number): void {
    if (head >= 0) return;
    this.lists[~head]!.length = 0;
    this.free.push(~head);
  }
}
