/** What `softkvm explore` says: one object, and the same in lines. */
import type { Counterexample, ScheduleStep } from './counterexample.ts';
import type { Stop } from './search.ts';

/** What `softkvm explore SCENE --json` prints. */
export interface ExploreReport {
  readonly version: 1;
  readonly scene: string;
  readonly title: string;
  readonly revision: string | null;
  readonly params: Readonly<Record<string, string>>;
  readonly mode: 'exhaustive' | 'random';
  /** 'holds' says something about all schedules only when `complete`. */
  readonly verdict: 'holds' | 'violation' | 'deadlock' | 'livelock';
  /** Every state that can be reached was looked at. */
  readonly complete: boolean;
  readonly stopped: Stop | null;
  readonly invariants: readonly string[];
  /** Whether livelocks were looked for: only in a complete search. */
  readonly livelockChecked: boolean;
  /** Of the search; of random runs `states` counts the states that were visited, some of them many times. */
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  readonly seconds: number;
  readonly statesPerSecond: number;
  readonly bytesPerState: number;
  readonly workers: number;
  /** null: switched off. `states`: of how many states some steps were put off. */
  readonly reduction: { readonly states: number } | null;
  readonly random: { readonly runs: number; readonly seed: number; readonly unfinished: number } | null;
  readonly counterexample: Counterexample | null;
}

const n = (x: number): string => Math.round(x).toLocaleString('en-US');

/** The report in lines. `explained`: words for the actor that took the last step. */
export function reportLines(r: ExploreReport, explained: readonly string[] = []): string[] {
  const lines = [
    `${r.scene}${r.revision === null ? '' : `, ${r.revision}`}: ${verdictText(r)}`,
    r.random === null ? searchLine(r) : randomLine(r),
  ];
  if (r.random === null) lines.push(...howLines(r));
  if (r.counterexample !== null)
    lines.push('', ...counterexampleLines(r.counterexample, `softkvm explore ${specText(r)}`));
  if (explained.length > 0) lines.push('', ...explained);
  return lines;
}

function verdictText(r: ExploreReport): string {
  switch (r.verdict) {
    case 'violation':
      return `violated: ${r.counterexample?.text}`;
    case 'deadlock':
    case 'livelock':
      return `${r.verdict}: ${r.counterexample?.text}`;
    default:
      if (r.complete) return 'complete: every invariant holds in every state';
      return `nothing found, not complete (${stopText(r)})`;
  }
}

function stopText(r: ExploreReport): string {
  if (r.mode === 'random') return `random schedules${r.stopped === null ? '' : ', interrupted'}`;
  if (r.stopped === 'depth') return `--depth ${r.depth}`;
  return r.stopped === 'max-states' ? '--max-states' : 'interrupted';
}

function searchLine(r: ExploreReport): string {
  return (
    `  ${n(r.states)} states, ${n(r.transitions)} transitions, depth ${n(r.depth)}, ${r.seconds.toFixed(2)} s, ` +
    `${n(r.statesPerSecond)} states/s, ${n(r.bytesPerState)} bytes a state (${n((r.bytesPerState * r.states) / 1024 ** 2)} MiB)`
  );
}

function randomLine(r: ExploreReport): string {
  const { runs, seed, unfinished } = r.random!;
  const cut = unfinished === 0 ? '' : `, ${n(unfinished)} cut off by the bound`;
  return (
    `  ${n(runs)} random schedules, seed ${seed}${cut}, ${n(r.transitions)} steps, longest ${n(r.depth)}, ` +
    `${r.seconds.toFixed(2)} s, ${n(r.statesPerSecond)} states/s`
  );
}

function howLines(r: ExploreReport): string[] {
  const reduction =
    r.reduction === null ? 'none' : `partial order, at ${n(r.reduction.states)} of ${n(r.states)} states`;
  const livelock = r.livelockChecked ? 'looked for' : 'not looked for (the search is not complete)';
  const workers = r.workers === 1 ? '' : `; ${r.workers} workers`;
  return [`  reduction: ${reduction}; livelocks: ${livelock}${workers}`];
}

function specText(r: ExploreReport): string {
  const params = Object.entries(r.params).map(([name, value]) => ` --param ${name}=${value}`);
  return `${r.scene}${r.revision === null ? '' : ` --revision ${r.revision}`}${params.join('')}`;
}

/** `command`: how the scene is explored, to which the replay string is added. */
export function counterexampleLines(c: Counterexample, command: string): string[] {
  const fatal = c.kind === 'violation' ? c.steps.length : -1;
  const lines = scheduleLines(c.steps, c.repeats, fatal);
  if (c.steps.length > 0) {
    lines.push('', `state before step ${c.steps.length} (-) and after it (+):`, ...differenceLines(c.before, c.after));
  } else lines.push('in the first state:', ...c.after.map((line) => `   ${line}`));
  const length = c.shortest ? 'a shortest schedule' : 'there may be a shorter schedule';
  lines.push('', `${c.text} (${length})`, `replay: ${command} --replay ${c.replay === '' ? "''" : c.replay}`);
  return lines;
}

/** A table with a column a CPU and a line a step; `fatal`, from 1, is marked. */
export function scheduleLines(
  steps: readonly ScheduleStep[],
  repeats: readonly ScheduleStep[] = [],
  fatal = -1,
): string[] {
  const all = [...steps, ...repeats];
  const cpus = [...new Set(all.map((s) => s.cpu))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const alone = new Map(cpus.map((cpu) => [cpu, new Set(all.filter((s) => s.cpu === cpu).map((s) => s.actor))]));
  const head = cpus.map((cpu) => (alone.get(cpu)!.size === 1 ? `${cpu} (${[...alone.get(cpu)!][0]})` : cpu));
  const cells = all.map((s) => cellText(s, alone.get(s.cpu)!.size > 1));
  const widths = cpus.map((cpu, i) =>
    Math.max(head[i]!.length, ...all.map((s, k) => (s.cpu === cpu ? cells[k]!.length : 0))),
  );
  const row = (first: string, texts: readonly string[]): string =>
    `${first} ${texts.map((text, i) => `| ${text.padEnd(widths[i]!)}`).join(' ')}`.trimEnd();
  const line = (s: ScheduleStep, k: number): string =>
    row(
      `${k + 1 === fatal ? '>' : ' '}${String(k + 1).padStart(4)}`,
      cpus.map((cpu) => (cpu === s.cpu ? cells[k]! : '')),
    );
  const lines = [row(' step', head), `------${widths.map((w) => `+${'-'.repeat(w + 2)}`).join('')}`];
  lines.push(...steps.map(line));
  if (repeats.length > 0) lines.push('   and then for ever:', ...repeats.map((s, k) => line(s, steps.length + k)));
  return lines;
}

function cellText(s: ScheduleStep, named: boolean): string {
  return `${named ? `${s.actor}: ` : ''}${s.stage}${s.choice === null ? '' : ` [${s.choice}]`}`;
}

/** Two lists of lines, those that differ with - and +. */
export function differenceLines(before: readonly string[], after: readonly string[]): string[] {
  const lines: string[] = [];
  const only = (list: readonly string[], other: readonly string[], i: number): string | undefined =>
    list[i] !== undefined && list[i] !== other[i] ? list[i] : undefined;
  for (let i = 0; i < Math.max(before.length, after.length); i++) {
    if (before[i] === after[i]) {
      lines.push(`   ${after[i]}`);
      continue;
    }
    const gone = only(before, after, i);
    const come = only(after, before, i);
    if (gone !== undefined) lines.push(` - ${gone}`);
    if (come !== undefined) lines.push(` + ${come}`);
  }
  return lines;
}
