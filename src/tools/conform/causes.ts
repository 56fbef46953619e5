/** Names the cause of a scenario that did not pass, so that equal ones can be counted together. */
import { unreachable } from '../../arch/unreachable.ts';
import type { Replayed, StepDifference } from './replay.ts';

/** A few words that scenarios with the same kind of first difference share. */
export function causeOf(result: Replayed): string {
  if (result.status === 'unsupported') return `not supported yet: ${result.reason}`;
  if (result.status === 'crashed') return `internal error: ${(result.reason ?? '').split('\n')[0]}`;
  return result.difference === undefined ? 'passed' : causeOfDifference(result.difference);
}

function causeOfDifference(d: StepDifference): string {
  const op = d.step < 0 ? 'set-up' : (d.op?.op ?? '');
  switch (d.part) {
    case 'ret':
    case 'errno':
      return `${op}: ${d.path} is ${shortText(d.ours)}, recorded ${shortText(d.theirs)}`;
    case 'run':
      return `run: ${general(d.path)} is ${shortText(d.ours)}, recorded ${shortText(d.theirs)}`;
    case 'regs':
      return `registers after ${op}: ${general(d.path)}`;
    case 'out':
      return `${op}: result ${general(d.path)}`;
    case 'trace':
      return `trace of ${op}: ${traceCause(d)}`;
    case 'stats':
      return `statistics of ${op}: ${d.path.replace('stats.', '')}`;
    default:
      return unreachable(d.part);
  }
}

function traceCause(d: StepDifference): string {
  const ours = eventName(d.ours);
  const theirs = eventName(d.theirs);
  if (ours === null && theirs === null) return general(d.path);
  return `${ours ?? 'nothing'} where ${theirs ?? 'nothing'} was recorded`;
}

function eventName(value: unknown): string | null {
  return typeof value === 'object' && value !== null ? String((value as { event?: unknown }).event) : null;
}

/** The path without indices. */
function general(path: string): string {
  return path.replace(/\[\d+\]/g, '[]');
}

/** A value in at most sixty characters. */
function shortText(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'absent');
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
