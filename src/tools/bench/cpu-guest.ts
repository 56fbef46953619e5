/**
 * The benchmark guest (guests/bench.c): its parts, its image with rounds put in, and what it says on the serial port. It runs unchanged in
 * other emulators: as a multiboot image, or behind a boot sector.
 */
import { guestImage } from '../../vmm/guest-image.ts';

/** A part of the guest, in its order. */
export interface CpuPart {
  readonly name: string;
  /** What one round is. */
  readonly round: string;
  /** Rounds to begin with: few enough for the slowest emulator. */
  readonly few: number;
}

export const CPU_PARTS: readonly CpuPart[] = [
  { name: 'integer mix', round: '10,000 iterations', few: 2 },
  { name: 'sieve', round: '1 MiB', few: 1 },
  { name: 'quicksort', round: '16,384 numbers', few: 1 },
  { name: 'memcpy, words', round: '256 KiB', few: 1 },
  { name: 'memcpy, rep movs', round: '256 KiB', few: 1 },
  { name: 'page fault', round: 'touch, #PF, map, return, unmap', few: 500 },
  { name: 'CR3 reload', round: 'reload, 64 touches', few: 50 },
  { name: 'port write', round: 'OUT to port 0x80', few: 500 },
  { name: 'MMIO read', round: 'load where no device is', few: 500 },
  { name: 'system call', round: 'user mode to kernel and back', few: 500 },
  { name: 'port read in KVM', round: 'IN from an interrupt controller', few: 500 },
  { name: 'CPUID', round: 'CPUID', few: 500 },
];

export type GuestBits = 32 | 64;

/** Where the rounds are: after this text, a u32 a part. */
const ROUNDS_MARK = 'softkvmB';
const SECTOR = 512;
const DISK_SECTORS = 20 * 16 * 63;

/** The guest with so many rounds of each part; 0 leaves a part out. */
export function cpuGuest(bits: GuestBits, rounds: readonly number[]): Uint8Array {
  const image = Uint8Array.from(guestImage(`bench${bits}.bin`));
  const at = new TextDecoder('latin1').decode(image).indexOf(ROUNDS_MARK) + ROUNDS_MARK.length;
  const view = new DataView(image.buffer);
  rounds.forEach((n, i) => {
    view.setUint32(at + 4 * i, n, true);
  });
  return image;
}

/** A disk of 20 cylinders, 16 heads and 63 sectors that boots `guest`. */
export function cpuGuestDisk(guest: Uint8Array): Uint8Array {
  const disk = new Uint8Array(DISK_SECTORS * SECTOR);
  disk.set(guestImage('bench-disk.bin'));
  disk.set(guest, SECTOR);
  return disk;
}

/** What a part came to. */
export interface PartRun {
  readonly milliseconds: number;
  readonly checksum: string;
}

/** Listens to the serial port of a run, and reads the clock when a part begins and ends. */
export class GuestMarks {
  /** By part; undefined for those that did not run, or not to their end. */
  readonly runs: (PartRun | undefined)[] = [];
  /** The guest has said that it is done. */
  complete = false;
  private part = -1;
  private start = 0;
  private end = 0;
  private checksum = '';

  byte(value: number): void {
    const text = String.fromCharCode(value);
    if (text === '.') {
      this.end = performance.now();
      this.checksum = '';
    } else if (text === '!') {
      this.complete = true;
    } else if (text >= 'A' && text <= 'Z') {
      this.part = text.charCodeAt(0) - 65;
      this.start = performance.now();
    } else if (/[0-9a-f]/.test(text) && this.part >= 0) {
      this.checksum += text;
      if (this.checksum.length === 8) {
        this.runs[this.part] = { milliseconds: this.end - this.start, checksum: this.checksum };
      }
    }
  }
}
