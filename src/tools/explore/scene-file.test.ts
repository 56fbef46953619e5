import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuiltCli } from '../campaign/built-cli.testing.ts';
import { isSceneFile } from './scene-file.ts';

let cli: BuiltCli;

beforeAll(async () => {
  cli = await BuiltCli.make();
});

afterAll(() => cli.remove());

const SCENE = `import { migratePage, scene, vcpu, write } from 'softkvm/scenes';

export const mine = scene({
  name: 'mine',
  title: 'a fault on a page that moves',
  claim: 'mine',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([write(0x100)]), migratePage(0x100)],
  expect: 'safe',
});
`;

async function explore(source: string, ...args: string[]) {
  const file = cli.file('mine.ts');
  writeFileSync(file, source);
  const { status, stdout, stderr } = await cli.run('explore', file, ...args);
  return { status, stdout, stderr: stderr.replace(file, 'mine.ts') };
}

describe('a scene file', () => {
  it('is told from a name', () => {
    expect(['a.ts', './a', 'a/b', 'a.mjs', 'a.ts#b'].map(isSceneFile)).toEqual([true, true, true, true, true]);
    expect(isSceneFile('page-moves')).toBe(false);
  });

  it('is explored like any other, also in threads', async () => {
    const one = await explore(SCENE, '--json');
    expect(one.status, one.stderr).toBe(0);
    const { states } = JSON.parse(one.stdout);
    expect(JSON.parse(one.stdout)).toMatchObject({
      title: 'a fault on a page that moves',
      verdict: 'holds',
      complete: true,
    });
    const two = await explore(SCENE, '--json', '--workers', '2');
    expect(JSON.parse(two.stdout)).toMatchObject({ verdict: 'holds', complete: true, states });
  });

  it.each([
    [
      'that does not type-check',
      SCENE.replace('write(0x100)', "write('a')"),
      /^softkvm: mine\.ts:8:24: Argument of type 'string'/,
    ],
    [
      'with an actor that there is none of',
      SCENE.replaceAll('migratePage', 'frobnicate'),
      /^softkvm: mine\.ts:1:10: .*no exported member 'frobnicate'/,
    ],
    ['that cannot be', SCENE.replace(/actors: .*/, 'actors: [],'), /^softkvm: mine\.ts:3: scene mine: 1 to 8 actors/],
    ['without a scene', 'export const a = 1;\n', /^softkvm: mine\.ts:1: exports no scene/],
    ['with two', `${SCENE}export const b = { ...mine, name: 'b' };\n`, /^softkvm: mine\.ts: has the scenes .*mine/],
  ])('is refused when it is one %s', async (_what, source, message) => {
    const { status, stdout, stderr } = await explore(source);
    expect(stdout).toBe('');
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain('\n');
    expect(status).toBe(2);
  });
});
