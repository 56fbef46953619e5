/** What a trace says about a VM's faults: `softkvm trace report`. */
import { type CodeKind, decodeCode } from '../decode/decode.ts';
import { schemaOf } from './events.ts';
import { FaultFindings } from './fault-findings.ts';
import { FaultFollower, type FollowedFault } from './fault-follower.ts';
import type { Finding } from './finding.ts';
import { Histogram } from './histogram.ts';
import { MmioFindings } from './mmio-findings.ts';
import { outcomeOf } from './outcome.ts';
import { readTrace, type TraceSummary } from './read-trace.ts';
import { type Counted, TopCounter } from './top-counter.ts';
import { hexOf, type TraceRecord } from './trace-record.ts';

export interface FaultKindRow {
  /** Whole error code, or exit qualification: never narrowed. */
  readonly code: string;
  readonly codeKind: CodeKind;
  /** Names of its bits. */
  readonly bits: string;
  readonly words: string;
  readonly count: number;
  /** What KVM did about them, by how many. */
  readonly outcomes: Readonly<Record<string, number>>;
}

export interface PlaceRow {
  readonly at: string;
  readonly count: number;
}

export interface MmioRow {
  readonly gpa: string;
  readonly reads: number;
  readonly writes: number;
  /** Accesses a second, null when the trace does not say. */
  readonly rate: number | null;
}

/** What `softkvm trace report --json` prints. */
export interface TraceReport {
  readonly version: 1;
  readonly files: readonly ({ readonly file: string } & TraceSummary)[];
  readonly faults: {
    readonly total: number;
    readonly kinds: readonly FaultKindRow[];
    readonly byGfn: readonly PlaceRow[];
    readonly by2M: readonly PlaceRow[];
    readonly byVcpu: readonly PlaceRow[];
    readonly byRip: readonly PlaceRow[];
    /** Counts by place are too low by at most this: there were more places than are kept. */
    readonly missed: number;
  };
  readonly exits: readonly PlaceRow[];
  readonly mmio: { readonly total: number; readonly places: readonly MmioRow[] };
  /** Nanoseconds from kvm_page_fault to the next kvm_entry; null without kvm_entry. */
  readonly latency: {
    readonly count: number;
    readonly p50: number;
    readonly p90: number;
    readonly p99: number;
    readonly max: number;
  } | null;
  readonly findings: readonly Finding[];
}

class Kind implements Counted {
  count = 0;
  lo = 0;
  hi = 0;
  ept = false;
  readonly outcomes = new Map<string, number>();
}

class Place implements Counted {
  count = 0;
  readonly key: number;
  lo = 0;
  hi = 0;

  constructor(key: number) {
    this.key = key;
  }
}

const exit = schemaOf('kvm_exit');
const REASON = exit.field('reason');
const REGION_FRAMES = 512;
/** Bits of a RIP that a key keeps: all but copies of the sign in canonical addresses of 53 bits. */
const RIP_HI_MASK = 0x1fffff;

/** Gathers a report from the events of one or several traces. */
export class TraceReporter {
  private readonly top: number;
  private readonly files: ({ readonly file: string } & TraceSummary)[] = [];
  private follower = new FaultFollower((fault, _line, at) => this.fault(fault, at));
  private readonly findings = new FaultFindings();
  private readonly mmio = new MmioFindings();
  private readonly kinds = new TopCounter(() => new Kind());
  private readonly gfns = new TopCounter((key) => new Place(key));
  private readonly regions = new TopCounter((key) => new Place(key));
  private readonly vcpus = new TopCounter((key) => new Place(key));
  private readonly rips = new TopCounter((key) => new Place(key));
  private readonly exits = new Map<string, number>();
  private readonly latency = new Histogram();
  private total = 0;

  /** @param top rows of a table */
  constructor(top = 10) {
    this.top = top;
  }

  /** @throws InputError */
  async read(file: string): Promise<void> {
    this.follower = new FaultFollower((fault, _line, at) => this.fault(fault, at));
    const summary = await readTrace(file, (record, line) => this.event(record, line));
    this.follower.end(summary.lines);
    this.files.push({ file, ...summary });
  }

  private event(record: TraceRecord, line: number): void {
    if (record.event === null) return;
    this.follower.event(record, line);
    this.findings.event(record, line);
    this.mmio.event(record, line);
    if (record.event === exit) {
      const reason = record.word(REASON);
      this.exits.set(reason, (this.exits.get(reason) ?? 0) + 1);
    }
  }

  private fault(fault: FollowedFault, at: number): void {
    this.total++;
    this.findings.fault(fault);
    const { codeLo, codeHi, ept, gfn, ripLo, ripHi } = fault;
    const code = codeHi * 0x1_0000_0000 + (codeLo >>> 0);
    const kind = this.kinds.add(ept ? -1 - code : code);
    kind.lo = codeLo;
    kind.hi = codeHi;
    kind.ept = ept;
    const outcome = outcomeOf(fault.did, fault.level);
    kind.outcomes.set(outcome, (kind.outcomes.get(outcome) ?? 0) + 1);
    this.gfns.add(gfn);
    this.regions.add(Math.floor(gfn / REGION_FRAMES));
    this.vcpus.add(fault.vcpu);
    const rip = this.rips.add((ripHi & RIP_HI_MASK) * 0x1_0000_0000 + (ripLo >>> 0));
    rip.lo = ripLo;
    rip.hi = ripHi;
    if (at >= 0 && fault.time >= 0 && at >= fault.time) this.latency.add(at - fault.time);
  }

  report(): TraceReport {
    const { top, latency } = this;
    const places = (counter: TopCounter<Place>, at: (p: Place) => string): PlaceRow[] =>
      counter.top(top).map((p) => ({ at: at(p), count: p.count }));
    return {
      version: 1,
      files: this.files,
      faults: {
        total: this.total,
        kinds: this.kinds.top(top).map(kindRow),
        byGfn: places(this.gfns, (p) => number16(p.key)),
        by2M: places(this.regions, (p) => number16(p.key * REGION_FRAMES)),
        byVcpu: places(this.vcpus, (p) => (p.key < 0 ? 'not said' : String(p.key))),
        byRip: places(this.rips, (p) => hexOf(p.lo, p.hi)),
        missed: Math.max(this.gfns.missed, this.regions.missed, this.rips.missed),
      },
      exits: [...this.exits]
        .sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
        .slice(0, top)
        .map(([at, count]) => ({ at, count })),
      mmio: {
        total: this.mmio.total,
        places: this.mmio.places
          .top(top)
          .map((p) => ({ gpa: number16(p.gpa), reads: p.reads, writes: p.writes, rate: p.rate })),
      },
      latency:
        latency.count === 0
          ? null
          : {
              count: latency.count,
              p50: latency.percentile(0.5),
              p90: latency.percentile(0.9),
              p99: latency.percentile(0.99),
              max: latency.most,
            },
      findings: [...this.findings.all(), ...this.mmio.all()],
    };
  }
}

function number16(value: number): string {
  return `0x${value.toString(16)}`;
}

function kindRow(kind: Kind): FaultKindRow {
  const code = hexOf(kind.lo, kind.hi);
  const decoded = decodeCode(BigInt(code), kind.ept ? 'ept' : kind.hi !== 0 ? 'npf' : 'auto');
  return {
    code,
    codeKind: decoded.kind,
    bits: decoded.bits
      .filter((b) => b.set)
      .map((b) => b.name)
      .join('|'),
    words: decoded.words,
    count: kind.count,
    outcomes: Object.fromEntries([...kind.outcomes].sort(([, a], [, b]) => b - a)),
  };
}
