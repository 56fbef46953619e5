/** Trace events on their way into a file, one JSON object a line. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { TraceEvent } from '../kvm/api/index.ts';
import { InputError } from '../tools/input-error.ts';

/** Characters that are gathered before they are written. */
const CHUNK = 256 * 1024;

export class TraceFile {
  private readonly file: string;
  private readonly fd: number;
  private text = '';

  /** Makes the file, or empties it. @throws InputError when that cannot be done */
  constructor(file: string) {
    this.file = file;
    this.fd = this.attempt(() => openSync(file, 'w'));
  }

  private attempt<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw new InputError(`${this.file}: cannot be written (${(error as NodeJS.ErrnoException).code})`);
    }
  }

  /** @throws InputError when the disk is full */
  add(event: TraceEvent): void {
    this.text += `${JSON.stringify(event)}\n`;
    if (this.text.length >= CHUNK) this.flush();
  }

  private flush(): void {
    const { text } = this;
    this.text = '';
    this.attempt(() => writeSync(this.fd, text));
  }

  close(): void {
    this.flush();
    closeSync(this.fd);
  }
}
