import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { addExplain } from './explain.ts';

let folder: string;
let stdout = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-explain-'));
  stdout = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text.toString();
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

/** What `softkvm explain` prints. */
async function explain(...args: string[]): Promise<string> {
  stdout = '';
  const program = new Command('softkvm').exitOverride();
  addExplain(program);
  await program.parseAsync(['explain', ...args], { from: 'user' });
  return stdout;
}

const write = ['--error-code', '0x100000006'];
const scenario = 'conformance/npt/mmio-cache-evict.json';

/** The documented object, its comments taken out. */
function documented(): unknown {
  const docs = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
  const block = /```jsonc\n(\{\n {2}"version": 2,[\s\S]*?)```/.exec(docs)![1]!;
  return JSON.parse(block.replace(/\s\/\/.*$/gm, ''));
}

/** `actual` has the fields of `shape` and no others, as deep as both are objects; lists are compared by their first entries. */
function sameFields(actual: unknown, shape: unknown, at: string): void {
  if (Array.isArray(actual) && Array.isArray(shape)) {
    if (actual.length > 0 && shape.length > 0) sameFields(actual[0], shape[0], `${at}[0]`);
    return;
  }
  if (typeof actual !== 'object' || typeof shape !== 'object' || actual === null || shape === null) return;
  if (at.endsWith('.stats') || at.endsWith('.run')) return;
  expect(Object.keys(actual), at).toEqual(Object.keys(shape));
  for (const key of Object.keys(actual)) sameFields(actual[key as never], shape[key as never], `${at}.${key}`);
}

