/** What the commands print with: colour on a terminal only, JSON with bigint as hex strings, a progress line on stderr. */
import picocolors from 'picocolors';

/** Colours for text on stdout: the identity when stdout is not a terminal or NO_COLOR is set. */
export const colour = picocolors.createColors(process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined);

/** Prints `value` as one JSON document. */
export function printJson(value: unknown): void {
  process.stdout.write(
    `${JSON.stringify(value, (_key, v) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v), 2)}\n`,
  );
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A line on a terminal's stderr that is rewritten at most five times a second, after the first second (or `delay` milliseconds). */
export class Progress {
  private readonly delay: number;
  private readonly start = Date.now();
  private last = 0;
  private shown = false;

  constructor(delay = 1000) {
    this.delay = delay;
  }

  update(text: () => string): void {
    const now = Date.now();
    if (process.stderr.isTTY !== true || now - this.start < this.delay || (this.delay > 0 && now - this.last < 200))
      return;
    this.last = now;
    this.shown = true;
    process.stderr.write(`\r\x1b[K${text()}`);
  }

  done(): void {
    if (this.shown) process.stderr.write('\r\x1b[K');
  }
}
