/**
 * A user's scene file: type-checked, made into JavaScript and loaded. It imports 'softkvm/scenes' and exports one scene or several; `FILE#NAME`
 * says which. The compiler is an optional package and is not loaded before there is a file to check.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type ts from 'typescript';
import { InputError } from '../input-error.ts';
import type { Scene } from './scene.ts';

/** What a scene file imports from. */
const API = 'softkvm/scenes';

/** Whether a scene is asked for by file and not by name. */
export function isSceneFile(text: string): boolean {
  return /[/\\]|\.[mc]?[jt]s(#.*)?$/.test(text);
}

/** @throws InputError with file and line when it is no scene file, or has no such scene */
export async function loadSceneFile(text: string, check: boolean): Promise<Scene> {
  const [path = '', name] = text.split('#');
  const file = resolve(path);
  const source = readSource(file, path);
  const compiler = await loadCompiler(path);
  if (check) typeCheck(compiler, file, path);
  const exported = await run(compiler, file, path, source);
  const scenes = Object.values(exported).flat().filter(isScene);
  const names = [...new Set(scenes.map((s) => s.name))].join(', ');
  if (scenes.length === 0) throw new InputError(`${path}:1: exports no scene`);
  if (name === undefined && new Set(scenes).size > 1)
    throw new InputError(`${path}: has the scenes ${names}: \`${path}#NAME\` says which`);
  const scene = name === undefined ? scenes[0] : scenes.find((s) => s.name === name);
  if (scene === undefined) throw new InputError(`${path}: no scene ${name}, it has ${names}`);
  return scene;
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

async function loadCompiler(path: string): Promise<typeof ts> {
  try {
    return (await import('typescript')).default;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new InputError(`${path}: a scene file needs the optional package typescript: \`npm install typescript\``);
  }
}

const options = (compiler: typeof ts, root: string): ts.CompilerOptions => ({
  target: compiler.ScriptTarget.ES2023,
  lib: ['lib.es2023.d.ts'],
  module: compiler.ModuleKind.ESNext,
  moduleResolution: compiler.ModuleResolutionKind.Bundler,
  strict: true,
  skipLibCheck: true,
  allowImportingTsExtensions: true,
  noEmit: true,
  types: [],
  paths: { [API]: [apiTypes(root)] },
});

/** The types of the API: as built, or, in a checkout that builds none, the sources. */
function apiTypes(root: string): string {
  const built = join(root, 'dist/tools/explore/scene-api.d.ts');
  return existsSync(built) ? built : join(root, 'src/tools/explore/scene-api.ts');
}

/** The project's folder: where its package.json is, from wherever this file went. */
function packageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder;
    if (dirname(folder) === folder) throw new Error('no package.json above the program');
  }
}

function typeCheck(compiler: typeof ts, file: string, path: string): void {
  const program = compiler.createProgram([file], options(compiler, packageRoot()));
  const found = compiler
    .getPreEmitDiagnostics(program)
    .filter((d) => d.file?.fileName === file || d.file === undefined);
  const [first] = found;
  if (first === undefined) return;
  const message = compiler.flattenDiagnosticMessageText(first.messageText, ' ').replace(/\s*\n\s*/g, ' ');
  const more = found.length === 1 ? '' : ` (and ${found.length - 1} more)`;
  if (first.file === undefined) throw new InputError(`${path}: ${message}${more}`);
  const { line, character } = first.file.getLineAndCharacterOfPosition(first.start ?? 0);
  throw new InputError(`${path}:${line + 1}:${character + 1}: ${message}${more}`);
}

async function run(
  compiler: typeof ts,
  file: string,
  path: string,
  source: string,
): Promise<Readonly<Record<string, unknown>>> {
  const { target, module } = options(compiler, '');
  const { outputText } = compiler.transpileModule(source, {
    fileName: file,
    compilerOptions: { target: target!, module: module!, inlineSourceMap: false },
  });
  // one line of the file is one of the output as far as errors go: the compiler keeps lines, its types gone
  const api = JSON.stringify(apiModule());
  const text = outputText.replace(/(from\s*)(['"])softkvm\/scenes\2/g, (_, from: string) => `${from}${api}`);
  const folder = mkdtempSync(join(tmpdir(), 'softkvm-scene-'));
  const built = join(folder, `${basename(file).replace(/\.\w+$/, '')}.mjs`);
  try {
    writeFileSync(built, text);
    return (await import(pathToFileURL(built).href)) as Readonly<Record<string, unknown>>;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw new InputError(`${path}${lineOf(error, built, outputText, source)}: ${error.message.split('\n')[0]}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The line of the file in which an error came up, when the text of that line is found in it. */
function lineOf(error: Error, built: string, output: string, source: string): string {
  const place = new RegExp(`${built.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}:(\\d+)`).exec(error.stack ?? '');
  if (place === null) return '';
  const lines = output.split('\n');
  const n = Number(place[1]) - 1;
  const text = lines[n]?.trim() ?? '';
  const nth = lines.slice(0, n).filter((line) => line.trim() === text).length;
  const same = source.split('\n').flatMap((line, i) => (line.trim() === text ? [i + 1] : []));
  return same[nth] === undefined ? '' : `:${same[nth]}`;
}

/** The module behind 'softkvm/scenes': the one that this program runs from, so that there is one of everything. */
function apiModule(): string {
  return pathToFileURL(join(packageRoot(), 'dist/cli/main.js')).href;
}
