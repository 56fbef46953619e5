/** The tour's report: the guest's output, a table of its fault classes, and the most interesting fault in words. */
import type { Board } from '../../vmm/board.ts';
import { type DemoClass, type DemoResult, runDemo } from '../../vmm/demo.ts';
import { SILICON } from '../choices.ts';
import { explanationLines } from '../explain/explain-text.ts';
import { FaultLog, type FaultRecord } from '../explain/fault-log.ts';

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
  readonly milliseconds: number;
}

/** Runs the tour; `onOutput` gets the guest's output as it comes. */
export async function demoReport(onOutput: (text: string) => void): Promise<DemoReport> {
  const perClass = new Map<string, { stages: Map<string, number>; milliseconds: number }>();
  let log: FaultLog | null = null;
  let explained: FaultRecord | null = null;
  let current = 'other';
  let since = performance.now();
  const leave = (): void => {
    const row = rowOf(perClass, current);
    row.milliseconds += performance.now() - since;
    since = performance.now();
    const faults = log?.take() ?? [];
    for (const fault of faults) {
      const stage = decidingStage(fault);
      row.stages.set(stage, (row.stages.get(stage) ?? 0) + 1);
    }
    if (current === 'memory-fault') explained ??= faults.find((f) => f.verdict === 'EFAULT') ?? null;
  };
  const start = performance.now();
  const result = await runDemo({
    hardware: SILICON,
    onOutput,
    onBoard: (board: Board) => {
      log = new FaultLog(board.vm.state);
    },
    onTrace: (event) => log?.event(event),
    onClass: (id) => {
      leave();
      current = id;
    },
  });
  leave();
  return {
    version: 1,
    holds: result.ok,
    end: result.end,
    output: result.output,
    classes: result.classes.map((c) => classRow(c, rowOf(perClass, c.id))),
    explained,
    milliseconds: performance.now() - start,
  };
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
      : ['', 'The most interesting one:', ...explanationLines(report.explained, memoryFaultOf(report.explained))]),
  ];
}

function costText(c: ClassRow): string {
  const each = c.faults === 0 ? '' : `, ${((c.milliseconds * 1000) / c.faults).toFixed(1)} us a fault`;
  return `${c.milliseconds.toFixed(1)} ms${each}`;
}

function memoryFaultOf(fault: FaultRecord): { ret: number; errno: string; run: { [field: string]: unknown } } {
  const flags = (BigInt(fault.errorCode) >> 49n) & 1n || fault.attribute === 'shared' ? '0x8' : '0x0';
  return {
    ret: -1,
    errno: 'EFAULT',
    run: { exit_name: 'MEMORY_FAULT', flags, gpa: `0x${(Number(fault.gfn) * 4096).toString(16)}`, size: '0x1000' },
  };
}

function decidingStage(fault: FaultRecord): string {
  const last = fault.stages.at(-1);
  if (last !== undefined) return last.name;
  return fault.events.some((e) => e.event === 'handle_mmio_page_fault' || e.event === 'check_mmio_spte')
    ? 'mmio-spte'
    : 'before the stages';
}

function rowOf<T extends { stages: Map<string, number>; milliseconds: number }>(rows: Map<string, T>, id: string): T {
  let row = rows.get(id);
  if (row === undefined) {
    row = { stages: new Map<string, number>(), milliseconds: 0 } as T;
    rows.set(id, row);
  }
  return row;
}

function classRow(c: DemoClass, row: { stages: Map<string, number>; milliseconds: number }): ClassRow {
  return {
    id: c.id,
    title: c.title,
    faults: c.counts.faults,
    decidedBy: [...row.stages].sort((a, b) => b[1] - a[1]).map(([name]) => name),
    did: whatKvmDid(c.counts),
    instructions: c.instructions,
    milliseconds: row.milliseconds,
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
