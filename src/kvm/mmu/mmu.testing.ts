/** The bare MMU with its trace taken down as lines. For tests. */
import type { TraceEvent } from '../trace/events.ts';
import { BareMmu } from './bare-mmu.ts';

export { FETCH, READ, WRITE } from './bare-mmu.ts';

export class TestMmu extends BareMmu {
  /** Events since `takeTrace`. */
  private events: TraceEvent[] = [];

  /** Starts recording events. */
  traceOn(): void {
    this.vm.trace.setSink((event) => this.events.push(event));
  }

  /** The events so far, one line each: what changed, without the frames. */
  takeTrace(): string[] {
    const lines = this.events.map((e) => `${e.event} ${Object.values(e.fields).map(withoutPfn).join(' ')}`);
    this.events = [];
    return lines.filter((line) => !line.includes('8000000000000000 0x80000000000005a0'));
  }
}

/** An SPTE without its frame, as recordings have it; anything else as it is. */
function withoutPfn(value: unknown): string {
  if (typeof value !== 'string' || !/^0x[0-9a-f]+$/.test(value)) return String(value);
  const word = BigInt(value);
  if ((word & 0x800n) === 0n || word >> 12n === 0n) return value;
  return `0x${(word & ~0xff_ffff_f000n).toString(16)}+pfn`;
}
