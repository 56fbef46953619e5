/** The tour's report: the guest's output, a table of its fault classes, and the most interesting fault in words. */
import type { Board } from '../../vmm/board.ts';
import { type DemoClass, type DemoResult, runDemo } from '../../vmm/demo.ts';
import { SILICON } from '../choices.ts';
import { recordRun } from '../conform/run-record.ts';
import { explanationLines } from '../explain/explain-text.ts';
import { FaultLog, type FaultRecord } from '../explain/fault-log.ts';
import type { LeftBy } from '../explain/left-by.ts';

/** A row of the table. */
export interface ClassRow {
  readonly id: string;
  readonly title: string;
  readonly faults: number;
  /** Stages that ended faults of the class, most frequent first. */
  readonly decidedBy: readonly string[];
  /** What KVM did, in words. */
  readonly did: string;
  /** Instructions that the guest retired. */
  readonly instructions: number;
  readonly milliseconds: number;
}

/** What `softkvm demo --json` prints. */
export interface DemoReport {
  readonly version: 1;
  readonly holds: boolean;
  readonly end: DemoResult['end'];
  readonly output: string;
  readonly classes: readonly ClassRow[];
  readonly explained: FaultRecord | null;
  /** How KVM_RUN returned after that fault. */
  readonly left: LeftBy | null;
  /** Of the run that was timed. */
  readonly milliseconds: number;
}

/** Runs the tour twice: once as it is, which is timed and printed, and once with every fault followed. */
export async function demoReport(onOutput: (text: string) => void): Promise<DemoReport> {
  const start = performance.now();
  const milliseconds = await timedTour(onOutput);
  const seconds = performance.now() - start;
  const followed = await followedTour();
  const { result } = followed;
  return {
    version: 1,
    holds: result.ok,
    end: result.end,
    output: result.output,
    classes: result.classes.map((c) =>
      classRow(c, followed.stages.get(c.id) ?? new Map(), milliseconds.get(c.id) ?? 0),
    ),
    explained: followed.explained,
    left: followed.left,
    milliseconds: seconds,
  };
}

/** Milliseconds that the tour spends in each class, with nothing recorded. */
async function timedTour(onOutput: (text: string) => void): Promise<Map<string, number>> {
  const spent = new Map<string, number>();
  let current = 'other';
  let since = performance.now();
  const enter = (id: string): void => {
    const now = performance.now();
    spent.set(current, (spent.get(current) ?? 0) + now - since);
    since = now;
    current = id;
  };
  await runDemo({ hardware: SILICON, onOutput, account: false, onBoard: () => enter('other'), onClass: enter });
  enter('other');
  return spent;
}

interface FollowedTour {
  readonly result: DemoResult;
  /** How many faults each stage decided, by class. */
  readonly stages: ReadonlyMap<string, ReadonlyMap<string, number>>;
  readonly explained: FaultRecord | null;
  readonly left: LeftBy | null;
}

async function followedTour(): Promise<FollowedTour> {
  const stages = new Map<string, Map<string, number>>();
  let log: FaultLog | null = null;
  let board: Board | null = null;
  let explained: FaultRecord | null = null;
  let left: LeftBy | null = null;
  let current = 'other';
  const leave = (): void => {
    const row = stages.get(current) ?? new Map<string, number>();
    stages.set(current, row);
    for (const fault of log?.take() ?? []) {
      const stage = decidingStage(fault);
      row.set(stage, (row.get(stage) ?? 0) + 1);
      if (fault.verdict === 'EFAULT') explained ??= fault;
    }
  };
  const result = await runDemo({
    hardware: SILICON,
    onBoard: (b) => {
      board = b;
      log = new FaultLog(b.vm.state);
    },
    onTrace: (event) => {
      log?.event(event);
      // KVM_RUN is about to return an error: what it says about it stands in kvm_run.
      if (event.event === 'kvm_userspace_exit' && event.fields.text.startsWith('reason error') && board !== null)
        left ??= { ret: -1, errno: 'EFAULT', run: recordRun(board.vcpu.kvmRun) };
    },
    onClass: (id) => {
      leave();
      current = id;
    },
  });
  leave();
  return { result, stages, explained, left };
}

/** The table and the explanation, as lines. */
export function demoLines(report: DemoReport): string[] {
  const rows = report.classes
    .filter((c) => c.faults > 0 || c.did !== '')
    .map((c) => [c.title, String(c.faults), c.decidedBy.slice(0, 2).join(', ') || '-', c.did || '-', costText(c)]);
  const head = ['class of fault', 'faults', 'decided by', 'what KVM did', 'cost'];
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((c, i) => (i === 1 ? c.padStart(widths[i]!) : c.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  const total = report.classes.reduce((n, c) => n + c.faults, 0);
  return [
    '',
    line(head),
    line(widths.map((w) => '-'.repeat(w))),
    ...rows.map(line),
    '',
    `${total.toLocaleString('en-US')} faults in ${(report.milliseconds / 1000).toFixed(2)} s; the guest ended with ${report.end.kind}, status ${report.end.status}.`,
    ...(report.explained === null
      ? []
      : ['', 'The most interesting one:', ...explanationLines(report.explained, report.left)]),
  ];
}

/** Time of the class; by fault only where there are enough of them to share what else happens in the class. */
function costText(c: ClassRow): string {
  const each = c.faults < 1000 ? '' : `, ${((c.milliseconds * 1000) / c.faults).toFixed(1)} us a fault`;
  return `${c.milliseconds.toFixed(1)} ms${each}`;
}

function decidingStage(fault: FaultRecord): string {
  const last = fault.stages.at(-1);
  if (last !== undefined) return last.name;
  return fault.events.some((e) => e.event === 'handle_mmio_page_fault' || e.event === 'check_mmio_spte')
    ? 'mmio-spte'
    : 'before the stages';
}

function classRow(c: DemoClass, stages: ReadonlyMap<string, number>, milliseconds: number): ClassRow {
  return {
    id: c.id,
    title: c.title,
    faults: c.counts.faults,
    decidedBy: [...stages].sort((a, b) => b[1] - a[1]).map(([name]) => name),
    did: whatKvmDid(c.counts),
    instructions: c.instructions,
    milliseconds,
  };
}

function whatKvmDid(n: DemoClass['counts']): string {
  const parts: readonly (readonly [number, string])[] = [
    [n.mapped4k, 'mapped 4K'],
    [n.mapped2m, 'mapped 2M'],
    [n.mapped1g, 'mapped 1G'],
    [n.splits, 'huge page split'],
    [n.fast, 'fixed without the lock'],
    [n.mmioMade, 'MMIO SPTE made'],
    [n.mmioFound, 'MMIO SPTE found'],
    [n.mmioStale, 'MMIO SPTE stale'],
    [n.zapped, 'zapped'],
    [n.emulated, 'emulated'],
    [n.exitsMmio, 'left as MMIO'],
    [n.exitsHypercall, 'left as hypercall'],
    [n.exitsMemoryFault, 'left as memory fault'],
  ];
  return parts
    .filter(([count]) => count > 0)
    .slice(0, 4)
    .map(([count, what]) => `${count} ${what}`)
    .join(', ');
}
