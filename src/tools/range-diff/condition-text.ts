/** A part of a condition in words: `slot none, attribute private, spte any but mmio`. */
import { codeSetText } from './code-text.ts';
import type { Part } from './condition.ts';
import type { Dimension } from './space-result.ts';

/** Words for all of them. */
export const ANY_INPUT = 'any input';

/** The words for the part, ANY_INPUT for all of them. */
export function partText(part: Part, dims: readonly Dimension[]): string {
  const words: string[] = [];
  for (const [d, dim] of dims.entries()) {
    const text = setText(dim, part.least[d]!, part.most[d]!);
    if (text !== null) words.push(text);
  }
  return words.length === 0 ? ANY_INPUT : words.join(', ');
}

/** Null when the dimension does not matter. Any set between `least` and `most` will do: the one that is said with least. */
function setText(dim: Dimension, least: Uint8Array, most: Uint8Array): string | null {
  if (most.every((v) => v === 1)) return null;
  const codes = dim.values.map((v) => Number(/^0x[0-9a-f]+/.exec(v)?.[0]));
  if (!codes.some(Number.isNaN)) {
    const words = codeSetText(codes, least, most);
    if (words !== null) return `${dim.name} ${words}`;
  }
  const candidates = [most, least].flatMap((set) => [listed(dim, set), exceptions(dim, set)]);
  return candidates.reduce((a, b) => (b.length < a.length ? b : a));
}

function valuesOf(dim: Dimension, set: Uint8Array, member: number): string[] {
  return braced(dim.values.filter((_, v) => set[v] === member));
}

/** `kind=stage` values as `kind={stage,stage}`, in order of the first of each kind. */
function braced(values: readonly string[]): string[] {
  const kinds = new Map<string, string[]>();
  for (const value of values) {
    const [kind = '', stage] = value.split('=');
    const stages = kinds.get(kind) ?? [];
    kinds.set(kind, stage === undefined ? stages : [...stages, stage]);
  }
  return [...kinds].map(([kind, stages]) => {
    if (stages.length === 0) return kind;
    return stages.length === 1 ? `${kind}=${stages[0]}` : `${kind}={${stages.join(',')}}`;
  });
}

function listed(dim: Dimension, set: Uint8Array): string {
  const values = valuesOf(dim, set, 1);
  if (values.length === 1 && values[0] === 'yes') return dim.name;
  if (values.length === 1 && values[0] === 'no') return `not ${dim.name}`;
  return `${dim.name} ${joined(values, 'or')}`;
}

function exceptions(dim: Dimension, set: Uint8Array): string {
  return `${dim.name} any but ${joined(valuesOf(dim, set, 0), 'and')}`;
}

function joined(values: readonly string[], word: string): string {
  if (values.length <= 1) return values.join('');
  return `${values.slice(0, -1).join(', ')} ${word} ${values.at(-1)}`;
}
