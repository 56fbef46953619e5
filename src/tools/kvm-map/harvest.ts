/**
 * Reads the tags of docstrings: `@kvm mmu.c fast_page_fault, is_access_allowed; spte.h is_mmio_spte` names what of the kernel a
 * declaration mirrors, `@sdm 4.7` and `@apm 15.25.6` the manuals, `@partial why` what it lacks.
 */

/** One name of the kernel or one section of a manual, and what stands for it here. */
export interface MapEntry {
  /** The kernel's file, without its folder where that is clear, or `sdm`, `apm`. */
  readonly source: string;
  /** Function, structure or constant; the section of a manual. */
  readonly name: string;
  /** Path below `src/`. */
  readonly file: string;
  /** The declaration; null where the file's own docstring has the tag. */
  readonly symbol: string | null;
  /** What is missing; null when nothing is. */
  readonly partial: string | null;
}

const DOCSTRING = /\/\*\*([\s\S]*?)\*\//g;
const KEYWORDS = 'export|async|abstract|declare|public|private|protected|readonly|static|override|get|set';
const DECLARATION = new RegExp(
  `^\\s*(?:(?:${KEYWORDS})\\s+)*(?:(?:function|class|interface|type|const|let)\\s+)?([A-Za-z_$][\\w$]*)`,
);
const KERNEL_ITEM =
  /^((?:[\w-]+\/)*[\w-]+\.[chS]) ((?:struct |enum |union )?[A-Za-z_]\w*\*?)|^((?:struct |enum |union )?[A-Za-z_]\w*\*?)/;
const SECTION = /^\d+(?:\.\d+)*(?:, \d+(?:\.\d+)*)*/;

/** A docstring as one line. */
function textOf(comment: string): string {
  return comment
    .split('\n')
    .map((line) => line.replace(/^\s*\*? ?/, '').trimEnd())
    .join(' ')
    .replace(/\s+/g, ' ')
    .trim();
}

/** `x.c a, b; y.h c` as pairs of file and name. Ends where the list does. */
function kernelNames(list: string): [file: string, name: string][] {
  const pairs: [string, string][] = [];
  let file: string | null = null;
  let rest = list;
  for (;;) {
    const item = KERNEL_ITEM.exec(rest);
    if (item === null) break;
    file = item[1] ?? file;
    if (file === null) break;
    pairs.push([file, (item[2] ?? item[3])!]);
    rest = rest.slice(item[0].length);
    const separator = /^[,;] /.exec(rest);
    if (separator === null) break;
    rest = rest.slice(separator[0].length);
  }
  return pairs;
}

/** What follows a docstring; null at the top of a file, where a blank line or the imports follow. */
function symbolAfter(text: string): string | null {
  if (/^\n(\s*\n|import\b)/.test(text)) return null;
  return DECLARATION.exec(text)?.[1] ?? null;
}

/** The entries of one file. @param file its path below `src/` @param source its text */
export function harvestFile(file: string, source: string): MapEntry[] {
  const entries: MapEntry[] = [];
  for (const match of source.matchAll(DOCSTRING)) {
    const text = textOf(match[1]!);
    const symbol = symbolAfter(source.slice(match.index + match[0].length));
    const partial = /@partial ([^@]+)/.exec(text)?.[1]?.replace(/[.\s]+$/, '') ?? null;
    for (const tag of text.matchAll(/@(kvm|sdm|apm) ([^@]+)/g)) {
      const pairs: [string, string][] =
        tag[1] === 'kvm'
          ? kernelNames(tag[2]!)
          : (SECTION.exec(tag[2]!)?.[0].split(', ') ?? []).map((section) => [tag[1]!, section]);
      for (const [from, name] of pairs) entries.push({ source: from, name, file, symbol, partial });
    }
  }
  return entries;
}

/** Drops what a file says of itself where one of its declarations says it too. */
export function withoutHeaders(entries: readonly MapEntry[]): MapEntry[] {
  return entries.filter(
    (entry) =>
      entry.symbol !== null ||
      !entries.some((other) => other.symbol !== null && other.name === entry.name && other.file === entry.file),
  );
}
