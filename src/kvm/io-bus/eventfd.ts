/** An eventfd: a counter that writers add to and a reader takes (@kvm fs/eventfd.c). */
export class EventCounter {
  private count = 0n;

  /** @kvm eventfd_signal: adds one, saturating. */
  signal(): void {
    if (this.count < 0xffff_ffff_ffff_fffen) this.count++;
  }

  /** The count, which becomes 0; a read of 0 would block (EAGAIN). @kvm eventfd_ctx_do_read */
  read(): bigint {
    const count = this.count;
    this.count = 0n;
    return count;
  }
}
