/** Reads a scenario file: JSON, then the schema. A file that breaks either is reported by the key that is broken, on one line. */
import { readFileSync } from 'node:fs';
import { InputError } from '../input-error.ts';
import { type ArgumentKind, OPS } from './op-schema.ts';
import type { Scenario } from './scenario.ts';

type Json = { readonly [key: string]: unknown };

/** The scenario in the file at `path`. @throws InputError */
export function readScenario(path: string): Scenario {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new InputError(`${path}: cannot be read (${code === 'ENOENT' ? 'no such file' : (code ?? 'unknown error')})`);
  }
  return parseScenario(path, text);
}

/** The scenario in `text`; `path` is for messages. @throws InputError */
export function parseScenario(path: string, text: string): Scenario {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: is not JSON (${(error as Error).message.split('\n')[0]})`);
  }
  const problem = scenarioProblem(json);
  if (problem !== null) throw new InputError(`${path}: ${problem}`);
  return json as Scenario;
}

/** What the value at `key` should have been. */
class Broken extends Error {}

function scenarioProblem(json: unknown): string | null {
  try {
    checkScenario(json);
    return null;
  } catch (error) {
    if (error instanceof Broken) return error.message;
    throw error;
  }
}

function checkScenario(json: unknown): void {
  const s = object(json, 'the file');
  for (const key of ['name', 'title', 'why', 'paging']) if (s[key] !== undefined || key === 'name') string(s[key], key);
  const vm = object(s['vm'], 'vm');
  integer(vm['type'], 'vm.type');
  ops(vm['setup'], 'vm.setup');
  ops(s['mems'], 'mems', 'mem');
  images(s['memory'], 'memory');
  ops(s['guest_memfds'], 'guest_memfds', 'gmem');
  ops(s['slots'], 'slots', 'slot');
  ops(s['attributes'], 'attributes', 'attr');
  checkGuest(object(s['guest'], 'guest'));
  ops(s['after_vcpu'], 'after_vcpu');
  array(s['steps'], 'steps').forEach((step, i) => {
    checkStep(object(step, `steps[${i}]`), `steps[${i}]`);
  });
  checkReferences(s);
}

/** Objects that operations and images name have to be there, and images have to fit. */
function checkReferences(s: Json): void {
  const sizes = new Map(entries(s['mems']).map((m) => [Number(m['id']), Number(m['size'])]));
  const steps = entries(s['steps']).map((step) => object(step['do'], 'do'));
  const everywhere: readonly (readonly [string, readonly Json[]])[] = [
    ['memory', entries(s['memory'])],
    ['guest.code', entries(object(s['guest'], 'guest')['code'])],
    ['slots', entries(s['slots'])],
    ['after_vcpu', entries(s['after_vcpu'])],
    ['steps', steps],
  ];
  const gmems = new Set(
    [...entries(s['guest_memfds']), ...steps.filter((op) => op['op'] === 'gmem')].map((g) => Number(g['id'])),
  );
  for (const [where, list] of everywhere) {
    list.forEach((entry, i) => {
      const at = `${where}[${i}]${where === 'steps' ? '.do' : ''}`;
      for (const key of ['mem', 'gfd_mem']) {
        if (entry[key] !== undefined && !sizes.has(Number(entry[key])))
          broken(`${at}.${key}`, 'the id of one of `mems`', entry[key]);
      }
      if (entry['gmem'] !== undefined && !gmems.has(Number(entry['gmem'])))
        broken(`${at}.gmem`, 'the id of a guest_memfd', entry['gmem']);
      if (where !== 'memory' && where !== 'guest.code') return;
      const qwords = entry['qwords'] as Json | undefined;
      const bytes = qwords === undefined ? String(entry['hex']).length / 2 : 8 * Number(qwords['count']);
      const size = sizes.get(Number(entry['mem'])) ?? 0;
      if (Number(entry['off']) + bytes > size)
        broken(`${at}.off`, `an image that fits in the ${size} bytes of its object`, entry['off']);
    });
  }
}

function entries(value: unknown): readonly Json[] {
  return array(value, 'the list') as readonly Json[];
}

function checkGuest(guest: Json): void {
  string(guest['mode'], 'guest.mode');
  const vcpus = guest['vcpus'];
  if (!Number.isInteger(vcpus) || (vcpus as number) < 0) broken('guest.vcpus', 'a count of vCPUs', vcpus);
  object(guest['cpuid'] ?? {}, 'guest.cpuid');
  images(guest['code'], 'guest.code');
  for (const key of ['sregs', 'regs']) {
    array(guest[key], `guest.${key}`).forEach((entry, i) => {
      for (const [name, value] of Object.entries(object(entry, `guest.${key}[${i}]`))) {
        const where = `guest.${key}[${i}].${name}`;
        if (typeof value !== 'object') integer(value, where);
        else if (key === 'regs') broken(where, 'an integer', value);
        else for (const [field, v] of Object.entries(object(value, where))) integer(v, `${where}.${field}`);
      }
    });
  }
}

function checkStep(step: Json, where: string): void {
  operation(step['do'], `${where}.do`);
  const expect = object(step['expect'], `${where}.expect`);
  // Null stands for an operation that could not be tried.
  if (typeof expect['ret'] !== 'number' && expect['ret'] !== null)
    broken(`${where}.expect.ret`, 'a number', expect['ret']);
  if (expect['errno'] !== null && expect['errno'] !== undefined) string(expect['errno'], `${where}.expect.errno`);
  for (const key of ['run', 'regs', 'out', 'stats'])
    if (expect[key] !== undefined) object(expect[key], `${where}.expect.${key}`);
  array(expect['trace'] ?? [], `${where}.expect.trace`).forEach((event, i) => {
    const at = `${where}.expect.trace[${i}]`;
    const e = object(event, at);
    string(e['event'], `${at}.event`);
    object(e['fields'], `${at}.fields`);
  });
}

function ops(value: unknown, where: string, only?: string): void {
  array(value, where).forEach((op, i) => {
    operation(op, `${where}[${i}]`, only);
  });
}

function operation(value: unknown, where: string, only?: string): void {
  const op = object(value, where);
  const name = op['op'];
  string(name, `${where}.op`);
  const spec = OPS[name as string];
  if (spec === undefined || !Object.hasOwn(OPS, name as string))
    broken(`${where}.op`, 'an operation of the schema', name);
  if (only !== undefined && name !== only) broken(`${where}.op`, `"${only}"`, name);
  for (const [argument, kind] of Object.entries(spec)) {
    const optional = argument.endsWith('?');
    const key = optional ? argument.slice(0, -1) : argument;
    if (op[key] === undefined && optional) continue;
    checkArgument(op[key], `${where}.${key}`, kind);
  }
}

function checkArgument(value: unknown, where: string, kind: ArgumentKind): void {
  if (kind === 'int') integer(value, where);
  else if (kind === 'string') string(value, where);
  else hex(value, where);
}

function images(value: unknown, where: string): void {
  array(value, where).forEach((entry, i) => {
    const at = `${where}[${i}]`;
    const image = object(entry, at);
    integer(image['mem'], `${at}.mem`);
    integer(image['off'], `${at}.off`);
    if (image['qwords'] !== undefined) {
      const q = object(image['qwords'], `${at}.qwords`);
      for (const key of ['first', 'step', 'count']) integer(q[key], `${at}.qwords.${key}`);
    } else hex(image['hex'], `${at}.hex`);
  });
}

function broken(where: string, expected: string, value: unknown): never {
  const found = value === undefined ? 'nothing' : (JSON.stringify(value) ?? 'nothing');
  throw new Broken(`${where}: expected ${expected}, found ${found.length > 60 ? `${found.slice(0, 57)}...` : found}`);
}

function object(value: unknown, where: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) broken(where, 'an object', value);
  return value as Json;
}

function array(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) broken(where, 'an array', value);
  return value as readonly unknown[];
}

function string(value: unknown, where: string): void {
  if (typeof value !== 'string') broken(where, 'a string', value);
}

function integer(value: unknown, where: string): void {
  const good =
    typeof value === 'number'
      ? Number.isInteger(value)
      : typeof value === 'string' && /^0x[0-9a-f]{1,16}$/i.test(value);
  if (!good) broken(where, 'an integer or a 0x hex string of at most 64 bits', value);
}

function hex(value: unknown, where: string): void {
  if (typeof value !== 'string' || value.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(value))
    broken(where, 'bytes in bare hex', value);
}
