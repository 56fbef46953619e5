/**
 * A user's scene file: type-checked and loaded. It imports 'softkvm/scenes' and exports one scene or several; `FILE#NAME` says which. The compiler
 * is an optional package and is not loaded before there is a file to check.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { typeErrors } from '../check-types.ts';
import { InputError } from '../input-error.ts';
import { loadUserModule, placeIn } from '../user-module.ts';
import type { Scene } from './scene.ts';

/** What a scene file imports. */
const API = { name: 'softkvm/scenes', source: 'tools/explore/scene-api.ts' };

/** Whether a scene is asked for by file and not by name. */
export function isSceneFile(text: string): boolean {
  return /[/\\]|\.[mc]?[jt]s(#.*)?$/.test(text);
}

/** `place`: file and line of the scene. @throws InputError with file and line when it is no scene file, or has no such scene */
export async function loadSceneFile(
  text: string,
  check: boolean,
): Promise<{ readonly scene: Scene; readonly place: string }> {
  const [path = '', name] = text.split('#');
  const file = resolve(path);
  const source = readSource(file, path);
  if (check) checkTypes(file, path);
  const exported = await load(file, path);
  const scenes = Object.values(exported).flat().filter(isScene);
  const names = [...new Set(scenes.map((s) => s.name))].join(', ');
  if (scenes.length === 0) throw new InputError(`${path}:1: exports no scene`);
  if (name === undefined && new Set(scenes).size > 1)
    throw new InputError(`${path}: has the scenes ${names}: \`${path}#NAME\` says which`);
  const scene = name === undefined ? scenes[0] : scenes.find((s) => s.name === name);
  if (scene === undefined) throw new InputError(`${path}: no scene ${name}, it has ${names}`);
  const named = source.split('\n').findIndex((line) => new RegExp(`name: *(['"\`])${scene.name}\\1`).test(line));
  return { scene, place: named < 0 ? path : `${path}:${named + 1}` };
}

function isScene(value: unknown): value is Scene {
  return typeof value === 'object' && value !== null && (value as Partial<Scene>).isScene === true;
}

function readSource(file: string, path: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new InputError(`${path}: ${code === 'ENOENT' ? 'no such file' : `cannot be read (${code})`}`);
  }
}

function checkTypes(file: string, path: string): void {
  const errors = typeErrors(file, API);
  if (errors === null)
    throw new InputError(`${path}: a scene file needs the optional package typescript: \`npm install typescript\``);
  const [first] = errors;
  if (first !== undefined)
    throw new InputError(`${first}${errors.length === 1 ? '' : ` (and ${errors.length - 1} more)`}`);
}

async function load(file: string, path: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await loadUserModule(file, { [API.name]: await import('./scene-api.ts') });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const line = placeIn(file, error)?.split(':')[0];
    throw new InputError(`${path}${line === undefined ? '' : `:${line}`}: ${error.message.split('\n')[0]}`);
  }
}
