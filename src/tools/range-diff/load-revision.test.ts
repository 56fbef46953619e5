import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PageFault } from '../../kvm/mmu/fault.ts';
import { linux612 } from '../../kvm/mmu/revisions/linux-6.12.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import { loadRevision } from './load-revision.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-revision-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(text: string, name = 'my-revision.ts'): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const from612 = (stages: string): string =>
  `import { defineRevision, insertBefore, linux612, move, remove, replace, stages } from 'softkvm';
export default defineRevision({ name: 'mine', title: 'mine', rules: linux612.rules, stages: ${stages} });
void [insertBefore, move, remove, replace, stages];
`;

/** JavaScript, so that nothing but the checks at run time is in the way. */
async function refuses(stages: string, message: string): Promise<void> {
  await expect(loadRevision(file(from612(stages), 'my-revision.mjs'))).rejects.toThrow(message);
}

describe('a revision of a user', () => {
  it('is loaded from TypeScript, with the stages that run here', async () => {
    const { revision, unchecked } = await loadRevision('examples/my-revision.ts');
    expect(unchecked).toBe(false);
    expect(revision.name).toBe('my-revision');
    const names = revision.stages.map((s) => s.name);
    expect(names.indexOf('private-mismatch')).toBe(names.indexOf('invalidation-precheck') - 1);
    for (const stage of revision.stages) expect(linux612.stages).toContain(stage);
  });

  it('is type-checked: file, line, and what is wrong', async () => {
    const path = file(`import { defineRevision, linux612 } from 'softkvm';
export default defineRevision({
  name: 3,
  title: 'mine',
  stages: [...linux612.stages, 'map'],
  rules: { ...linux612.rules, privateRsvd: 'no-such' },
});
`);
    await expect(loadRevision(path)).rejects.toThrow(
      /^my-revision\.ts: 4 type errors\n {2}.*my-revision\.ts:3:3: .*'number'.*'string'.*\n.*\n.*:5:32: .*\n.*:6:31: .*no-such.*$/,
    );
  });

  it('may be JavaScript', async () => {
    const { revision } = await loadRevision(file(from612("remove(linux612.stages, 'write-tracking')"), 'mine.mjs'));
    expect(revision.stages).toHaveLength(linux612.stages.length - 1);
  });

  it('may be made of several files', async () => {
    file("export const title: string = 'two files';", 'title.ts');
    const path = file(`import { defineRevision, linux612 } from 'softkvm';
import { title } from './title.ts';
export default defineRevision({ ...linux612, name: 'mine', title });
`);
    expect((await loadRevision(path)).revision.title).toBe('two files');
  });

  it('that lacks a stage, has one twice or in a place where it cannot work is refused by name', async () => {
    await refuses("remove(linux612.stages, 'map')", 'my-revision.mjs: stage "map": is missing: without it, nothing');
    await refuses('[...linux612.stages, stages.map]', 'my-revision.mjs: stage "map": is in the list twice');
    await refuses(
      "move(linux612.stages, 'snapshot-sequence', 'error-pfn')",
      'stage "snapshot-sequence": comes after "fault-in-private"',
    );
    await refuses("move(linux612.stages, 'no-slot', 'map')", 'stage "no-slot": comes after "stale-check"');
    await refuses("remove(linux612.stages, 'no-such')", 'my-revision.mjs: no stage no-such to edit (line 2:');
  });

  it('with wrong types is refused by stage and field', async () => {
    await refuses("[...linux612.stages, 'map']", 'my-revision.mjs: stage 17: is the text "map"; expected an object');
    await refuses(
      "replace(linux612.stages, 'no-slot', { ...stages.noSlot, run: undefined })",
      'my-revision.mjs: stage "no-slot": "run" is missing; expected a function',
    );
    await refuses('{}', '"stages" is an object; expected a list of stages');
    const bad = (text: string): Promise<unknown> => loadRevision(file(text, 'my-revision.mjs'));
    await expect(bad('export const x = 1;')).rejects.toThrow('my-revision.mjs: has no default export');
    await expect(bad("import { linux612 } from 'softkvm'; export default linux612;")).rejects.toThrow(
      '"name" is linux-6.12',
    );
    await expect(
      bad(
        "import { linux612 } from 'softkvm'; export default { ...linux612, name: 'x', rules: { ...linux612.rules, noSlotSetsHva: 1 } };",
      ),
    ).rejects.toThrow('my-revision.mjs: rule "noSlotSetsHva": is 1; expected a boolean');
    await expect(bad('export default {,}')).rejects.toThrow(/^my-revision\.mjs: .*Unexpected token.*\(line 1:\d+\)$/);
    await expect(bad("import './no-such.ts';")).rejects.toThrow(/^my-revision\.mjs: Cannot find module/);
  });

  it('whose stage throws, answers nonsense, or ends the list without a verdict is refused as it runs', async () => {
    const run = async (body: string, list = "replace(linux612.stages, 'no-slot', own)"): Promise<void> => {
      const text = `import { linux612, replace } from 'softkvm';
const own = { name: 'no-slot', kvmFunction: 'x', underMmuLock: false, explain: () => '',
  run() { ${body} } };
export default { ...linux612, name: 'mine', stages: ${list} };
`;
      const { revision } = await loadRevision(file(text, 'my-revision.mjs'));
      const stage = revision.stages.find((s) => s.kvmFunction === 'x')!;
      stage.run({} as VcpuState, {} as PageFault);
    };
    await expect(run('null.x;')).rejects.toThrow(
      /^my-revision\.mjs: stage "no-slot": threw TypeError: .* \(line 3:\d+\)$/,
    );
    await expect(run('')).rejects.toThrow('stage "no-slot": answered undefined; expected RET_PF_*');
    await expect(run('return 7;')).rejects.toThrow('stage "no-slot": answered 7; expected RET_PF_*');
    await expect(
      run('return 0;', "[...linux612.stages, { ...own, name: 'last', underMmuLock: true }]"),
    ).rejects.toThrow('stage "last": is the last one and answered RET_PF_CONTINUE');
  });

  it('has to be there; an unknown name is answered with the known ones', async () => {
    await expect(loadRevision('./no-such.ts')).rejects.toThrow('./no-such.ts: no such file');
    await expect(loadRevision('src/tools')).rejects.toThrow('src/tools: expected a .ts, .mts, .js or .mjs file');
    await expect(loadRevision('linux-9')).rejects.toThrow(/unknown revision linux-9; known: linux-6\.9, series-v1/);
  });
});
