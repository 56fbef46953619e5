import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runCommandLine } from './main.ts';

let folder: string;
let stdout = '';
let stderr = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-'));
  stdout = '';
  stderr = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text.toString();
    return true;
  });
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

/** Runs a command line; its status and what it printed. */
async function softkvm(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  await runCommandLine(args);
  return { status: Number(process.exitCode ?? 0), stdout, stderr };
}

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** Exit status 2 and one line on stderr. */
async function refuses(args: string[], message: RegExp): Promise<void> {
  const result = await softkvm(...args);
  expect(result.status, result.stderr).toBe(2);
  expect(result.stdout).toBe('');
  expect(result.stderr).toMatch(message);
  expect(result.stderr.trimEnd()).not.toContain('\n');
}

describe('the command line', () => {
  it('decodes a code', async () => {
    const { status, stdout } = await softkvm('decode', '0x100000006', '--json');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ kind: 'npf', class: 'not-present', access: 'write' });
  });

  it('has help with an example for every command', async () => {
    for (const command of [
      'run',
      'conform',
      'explain',
      'decode',
      'demo',
      'range-diff',
      'explore',
      'trace report',
      'inspect',
      'series',
    ]) {
      stdout = '';
      const { status } = await softkvm(...command.split(' '), '--help');
      expect(status, command).toBe(0);
      expect(stdout, command).toContain('Example:');
      expect(stdout, command).toContain('--json');
    }
  });

  it.each([['trace', 'sql'], ['trace', 'replay', 'x'], ['inspect']])(
    'says that %s is not supported yet',
    async (...args) => {
      await refuses(args, /^softkvm: not supported yet: softkvm /);
    },
  );

  it('prints the series, and one row of it on both sides', async () => {
    const table = await softkvm('series', '--json');
    expect(JSON.parse(table.stdout)).toMatchObject({ version: 1, rows: { length: 17, 9: { row: 10, v2: 10, v1: 9 } } });
    stdout = '';
    const row = await softkvm('series', '10', '--json');
    expect(row.status).toBe(0);
    expect(JSON.parse(row.stdout)).toMatchObject({
      row: 10,
      before: 'series-v2@9',
      after: 'series-v2@10',
      shown: true,
    });
  });

  const bad: readonly (readonly [string, () => string[], RegExp])[] = [
    ['an unknown command', () => ['frobnicate'], /unknown command 'frobnicate'/],
    ['an unknown option', () => ['decode', '1', '--frobnicate'], /unknown option '--frobnicate'/],
    ['no argument', () => ['decode'], /missing required argument 'code'/],
    ['a code that is no number', () => ['decode', 'xyz'], /xyz: expected a code/],
    ['an unknown kind', () => ['decode', '1', '--kind', 'tlb'], /'tlb' is invalid/],
    ['a row that is none', () => ['series', '18'], /series 18: expected a row, 1 to 17, or all/],
    ['a missing scenario', () => ['conform', join(folder, 'none.json')], /none\.json: no such file/],
    ['a scenario that is not JSON', () => ['conform', file('a.json', '{')], /a\.json: is not JSON/],
    [
      'a scenario that breaks the schema',
      () => ['conform', file('b.json', '{"name":"b"}')],
      /b\.json: vm: expected an object, found nothing/,
    ],
    ['a file of another kind', () => ['conform', file('c.bin', 'x')], /c\.bin: expected a scenario/],
    [
      'an unknown parameter',
      () => ['run', file('i', 'x'), '--param', 'kvm.frob=1'],
      /--param kvm\.frob: no such parameter/,
    ],
    ['a parameter without value', () => ['run', file('i', 'x'), '--param', 'kvm.tdp_mmu'], /expected name=value/],
    [
      'a parameter value that is not supported yet',
      () => ['run', file('i', '\xf4'), '--param', 'kvm.enable_vmware_backdoor=1'],
      /not supported yet: the VMware backdoor/,
    ],
    ['a missing image', () => ['run', join(folder, 'none')], /none: no such file/],
    ['an empty image', () => ['run', file('e', '')], /e: is empty/],
    ['memory of size 0', () => ['run', file('i', 'x'), '--memory', '0'], /--memory 0: expected a size/],
    ['absurd memory', () => ['run', file('i', 'x'), '--memory', '900T'], /--memory 900T: expected a size/],
    ['an unknown revision', () => ['run', file('i', 'x'), '--revision', 'linux-1.0'], /--revision linux-1\.0/],
    ['an unknown profile', () => ['run', file('i', 'x'), '--hardware', 'z80'], /--hardware z80: no such profile/],
    ['a truncated ELF', () => ['run', file('t.elf', '\x7fELF\x02\x01\x01')], /t\.elf: /],
    [
      'a text file as an image',
      () => ['run', file('notes.txt', 'hello\n')],
      /notes\.txt: is text, expected an ELF file/,
    ],
    [
      'a trace file that cannot be',
      () => ['run', file('i', Uint8Array.of(0xeb, 0xfe)), '--trace', join(folder, 'no', 'where')],
      /where: cannot be written \(ENOENT\)/,
    ],
    ['explore with nothing', () => ['explore'], /explore: expected a scene, or --list/],
    ['an unknown scene', () => ['explore', 'frob'], /frob: no such scene/],
    ['a scene under an unknown revision', () => ['explore', 'fault-protocol', '--revision', 'v9'], /--revision v9: /],
    ['a schedule that is none', () => ['explore', 'fault-protocol', '--replay', '3a?'], /character 3 of '3a\?'/],
    [
      'a schedule that cannot be',
      () => ['explore', 'fault-protocol', '--replay', 'a.7'],
      /move 1: a \(vcpu0\): choice 7/,
    ],
    [
      'options that do not go together',
      () => ['explore', 'fault-protocol', '--random', '3', '--workers', '2'],
      /--workers: expected no --random beside it/,
    ],
    [
      'bounds of a replay',
      () => ['explore', 'fault-protocol', '--replay', 'a', '--depth', '2'],
      /--depth: expected no/,
    ],
    ['a seed of nothing', () => ['explore', 'fault-protocol', '--seed', '2'], /--seed: expected --random/],
    ['too many threads', () => ['explore', 'fault-protocol', '--workers', '65'], /--workers 65: expected 64 threads/],
    [
      'who translates in a scene',
      () => ['explore', 'page-moves', '--param', 'kvm.tdp_mmu=0'],
      /--param kvm\.tdp_mmu: a scene says itself/,
    ],
    [
      'a campaign with a parameter that cannot be',
      () => ['campaign', 'run', 'page-moves', '--param', 'kvm.mmio_caching=7', '--results', join(folder, 'c.sqlite')],
      /--param kvm\.mmio_caching=7: expected 0 or 1/,
    ],
    [
      'a Redis at no address',
      () => ['campaign', 'worker', '--redis', 'redis://127.0.0.1:99999'],
      /--redis redis:.*: expected an address/,
    ],
    ['a schedule of nobody', () => ['explore', 'fault-protocol', '--replay', 'z'], /actors a to c/],
    [
      'a campaign under an unknown revision',
      () => ['campaign', 'run', 'fault-protocol', '--revision', 'v9'],
      /--revision v9: the scenes run under none/,
    ],
    ['a campaign of an unknown scene', () => ['campaign', 'run', 'frob'], /frob: no such scene/],
    ['a campaign that is none', () => ['campaign', 'resume', join(folder, 'none')], /none: no such file/],
    ['explain with nothing', () => ['explain'], /expected a scenario, or --error-code/],
  ];
  it.each(bad)('refuses %s', async (_name, args, message) => {
    await refuses(args(), message);
  });
});
