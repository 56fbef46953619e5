/** An eventfd of the VMM's process. */
import { EventCounter } from '../io-bus/eventfd.ts';

/** For Vm.ioeventfd. */
export class EventFd {
  readonly counter = new EventCounter();

  /** What was signalled since the last read; 0 where a non-blocking read(2) would say EAGAIN. */
  read(): bigint {
    return BigInt(this.counter.read());
  }
}
