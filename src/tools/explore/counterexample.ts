/** A schedule that ends badly, with all that a reader needs: whose step, which stage, the state before and after the last one. */
import type { Model } from './model.ts';
import { checkMove, type Move, replayString } from './schedule.ts';
import type { SearchResult } from './search.ts';
import { tidied } from './tidy.ts';

export interface ScheduleStep {
  readonly actor: string;
  readonly cpu: string;
  /** The stage that the step took. */
  readonly stage: string;
  /** Which way it went, where there are several. */
  readonly choice: number | null;
}

export interface Counterexample {
  readonly kind: 'violation' | 'deadlock' | 'livelock';
  /** The violated invariant, from 1; 0 of a deadlock or livelock. */
  readonly invariant: number;
  readonly text: string;
  readonly steps: readonly ScheduleStep[];
  /** Of a livelock: the steps that can then go round for ever. */
  readonly repeats: readonly ScheduleStep[];
  /** The state before and after the last of `steps`; without steps `before` is empty. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly replay: string;
  /** No schedule with fewer steps ends badly. */
  readonly shortest: boolean;
}

/** A schedule as it was run, and where it ended. */
export interface Run {
  readonly steps: readonly ScheduleStep[];
  readonly before: readonly string[];
  readonly after: readonly string[];
  /** The state at first, and after each step, when they were asked for. */
  readonly first: readonly string[];
  readonly states: readonly (readonly string[])[];
  /** The violated invariant of the first state that violates one, and the steps to it; 0 for none. */
  readonly violation: number;
  readonly violatedAfter: number;
}

/** Runs a schedule from the state that the model is in, which it leaves at its end. @throws InputError when the scene does not allow it */
export function runSchedule(model: Model, moves: readonly Move[], everyState = false): Run {
  const steps: ScheduleStep[] = [];
  const first = everyState ? [...model.describe()] : [];
  const states: (readonly string[])[] = [];
  let before: readonly string[] = [];
  let violation = model.violation();
  let violatedAfter = 0;
  for (const [i, move] of moves.entries()) {
    checkMove(model, move, i);
    if (i === moves.length - 1) before = [...model.describe()];
    steps.push(takeStep(model, move));
    if (everyState) states.push([...model.describe()]);
    if (violation === 0) {
      violation = model.violation();
      violatedAfter = i + 1;
    }
  }
  return { steps, before, after: [...model.describe()], first, states, violation, violatedAfter };
}

function takeStep(model: Model, { actor, choice }: Move): ScheduleStep {
  const { name, cpu } = model.actors[actor]!;
  const step = {
    actor: name,
    cpu,
    stage: model.stageName(actor),
    choice: model.choices(actor) > 1 ? choice : null,
  };
  model.step(actor, choice);
  return step;
}

/** What a search found, in words. The model is in its first state; null when nothing was found. */
export function counterexample(model: Model, result: SearchResult, shortest: boolean): Counterexample | null {
  const { verdict } = result;
  if (verdict === 'holds') return null;
  const first = new Int32Array(model.stateWords);
  model.capture(first, 0);
  const moves = tidied(model, first, result.moves, sameEnd(model, first, result));
  model.restore(first, 0);
  const run = runSchedule(model, moves);
  const waiting = unfinishedNames(model);
  const repeats = verdict === 'livelock' ? lasso(model) : [];
  const text =
    verdict === 'violation'
      ? model.violationText(result.violation)
      : verdict === 'deadlock'
        ? `nobody can move, and ${waiting} ${waiting.includes(',') ? 'have' : 'has'} not finished`
        : `from here on ${waiting.includes(',') ? `not all of ${waiting} can finish` : `${waiting} can never finish`}, whoever moves`;
  return {
    kind: verdict,
    invariant: result.violation,
    text,
    steps: run.steps,
    repeats,
    before: run.before,
    after: run.after,
    replay: replayString(moves),
    shortest,
  };
}

/** Whether the model has come to what was found: the violation, a deadlock, or, of a livelock, the very state. */
function sameEnd(model: Model, first: Int32Array, { verdict, violation, moves }: SearchResult): () => boolean {
  if (verdict === 'violation') return () => model.violation() === violation;
  if (verdict === 'deadlock') return () => model.enabled() === 0 && model.unfinished() !== 0;
  const words = (): string => {
    const state = new Int32Array(model.stateWords);
    model.capture(state, 0);
    return state.join();
  };
  model.restore(first, 0);
  for (const { actor, choice } of moves) model.step(actor, choice);
  const end = words();
  return () => words() === end;
}

function unfinishedNames(model: Model): string {
  const unfinished = model.unfinished();
  return model.actors
    .filter((_, i) => (unfinished & (1 << i)) !== 0)
    .map((a) => a.name)
    .join(', ');
}

const MAX_LASSO = 100_000;

/** From a state with no way to a finish: the steps of a cycle, by one actor as long as it can move. */
function lasso(model: Model): ScheduleStep[] {
  const seen = new Map<string, number>();
  const words = new Int32Array(model.stateWords);
  const steps: ScheduleStep[] = [];
  let actor = 0;
  for (let i = 0; i < MAX_LASSO; i++) {
    model.capture(words, 0);
    const key = words.join();
    const first = seen.get(key);
    if (first !== undefined) return steps.slice(first);
    seen.set(key, i);
    const enabled = model.enabled();
    if ((enabled & (1 << actor)) === 0) actor = 31 - Math.clz32(enabled & -enabled);
    steps.push(takeStep(model, { actor, choice: 0 }));
  }
  return [];
}
