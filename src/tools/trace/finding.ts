/** Something in a trace that somebody should look at. */
export interface Finding {
  readonly kind:
    | 'fault-loop'
    | 'mmio-storm'
    | 'split-mmio'
    | 'conversion-ping-pong'
    | 'memory-faults'
    | 'refault-after-zap'
    | 'huge-pages-broken'
    | 'emulation-failures';
  /** What it is, with its numbers, in one line. */
  readonly title: string;
  readonly cause: string;
  readonly advice: string;
  /** Numbers of the first lines that it rests on, and of how many there are. */
  readonly lines: readonly number[];
  readonly count: number;
}

const MOST_LINES = 5;

/** The first few of many lines. */
export class Evidence {
  readonly lines: number[] = [];
  count = 0;

  /* HOT */
  add(line: number): void {
    this.count++;
    if (this.lines.length < MOST_LINES) this.lines.push(line);
  }
}
