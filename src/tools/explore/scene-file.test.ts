import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exploreScene } from './explore-scene.ts';
import { isSceneFile } from './scene-file.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-scene-'));
});

afterAll(() => rmSync(folder, { recursive: true }));

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

/** Two stages that go round. */
const ENDLESS = `const endless = {
  ...migratePage(0x100),
  make: (state: Parameters<ReturnType<typeof migratePage>['make']>[0]) =>
    migratePage(0x100).make(state).map((p) => ({ ...p, stages: [0, -2].map((to) => ({ ...p.stages[0]!, run: () => to })) })),
};
`;

function explore(source: string, name = 'mine.ts') {
  const file = join(folder, name);
  writeFileSync(file, source);
  return exploreScene({ scene: file }, { reduce: true, workers: 1 });
}

async function refusal(source: string): Promise<string> {
  const message = await explore(source).then(
    () => 'nothing was wrong',
    (error: Error) => `${error.constructor.name}: ${error.message}`,
  );
  return message.replaceAll(`${folder}/`, '');
}

describe('a scene file', () => {
  it('is told from a name', () => {
    expect(['a.ts', './a', 'a/b', 'a.mjs', 'a.ts#b'].map(isSceneFile)).toEqual([true, true, true, true, true]);
    expect(isSceneFile('page-moves')).toBe(false);
  });

  it('is explored like any other, and may import a file of its own', async () => {
    const one = await explore(SCENE);
    expect(one).toMatchObject({ title: 'a fault on a page that moves', verdict: 'holds', complete: true });
    writeFileSync(join(folder, 'frames.ts'), 'export const FRAME: number = 0x100;\n');
    const other = `import { FRAME } from './frames.ts';\n${SCENE.replaceAll('(0x100)', '(FRAME)')}`;
    expect(await explore(other)).toMatchObject({ verdict: 'holds', complete: true, states: one.states });
  });

  it.each([
    [
      'that does not type-check',
      SCENE.replace('write(0x100)', "write('a')"),
      /^InputError: mine\.ts:8:24: Argument of type 'string'/,
    ],
    [
      'without an invariant',
      SCENE.replace(/ {2}expect: .*\n/, ''),
      /^InputError: mine\.ts:3:27: .*'expect' is missing/,
    ],
    [
      'with an actor that there is none of',
      SCENE.replaceAll('migratePage', 'frobnicate'),
      /^InputError: mine\.ts:1:10: .*no exported member 'frobnicate'/,
    ],
    [
      'with an invariant that there is none of',
      SCENE.replace("'safe'", "{ violates: 'frob' }"),
      /^InputError: mine\.ts:4: scene mine: no invariant begins with 'frob'/,
    ],
    [
      'that has no end',
      SCENE.replace('migratePage(0x100)]', 'endless]').replace('export const mine', `${ENDLESS}export const mine`),
      /^InputError: mine\.ts:9: cannot be bounded: 'migrate page' has no end/,
    ],
    [
      'that nobody plays',
      SCENE.replace(/actors: .*/, 'actors: [],'),
      /^InputError: mine\.ts:3: scene mine: 1 to 8 actors/,
    ],
    [
      'that does too much to be bounded',
      SCENE.replace('vcpu([write(0x100)])', 'vcpu(new Array(16).fill(write(0x100)))'),
      /^InputError: mine\.ts:3: scene mine: a vCPU does 1 to 15 things, not 16/,
    ],
    [
      'with too much memory to be bounded',
      SCENE.replace('pages: 1 ', 'pages: 1000 '),
      /^InputError: mine\.ts:4: a scene has too much host memory/,
    ],
    [
      'about half a frame',
      SCENE.replace('write(0x100)', 'write(0.5)'),
      /^InputError: mine\.ts:3: scene mine: frame 0\.5: expected a whole number/,
    ],
    ['that throws', `${SCENE}\nthrow new Error('boo');\n`, /^InputError: mine\.ts:12: boo/],
    ['without a scene', 'export const a = 1;\n', /^InputError: mine\.ts:1: exports no scene/],
    ['with two', `${SCENE}export const b = { ...mine, name: 'b' };\n`, /^InputError: mine\.ts: has the scenes .*mine/],
  ])('is refused when it is one %s', async (_what, source, message) => {
    expect(await refusal(source)).toMatch(message);
  });
});
