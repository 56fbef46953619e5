/**
 * KVM's locks as recorded facts. A run has one thread, so nothing ever waits; what is kept is who holds what, so that a missing lock, a
 * wrong order and a wrong mode are found where they happen. Cost in hot paths: one integer test.
 */

/** kvm->lock */
export const LOCK_VM = 1 << 0;
/** kvm->slots_lock: memslot, attribute and I/O bus updates, dirty log. */
export const LOCK_SLOTS = 1 << 1;
/** kvm->slots_arch_lock: the arch part of memslots. */
export const LOCK_SLOTS_ARCH = 1 << 2;
/** kvm->mmu_lock taken for read: TDP MMU faults. */
export const LOCK_MMU_READ = 1 << 3;
/** kvm->mmu_lock taken for write. */
export const LOCK_MMU_WRITE = 1 << 4;
/** kvm->mmu_lock in either mode: for `assertHeld` only. */
export const LOCK_MMU = LOCK_MMU_READ | LOCK_MMU_WRITE;

const names: readonly [number, string][] = [
  [LOCK_VM, 'kvm->lock'],
  [LOCK_SLOTS, 'slots_lock'],
  [LOCK_SLOTS_ARCH, 'slots_arch_lock'],
  [LOCK_MMU_READ, 'mmu_lock (read)'],
  [LOCK_MMU_WRITE, 'mmu_lock (write)'],
];

/** The names of the locks in `mask`. */
export function lockNames(mask: number): string {
  return names
    .filter(([bit]) => (mask & bit) !== 0)
    .map(([, name]) => name)
    .join(', ');
}

export class Locks {
  /** Bits of the locks held now. */
  held = 0;
  /** Nesting of SRCU read sections (kvm->srcu); sections nest and order with no mutex here. */
  srcuDepth = 0;
  /**
   * Who else is in an SRCU read section, as bits, and whom a grace period under way waits for. One thread has nobody beside it: both stay 0
   * unless somebody steps several actors.
   */
  srcuReaders = 0;
  srcuGrace = 0;
  /** Told of every acquire (true) and release (false); null costs one test. */
  observer: ((lock: number, acquired: boolean) => void) | null = null;

  /**
   * Takes one lock. The order is kvm->lock, slots_lock, slots_arch_lock, mmu_lock; mmu_lock is not recursive.
   * @throws Error on a lock that is held already or taken after one that comes later in the order.
   * @kvm Documentation/virt/kvm/locking.rst
   */
  acquire(lock: number): void {
    const later = lock >= LOCK_MMU_READ ? LOCK_MMU : ~(lock - 1);
    if ((this.held & later) !== 0) this.orderViolation(lock);
    this.held |= lock;
    if (this.observer !== null) this.observer(lock, true);
  }

  /** Drops one lock. @throws Error when it is not held. */
  release(lock: number): void {
    if ((this.held & lock) === 0) throw new Error(`${lockNames(lock)} released, but not held`);
    this.held &= ~lock;
    if (this.observer !== null) this.observer(lock, false);
  }

  /** @throws Error unless one of the locks in `mask` is held. @kvm lockdep.h lockdep_assert_held. HOT */
  assertHeld(mask: number): void {
    if ((this.held & mask) === 0) this.notHeld(mask);
  }

  /** @throws Error when one of the locks in `mask` is held. @kvm lockdep.h lockdep_assert_not_held */
  assertNotHeld(mask: number): void {
    if ((this.held & mask) !== 0) throw new Error(`${lockNames(this.held & mask)} held where it must not be`);
  }

  /** @kvm kvm_host.h kvm_vcpu_srcu_read_lock; srcu.h srcu_read_lock */
  srcuReadLock(): void {
    this.srcuDepth++;
  }

  /** @kvm kvm_host.h kvm_vcpu_srcu_read_unlock; srcu.h srcu_read_unlock */
  srcuReadUnlock(): void {
    if (this.srcuDepth === 0) throw new Error('srcu read section left, but none was entered');
    this.srcuDepth--;
  }

  /** A grace period begins: it is over when everybody who reads now has left (`srcuGrace` is 0). @kvm srcu.h synchronize_srcu */
  srcuBeginGrace(): void {
    this.srcuGrace = this.srcuReaders;
  }

  /** @throws Error outside an SRCU read section. @kvm srcu.h srcu_read_lock_held */
  assertSrcuHeld(): void {
    if (this.srcuDepth === 0) throw new Error('not in an srcu read section');
  }

  private notHeld(mask: number): never {
    throw new Error(`${lockNames(mask)} must be held; held: ${lockNames(this.held) || 'none'}`);
  }

  private orderViolation(lock: number): never {
    throw new Error(`${lockNames(lock)} taken while holding ${lockNames(this.held)}`);
  }
}
