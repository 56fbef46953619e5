/**
 * A schedule: who moves when. Written as a replay string: a letter an actor in the scene's order, a number before it when it moves several
 * times, a dot and the choice after it when its step can go more than one way and does not go the first, a comma where two numbers
 * would meet. `3ab2a.1,2b` is a a a b a.1 a.1 b b.
 */
import { InputError } from '../input-error.ts';
import type { Model } from './model.ts';

export interface Move {
  readonly actor: number;
  readonly choice: number;
}

const ACTOR_BITS = 5;

/** A step in one word. Of the ways from one state to another the one with the lowest word is told. */
export function stepWord(actor: number, choice: number): number {
  return actor | (choice << ACTOR_BITS);
}

const MOVE = /,?([1-9][0-9]*)?([a-zA-Z])(?:\.([0-9]+))?/y;
const MAX_MOVES = 1_000_000;

export function replayString(moves: readonly Move[]): string {
  let text = '';
  for (let i = 0; i < moves.length; ) {
    const { actor, choice } = moves[i]!;
    let n = 1;
    while (moves[i + n]?.actor === actor && moves[i + n]?.choice === choice) n++;
    const next = `${n === 1 ? '' : n}${letter(actor)}${choice === 0 ? '' : `.${choice}`}`;
    text += /[0-9]$/.test(text) && /^[0-9]/.test(next) ? `,${next}` : next;
    i += n;
  }
  return text;
}

/** @throws InputError */
export function parseReplay(text: string, actors: number): Move[] {
  const moves: Move[] = [];
  MOVE.lastIndex = 0;
  while (MOVE.lastIndex < text.length) {
    const at = MOVE.lastIndex;
    const match = MOVE.exec(text);
    if (match === null)
      throw new InputError(`--replay: character ${at + 1} of '${text}': expected a move, as 3a or b.1`);
    const actor = actorOfLetter(match[2]!);
    if (actor >= actors)
      throw new InputError(`--replay: '${match[2]}': the scene has actors a to ${letter(actors - 1)}`);
    const times = match[1] === undefined ? 1 : Number(match[1]);
    if (moves.length + times > MAX_MOVES) throw new InputError(`--replay: more than ${MAX_MOVES} moves`);
    const move = { actor, choice: Number(match[3] ?? 0) };
    for (let i = 0; i < times; i++) moves.push(move);
  }
  return moves;
}

/** Throws when the scene does not allow move number `n`, from 0, which the model is about to make. @throws InputError */
export function checkMove(model: Model, move: Move, n: number): void {
  const who = `${letter(move.actor)} (${model.actors[move.actor]!.name})`;
  if ((model.enabled() & (1 << move.actor)) === 0) {
    const finished = (model.unfinished() & (1 << move.actor)) === 0;
    throw new InputError(`--replay: move ${n + 1}: ${who} ${finished ? 'has finished' : 'has to wait'}`);
  }
  const choices = model.choices(move.actor);
  if (move.choice >= choices)
    throw new InputError(
      `--replay: move ${n + 1}: ${who}: choice ${move.choice} of '${model.stageName(move.actor)}', which has ${choices}`,
    );
}

export function letter(actor: number): string {
  return String.fromCharCode(actor < 26 ? 97 + actor : 65 + actor - 26);
}

function actorOfLetter(text: string): number {
  const code = text.charCodeAt(0);
  return code >= 97 ? code - 97 : code - 65 + 26;
}
