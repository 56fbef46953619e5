/** MMIO by address: how often, how fast, and what is odd about it. */
import { schemaOf } from './events.ts';
import { Evidence, type Finding } from './finding.ts';
import { type Counted, TopCounter } from './top-counter.ts';
import type { TraceRecord } from './trace-record.ts';

/** Accesses of one address, and a second of them, that make a storm. */
const STORM = 1000;
const STORM_RATE = 1000;
const SPLIT_LEAST = 1;

const mmio = schemaOf('kvm_mmio');
const fast = schemaOf('kvm_fast_mmio');
const F = { type: mmio.field('type'), len: mmio.field('len'), gpa: mmio.field('gpa'), fastGpa: fast.field('gpa') };
const LETTER_U = 0x75;
const LETTER_W = 0x77;

export class MmioPlace implements Counted {
  readonly gpa: number;
  count = 0;
  reads = 0;
  writes = 0;
  /** Sizes that were seen, as bits by size. */
  sizes = 0;
  first = -1;
  last = -1;
  readonly evidence = new Evidence();

  constructor(gpa: number) {
    this.gpa = gpa;
  }

  /** Accesses a second; null when the trace has no times, or the address was accessed once. */
  get rate(): number | null {
    return this.first < 0 || this.last <= this.first ? null : ((this.count - 1) * 1e9) / (this.last - this.first);
  }
}

export class MmioFindings {
  readonly places = new TopCounter((gpa) => new MmioPlace(gpa));
  readonly split = new Evidence();
  private splitGpa = 0;
  total = 0;

  /* HOT */
  event(record: TraceRecord, line: number): void {
    if (record.event === fast) {
      this.access(record, record.num(F.fastGpa), 0, true, line);
      return;
    }
    if (record.event !== mmio) return;
    const letter = record.bytes[record.from[F.type]!];
    // The access comes again as `read` once userspace has answered it.
    if (letter === LETTER_U) return;
    const gpa = record.num(F.gpa);
    const len = record.lo[F.len]!;
    this.access(record, gpa, len, letter === LETTER_W, line);
    if (len > 0 && ((len & (len - 1)) !== 0 || gpa % len !== 0)) {
      if (this.split.count === 0) this.splitGpa = gpa;
      this.split.add(line);
    }
  }

  private access(record: TraceRecord, gpa: number, len: number, write: boolean, line: number): void {
    const place = this.places.add(gpa);
    this.total++;
    if (write) place.writes++;
    else place.reads++;
    place.sizes |= len;
    if (place.first < 0) place.first = record.time;
    place.last = record.time;
    place.evidence.add(line);
  }

  all(): Finding[] {
    const storms = this.places
      .top(5)
      .filter((p) => p.count >= STORM && (p.rate ?? 0) >= STORM_RATE)
      .map(stormFinding);
    return this.split.count < SPLIT_LEAST ? storms : [...storms, this.splitFinding()];
  }

  private splitFinding(): Finding {
    return {
      kind: 'split-mmio',
      title: `${this.split.count} MMIO accesses are not aligned to their size, first at gpa 0x${this.splitGpa.toString(16)}`,
      cause:
        'A structure of a device is read or written as memory (memcpy, a packed struct), or an access crosses a page and KVM splits it.',
      advice:
        'Devices expect their registers by the size and the alignment of their specification: use readl, writel and the like.',
      lines: this.split.lines,
      count: this.split.count,
    };
  }
}

function stormFinding(place: MmioPlace): Finding {
  const direction = place.writes === 0 ? 'reads' : place.reads === 0 ? 'writes' : 'accesses';
  return {
    kind: 'mmio-storm',
    title: `${place.count} MMIO ${direction} of gpa 0x${place.gpa.toString(16)}, ${Math.round(place.rate ?? 0)} a second`,
    cause:
      place.writes === 0
        ? 'The guest polls a register: a driver without interrupts, or a timer that is read as a clock (HPET, ACPI PM timer at 0xfed00000 and the like).'
        : 'A doorbell or a register that is written for each request.',
    advice:
      place.writes === 0
        ? 'Give the guest a clock that needs no exits (kvm-clock, TSC), or interrupts; a coalesced range does not help reads.'
        : 'KVM_IOEVENTFD answers doorbells without leaving the kernel; KVM_REGISTER_COALESCED_MMIO gathers writes that need no answer.',
    lines: place.evidence.lines,
    count: place.count,
  };
}
