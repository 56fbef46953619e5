/** Small numbers for the strings that outcomes are made of: names of stages, and lines of the kernel log. */
import type { KernelLogEntry } from '../../kvm/kernel-log.ts';

export class Names {
  private readonly stages: string[] = [];
  private readonly stageNumbers = new Map<string, number>();
  private readonly lines: string[] = [];
  /** By place and message. */
  private readonly lineBits = new Map<string, Map<string, number>>();

  stageNumber(name: string): number {
    let number = this.stageNumbers.get(name);
    if (number === undefined) {
      number = this.stages.push(name) - 1;
      this.stageNumbers.set(name, number);
    }
    return number;
  }

  stageName(number: number): string {
    return this.stages[number]!;
  }

  /** A bit for each different line; numbers in it do not make lines different. @throws Error beyond 31 lines */
  logBits(entries: readonly KernelLogEntry[]): number {
    let bits = 0;
    for (const entry of entries) bits |= this.lineBits.get(entry.where)?.get(entry.message) ?? this.newBit(entry);
    return bits;
  }

  private newBit({ where, message }: KernelLogEntry): number {
    const text = `${where}: ${message}`.replace(/\b(0x[0-9a-f]+|\d+)\b/g, 'n');
    let index = this.lines.indexOf(text);
    if (index < 0) index = this.lines.push(text) - 1;
    if (index > 30) throw new Error(`more than 31 different lines in the kernel log: ${text}`);
    const bits = this.lineBits.get(where) ?? new Map<string, number>();
    this.lineBits.set(where, bits.set(message, 1 << index));
    return 1 << index;
  }

  logLines(bits: number): string[] {
    return this.lines.filter((_, i) => ((bits >>> i) & 1) !== 0).sort();
  }
}

/** One numbering for all machines of the process, so that their outcomes compare. */
export const names = new Names();
