/**
 * The tables of races in docs/locking.md: each is what `softkvm explore` finds in a scene without its guard, steps of one actor in a row taken
 * together. The document names the scene in front of the place that the table goes to.
 */
import type { Counterexample, ScheduleStep } from './counterexample.ts';
import { exploreScene } from './explore-scene.ts';
import { makeModel } from './scene-library.ts';

const BLOCK = /<!-- race: (\S+) -->\n[\s\S]*?<!-- end of race -->/g;
/** Of more steps than these in a row, only the first and the last are named. */
const NAMED = 3;

/** Scenes that the document has a table of. */
export function racesOf(document: string): readonly string[] {
  return [...document.matchAll(BLOCK)].map((m) => m[1]!);
}

/** The document with all its tables made anew. */
export async function withRaceTables(document: string): Promise<string> {
  const tables = new Map<string, string>();
  for (const name of racesOf(document)) tables.set(name, await raceTable(name));
  return document.replace(
    BLOCK,
    (_, name: string) => `<!-- race: ${name} -->\n${tables.get(name)!}<!-- end of race -->`,
  );
}

async function raceTable(name: string): Promise<string> {
  const { counterexample } = await exploreScene({ scene: name }, { reduce: true, workers: 1 });
  if (counterexample === null) throw new Error(`docs/locking.md: nothing is wrong in ${name}`);
  const { actors } = await makeModel({ scene: name });
  return tableText(
    name,
    actors.map((a) => a.name),
    counterexample,
  );
}

interface Turn {
  readonly actor: string;
  readonly stages: string[];
}

/** Steps in a row of one actor are one turn; `fatal` stands alone. */
function turnsOf(steps: readonly ScheduleStep[], fatal: boolean): Turn[] {
  const turns: Turn[] = [];
  steps.forEach((step, i) => {
    const last = turns.at(-1);
    const alone = fatal && i === steps.length - 1;
    if (last?.actor === step.actor && !alone) last.stages.push(step.stage);
    else turns.push({ actor: step.actor, stages: [step.stage] });
  });
  return turns;
}

function turnText({ stages }: Turn): string {
  const code = (stage: string): string => `\`${stage}\``;
  if (stages.length <= NAMED) return stages.map(code).join(', ');
  return `${code(stages[0]!)} to ${code(stages.at(-1)!)}`;
}

function tableText(name: string, actors: readonly string[], c: Counterexample): string {
  const row = (turn: Turn): string =>
    `| ${actors.map((actor) => (actor === turn.actor ? turnText(turn) : '')).join(' | ')} |`.replace(/ {2,}/g, ' ');
  const lines = [`| ${actors.join(' | ')} |`, `|${'---|'.repeat(actors.length)}`];
  lines.push(...turnsOf(c.steps, c.kind === 'violation').map(row));
  if (c.repeats.length > 0)
    lines.push(`| and then for ever: |${' |'.repeat(actors.length - 1)}`, ...turnsOf(c.repeats, false).map(row));
  const wrong = c.kind === 'violation' ? `Violated: ${c.text}.` : `${c.text[0]!.toUpperCase()}${c.text.slice(1)}.`;
  return `${lines.join('\n')}\n\n${wrong} \`softkvm explore ${name} --replay ${c.replay === '' ? "''" : c.replay}\`\n`;
}
