import { expect, it } from 'vitest';
import { demonstrateRow, seriesTable } from './series.ts';
import { type Paint, rowLines, tableLines } from './series-text.ts';

const plain: Paint = { strong: (t) => t, faint: (t) => t, changed: (t) => t };

it('marks what diverges, in two columns', () => {
  const lines = rowLines(demonstrateRow(10), 132, plain);
  expect(lines.some((l) => /^≠ invalid-slot: RETRY, .* {2}-$/.test(l))).toBe(true);
  expect(lines.some((l) => /^≠ - +private-mismatch: EFAULT, the access is shared/.test(l))).toBe(true);
  expect(lines.some((l) => /^≠ left: the guest resumes, RET_PF_RETRY +left: KVM_RUN returns -1\/EFAULT/.test(l))).toBe(
    true,
  );
  expect(lines.at(-1)).toBe('The difference is there.');
  for (const line of lines) if (!line.startsWith('softkvm explain')) expect(line.length, line).toBeLessThanOrEqual(132);
});

it('has two blocks where the terminal is narrow', () => {
  const lines = rowLines(demonstrateRow(10), 72, plain);
  const first = lines.indexOf('before: series-v2@9');
  const second = lines.indexOf('after: series-v2@10');
  expect(first).toBeGreaterThan(0);
  expect(second).toBeGreaterThan(first);
  expect(lines.slice(first, second)).toContain('≠ invalid-slot: RETRY, the slot is being deleted or moved');
  expect(lines.slice(second).some((l) => l.startsWith('≠ private-mismatch: EFAULT'))).toBe(true);
});

it('prints the table in the width there is', () => {
  for (const width of [80, 200]) {
    const lines = tableLines(seriesTable(), width, plain);
    expect(lines.filter((l) => /^ {1,2}\d+ /.test(l))).toHaveLength(17);
    for (const line of lines.filter((l) => l.startsWith('     '))) expect(line.length).toBeLessThanOrEqual(width);
  }
});
