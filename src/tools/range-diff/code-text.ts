/** A set of error codes in words: by the bits that tell it from the other codes that there are. */
import { PFERR_FLAGS } from '../../arch/error-code.ts';
import { Conditions, type Part } from './condition.ts';
import { EQUAL, INVALID_INPUT } from './space-result.ts';

const MEMBER = 1;
/** More alternatives than this are no help to a reader. */
const ALTERNATIVES = 4;

/**
 * Words for a set of codes that has all those marked in `least` and none but those marked in `most`, as `with RSVD without P/W | with ENC`; null when
 * bits do not say it in few words.
 */
export function codeSetText(codes: readonly number[], least: Uint8Array, most: Uint8Array): string | null {
  const those = alternatives(codes, least, most);
  const others = alternatives(
    codes,
    most.map((v) => 1 - v),
    least.map((v) => 1 - v),
  );
  const positive = those.join(' | ');
  const negative =
    others.length !== 1
      ? `neither ${others.join(' nor ')}`
      : others[0]!.startsWith('without ')
        ? others[0]!.replace('without', 'with any of')
        : `not ${others[0]}`;
  if (Math.min(those.length, others.length) > ALTERNATIVES) return null;
  return others.length < those.length ? negative : positive;
}

function alternatives(codes: readonly number[], least: Uint8Array, most: Uint8Array): string[] {
  const flags = PFERR_FLAGS.filter((f) => new Set(codes.map((code) => bitOf(code, f.bit))).size > 1);
  const classOf = new Uint16Array(2 ** flags.length).fill(INVALID_INPUT);
  for (const [i, code] of codes.entries()) {
    const at = flags.reduce((index, f) => index * 2 + bitOf(code, f.bit), 0);
    if (least[i] === 1) classOf[at] = MEMBER;
    else if (most[i] === 0) classOf[at] = EQUAL;
  }
  const dims = flags.map((f) => ({ name: f.name, values: ['0', '1'] }));
  return new Conditions({ dims, classOf }).of(new Set([MEMBER])).map((part) => bitsText(part, dims));
}

function bitsText(part: Part, dims: readonly { readonly name: string }[]): string {
  const only = (value: number): string[] =>
    dims.filter((_, d) => part.most[d]![value] === 1 && part.most[d]![1 - value] === 0).map((d) => d.name);
  const [set, clear] = [only(1), only(0)];
  const words = [set.length > 0 ? `with ${set.join('+')}` : '', clear.length > 0 ? `without ${clear.join('/')}` : ''];
  return words.filter((w) => w !== '').join(' ');
}

function bitOf(code: number, bit: number): number {
  return Math.floor(code / 2 ** bit) % 2;
}
