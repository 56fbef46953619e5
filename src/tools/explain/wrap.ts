/** The words of `text` in lines of at most `columns` characters; a longer word has a line of its own, or more. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ').flatMap((w) => pieces(w, columns))) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return line === '' ? lines : [...lines, line];
}

function pieces(word: string, columns: number): string[] {
  const found: string[] = [];
  for (let i = 0; i < word.length; i += columns) found.push(word.slice(i, i + columns));
  return found;
}
