/** How wide text may get in a font that is not known: the widths of the widest of the usual ones, so that nothing overflows. */

const NARROW = "ijlI.,:;'|!";
const SLIM = 'frt()[]{}-/ "';
const WIDE = 'mwMW@%';

/** Pixels of `text` in a proportional sans-serif font of `size` pixels, from above. */
export function sansWidth(text: string, size: number): number {
  let em = 0;
  for (const c of text) {
    if (NARROW.includes(c)) em += 0.34;
    else if (SLIM.includes(c)) em += 0.43;
    else if (WIDE.includes(c)) em += 0.99;
    else if (c >= 'A' && c <= 'Z') em += 0.74;
    else em += 0.64;
  }
  return em * size;
}

/** Pixels of `text` in a monospaced font of `size` pixels, from above. */
export function monoWidth(text: string, size: number): number {
  return text.length * size * 0.61;
}

/** `text` in lines that `measure` finds no wider than `width`. A word that is wider is cut. */
export function wrapToWidth(text: string, width: number, measure: (line: string) => number): string[] {
  const lines: string[] = [];
  let line = '';
  const words = text.split(' ');
  while (words.length > 0) {
    const word = words.shift()!;
    const longer = line === '' ? word : `${line} ${word}`;
    if (measure(longer) <= width) line = longer;
    else if (line !== '') {
      lines.push(line);
      line = '';
      words.unshift(word);
    } else {
      const fits = lengthThatFits(word, width, measure);
      lines.push(word.slice(0, fits));
      words.unshift(word.slice(fits));
    }
  }
  return line === '' ? lines : [...lines, line];
}

/** `text`, or as much of its beginning as fits, with an ellipsis. */
export function cutToWidth(text: string, width: number, measure: (line: string) => number): string {
  if (measure(text) <= width) return text;
  return `${text.slice(
    0,
    lengthThatFits(text, width, (line) => measure(`${line}…`)),
  )}…`;
}

/** At least 1. */
function lengthThatFits(text: string, width: number, measure: (line: string) => number): number {
  let n = text.length;
  while (n > 1 && measure(text.slice(0, n)) > width) n--;
  return n;
}
