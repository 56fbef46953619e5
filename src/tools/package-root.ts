/** Where softkvm's own package is, above this file in the sources as in the build. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** This runs from src, not from a build. */
export const FROM_SOURCE = import.meta.url.endsWith('.ts');

/** The folder with its package.json. */
export function packageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest) && readFileSync(manifest, 'utf8').includes('"name": "softkvm"')) return folder;
    if (dirname(folder) === folder) throw new Error('softkvm is not in a package of its own');
  }
}
