/** docs/hardware.md against the source: the files of its rows exist, and so do the sections that they name. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

const src = path.resolve(import.meta.dirname, '../..');
const SECTION = /(?:[A-Z]\.)?\d+(?:\.\d+)*/g;

interface Row {
  readonly feature: string;
  readonly manual: string;
  readonly state: string;
  readonly where: string;
}

function rows(): Row[] {
  const lines = fs.readFileSync(path.resolve(src, '../docs/hardware.md'), 'utf8').split('\n');
  return lines
    .filter((line) => line.startsWith('| ') && !line.startsWith('| feature |'))
    .map((line) => {
      const [, feature = '', manual = '', state = '', where = '', ...rest] = line.split('|').map((cell) => cell.trim());
      expect(rest, line).toEqual(['']);
      return { feature, manual, state, where };
    });
}

/** `sdm 4.7`, `apm 15.20`, `sdm appendix A`: all that docstrings name. */
function sectionsOfSource(): Set<string> {
  const found = new Set<string>();
  for (const file of fs.readdirSync(src, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    const text = fs.readFileSync(path.join(src, file), 'utf8');
    for (const [, manual, rest] of text.matchAll(/@(sdm|apm) ([^@\n]*)/g)) {
      for (const [section] of rest!.matchAll(SECTION)) found.add(`${manual} ${section}`);
      for (const [section] of rest!.matchAll(/appendix [A-Z]/g)) found.add(`${manual} ${section}`);
    }
  }
  return found;
}

test('docs/hardware.md: states, files and sections', () => {
  const known = sectionsOfSource();
  const table = rows();
  expect(table.length).toBeGreaterThan(60);
  for (const { feature, manual, state, where } of table) {
    expect(state, feature).toMatch(/^(done(: .+)?|partial: .+|absent(: .+)?)$/);
    for (const [, file] of where.matchAll(/`([^`]+)`/g)) {
      expect(fs.existsSync(path.join(src, file!)), `${feature}: ${file}`).toBe(true);
    }
    if (state.startsWith('absent')) continue;
    expect(where, feature).not.toBe('');
    for (const part of manual.split(';').filter((text) => text.trim() !== '')) {
      const name = part.trim().slice(0, 3).toLowerCase();
      const sections = [...part.matchAll(SECTION), ...part.matchAll(/appendix [A-Z]/g)];
      expect(sections.length, part).toBeGreaterThan(0);
      for (const [section] of sections) expect(known, `${feature}: ${part}`).toContain(`${name} ${section}`);
    }
  }
});
