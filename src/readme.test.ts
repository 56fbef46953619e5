import fs from 'node:fs';
import { expect, it } from 'vitest';

const src = import.meta.dirname;

it('src/README.md names every folder, and no other', () => {
  const folders = fs
    .readdirSync(src, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => `${entry.parentPath}/${entry.name}/`.slice(src.length + 1));
  const map = fs.readFileSync(`${src}/README.md`, 'utf8');
  const named = [...map.matchAll(/`([\w/-]+\/)`/g)].map((match) => match[1]);
  expect(named.sort()).toEqual(folders.sort());
});