describe('softkvm explain', () => {
  it("replays a scenario under a revision of one's own", async () => {
    const own = join(folder, 'own.mjs');
    writeFileSync(
      own,
      "import { linux612 } from 'softkvm';\nexport default { ...linux612, name: 'mine', title: 'mine' };\n",
    );
    const { explanation } = JSON.parse(await explain(scenario, '--step', '2', '--revision', own, '--json'));
    expect(explanation.revision).toBe('mine');
  });

  it('prints the documented object', async () => {
    const shape = documented() as { source: object };
    const args = [...write, '--attribute', 'private', '--vm-type', 'sw-protected', '--json'];
    const report = JSON.parse(await explain(...args));
    sameFields(report, shape, 'report');
    const traced = JSON.parse(
      await explain('--trace-line', 'kvm_page_fault: vcpu 0 rip 0x0 address 0x1000 error_code 0x100000006', '--json'),
    );
    expect(Object.keys(traced.source)).toEqual(['kind', 'line', 'event', 'input', 'flags', 'vm', 'assumed']);
    const recorded = JSON.parse(await explain(scenario, '--json'));
    expect(Object.keys(recorded.source)).toEqual(['kind', 'scenario', 'title', 'step', 'operation', 'faults', 'fault']);
    for (const { explanation } of [traced, recorded])
      sameFields(explanation, (shape as unknown as { explanation: unknown }).explanation, 'explanation');
  });

  it('draws, to stdout or into a file', async () => {
    expect(await explain(...write, '--diagram', 'mermaid')).toMatch(/^flowchart TD\n/);
    const file = join(folder, 'fault.svg');
    expect(await explain(...write, '--diagram', 'svg', '-o', file)).toBe('');
    expect(readFileSync(file, 'utf8')).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
    expect(await explain(scenario, '--step', '2', '--diagram', 'svg')).toMatch(/^<svg /);
  });

  it('writes text into a file', async () => {
    const file = join(folder, 'fault.txt');
    await explain(...write, '-o', file);
    expect(readFileSync(file, 'utf8')).toMatch(/^The guest touched gpa 0x800000/);
  });

  it('takes every flag', async () => {
    const text = await explain(
      ...['--error-code', '0x100000006', '--cpu', 'intel', '--no-ept-ad', '--paging', 'tdp', '--nested'],
      ...['--no-mmio-caching', '--entry', 'fault', '--slot', 'rw', '--attribute', 'shared', '--spte', 'absent'],
      ...['--backing', 'present', '--invalidation', 'done-at=fast-path', '--gpa', '0x4000', '--json'],
    );
    expect(JSON.parse(text).source.input).toEqual({
      hardware: 'ept-no-ad',
      vmType: 'default',
      paging: 'tdp',
      nested: true,
      mmioCaching: false,
      entry: 'fault',
      errorLo: 6,
      errorHi: 1,
      slot: 'rw',
      attribute: 'shared',
      spte: 'absent',
      backing: 'present',
      invalidation: { kind: 'done-at', stage: 'fast-path' },
    });
  });

  it('explains a line in a VM of a file', async () => {
    const vm = join(folder, 'vm.json');
    writeFileSync(vm, '{"slots": [{"gpa": "0xc0000", "size": "0x40000", "flags": ["readonly"]}]}');
    const line = 'kvm_page_fault: vcpu 0 rip 0x0 address 0xc1234 error_code 0x100000006';
    const text = await explain('--trace-line', line, '--vm', vm);
    expect(text).toContain(`in the VM of ${vm}`);
    expect(text).toMatch(/slot +0 at 0xc0000, 256 KiB, read-only/);
    expect(text).toContain('a write to read-only memory is emulated');
    expect(await explain(...write, '--gpa', '0xc1234', '--vm', vm)).toContain('read-only');
  });

  const bad: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['nothing', [], /^explain: expected a scenario, or --error-code, or --trace-line$/],
    [
      'an unknown revision',
      [...write, '--revision', 'linux-1.0'],
      /^--revision linux-1\.0: unknown revision .*linux-6\.9, series-v1/,
    ],
    ['an unknown other revision', [...write, '--compare', 'x'], /^--compare x: unknown revision x; known: /],
    ['a bad code', ['--error-code', '0xg'], /^--error-code 0xg: expected a 64-bit number/],
    ['a bad address', [...write, '--gpa', 'here'], /^here: expected/],
    ['an unknown slot', [...write, '--slot', 'rx'], /^--slot rx: expected one of none, /],
    ['an unknown processor', [...write, '--cpu', 'arm'], /^--cpu arm: expected one of amd, intel/],
    ['a bad moment', [...write, '--invalidation', 'soon'], /^--invalidation soon: expected none, in-progress/],
    ['a scenario and flags', [scenario, '--slot', 'ro'], /^--slot: describes a fault, and .* has its own/],
    ['a scenario and a VM', [scenario, '--vm', 'vm.json'], /^--vm: describes a fault/],
    ['a step of nothing', [...write, '--step', '1'], /^--step: expected a scenario before it/],
    ['a line and a code', [...write, '--trace-line', 'x'], /^--error-code: the trace line says it/],
    ['a line that is none', ['--trace-line', 'x'], /^--trace-line: "x": expected one of the events/],
    ['a VM that is not there', [...write, '--gpa', '0', '--vm', '/no/vm.json'], /^\/no\/vm\.json: cannot be read/],
    [
      'a VM without an address',
      [...write, '--vm', 'package.json'],
      /^package\.json: name: no such field; known: vmType/,
    ],
    ['two formats', [...write, '--json', '--diagram', 'svg'], /^--diagram: expected either --json or --diagram/],
    [
      'a picture of two',
      [...write, '--compare', 'linux-6.9', '--diagram', 'svg'],
      /^--diagram: draws the fault under one/,
    ],
    [
      'an unknown other revision of a scenario',
      [scenario, '--compare', 'x'],
      /^--compare x: unknown revision x; known: /,
    ],
    ['an unknown format', [...write, '--diagram', 'png'], /'png' is invalid/],
    ['a file that cannot be', [...write, '-o', '/no/where.txt'], /^\/no\/where\.txt: cannot be written \(ENOENT\)/],
  ];
  it.each(bad)('refuses %s in one line', async (_what, args, message) => {
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const error = await explain(...args).then(
      () => null,
      (e: Error) => e,
    );
    expect(error?.message).toMatch(message);
    expect(error?.message).not.toContain('\n');
    expect(stdout).toBe('');
  });
});
