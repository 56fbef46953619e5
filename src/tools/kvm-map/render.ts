/** docs/kvm-map.md: the kernel's functions, where they are here, and what is missing. */
import type { Absent } from './absent.ts';
import { type MapEntry, withoutHeaders } from './harvest.ts';

const MANUALS: Record<string, string> = {
  apm: 'AMD64 Architecture Programmer’s Manual, volume 2',
  sdm: 'Intel 64 and IA-32 Software Developer’s Manual, volume 3',
};

function byName(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Sections of a manual in their order, not their spelling's. */
function bySection(a: string, b: string): number {
  const [x, y] = [a.split('.').map(Number), b.split('.').map(Number)];
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    const difference = (x[i] ?? 0) - (y[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group === undefined) groups.set(key(item), [item]);
    else group.push(item);
  }
  return groups;
}

function place(entry: MapEntry): string {
  const link = `[${entry.file}](../src/${entry.file})`;
  return entry.symbol === null ? link : `\`${entry.symbol}\` in ${link}`;
}

function places(entries: readonly MapEntry[]): string {
  return [...new Set(entries.map(place))].sort(byName).join('<br>');
}

function kernelRows(entries: readonly MapEntry[]): string[] {
  const groups = [...groupBy(entries, (entry) => entry.name)].sort(([a], [b]) => byName(a, b));
  return groups.map(([name, all]) => {
    const reasons = [...new Set(all.map((entry) => entry.partial).filter((reason) => reason !== null))];
    return `| \`${name}\` | ${places(all)} | ${reasons.length === 0 ? 'full' : `partial: ${reasons.join('; ')}`} |`;
  });
}

function manualRows(entries: readonly MapEntry[]): string[] {
  const groups = [...groupBy(entries, (entry) => entry.name)].sort(([a], [b]) => bySection(a, b));
  return groups.map(([section, all]) => `| ${section} | ${places(all)} |`);
}

/** The whole document. */
export function renderMap(harvested: readonly MapEntry[], absent: readonly Absent[]): string {
  const entries = withoutHeaders(harvested);
  const sources = groupBy(entries, (entry) => entry.source);
  const kernel = [...sources].filter(([source]) => !(source in MANUALS)).sort(([a], [b]) => byName(a, b));
  const names = new Set(kernel.flatMap(([source, all]) => all.map((entry) => `${source} ${entry.name}`)));
  const lines = [
    '# KVM map',
    'What of the kernel (Linux 6.12) stands where. Made from the `@kvm`, `@sdm` and `@apm` tags in docstrings by `npm run kvm-map`; a test fails when it is',
    'out of date. *Full*: all that the function decides, except what belongs to the parts in the first table. *Partial*: the docstring says what else is missing.',
    '',
    `${names.size} names of ${kernel.length} files of the kernel.`,
    '',
    '## Absent',
    '| kernel | what | instead |',
    '|---|---|---|',
    ...absent.map(({ kernel: files, what, instead }) => `| ${files} | ${what} | ${instead} |`),
  ];
  for (const [source, all] of kernel) {
    lines.push('', `## ${source}`, '| kernel | here | status |', '|---|---|---|', ...kernelRows(all));
  }
  for (const [source, title] of Object.entries(MANUALS)) {
    const sections = sources.get(source);
    if (sections === undefined) continue;
    lines.push('', `## ${title}`, '| section | here |', '|---|---|', ...manualRows(sections));
  }
  return `${lines.join('\n')}\n`;
}
