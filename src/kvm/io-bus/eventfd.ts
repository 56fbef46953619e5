/** An eventfd: a counter that writers add to and a reader takes (@kvm fs/eventfd.c). */
export class EventCounter {
  /** Exact: no run signals 2^53 times. */
  private count = 0;

  /** @kvm eventfd.h eventfd_signal: adds one. */
  signal(): void {
    this.count++;
  }

  /** The count, which becomes 0; a read of 0 would block (EAGAIN). @kvm eventfd.h eventfd_ctx_do_read */
  read(): number {
    const count = this.count;
    this.count = 0;
    return count;
  }
}
