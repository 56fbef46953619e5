/** Type errors of a user's file, when there is a TypeScript compiler to find them. */
import { existsSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import type ts from 'typescript';
import { FROM_SOURCE, packageRoot } from './package-root.ts';

/** What a user's file imports of ours: under which name, and the module of that in src. */
export interface OurModule {
  readonly name: string;
  readonly source: string;
}

/** What the compiler found, one line each; null when there is no compiler. */
export function typeErrors(file: string, { name, source }: OurModule): string[] | null {
  const ourRoot = packageRoot();
  const compiler = findCompiler([join(dirname(file), '_'), join(process.cwd(), '_'), join(ourRoot, '_')]);
  if (compiler === null) return null;
  const built = join(ourRoot, 'dist', source.replace(/\.ts$/, '.d.ts'));
  const types = FROM_SOURCE || !existsSync(built) ? join(ourRoot, 'src', source) : built;
  // the compiler names files by where they really are
  const ours = realpathSync(join(ourRoot, types === built ? 'dist' : 'src'));
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    allowJs: true,
    allowImportingTsExtensions: true,
    target: compiler.ScriptTarget.ES2023,
    lib: ['lib.es2023.d.ts', 'lib.dom.d.ts'],
    module: compiler.ModuleKind.NodeNext,
    moduleResolution: compiler.ModuleResolutionKind.NodeNext,
    moduleDetection: compiler.ModuleDetectionKind.Force,
    types: [],
    paths: { [name]: [types] },
  };
  const host = compiler.createCompilerHost(options);
  rememberOurs(compiler, host, (path) => path.startsWith(ours) || path.includes('/node_modules/typescript/'));
  const program = compiler.createProgram([file], options, host);
  const theirs = program
    .getSourceFiles()
    .filter(
      (f) =>
        !program.isSourceFileDefaultLibrary(f) &&
        !f.fileName.startsWith(ours) &&
        !f.fileName.includes('/node_modules/'),
    );
  return theirs
    .flatMap((f) => [...program.getSyntacticDiagnostics(f), ...program.getSemanticDiagnostics(f)])
    .map((d) => line(compiler, d));
}

/** By compiler: two files may find two, and what one has parsed means nothing to the other. */
const parsedBy = new Map<typeof ts, Map<string, ts.SourceFile | undefined>>();

/** What is ours, and the language's, does not change between two files: it is parsed once. */
function rememberOurs(compiler: typeof ts, host: ts.CompilerHost, isOurs: (path: string) => boolean): void {
  const parsed = parsedBy.get(compiler) ?? new Map<string, ts.SourceFile | undefined>();
  parsedBy.set(compiler, parsed);
  const { getSourceFile } = host;
  host.getSourceFile = (path, ...rest) => {
    if (!isOurs(path)) return getSourceFile(path, ...rest);
    if (!parsed.has(path)) parsed.set(path, getSourceFile(path, ...rest));
    return parsed.get(path);
  };
}

function line(compiler: typeof ts, d: ts.Diagnostic): string {
  const text = compiler.flattenDiagnosticMessageText(d.messageText, ' ').replace(/\s+/g, ' ');
  if (d.file === undefined || d.start === undefined) return text;
  const at = d.file.getLineAndCharacterOfPosition(d.start);
  return `${shortPath(d.file.fileName)}:${at.line + 1}:${at.character + 1}: ${text}`;
}

/** As the user would name it: from the current folder, where that is shorter. */
function shortPath(file: string): string {
  const near = relative(process.cwd(), file);
  return near.length < file.length && !near.startsWith('../../') ? near : file;
}

/** The first `typescript` that can be found from these places and has the compiler's API (its later native releases do not). */
function findCompiler(places: readonly string[]): typeof ts | null {
  for (const place of places) {
    try {
      const found = createRequire(place)('typescript') as typeof ts;
      if (typeof found.createProgram === 'function') return found;
    } catch {
      // Not there: the next place.
    }
  }
  return null;
}
