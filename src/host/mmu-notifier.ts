/**
 * MMU notifiers: how whoever mirrors a process's page tables hears of changes before and after they happen.
 * For every change: start, then the page tables change and frames may be freed, then end. Pairs nest.
 *
 * @kvm mm/mmu_notifier.c
 */

/** Why a range is invalidated. */
export const MMU_NOTIFY_UNMAP = 0;
export const MMU_NOTIFY_CLEAR = 1;
export const MMU_NOTIFY_PROTECTION_VMA = 2;
export const MMU_NOTIFY_PROTECTION_PAGE = 3;
export type MmuNotifyEvent =
  | typeof MMU_NOTIFY_UNMAP
  | typeof MMU_NOTIFY_CLEAR
  | typeof MMU_NOTIFY_PROTECTION_VMA
  | typeof MMU_NOTIFY_PROTECTION_PAGE;

/** What a listener implements; addresses are hvas, `end` is exclusive. */
export interface MmuNotifier {
  /** The range is about to change: whatever mirrors it must be gone on return. */
  invalidateRangeStart(start: number, end: number, mayBlock: boolean, event: MmuNotifyEvent): void;
  /** The change announced by the matching start is done. */
  invalidateRangeEnd(start: number, end: number): void;
  /** Clears accessed bits and flushes; true when one was set. */
  clearFlushYoung(start: number, end: number): boolean;
  /** Clears accessed bits without a flush; true when one was set. */
  clearYoung(start: number, end: number): boolean;
  /** True when an accessed bit is set in the page that `address` is in. */
  testYoung(address: number): boolean;
  /** The address space goes away. */
  release(): void;
}

/** The notifiers of one address space. */
export class MmuNotifierList {
  private list: readonly MmuNotifier[] = [];
  /** Number of starts without their end so far. */
  active = 0;

  /** Adds a listener; it hears of everything from the next range on. */
  register(notifier: MmuNotifier): void {
    if (!this.list.includes(notifier)) this.list = [...this.list, notifier];
  }

  /** Removes a listener. */
  unregister(notifier: MmuNotifier): void {
    this.list = this.list.filter((n) => n !== notifier);
  }

  /** @kvm mmu_notifier.c __mmu_notifier_invalidate_range_start */
  start(start: number, end: number, event: MmuNotifyEvent): void {
    this.active++;
    const list = this.list;
    for (let i = 0; i < list.length; i++) list[i]!.invalidateRangeStart(start, end, true, event);
  }

  /** @kvm mmu_notifier.c __mmu_notifier_invalidate_range_end */
  end(start: number, end: number): void {
    const list = this.list;
    for (let i = 0; i < list.length; i++) list[i]!.invalidateRangeEnd(start, end);
    this.active--;
  }

  clearFlushYoung(start: number, end: number): boolean {
    let young = false;
    for (const n of this.list) young = n.clearFlushYoung(start, end) || young;
    return young;
  }

  clearYoung(start: number, end: number): boolean {
    let young = false;
    for (const n of this.list) young = n.clearYoung(start, end) || young;
    return young;
  }

  testYoung(address: number): boolean {
    for (const n of this.list) if (n.testYoung(address)) return true;
    return false;
  }

  release(): void {
    const list = this.list;
    this.list = [];
    for (const n of list) n.release();
  }
}
