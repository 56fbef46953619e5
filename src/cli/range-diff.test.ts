import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runCommandLine } from './main.ts';

let folder: string;
let stderr = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-range-diff-'));
  stderr = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text.toString();
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
  rmSync(folder, { recursive: true });
});

/** What is said on stderr, where the exit status is 2. */
async function refusal(...args: string[]): Promise<string> {
  await runCommandLine(['range-diff', ...args]);
  expect(process.exitCode).toBe(2);
  return stderr.trimEnd();
}

function revision(text: string): string {
  const path = join(folder, 'my-revision.ts');
  writeFileSync(path, text);
  return path;
}

describe('softkvm range-diff', () => {
  it('answers an unknown revision with the known ones', async () => {
    expect(await refusal('linux-6.9', 'linux-7')).toMatch(
      /^softkvm: unknown revision linux-7; known: linux-6\.9, series-v1, series-v2, linux-6\.10, linux-6\.12.*$/,
    );
  });

  it('says what is wrong with a file: its name, the stage, the reason', async () => {
    const file = revision(`import { defineRevision, linux612, remove } from 'softkvm';
export default defineRevision({ ...linux612, name: 'mine', stages: remove(linux612.stages, 'map') });
`);
    expect(await refusal('linux-6.12', file)).toBe(
      'softkvm: my-revision.ts: stage "map": is missing: without it, nothing would decide the fault',
    );
  });

  it('prints the first type errors of a file, one a line', async () => {
    const file = revision(`import { defineRevision, linux612 } from 'softkvm';
export default defineRevision({ ...linux612, nme: 'mine' });
`);
    expect(await refusal('linux-6.12', file)).toMatch(
      /^softkvm: my-revision\.ts: a type error\n {2}.*:2:46: .*'nme'.*$/,
    );
  });

  it('wants two revisions and a level that there is', async () => {
    expect(await refusal('linux-6.12')).toContain("missing required argument 'b'");
    expect(await refusal('linux-6.9', 'linux-6.12', '--level', 'all')).toContain('exit, state, field');
  });
});
